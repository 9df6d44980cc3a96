"""The neurons that snnax has as well: integrate-and-fire, leaky, parametric, quadratic, exponential, Izhikevich."""

from typing import Any

import equinox as eqx
from spikingjelly.activation_based import neuron

from snnax import snn

from ...converters.context import Site
from ...converters.leaf import Leaf
from ._neuron import SHARED_OPTIONS, firing_options, neuron_leaf, number, reset_of, starting_at, time_constant


def _threshold_and_reset(leaf: Leaf, module: Any, site: Site) -> tuple[Any, Any]:
    return number(leaf, module, "v_threshold", site), reset_of(leaf, module, site)


def _leaky_options(leaf: Leaf, module: Any, site: Site) -> dict[str, Any]:
    """A membrane that starts at, and decays to, where it is reset to."""
    return {
        "v_leak": number(leaf, module, "v_reset", site) if module.v_reset else None,
        "input_scale": "one_minus_decay" if module.decay_input else "unit",
        **firing_options(leaf, module, site),
    }


def _first(module: Any) -> float:
    """Where a membrane starts."""
    return module.v_reset or 0.0


def _build_if(module: Any, site: Site) -> Any:
    layer = snn.IF(site.x_shape, *_threshold_and_reset(IF, module, site), **firing_options(IF, module, site))
    return starting_at(layer, site, v=(_first(module), 0.0))


def _build_half_threshold(module: Any, site: Site) -> Any:
    threshold = number(HALF_THRESHOLD, module, "v_threshold", site)
    layer = snn.IF(site.x_shape, threshold, "subtract", **firing_options(HALF_THRESHOLD, module, site))
    return starting_at(layer, site, v=(module.v_threshold / 2, 0.0))


def build_lif(module: Any, site: Site) -> snn.LIF:
    return snn.LIF(
        site.x_shape,
        time_constant(LIF, module, site),
        *_threshold_and_reset(LIF, module, site),
        **_leaky_options(LIF, module, site),
    )


def _build_plif(module: Any, site: Site) -> snn.PLIF:
    layer = snn.PLIF(site.x_shape, 2.0, *_threshold_and_reset(PLIF, module, site), **_leaky_options(PLIF, module, site))
    return eqx.tree_at(lambda layer: layer.decay_mem.value, layer, site.parameter("w"))


def _build_cuba_lif(module: Any, site: Site) -> Any:
    decays = [snn.Factor(number(CUBA_LIF, module, name, site), constraint="none") for name in ("v_decay", "c_decay")]
    layer = snn.LIF(
        site.x_shape, decays, *_threshold_and_reset(CUBA_LIF, module, site), **firing_options(CUBA_LIF, module, site)
    )
    return starting_at(layer, site, v=(_first(module), 0.0))


def _build_qif(module: Any, site: Site) -> Any:
    return starting_at(_qif(QIF, module, site), site, v=(_first(module), module.v_rest))


def _build_izhikevich(module: Any, site: Site) -> Any:
    layer = _qif(
        IZHIKEVICH,
        module,
        site,
        decay_adapt=time_constant(IZHIKEVICH, module, site, "tau_w"),
        coupling=number(IZHIKEVICH, module, "a", site),
        jump=number(IZHIKEVICH, module, "b", site),
    )
    return starting_at(layer, site, v=(_first(module), module.v_rest), a=(module.w_rest, 0.0))


def _qif(leaf: Leaf, module: Any, site: Site, **adaptation: Any) -> snn.QIF:
    return snn.QIF(
        site.x_shape,
        time_constant(leaf, module, site),
        *_threshold_and_reset(leaf, module, site),
        v_rest=number(leaf, module, "v_rest", site),
        v_critical=number(leaf, module, "v_c", site),
        gain=number(leaf, module, "a0", site),
        **adaptation,
        **firing_options(leaf, module, site),
    )


def _build_eif(module: Any, site: Site) -> Any:
    layer = snn.EIF(
        site.x_shape,
        time_constant(EIF, module, site),
        *_threshold_and_reset(EIF, module, site),
        delta_T=number(EIF, module, "delta_T", site),
        theta_rh=number(EIF, module, "theta_rh", site),
        v_leak=number(EIF, module, "v_rest", site),
        **firing_options(EIF, module, site),
    )
    return starting_at(layer, site, v=(_first(module), module.v_rest))


IF = neuron_leaf(neuron.IFNode, "", {"v": "v"}, _build_if)
HALF_THRESHOLD = neuron_leaf(
    neuron.HalfThresholdIFNode,
    "",
    {"v": "v"},
    _build_half_threshold,
    shared=tuple(name for name in SHARED_OPTIONS if name != "v_reset"),
    starts_at_zero=lambda module: False,
)
LIF = neuron_leaf(neuron.LIFNode, "tau decay_input", {"v": "v"}, build_lif)
PLIF = neuron_leaf(neuron.ParametricLIFNode, "init_tau decay_input", {"v": "v"}, _build_plif)
CUBA_LIF = neuron_leaf(
    neuron.CUBALIFNode,
    "c_decay v_decay",
    {"v": "v", "c": "i"},
    _build_cuba_lif,
    shared=("v_threshold", "v_reset", "surrogate_function"),
)
QIF = neuron_leaf(neuron.QIFNode, "tau v_c a0 v_rest", {"v": "v"}, _build_qif)
EIF = neuron_leaf(neuron.EIFNode, "tau delta_T theta_rh v_rest", {"v": "v"}, _build_eif)
IZHIKEVICH = neuron_leaf(
    neuron.IzhikevichNode,
    "tau v_c a0 v_rest w_rest tau_w a b",
    {"v": "v", "w": "a"},
    _build_izhikevich,
    starts_at_zero=lambda module: not module.v_reset and not module.w_rest,
)
LEAVES = {leaf.kind: leaf for leaf in (IF, HALF_THRESHOLD, LIF, PLIF, CUBA_LIF, QIF, EIF, IZHIKEVICH)}
