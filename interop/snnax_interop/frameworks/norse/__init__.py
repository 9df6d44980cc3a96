"""Norse 1.1.

All of its modules are Python around functions of one time step. Their forwards are recorded like a user's; for the
neurons below, the function is not recorded itself but becomes a neuron of snnax. What has no such neuron, and calls of
the functions in a user's own forward, stay as tensor functions, as exact.
"""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional import (
    iaf,
    izhikevich,
    leaky_integrator,
    leaky_integrator_box,
    lif,
    lif_adex,
    lif_adex_refrac,
    lif_box,
    lif_ex,
    lif_refrac,
    lsnn,
)
from norse.torch.module import coba_lif, lif_ex as lif_ex_module, lif_mc_refrac, snn as bases

from snnax import snn

from ...converters.base import ModuleCall
from ...converters.context import ConversionContext
from ...converters.framework import Framework, RecordedClasses, by_class
from ...converters.neuron import NeuronCall, NeuronConverter, StepAttributes
from ...nodes.markers import off_diagonal_gradient
from . import _neurons as neurons
from ._parameters import Parameters, is_fixed, is_fixed_zero
from ._recurrence import recurrence


_READ_EVERY_CALL = ("p", "dt", "record_states")


@dataclasses.dataclass(frozen=True)
class _Model:
    """A neuron model.

    `states` are the attributes of its state tuple with the fields of the native state (in a recurrent layer, `inner`
    holds its spikes too), `start` the fields of `p` that it starts from.
    """

    build: neurons.Build
    states: Mapping[str, str]
    start: tuple[str, ...] = ("v_leak",)
    inner: str = ""
    spikes: bool = True
    options: tuple[str, ...] = ("p",)


_SYNAPSE = {"v": "v", "i": "i"}
_LIF = _Model(neurons.lif, _SYNAPSE)
_LI = _Model(neurons.li, _SYNAPSE, spikes=False)
_LIF_BOX = _Model(neurons.lif_box, {"v": "v"})
_LI_BOX = _Model(neurons.li_box, {"v": "v"}, spikes=False)
_IAF = _Model(neurons.iaf, {"v": "v"}, ("v_reset",))
_LIF_EX = _Model(neurons.lif_ex, _SYNAPSE)
_LIF_ADEX = _Model(neurons.lif_adex, {**_SYNAPSE, "a": "a"})
_LSNN = _Model(neurons.lsnn, {**_SYNAPSE, "b": "a"}, ("v_leak", "v_th"), options=("p", "adjoint"))
_LIF_REFRAC = _Model(neurons.lif_refrac, {"lif.v": "v", "lif.i": "i", "rho": "rho"}, ("lif.v_leak",), "lif.")
_LIF_ADEX_REFRAC = _Model(
    neurons.lif_adex_refrac,
    {"lif_adex.v": "v", "lif_adex.i": "i", "lif_adex.a": "a", "rho": "rho"},
    ("lif_adex.v_leak",),
    "lif_adex.",
)
_IZHIKEVICH = _Model(neurons.izhikevich, {"v": "v", "u": "a"}, (), options=("spiking_method",))


def _step_converter(kind: type, model: _Model, step: Any) -> NeuronConverter:
    recurrent = issubclass(kind, bases.SNNRecurrentCell | bases.SNNRecurrent)
    states = {f"{model.inner}z": "z", **model.states} if recurrent else dict(model.states)
    getters = [operator.attrgetter(name) for name in states]

    def read(state: Any) -> tuple[torch.Tensor, ...]:
        return tuple(get(state) for get in getters)

    def build(module: Any, context: ConversionContext) -> Any:
        if module.activation is not step:
            raise context.refuse(
                "activation", module.activation, allowed=step.__name__,
                advice="Use the class as it is, without adjoint=True",
            )  # fmt: skip
        layer = model.build(Parameters(module, context), recurrent)
        return snn.Recurrent(layer, recurrence(module, context)) if recurrent else layer

    def split(module: Any, call: ModuleCall) -> NeuronCall:
        x, state, *rest = call.args
        out, new = call.result
        weights = rest[0] if recurrent else None
        return NeuronCall(x=x, state_in=read(state), out=out, state_out=read(new), weights=weights)

    def starts_itself(module: Any) -> bool:
        own = getattr(module.state_fallback, "__func__", None) is kind.initial_state  # type: ignore[attr-defined]
        # A learnable start is detached there; an integrate-and-fire neuron starts at its reset.
        fixed = all(is_fixed(operator.attrgetter(name)(module.p)) for name in model.start)
        return own and fixed and (model is not _IAF or is_fixed_zero(module.p.v_reset))

    def starts_at_zero(module: Any) -> bool:
        values = [operator.attrgetter(name)(module.p) for name in model.start]
        return model is not _IZHIKEVICH and all(map(is_fixed_zero, values))

    def run(module: Any, x: torch.Tensor, state: Any) -> Any:
        before = leaky_integrator.LIState(module.p.v_leak.detach(), torch.zeros_like(x))
        if state is not None:
            for name, value in zip(states, state, strict=True):
                before = before if value is None else _with_state(before, name.split("."), value)
        # A recurrent step multiplies its input by weights, which is a call of its own in a program.
        weights = (torch.eye(x.shape[-1], dtype=x.dtype), module.recurrent_weights) if recurrent else ()
        out, after = module.activation(x, before, *weights, module.p, module.dt)
        return out, read(after)

    return NeuronConverter(
        kind=kind,
        framework="norse",
        options=_OPTIONS[next(base for base in _OPTIONS if issubclass(kind, base))] + model.options,
        build=build,
        fields=tuple(states.values()),
        spikes=model.spikes,
        starts_at_zero=starts_at_zero,
        read_every_call=_READ_EVERY_CALL,
        split_call=split,
        run=run,
        attributes=StepAttributes(step="activation", start="state_fallback", starts_itself=starts_itself),
    )


def _with_state(state: Any, path: list[str], value: torch.Tensor) -> Any:
    """A state tuple with another value in a field, which may be one of a tuple in it."""
    name, *rest = path
    return state._replace(**{name: _with_state(getattr(state, name), rest, value) if rest else value})


def _run_li_linear(module: Any, x: torch.Tensor, state: Any) -> Any:
    before = None if state is None or any(each is None for each in state) else leaky_integrator.LIState(*state)
    if before is None:
        before = module.state_fallback(x)
    weights = torch.eye(x.shape[-1], dtype=x.dtype)
    out, after = leaky_integrator.li_step(x, before, weights, module.p, module.dt)
    return out, (after.v, after.i)


def _build_li_linear(module: Any, context: ConversionContext) -> snn.LI:
    return neurons.li(Parameters(module, context), False)


def _split_li_linear(module: Any, call: ModuleCall) -> NeuronCall:
    given = call.arguments("input_tensor", "state")
    state = given.get("state")
    out, new = call.result
    return NeuronCall(
        x=given["input_tensor"],
        state_in=None if state is None else (state.v, state.i),
        out=out,
        state_out=(new.v, new.i),
        weights=module.input_weights,
    )


# Its step is no attribute, and its weights are always parameters.
LI_LINEAR = NeuronConverter(
    kind=norse.LILinearCell,
    framework="norse",
    options=("input_size", "hidden_size", "p", "dt"),
    build=_build_li_linear,
    fields=("v", "i"),
    spikes=False,
    starts_at_zero=lambda module: is_fixed_zero(module.p.v_leak),
    read_every_call=_READ_EVERY_CALL,
    split_call=_split_li_linear,
    run=_run_li_linear,
)

# The constructor's arguments by base class; those of the class itself come in addition.
_OPTIONS = {
    bases.SNNCell: ("dt",),
    bases.SNN: ("dt", "record_states"),
    bases.SNNRecurrentCell: ("dt", "input_size", "hidden_size", "input_weights", "recurrent_weights", "autapses"),
    bases.SNNRecurrent: (
        "dt", "input_size", "hidden_size", "input_weights", "recurrent_weights", "autapses", "record_states",
    ),
}  # fmt: skip
_NEURONS = [
    _step_converter(kind, model, step)
    for model, step, *kinds in (
        (_LIF, lif.lif_feed_forward_step, norse.LIFCell, norse.LIF),
        (_LIF, lif.lif_step, norse.LIFRecurrentCell, norse.LIFRecurrent),
        (_LIF_BOX, lif_box.lif_box_feed_forward_step, norse.LIFBoxCell),
        (_LI, leaky_integrator.li_feed_forward_step, norse.LICell, norse.LI),
        (_LI_BOX, leaky_integrator_box.li_box_feed_forward_step, norse.LIBoxCell),
        (_IAF, iaf.iaf_feed_forward_step, norse.IAFCell, norse.IAF),
        (_LIF_EX, lif_ex.lif_ex_feed_forward_step, lif_ex_module.LIFExCell, lif_ex_module.LIFEx),
        (_LIF_EX, lif_ex.lif_ex_step, lif_ex_module.LIFExRecurrentCell, lif_ex_module.LIFExRecurrent),
        (_LIF_ADEX, lif_adex.lif_adex_feed_forward_step, norse.LIFAdExCell, norse.LIFAdEx),
        (_LIF_ADEX, lif_adex.lif_adex_step, norse.LIFAdExRecurrentCell, norse.LIFAdExRecurrent),
        (_LSNN, lsnn.lsnn_feed_forward_step, norse.LSNNCell, norse.LSNN),
        (_LSNN, lsnn.lsnn_step, norse.LSNNRecurrentCell, norse.LSNNRecurrent),
        (_LIF_REFRAC, lif_refrac.lif_refrac_feed_forward_step, norse.LIFRefracCell),
        (_LIF_REFRAC, lif_refrac.lif_refrac_step, norse.LIFRefracRecurrentCell, norse.LIFRefracRecurrent),
        (_LIF_ADEX_REFRAC, lif_adex_refrac.lif_adex_refrac_feed_forward_step, norse.LIFAdExRefracCell),
        (
            _LIF_ADEX_REFRAC,
            lif_adex_refrac.lif_adex_refrac_step,
            norse.LIFAdExRefracRecurrentCell,
            norse.LIFAdExRefracRecurrent,
        ),
        (_IZHIKEVICH, izhikevich.izhikevich_feed_forward_step, norse.IzhikevichCell, norse.Izhikevich),
        (
            _IZHIKEVICH,
            izhikevich.izhikevich_recurrent_step,
            norse.IzhikevichRecurrentCell,
            norse.IzhikevichRecurrent,
        ),
    )
    for kind in kinds
]


def _faults(module: torch.nn.Module) -> str:
    """What is wrong in Norse 1.1, and kept."""
    if isinstance(module, coba_lif.CobaLIFCell):
        return "its input is ignored, as in Norse; only spikes that come back reach the membrane"
    if isinstance(module, lif_mc_refrac.LIFMCRefracRecurrentCell):
        return "the coupling is not scaled by dt and acts on refractory neurons too, as in Norse"
    return ""


FRAMEWORK = Framework(
    name="norse",
    converters=by_class(*_NEURONS, LI_LINEAR),
    # States are arguments and results, so everything else of Norse is recorded too.
    recorded=RecordedClasses(takes=lambda kind: kind.__module__.split(".")[0] == "norse", caveat=_faults),
    # Norse keeps the diagonal of recurrent weights at zero by a hook on their gradient (autapses=False).
    gradient_hooks={
        f"norse.torch.module.snn.{base}.__init__.<locals>.autapse_hook": off_diagonal_gradient
        for base in ("SNNRecurrentCell", "SNNRecurrent")
    },
)
