"""The neurons that snnax has as well: integrate-and-fire, leaky, parametric, quadratic, exponential, Izhikevich."""

from typing import Any

import equinox as eqx
from spikingjelly.activation_based import neuron

from snnax import snn

from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ._neuron import SHARED_OPTIONS, firing_options, neuron_converter, number, reset_of, starting_at, time_constant


def _threshold_and_reset(module: Any, context: ConversionContext) -> tuple[Any, Any]:
    return number(module, "v_threshold", context), reset_of(module, context)


def _leaky_options(module: Any, context: ConversionContext) -> dict[str, Any]:
    """A membrane that starts at, and decays to, where it is reset to."""
    return {
        "v_leak": number(module, "v_reset", context) if module.v_reset else None,
        "input_scale": "one_minus_decay" if module.decay_input else "unit",
        **firing_options(module, context),
    }


def _first(module: Any) -> float:
    """Where a membrane starts."""
    return module.v_reset or 0.0


def _build_if(module: Any, context: ConversionContext) -> Any:
    layer = snn.IF(context.x_shape, *_threshold_and_reset(module, context), **firing_options(module, context))
    return starting_at(layer, context, v=(_first(module), 0.0))


def _build_half_threshold(module: Any, context: ConversionContext) -> Any:
    threshold = number(module, "v_threshold", context)
    layer = snn.IF(context.x_shape, threshold, "subtract", **firing_options(module, context))
    return starting_at(layer, context, v=(module.v_threshold / 2, 0.0))


def build_lif(module: Any, context: ConversionContext) -> snn.LIF:
    return snn.LIF(
        context.x_shape,
        time_constant(module, context),
        *_threshold_and_reset(module, context),
        **_leaky_options(module, context),
    )


def _build_plif(module: Any, context: ConversionContext) -> snn.PLIF:
    layer = snn.PLIF(context.x_shape, 2.0, *_threshold_and_reset(module, context), **_leaky_options(module, context))
    return eqx.tree_at(lambda layer: layer.decay_mem.value, layer, context.parameter("w"))


def _build_cuba_lif(module: Any, context: ConversionContext) -> Any:
    decays = [snn.Factor(number(module, name, context), constraint="none") for name in ("v_decay", "c_decay")]
    layer = snn.LIF(context.x_shape, decays, *_threshold_and_reset(module, context), **firing_options(module, context))
    return starting_at(layer, context, v=(_first(module), 0.0))


def _build_qif(module: Any, context: ConversionContext) -> Any:
    return starting_at(_qif(module, context), context, v=(_first(module), module.v_rest))


def _build_izhikevich(module: Any, context: ConversionContext) -> Any:
    layer = _qif(
        module,
        context,
        decay_adapt=time_constant(module, context, "tau_w"),
        coupling=number(module, "a", context),
        jump=number(module, "b", context),
    )
    return starting_at(layer, context, v=(_first(module), module.v_rest), a=(module.w_rest, 0.0))


def _qif(module: Any, context: ConversionContext, **adaptation: Any) -> snn.QIF:
    return snn.QIF(
        context.x_shape,
        time_constant(module, context),
        *_threshold_and_reset(module, context),
        v_rest=number(module, "v_rest", context),
        v_critical=number(module, "v_c", context),
        gain=number(module, "a0", context),
        **adaptation,
        **firing_options(module, context),
    )


def _build_eif(module: Any, context: ConversionContext) -> Any:
    layer = snn.EIF(
        context.x_shape,
        time_constant(module, context),
        *_threshold_and_reset(module, context),
        delta_T=number(module, "delta_T", context),
        theta_rh=number(module, "theta_rh", context),
        v_leak=number(module, "v_rest", context),
        **firing_options(module, context),
    )
    return starting_at(layer, context, v=(_first(module), module.v_rest))


IF = neuron_converter(neuron.IFNode, "", {"v": "v"}, _build_if)
HALF_THRESHOLD = neuron_converter(
    neuron.HalfThresholdIFNode,
    "",
    {"v": "v"},
    _build_half_threshold,
    shared=tuple(name for name in SHARED_OPTIONS if name != "v_reset"),
    starts_at_zero=lambda module: False,
)
LIF = neuron_converter(neuron.LIFNode, "tau decay_input", {"v": "v"}, build_lif)
PLIF = neuron_converter(neuron.ParametricLIFNode, "init_tau decay_input", {"v": "v"}, _build_plif)
CUBA_LIF = neuron_converter(
    neuron.CUBALIFNode,
    "c_decay v_decay",
    {"v": "v", "c": "i"},
    _build_cuba_lif,
    shared=("v_threshold", "v_reset", "surrogate_function"),
)
QIF = neuron_converter(neuron.QIFNode, "tau v_c a0 v_rest", {"v": "v"}, _build_qif)
EIF = neuron_converter(neuron.EIFNode, "tau delta_T theta_rh v_rest", {"v": "v"}, _build_eif)
IZHIKEVICH = neuron_converter(
    neuron.IzhikevichNode,
    "tau v_c a0 v_rest w_rest tau_w a b",
    {"v": "v", "w": "a"},
    _build_izhikevich,
    starts_at_zero=lambda module: not module.v_reset and not module.w_rest,
)
CONVERTERS = by_class(IF, HALF_THRESHOLD, LIF, PLIF, CUBA_LIF, QIF, EIF, IZHIKEVICH)
