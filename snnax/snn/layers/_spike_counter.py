"""Counting spikes over time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ...engine import AbstractLinearLayer, linear_recurrence
from ..parts import Shape, as_shape, check_input, output_dtype, resolve_shape


class CountState(eqx.Module):
    """Spikes so far."""

    count: Float[Array, "..."]


class SpikeCounter(AbstractLinearLayer):
    """The sum of its input over all time steps so far, as a readout: the last output is the spike count.

    >>> counter = SpikeCounter(2)
    >>> state, _ = counter(counter.init_state(), jnp.array([1.0, 0.0]))
    >>> counter(state, jnp.array([1.0, 1.0]))[1].tolist()
    [2.0, 1.0]
    """

    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, shape: Shape = None, *, key: Any = None):
        """**Arguments:** `shape`: of the neurons that are counted; None takes it from the input."""
        del key
        self.shape = as_shape(shape)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> CountState:
        """No spikes, for neurons of `shape`; in JAX's default float, which counts exactly to 2^24."""
        del key
        return CountState(jnp.zeros(resolve_shape(self.shape, shape), jnp.result_type(float)))

    def __call__(
        self, state: CountState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[CountState, Float[Array, "..."]]:
        """One time step; the output is the count with this step's spikes, in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        count = state.count + check_input(x, state.count)
        return CountState(count), count.astype(output_dtype(x))

    @property
    def is_linear(self) -> bool:
        """True."""
        return True

    def apply_parallel(
        self, state: CountState, xs: Shaped[Array, "time ..."]
    ) -> tuple[CountState, Float[Array, "time ..."]]:
        """All time steps at once: the counts after each of them."""
        spikes = jax.vmap(check_input, in_axes=(0, None))(xs, state.count)
        counts = linear_recurrence(jnp.ones((), state.count.dtype), spikes, state.count)
        return CountState(counts), counts.astype(output_dtype(xs))
