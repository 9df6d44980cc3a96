"""The integrate-and-fire neuron: a membrane that forgets nothing."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..engine import AbstractLayer
from ..surrogate import AbstractSurrogate
from ._firing import Firing, Reset
from ._shape import Shape, as_shape, check_input, check_parameters, resolve_shape


class IFState(eqx.Module):
    """Membrane potential `v`."""

    v: Float[Array, "..."]


class IF(AbstractLayer):
    r"""Integrate-and-fire neurons, the LIF neuron with $\beta = 1$.

    $$ v_t = v_{t-1} + x_t, \quad z_t = H(v_t - \theta), \quad v_t \leftarrow v_t - \theta z_t $$

    >>> neuron = IF(1, threshold=1.0)
    >>> state = neuron.init_state()
    >>> for _ in range(4):
    ...     state, spikes = neuron(state, jnp.array([0.3]))
    >>> spikes.tolist()
    [1.0]
    """

    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        reset_delay: bool | Literal["undone"] = False,
        detach_reset: bool = True,
        spike_at_threshold: bool = False,
        surrogate: AbstractSurrogate | None = None,
        key: Any = None,
    ):
        """Arguments and errors as for the same names of `snn.LIF` and `snn.Firing`."""
        del key
        self.firing = Firing(
            threshold,
            reset,
            reset_delay=reset_delay,
            detach_reset=detach_reset,
            spike_at_threshold=spike_at_threshold,
            surrogate=surrogate,
        )
        self.shape = as_shape(shape)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> IFState:
        """Membranes at 0, for neurons of `shape`."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return IFState(jnp.zeros(shape, jnp.result_type(float)))

    def __call__(
        self, state: IFState, x: Float[Array, "..."], *, key: Any = None
    ) -> tuple[IFState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        v, z = self.firing.fire(state.v, lambda v: v + drive)
        return IFState(v), self.firing.output(z, x.dtype)
