"""Variants of the leaky neuron that only SpikingJelly has: what is charged, fired or reset in another way."""

import dataclasses
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from spikingjelly.activation_based import neuron
from torch import nn

from snnax import snn
from snnax.snn.parts import output_dtype
from snnax.surrogate import NoGradient

from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ...converters.neuron import neuron_of
from ...nodes.call import Call, Form, Input, Items
from ...ops import ELEMENTWISE, op_name
from ...trace.tape import base_name
from ..pytorch import LAYERS
from ._decay import TimeConstant
from ._integrate import build_lif
from ._neuron import SHARED_OPTIONS, firing_of, firing_options, neuron_converter, number, time_constant
from ._surrogates import SpikeCount, spike_count_of


class _AbstractVariant(snn.AbstractLayer):
    """A neuron that starts where it is reset to; with `has_second`, it has a second variable, the `a` of its state."""

    firing: eqx.AbstractVar[snn.Firing]
    shape: eqx.AbstractVar[tuple[int, ...]]
    has_second: ClassVar[bool] = False

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> snn.NeuronState:
        """The membrane where it is reset to, the second variable zero."""
        del shape, key
        dtype = jnp.result_type(float)
        v = jnp.broadcast_to(self.rest(dtype), self.shape)
        return snn.NeuronState(v, None, jnp.zeros(self.shape, dtype) if self.has_second else None)

    def rest(self, dtype: Any) -> Array:
        """Where the membrane is reset to."""
        return jnp.zeros((), dtype) if self.firing.v_reset is None else self.firing.v_reset.astype(dtype)

    def spikes(self, v: Array) -> Array:
        return self.firing.spikes(v, self.firing.threshold.astype(v.dtype))

    def after_reset(self, v: Array, z: Array, threshold: Array | None = None) -> Array:
        """The membrane after the spikes of the same time step; `threshold` where it is another one."""
        z = self.firing.reset_spikes(z)
        if self.firing.reset == "subtract":
            return v - z * (self.firing.threshold.astype(v.dtype) if threshold is None else threshold)
        return (1 - z) * v + z * self.rest(v.dtype)


class _AbstractLeakyVariant(_AbstractVariant):
    """A membrane that decays to where it is reset to; without a `decay` it only integrates."""

    decay: eqx.AbstractVar[TimeConstant | None]
    decay_input: eqx.AbstractVar[bool]

    def charge(self, v: Array, x: Array) -> Array:
        """The membrane with the input of a time step."""
        x, rest = x.astype(v.dtype), self.rest(v.dtype)
        if self.decay is None:
            return v + x
        return self.decay.relax(v, x, rest) if self.decay_input else self.decay.advance(v, rest - v) + x


class KLIF(_AbstractLeakyVariant):
    r"""`KLIFNode`: the charged membrane $h$ becomes $\mathrm{relu}(k h)$ before the spike, with a learnable $k$.

    `scale_reset` divides by $k$ again before the reset, the threshold too.
    """

    k: Array
    decay: TimeConstant
    firing: snn.Firing
    decay_input: bool = eqx.field(static=True)
    scale_reset: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        k = self.k.astype(state.v.dtype)
        v = jax.nn.relu(k * self.charge(state.v, x))
        z = self.spikes(v)
        if self.scale_reset:
            v = self.after_reset(v / k, z, self.firing.threshold.astype(v.dtype) / k)
        else:
            v = self.after_reset(v, z)
        return snn.NeuronState(v), z.astype(output_dtype(x))


class LIAF(_AbstractLeakyVariant):
    """`LIAFNode`: its output is an activation of the charged membrane; its spikes only reset it."""

    decay: TimeConstant
    firing: snn.Firing
    activation: Any
    threshold_related: bool = eqx.field(static=True)
    decay_input: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        v = self.charge(state.v, x)
        out = self.activation(v - self.firing.threshold.astype(v.dtype) if self.threshold_related else v)
        return snn.NeuronState(self.after_reset(v, self.spikes(v))), out.astype(output_dtype(x))


class Ternary(_AbstractLeakyVariant):
    """`TernaryIFNode`, `TernaryLIFNode`: spikes of 1 at and above the threshold, of -1 at and below its negative."""

    decay: TimeConstant | None
    firing: snn.Firing
    decay_input: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        v = self.charge(state.v, x)
        up, down = self.spikes(v), self.spikes(-v)
        z = up - down
        return snn.NeuronState(self.after_reset(v, z if self.firing.reset == "subtract" else up + down)), z.astype(
            output_dtype(x)
        )


class CLIF(_AbstractLeakyVariant):
    r"""`ComplementaryLIFNode`: the reset is the stronger, the more a neuron has spiked.

    $$ h = v - v / \tau + x, \quad z = H(h - \theta), \quad m \leftarrow m \sigma(h / \tau) + z, \quad
       v \leftarrow h - z (\theta + \sigma(m)) $$
    """

    decay: TimeConstant
    firing: snn.Firing
    decay_input: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    has_second: ClassVar[bool] = True

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        assert state.a is not None
        v = self.charge(state.v, x)
        z = self.spikes(v)
        m = state.a * jax.nn.sigmoid(v / self.decay.tau.astype(v.dtype)) + z
        v = self.after_reset(v, z, self.firing.threshold.astype(v.dtype) + jax.nn.sigmoid(m))
        return snn.NeuronState(v, None, m), z.astype(output_dtype(x))


class ILIF(_AbstractLeakyVariant):
    """`ILIFNode`: several spikes at once, as many as the threshold goes into the membrane."""

    decay: TimeConstant
    firing: snn.Firing
    count: SpikeCount
    decay_input: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        v = self.charge(state.v, x)
        z = self.count(v / self.firing.threshold.astype(v.dtype))
        return snn.NeuronState(self.after_reset(v, z)), z.astype(output_dtype(x))


class RAF(_AbstractVariant):
    """`RAFNode`: a damped rotation of `(u, v)`, with `u` as `a`, which takes up the input; spikes and reset are of `v`.

    Resonate-and-fire, Izhikevich 2001 (doi:10.1016/S0893-6080(01)00078-8).
    """

    firing: snn.Firing
    damping: float = eqx.field(static=True)
    angle: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    has_second: ClassVar[bool] = True

    def __call__(self, state: snn.NeuronState, x: Array, *, key: Any = None) -> tuple[snn.NeuronState, Array]:
        del key
        v, u = state.v, state.a
        assert u is not None
        kept, cos, sin = math.exp(self.damping), math.cos(self.angle), math.sin(self.angle)
        u, v = kept * (u * cos - v * sin) + x.astype(v.dtype), kept * (u * sin + v * cos)
        z = self.spikes(v)
        return snn.NeuronState(self.after_reset(v, z), None, u), z.astype(output_dtype(x))


# From the modules


def _leaky(module: Any, context: ConversionContext) -> dict[str, Any]:
    """What a leaky variant is built of."""
    return {
        "decay": time_constant(module, context),
        "decay_input": bool(module.decay_input),
        "firing": firing_of(module, context),
        "shape": context.x_shape,
    }


def _build_klif(module: Any, context: ConversionContext) -> KLIF:
    return KLIF(k=context.parameter("k"), scale_reset=bool(module.scale_reset), **_leaky(module, context))


def _build_liaf(module: Any, context: ConversionContext) -> LIAF:
    return LIAF(
        activation=_activation(module, context),
        threshold_related=bool(module.threshold_related),
        **_leaky(module, context),
    )


def _activation(module: Any, context: ConversionContext) -> Any:
    """The activation of a LIAF neuron: a layer or a function of torch that acts on elements."""
    act = module.act
    if isinstance(act, nn.Module):
        converter = LAYERS.get(type(act))
        if converter is not None and converter.acts_on == "elements":
            return converter.build(act, context.within("act", act, converter, Form()))
    elif op_name(base_name(act)) in ELEMENTWISE:
        return Call((), op_name(base_name(act)), Items((Input(0),)), (), (None,), (None,))
    raise context.refuse(
        "act", act, allowed="torch functions and layers that act on elements, such as torch.relu",
        advice="What another function computes cannot be read from it; name one of torch's",
    )  # fmt: skip


def _build_ternary_if(module: Any, context: ConversionContext) -> Ternary:
    firing = firing_of(module, context)
    return Ternary(decay=None, decay_input=False, firing=firing, shape=context.x_shape)


def _build_ternary_lif(module: Any, context: ConversionContext) -> Ternary:
    return Ternary(**_leaky(module, context))


def _build_clif(module: Any, context: ConversionContext) -> CLIF:
    options = firing_options(module, context)
    if not module.training:
        options["surrogate"] = NoGradient()
    firing = snn.Firing(number(module, "v_threshold", context), "subtract", **options)
    decay = time_constant(module, context)
    return CLIF(decay=decay, decay_input=False, firing=firing, shape=context.x_shape)


def _build_ilif(module: Any, context: ConversionContext) -> ILIF:
    threshold, detach = number(module, "v_threshold", context), bool(module.detach_reset)
    return ILIF(
        decay=time_constant(module, context),
        decay_input=False,
        firing=snn.Firing(threshold, "subtract", detach_reset=detach, surrogate=NoGradient()),
        count=spike_count_of(module, context),
        shape=context.x_shape,
    )


def _build_raf(module: Any, context: ConversionContext) -> RAF:
    firing = firing_of(module, context)
    return RAF(firing=firing, damping=module.b * module.dt, angle=module.omega * module.dt, shape=context.x_shape)


def _liaf_over_time(module: Any) -> str:
    return "in step mode 'm' its output is spikes and not act(h), as in SpikingJelly 2.0; store_v_seq=True gives act(h)"


def _clif_in_evaluation(module: Any) -> str:
    return "" if module.training else "in evaluation mode its spikes have no gradient, as in SpikingJelly"


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in SHARED_OPTIONS if name not in names)


KLIF_NODE = neuron_converter(neuron.KLIFNode, "scale_reset tau decay_input", {"v": "v"}, _build_klif)
LIAF_NODE = neuron_converter(
    neuron.LIAFNode,
    "act threshold_related args kwargs",
    {"v": "v"},
    _build_liaf,
    shared=(),
    spikes=False,
    over_time=lambda module: None if module.store_v_seq else _LIAF_AS_LIF,
)
_LIAF_STEP = neuron_of(LIAF_NODE)
assert _LIAF_STEP is not None
_LIAF_AS_LIF = dataclasses.replace(_LIAF_STEP, build=build_lif, spikes=True, caveat=_liaf_over_time)
TERNARY_IF = neuron_converter(neuron.TernaryIFNode, "", {"v": "v"}, _build_ternary_if)
TERNARY_LIF = neuron_converter(neuron.TernaryLIFNode, "tau decay_input", {"v": "v"}, _build_ternary_lif)
CLIF_NODE = neuron_converter(
    neuron.ComplementaryLIFNode,
    "tau store_state_seqs",
    {"v": "v", "m": "a"},
    _build_clif,
    shared=_without("v_reset", "detach_reset", "store_v_seq"),
    caveat=_clif_in_evaluation,
)
ILIF_NODE = neuron_converter(neuron.ILIFNode, "tau", {"v": "v"}, _build_ilif, shared=_without("v_reset"))
RAF_NODE = neuron_converter(neuron.RAFNode, "b omega dt", {"v": "v", "u": "a"}, _build_raf)
CONVERTERS = by_class(KLIF_NODE, LIAF_NODE, TERNARY_IF, TERNARY_LIF, CLIF_NODE, ILIF_NODE, RAF_NODE)
