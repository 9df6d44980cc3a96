"""Spiking layers whose recurrence is a full matrix and is never reset."""

import math
from typing import Any, Literal, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...domains import FRACTION
from ..parts import Firing, FiringOptions, fixed_delay, parameter
from ._projected import AbstractProjectedLayer


class HiddenState(eqx.Module):
    """Membrane potential `v`."""

    v: Float[Array, "..."]


class LeakyParallel(AbstractProjectedLayer):
    r"""A layer of reset-free leaky neurons with their weights, where each membrane may leak into every other.

    $$ v_t = \phi(W_\text{in} x_t + b + A v_{t-1}), \quad z_t = H(v_t - \theta) $$

    snnTorch's `LeakyParallel`, with $\phi$ the rectifier and $A$ diagonal or full; `activation="identity"` makes it a
    linear recurrence; `bias_hh` holds the second bias that torch's `RNN` has, where there is one. A diagonal $A$
    without rectifier is `eqx.nn.Linear` followed by `snn.LIF(reset="none")`, which `snnax.engine.parallel` computes
    without a loop. There is no reset.

    >>> layer = LeakyParallel(3, 4, decay=0.9, key=jax.random.key(0))
    >>> state, spikes = layer(layer.init_state(), jnp.ones(3))
    >>> layer.weight_hh.shape, spikes.shape
    ((4, 4), (4,))
    """

    weight_ih: Array
    weight_hh: Array
    bias: Array | None
    bias_hh: Array | None
    firing: Firing
    activation: Literal["relu", "identity"] = eqx.field(static=True)
    input_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        threshold: ArrayLike = 1.0,
        *,
        decay: ArrayLike | None = None,
        activation: Literal["relu", "identity"] = "relu",
        use_bias: bool = True,
        key: Array,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:** `decay`: the diagonal of $A$ to start from, scalar or per neuron, all else zero; None draws a
        full matrix. `key`: draws the weights, uniform within `1 / sqrt(hidden_size)` as in torch. All others as in
        `snn.LIF`.

        **Raises:** `ValueError` for an unknown activation, or a `reset_delay`.
        """
        if activation not in ("relu", "identity"):
            raise ValueError(f"activation must be 'relu' or 'identity', found {activation!r}")
        bound = 1 / math.sqrt(hidden_size)
        keys = jax.random.split(key, 3)
        draw = lambda key, *shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
        self.weight_ih = draw(keys[0], hidden_size, input_size)
        if decay is None:
            self.weight_hh = draw(keys[1], hidden_size, hidden_size)
        else:
            self.weight_hh = jnp.diag(jnp.broadcast_to(parameter("decay", decay, FRACTION), (hidden_size,)))
        self.bias = draw(keys[2], hidden_size) if use_bias else None
        self.bias_hh = None
        self.firing = Firing(threshold, "none", **fixed_delay("LeakyParallel", firing, False))
        self.activation = activation
        self.input_size = input_size
        self.hidden_size = hidden_size

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> HiddenState:
        """Membranes at 0, `(hidden_size,)`; in JAX's default float.

        **Raises:** `ValueError` for an input of another shape than `(input_size,)`.
        """
        del key
        if shape is not None and tuple(shape) != (self.input_size,):
            raise ValueError(f"LeakyParallel was built for inputs of shape {(self.input_size,)}, found {tuple(shape)}")
        return HiddenState(jnp.zeros(self.hidden_size, jnp.result_type(float)))

    def project(self, x):
        if x.shape != (self.input_size,):
            raise ValueError(f"LeakyParallel was built for inputs of shape {(self.input_size,)}, found {x.shape}")
        projected = self.weight_ih @ x.astype(self.weight_ih.dtype)
        return projected if self.bias is None else projected + self.bias

    def advance(self, state, projected):
        dtype = state.v.dtype
        v = projected.astype(dtype) + self.weight_hh.astype(dtype) @ state.v
        v = v if self.bias_hh is None else v + self.bias_hh.astype(dtype)
        v = jax.nn.relu(v) if self.activation == "relu" else v
        v = self.firing.quantised(v)
        z = self.firing.decide(v, self.firing.threshold.astype(dtype))
        return HiddenState(v), self.firing.output(z, dtype)
