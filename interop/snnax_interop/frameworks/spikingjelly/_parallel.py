"""The neurons of Fang et al. 2023 (arXiv:2304.12760), which are never reset: weighted sums over time, and a threshold.

Over a whole sequence they are one product of matrices. Called step by step, `SlidingPSN` and `MaskedPSN` keep the
inputs of the last time steps.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from spikingjelly.activation_based import neuron

from snnax import snn
from snnax.snn.parts import output_dtype
from snnax.surrogate import AbstractSurrogate

from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ...converters.layer import LayerConverter
from ._surrogates import surrogate_of


def _over_time(weight: Array, bias: Array, x: Array) -> Array:
    """`weight @ x + bias` along the first axis, one bias for each time step or one for all."""
    sums = jnp.tensordot(weight.astype(x.dtype), x, 1)
    return sums + bias.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


class PSN(snn.AbstractFunction):
    """`PSN`: every time step sees all of them, earlier and later."""

    weight: Float[Array, "time time"]
    bias: Float[Array, "time 1"]
    surrogate: AbstractSurrogate

    def __call__(self, x: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return self.surrogate(_over_time(self.weight, self.bias, x), at_threshold=True)


class MaskedPSN(snn.AbstractFunction):
    """`MaskedPSN` over a whole sequence: `PSN` that is masked in part, wholly where `share` is 1 or more."""

    weight: Float[Array, "time time"]
    bias: Float[Array, "time 1"]
    share: Float[Array, ""]
    mask: Float[Array, "time time"]
    surrogate: AbstractSurrogate

    @property
    def masked_weight(self) -> Array:
        share = jnp.minimum(self.share, 1)
        return (share * self.mask + (1 - share)) * self.weight

    def __call__(self, x: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return self.surrogate(_over_time(self.masked_weight, self.bias, x), at_threshold=True)


class SlidingPSN(snn.AbstractFunction):
    """`SlidingPSN` over a whole sequence: the same weights for the last time steps, everywhere."""

    weight: Float[Array, "order"]
    bias: Float[Array, ""]
    surrogate: AbstractSurrogate

    def __call__(self, x: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        steps = jnp.arange(x.shape[0])
        ago = steps[:, None] - steps
        order = self.weight.shape[0]
        seen = (ago >= 0) & (ago < order)
        weight = jnp.where(seen, self.weight[jnp.where(seen, order - 1 - ago, 0)], 0)
        return self.surrogate(_over_time(weight, self.bias, x), at_threshold=True)


class PastState(eqx.Module):
    """The inputs of the last time steps, the oldest first, and the number of time steps so far."""

    past: Float[Array, "order ..."]
    step: Int[Array, ""]


class SlidingStep(snn.AbstractLayer):
    """`SlidingPSN` step by step."""

    weight: Float[Array, "order"]
    bias: Float[Array, ""]
    surrogate: AbstractSurrogate
    shape: tuple[int, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> PastState:
        """No inputs so far."""
        del shape, key
        return _no_past(self.weight.shape[0], self.shape)

    def __call__(self, state: PastState, x: Array, *, key: Any = None) -> tuple[PastState, Array]:
        """One time step."""
        del key
        state = _with_input(state, x)
        sums = jnp.tensordot(self.weight.astype(state.past.dtype), state.past, 1)
        z = self.surrogate(sums + self.bias.astype(sums.dtype), at_threshold=True)
        return state, z.astype(output_dtype(x))


class MaskedStep(snn.AbstractLayer):
    """`MaskedPSN` step by step, with each time step's row of the weights."""

    masked: MaskedPSN
    order: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> PastState:
        """No inputs so far."""
        del shape, key
        return _no_past(self.order, self.shape)

    def __call__(self, state: PastState, x: Array, *, key: Any = None) -> tuple[PastState, Array]:
        """One time step."""
        del key
        last = self.masked.weight.shape[0] - 1
        step = eqx.error_if(
            state.step, state.step > last, f"a MaskedPSN has run for more than its {last + 1} time steps"
        )
        columns = step + jnp.arange(1 - self.order, 1)
        state = _with_input(state, x)
        weight = jnp.where(columns >= 0, self.masked.masked_weight[step, jnp.maximum(columns, 0)], 0)
        sums = jnp.tensordot(weight.astype(state.past.dtype), state.past, 1)
        z = self.masked.surrogate(sums + self.masked.bias[step, 0].astype(sums.dtype), at_threshold=True)
        return state, z.astype(output_dtype(x))


def _no_past(order: int, shape: tuple[int, ...]) -> PastState:
    return PastState(jnp.zeros((order, *shape), jnp.result_type(float)), jnp.zeros((), jnp.int32))


def _with_input(state: PastState, x: Array) -> PastState:
    past = jnp.concatenate([state.past[1:], x[None].astype(state.past.dtype)])
    return PastState(past, state.step + 1)


def _build_psn(module: Any, context: ConversionContext) -> PSN:
    _check_time_first(context)
    return PSN(context.parameter("weight"), context.parameter("bias"), surrogate_of(module, context))


def _build_masked(module: Any, context: ConversionContext) -> MaskedPSN | MaskedStep:
    weight, bias, share, mask = (context.parameter(name) for name in ("weight", "bias", "_lambda_", "mask0"))
    masked = MaskedPSN(weight, bias, share, mask, surrogate_of(module, context))
    if module.step_mode == "s":
        return MaskedStep(masked, min(module.k, module.T), context.x_shape)
    _check_time_first(context)
    return masked


def _build_sliding(module: Any, context: ConversionContext) -> SlidingPSN | SlidingStep:
    weight, bias = context.parameter("weight"), context.parameter("bias")
    surrogate = surrogate_of(module, context)
    if module.step_mode == "s":
        return SlidingStep(weight, bias, surrogate, context.x_shape)
    _check_time_first(context)
    return SlidingPSN(weight, bias, surrogate)


def _check_time_first(context: ConversionContext) -> None:
    """Refuse a sequence whose first axis is the batch, which SpikingJelly would sum over."""
    if context.batch_axis == 0:
        raise context.refuse(
            "x", "an input whose first axis is the batch", allowed="time as the first axis",
            advice="Transpose before the neuron",
        )  # fmt: skip


def _psn_converter(kind: type, build: Callable[[Any, ConversionContext], Any], options: str) -> LayerConverter:
    return LayerConverter(kind=kind, framework="spikingjelly", options=tuple(options.split()), build=build)


CONVERTERS = by_class(
    _psn_converter(neuron.PSN, _build_psn, "T surrogate_function"),
    _psn_converter(neuron.MaskedPSN, _build_masked, "k T lambda_init surrogate_function step_mode"),
    _psn_converter(neuron.SlidingPSN, _build_sliding, "k exp_init surrogate_function step_mode"),
)
