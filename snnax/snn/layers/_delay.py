"""Delays of signals on their way: a whole number of time steps, or learned."""

import functools
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from ...engine import AbstractSequenceLayer, scan_layer
from ..parts import check_parameters, output_dtype, parameter, resolve_shape


Interpolation = Literal["linear", "gaussian"]


class DelayState(eqx.Module):
    """The inputs of the last time steps, the oldest first."""

    past: Float[Array, "steps ..."]


class Delay(AbstractSequenceLayer):
    r"""Axonal delays: each neuron's output arrives `delay` time steps later, zeros until then.

    $$ y_t = x_{t - d} $$

    Whole numbers are exact and fixed. Floating point delays are learnable: a delay of 2.25 steps is read between two of
    them, $0.75\, x_{t-2} + 0.25\, x_{t-3}$ (`"linear"`), or through a normalised Gaussian of width `sigma` around it
    (`"gaussian"`), which sees the gradient of spikes further off (Hammouamri et al. 2023, arXiv:2306.17670). They stay
    within [0, `max_delay`]; at a bound the gradient still passes. NIR's `Delay` is in seconds: divide by `dt`.

    >>> layer = Delay(jnp.array([1, 2]))
    >>> state = layer.init_state((2,))
    >>> for x in jnp.eye(4, 2):
    ...     state, out = layer(state, x)
    >>> out.tolist()  # of the steps [1, 0], [0, 1], [0, 0], [0, 0]
    [0.0, 1.0]
    """

    delay: Array
    max_delay: int = eqx.field(static=True)
    interpolation: Interpolation = eqx.field(static=True)
    sigma: float = eqx.field(static=True)

    def __init__(
        self,
        delay: Any,
        max_delay: int | None = None,
        *,
        interpolation: Interpolation = "linear",
        sigma: float = 1.0,
        key: Any = None,
    ):
        """**Arguments:**

        - `delay`: in time steps, scalar or per neuron; integers, or floating point numbers to learn.
        - `max_delay`: the longest delay that there can be; the largest of `delay` when not given, which must then be
          numbers.
        - `interpolation`, `sigma`: for floating point delays, see above; `sigma` in time steps.

        **Raises:** `ValueError` for a delay below 0 or above `max_delay`, or an unknown interpolation.
        """
        del key
        self.delay = _delays(delay)
        self.max_delay = _longest(delay, max_delay)
        self.interpolation, self.sigma = _checked(interpolation, sigma)

    @property
    def needs_whole_sequence(self) -> bool:
        """False: the layer can be stepped."""
        return False

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> DelayState:
        """No signal on its way, for inputs of `shape`; in JAX's default float.

        **Raises:** `ValueError` when the shape is not known or does not fit the delays.
        """
        del key
        shape = resolve_shape(None, shape)
        check_parameters(self, shape)
        return DelayState(jnp.zeros((self.max_delay, *shape), jnp.result_type(float)))

    def __call__(
        self, state: DelayState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[DelayState, Float[Array, "..."]]:
        """One time step; the output has the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the state.
        """
        del key
        state, outs = self.apply_sequence(state, x[None])
        return state, outs[0]

    def apply_sequence(
        self, state: DelayState, xs: Shaped[Array, "time ..."], *, keys: Any = None, mask: Any = None
    ) -> tuple[DelayState, Float[Array, "time ..."]]:
        """A whole sequence, as described for `snn.AbstractSequenceLayer`: without a loop where all steps count."""
        if mask is not None or xs.shape[0] == 0:
            return scan_layer(self, state, xs, keys, mask)
        history, num_steps = _history(state, xs), xs.shape[0]

        def late(delay: Array) -> Array:
            """What every step reads at a whole number of time steps."""
            steps = jnp.arange(num_steps, dtype=jnp.int32).reshape(-1, *(1,) * (history.ndim - 1))
            index = self.max_delay + steps - jnp.broadcast_to(delay, history.shape[1:])[None]
            return jnp.take_along_axis(history, index, axis=0)

        if not jnp.issubdtype(self.delay.dtype, jnp.floating):
            outs = late(self.delay)
        elif self.interpolation == "linear":
            whole, part = _split(self.delay.astype(history.dtype), self.max_delay)
            part = jnp.broadcast_to(part, history.shape[1:])[None]
            outs = (1 - part) * late(whole) + part * late(jnp.minimum(whole + 1, self.max_delay))
        else:
            delays = jnp.broadcast_to(self.delay, history.shape[1:])
            taps = _taps(delays, self.max_delay, self.interpolation, self.sigma, history.dtype)[:, None]
            pieces = [
                taps[delay] * history[self.max_delay - delay : self.max_delay - delay + num_steps]
                for delay in range(self.max_delay + 1)
            ]
            outs = functools.reduce(jnp.add, pieces)
        return DelayState(history[num_steps:]), outs.astype(output_dtype(xs))


class DelayedLinear(AbstractSequenceLayer):
    r"""A linear layer whose every synapse has a delay of its own.

    $$ y_t^{(o)} = b^{(o)} + \sum_i W_{oi}\, x^{(i)}_{t - d_{oi}} $$

    Delays, their learning and their interpolation are those of `snn.Delay`. Over a sequence this is a convolution in
    time (dilated convolution with learnable spacings, Hammouamri et al. 2023, arXiv:2306.17670).

    >>> layer = DelayedLinear(2, 3, max_delay=5, key=jax.random.key(0))
    >>> state, out = layer(layer.init_state(), jnp.ones(2))
    >>> state.past.shape, out.shape
    ((5, 2), (3,))
    """

    weight: Array
    delay: Array
    bias: Array | None
    max_delay: int = eqx.field(static=True)
    interpolation: Interpolation = eqx.field(static=True)
    sigma: float = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        *,
        delay: Any = None,
        interpolation: Interpolation = "linear",
        sigma: float = 1.0,
        use_bias: bool = True,
        key: Array,
    ):
        """**Arguments:**

        - `max_delay`: the longest delay that there can be, in time steps.
        - `delay`: `(out_features, in_features)` or a scalar; drawn uniformly, and learnable, when not given.
        - `key`: draws weights, uniform within `1 / sqrt(in_features)`, and delays.
        - all others as for `snn.Delay`.

        **Raises:** `ValueError` for a delay of another shape, below 0 or above `max_delay`, and for an
        unknown interpolation.
        """
        bound = 1 / math.sqrt(in_features)
        weight_key, bias_key, delay_key = jax.random.split(key, 3)
        shape = (out_features, in_features)
        self.weight = jax.random.uniform(weight_key, shape, minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(bias_key, (out_features,), minval=-bound, maxval=bound) if use_bias else None
        if delay is None:
            self.delay = jax.random.uniform(delay_key, shape, maxval=float(max_delay))
        else:
            self.delay = _delays(delay)
        if self.delay.shape not in ((), shape):
            raise ValueError(f"delays of {shape} synapses must be one or have that shape, found {self.delay.shape}")
        self.max_delay = _longest(0 if delay is None else delay, max_delay)
        self.interpolation, self.sigma = _checked(interpolation, sigma)

    @property
    def needs_whole_sequence(self) -> bool:
        """False: the layer can be stepped."""
        return False

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> DelayState:
        """No signal on its way; in JAX's default float.

        **Raises:** `ValueError` for an input of another shape than `(in_features,)`.
        """
        del key
        shape = resolve_shape((self.weight.shape[1],), shape)
        return DelayState(jnp.zeros((self.max_delay, *shape), jnp.result_type(float)))

    def __call__(
        self, state: DelayState, x: Shaped[Array, "in_features"], *, key: Any = None
    ) -> tuple[DelayState, Float[Array, "out_features"]]:
        """One time step; the output has the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not `(in_features,)`.
        """
        del key
        state, outs = self.apply_sequence(state, x[None])
        return state, outs[0]

    def apply_sequence(
        self, state: DelayState, xs: Shaped[Array, "time in_features"], *, keys: Any = None, mask: Any = None
    ) -> tuple[DelayState, Float[Array, "time out_features"]]:
        """A whole sequence, as described for `snn.AbstractSequenceLayer`: one convolution where all steps count."""
        if mask is not None or xs.shape[0] == 0:
            return scan_layer(self, state, xs, keys, mask)
        history = _history(state, xs)
        delay = jnp.broadcast_to(self.delay, self.weight.shape)
        taps = _taps(delay, self.max_delay, self.interpolation, self.sigma, history.dtype)
        # A convolution reads its window from the oldest input to the newest.
        kernel = jnp.moveaxis(taps[::-1] * self.weight.astype(history.dtype)[None], 0, -1)
        outs = jax.lax.conv_general_dilated(history.T[None], kernel, (1,), "VALID")[0].T
        outs = outs if self.bias is None else outs + self.bias.astype(outs.dtype)[None]
        return DelayState(history[xs.shape[0] :]), outs.astype(output_dtype(xs))


def _delays(delay: Any) -> Array:
    """Delays as an array: floating point ones to learn, others as indices."""
    delay = jnp.asarray(delay)
    return parameter("delay", delay) if jnp.issubdtype(delay.dtype, jnp.floating) else delay.astype(jnp.int32)


def _longest(delay: Any, max_delay: int | None) -> int:
    if isinstance(delay, Tracer):
        if max_delay is None:
            raise ValueError("max_delay must be given where the delays are not known when the layer is built")
        return max_delay
    found = np.asarray(delay)
    longest = math.ceil(found.max()) if max_delay is None else max_delay
    if not (found.min() >= 0 and found.max() <= longest):
        raise ValueError(
            f"delays lie between 0 and max_delay={longest} time steps, found {found.min()} to {found.max()}"
        )
    return longest


def _checked(interpolation: Interpolation, sigma: float) -> tuple[Interpolation, float]:
    if interpolation not in ("linear", "gaussian"):
        raise ValueError(f"interpolation must be 'linear' or 'gaussian', found {interpolation!r}")
    if not sigma > 0:
        raise ValueError(f"sigma must be a positive number of time steps, found {sigma}")
    return interpolation, sigma


def _limited(delay: Array, max_delay: int) -> Array:
    """Within bounds in value, not in gradient: a delay beyond a bound can learn its way back."""
    return delay + jax.lax.stop_gradient(jnp.clip(delay, 0, max_delay) - delay)


def _split(delay: Array, max_delay: int) -> tuple[Array, Array]:
    """Whole time steps, and the part of the next one, in [0, 1]: there is a slope at whole delays, too."""
    delay = _limited(delay, max_delay)
    whole = jnp.clip(jnp.floor(jax.lax.stop_gradient(delay)), 0, max(max_delay - 1, 0))
    return whole.astype(jnp.int32), delay - whole


def _taps(delay: Array, max_delay: int, interpolation: Interpolation, sigma: float, dtype: Any) -> Array:
    """How much each of the delays 0 ... `max_delay` counts, `(max_delay + 1, ...)`."""
    steps = jnp.arange(max_delay + 1, dtype=jnp.int32).reshape(-1, *(1,) * delay.ndim)
    if interpolation == "gaussian" and jnp.issubdtype(delay.dtype, jnp.floating):
        distance = (steps.astype(dtype) - _limited(delay.astype(dtype), max_delay)[None]) / sigma
        return jax.nn.softmax(-(distance**2) / 2, axis=0)
    whole, part = _split(delay.astype(dtype), max_delay)
    whole, part = whole[None], part[None]
    return jnp.where(steps == whole, 1 - part, 0) + jnp.where(steps == whole + 1, part, 0)


def _history(state: DelayState, xs: Array) -> Array:
    """All inputs that the steps of a sequence can see, the oldest first.

    **Raises:** `ValueError` when the shape of an input is not that of the state.
    """
    if xs.shape[1:] != state.past.shape[1:]:
        raise ValueError(
            f"the neurons have shape {state.past.shape[1:]}, but their input has shape {xs.shape[1:]} "
            "(batch with jax.vmap)"
        )
    return jnp.concatenate([state.past, xs.astype(state.past.dtype)])
