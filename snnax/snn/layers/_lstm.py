"""Spiking LSTM cells: the hidden state is a membrane that spikes and can be reset."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..parts import Firing, FiringOptions, Reset, fixed_delay
from ._pool import AvgPool, MaxPool
from ._projected import AbstractProjectedLayer


class LSTMState(eqx.Module):
    """Hidden state `v`, which is the membrane, and cell state `c`."""

    v: Float[Array, "..."]
    c: Float[Array, "..."]


def _lstm(gates: list[Array], c: Array) -> tuple[Array, Array]:
    """Hidden and cell state from the gates input, forget, cell, output before their activations."""
    i, f, g, o = gates
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


class SLSTM(AbstractProjectedLayer):
    r"""Spiking LSTM: an LSTM cell whose hidden state $h$ is the membrane potential.

    $$ h_t, c_t = \text{LSTM}(x_t, h_{t-1}, c_{t-1}), \quad h_t \leftarrow h_t - \theta H(h_{t-1} - \theta), \quad
       z_t = H(h_t - \theta) $$

    Yang et al. 2020 call it spiking LSTM; this is snnTorch's `SLSTM`, which by default does not reset
    (`reset="none"`), with its states kept whatever the sizes: snnTorch 1.0 zeroes both at every step when `input_size`
    and `hidden_size` differ. Weights are stacked as in torch, gates in the order input, forget, cell, output. The
    hidden state lies within (-1, 1), so a threshold of 1 never spikes: choose a lower one.

    >>> cell = SLSTM(3, 4, threshold=0.1, key=jax.random.key(0))
    >>> state, spikes = cell(cell.init_state(), jnp.ones(3))
    >>> state.v.shape, spikes.shape
    ((4,), (4,))
    """

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None
    firing: Firing
    input_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "none",
        *,
        use_bias: bool = True,
        key: Array,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:** `key`: draws the weights, uniform within `1 / sqrt(hidden_size)` as in torch; all others as in
        `snn.LIF`.

        **Raises:** `ValueError` for `reset_delay=False`: the reset acts on the hidden state of the next step.
        """
        bound = 1 / math.sqrt(hidden_size)
        keys = jax.random.split(key, 4)
        draw = lambda key, *shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
        self.weight_ih = draw(keys[0], 4 * hidden_size, input_size)
        self.weight_hh = draw(keys[1], 4 * hidden_size, hidden_size)
        self.bias_ih = draw(keys[2], 4 * hidden_size) if use_bias else None
        self.bias_hh = draw(keys[3], 4 * hidden_size) if use_bias else None
        self.firing = Firing(threshold, reset, **fixed_delay("a spiking LSTM", firing, True))
        self.input_size = input_size
        self.hidden_size = hidden_size

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> LSTMState:
        """Both states zero, `(hidden_size,)` each; in JAX's default float.

        **Raises:** `ValueError` for an input of another shape than `(input_size,)`.
        """
        del key
        if shape is not None and tuple(shape) != (self.input_size,):
            raise ValueError(f"SLSTM was built for inputs of shape {(self.input_size,)}, found {tuple(shape)}")
        return LSTMState(*jnp.zeros((2, self.hidden_size), jnp.result_type(float)))

    def project(self, x):
        if x.shape != (self.input_size,):
            raise ValueError(f"SLSTM was built for inputs of shape {(self.input_size,)}, found {x.shape}")
        projected = self.weight_ih @ x.astype(self.weight_ih.dtype)
        return projected if self.bias_ih is None else projected + self.bias_ih

    def advance(self, state, projected):
        dtype = state.v.dtype
        gates = projected.astype(dtype) + self.weight_hh.astype(dtype) @ state.v
        gates = gates if self.bias_hh is None else gates + self.bias_hh.astype(dtype)
        hidden, c = _lstm(jnp.split(gates, 4), state.c)
        v, z, _ = self.firing.fire(state.v, lambda _: hidden)
        return LSTMState(v, self.firing.quantised(c)), self.firing.output(z, dtype)


class SConvLSTM(AbstractProjectedLayer):
    r"""Convolutional spiking LSTM: `SLSTM` with convolutions that keep the spatial shape.

    $$ i, f, o, g = W * [x_t, h_{t-1}] + b, \quad c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \quad
       h_t = \sigma(o) \tanh(c_t), \quad z_t = H(\text{pool}(h_t) - \theta) $$

    Shi et al. 2015 (arXiv:1506.04214) without peepholes; snnTorch's `SConv2dLSTM`. Gates are stacked in the order
    input, forget, output, cell, kernels in and hidden channels side by side, as there. Pooling acts on what spikes and
    not on the hidden state.

    >>> cell = SConvLSTM(2, 3, 3, threshold=0.1, pool=MaxPool(2), key=jax.random.key(0))
    >>> state, spikes = cell(cell.init_state((2, 8, 8)), jnp.ones((2, 8, 8)))
    >>> state.v.shape, spikes.shape
    ((3, 8, 8), (3, 4, 4))
    """

    weight: Array
    bias: Array | None
    firing: Firing
    pool: MaxPool | AvgPool | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    kernel_size: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        threshold: ArrayLike = 1.0,
        reset: Literal["none", "subtract", "zero"] = "none",
        *,
        num_spatial_dims: int = 2,
        pool: MaxPool | AvgPool | None = None,
        use_bias: bool = True,
        key: Array,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:** `kernel_size`: odd sizes, one for all axes or one each; `pool`: what is applied to the hidden
        state before it spikes; `key`: draws the weights, uniform within `1 / sqrt(fan-in)` as in torch; all others as
        in `snn.LIF`.

        **Raises:** `ValueError` for an even kernel size, a value to reset to, or `reset_delay=False`.
        """
        sizes = (kernel_size,) * num_spatial_dims if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(sizes) != num_spatial_dims or any(size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError(
                f"kernel_size must give odd sizes for {num_spatial_dims} axes, so that the shape is kept; "
                f"found {kernel_size}"
            )
        if not isinstance(reset, str):
            raise ValueError(f"the reset of SConvLSTM must be 'none', 'subtract' or 'zero', found {reset!r}")
        channels = in_channels + out_channels
        bound = 1 / math.sqrt(channels * math.prod(sizes))
        weight_key, bias_key = jax.random.split(key)
        shape = (4 * out_channels, channels, *sizes)
        self.weight = jax.random.uniform(weight_key, shape, minval=-bound, maxval=bound)
        self.bias = None
        if use_bias:
            self.bias = jax.random.uniform(bias_key, shape[:1], minval=-bound, maxval=bound)
        self.firing = Firing(threshold, reset, **fixed_delay("a spiking LSTM", firing, True))
        self.pool = pool
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> LSTMState:
        """Both states zero, `(out_channels, ...)` each with the spatial `shape[1:]`; in JAX's default float.

        **Raises:** `ValueError` when `shape` is not known or is no `(in_channels, ...)` of as many spatial axes.
        """
        del key
        if shape is None:
            raise ValueError("SConvLSTM takes its spatial shape from the input: pass input_shape to init_states")
        self._check(tuple(shape))
        return LSTMState(*jnp.zeros((2, self.out_channels, *shape[1:]), jnp.result_type(float)))

    def project(self, x):
        self._check(x.shape)
        projected = self._convolve(self.weight[:, : self.in_channels], x.astype(self.weight.dtype))
        return projected if self.bias is None else projected + self.bias.reshape(-1, *(1,) * len(self.kernel_size))

    def advance(self, state, projected):
        dtype = state.v.dtype
        recurrent = self._convolve(self.weight[:, self.in_channels :].astype(dtype), state.v)
        i, f, o, g = jnp.split(projected.astype(dtype) + recurrent, 4)
        hidden, c = _lstm([i, f, g, o], state.c)
        v, z, _ = self.firing.fire(state.v, lambda _: hidden)
        if self.pool is not None:
            z = self.firing.decide(self.firing.quantised(self.pool(v)), self.firing.threshold.astype(dtype))
        return LSTMState(v, self.firing.quantised(c)), self.firing.output(z, dtype)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 1 + len(self.kernel_size) or shape[0] != self.in_channels:
            raise ValueError(
                f"SConvLSTM takes inputs of {self.in_channels} channels and {len(self.kernel_size)} spatial axes, "
                f"found the shape {shape}"
            )

    def _convolve(self, weight: Array, x: Array) -> Array:
        ones = (1,) * len(self.kernel_size)
        return jax.lax.conv_general_dilated(x[None], weight, ones, "SAME")[0]
