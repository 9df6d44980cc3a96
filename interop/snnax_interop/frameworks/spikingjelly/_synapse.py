"""Layers between neurons that keep something of the past: synapse filters and delays."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import torch
from jaxtyping import Array, Float
from spikingjelly.activation_based import layer

from snnax import snn
from snnax.snn.parts import output_dtype

from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ._layers import layer_converter
from ._neuron import neuron_converter


class CurrentState(eqx.Module):
    """Synaptic current `i`."""

    i: Float[Array, "..."]


class SynapseFilter(snn.AbstractLayer):
    r"""`SynapseFilter`: $i_t = i_{t-1} - (1 - x_t) i_{t-1} / \tau + x_t$, which decays where no spike comes."""

    decay: snn.Rate | snn.SigmoidRate
    shape: tuple[int, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> CurrentState:
        """No current."""
        del shape, key
        return CurrentState(jnp.zeros(self.shape, jnp.result_type(float)))

    def __call__(self, state: CurrentState, x: Array, *, key: Any = None) -> tuple[CurrentState, Array]:
        """One time step; the output is the current, in the dtype of `x`."""
        del key
        i, jump = state.i, x.astype(state.i.dtype)
        i = i - (1 - jump) * i * self.decay.rate.astype(i.dtype) + jump
        return CurrentState(i), i.astype(output_dtype(x))


def _build_filter(module: Any, context: ConversionContext) -> SynapseFilter:
    if module.learnable:
        return SynapseFilter(snn.SigmoidRate(context.parameter("w")), context.x_shape)
    rate = context.constant("rate", torch.tensor(1.0 / module.tau, dtype=torch.float64))
    return SynapseFilter(snn.Rate(rate, constraint="none"), context.x_shape)


SYNAPSE_FILTER = neuron_converter(
    layer.SynapseFilter,
    "tau learnable",
    {"out_i": "i"},
    _build_filter,
    shared=("step_mode",),
    spikes=False,
    starts_at_zero=lambda module: True,
)


class DelayState(eqx.Module):
    """The inputs of the last time steps, the oldest first."""

    past: Float[Array, "steps ..."]


class Delay(snn.AbstractLayer):
    """`Delay`: the input of `steps` time steps ago, zeros until then."""

    steps: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> DelayState:
        """Nothing on its way."""
        del shape, key
        return DelayState(jnp.zeros((self.steps, *self.shape), jnp.result_type(float)))

    def __call__(self, state: DelayState, x: Array, *, key: Any = None) -> tuple[DelayState, Array]:
        """One time step."""
        del key
        past = jnp.concatenate([state.past, x[None].astype(state.past.dtype)])
        return DelayState(past[1:]), past[0].astype(x.dtype)


def _build_delay(module: Any, context: ConversionContext) -> Delay:
    return Delay(module.delay_steps, context.x_shape)


DELAY = layer_converter(layer.Delay, "delay_steps step_mode", _build_delay)
CONVERTERS = by_class(SYNAPSE_FILTER, DELAY)
