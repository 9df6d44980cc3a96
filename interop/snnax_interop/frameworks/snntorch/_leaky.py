"""Leaky, Synaptic, Alpha and Lapicque: neurons without weights."""

from typing import Any

import snntorch
import torch

from snnax import snn

from ...converters.context import Site
from ._neuron import check_parameter, decay, delay_options, firing_options, neuron_leaf, reset_of


def _build_leaky(module: Any, site: Site) -> snn.LIF:
    return snn.LIF(
        site.x_shape,
        decay(LEAKY, module, "beta", site),
        site.neuron_parameter("threshold"),
        reset_of(LEAKY, module, site.path),
        **delay_options(module),
        **firing_options(LEAKY, module, site),
    )


def _build_synaptic(module: Any, site: Site) -> snn.LIF:
    return snn.LIF(
        site.x_shape,
        [decay(SYNAPTIC, module, "beta", site), decay(SYNAPTIC, module, "alpha", site)],
        site.neuron_parameter("threshold"),
        reset_of(SYNAPTIC, module, site.path),
        keep_input=False,
        **delay_options(module),
        **firing_options(SYNAPTIC, module, site),
    )


def _build_alpha(module: Any, site: Site) -> snn.Alpha:
    return snn.Alpha(
        site.x_shape,
        decay(ALPHA, module, "alpha", site),
        decay(ALPHA, module, "beta", site),
        site.neuron_parameter("threshold"),
        reset_of(ALPHA, module, site.path),
        **firing_options(ALPHA, module, site),
    )


def _build_lapicque(module: Any, site: Site) -> snn.Lapicque:
    if site.learns("beta"):
        raise LAPICQUE.refuse(
            site.path, "learn_beta", True, allowed="False",
            advice="snnTorch computes C from beta once, at construction, so training never reaches the membrane",
        )  # fmt: skip
    for name in ("R", "C"):
        check_parameter(LAPICQUE, module, name, site)
    return snn.Lapicque(
        site.x_shape,
        site.neuron_parameter("R"),
        site.neuron_parameter("C"),
        site.neuron_parameter("threshold"),
        reset_of(LAPICQUE, module, site.path),
        dt=float(module.time_step),
        reset_delay=True,
        keep_input=False,
        **firing_options(LAPICQUE, module, site),
    )


def _beta_of_lapicque(module: Any) -> str:
    """Its decay is `1 - dt / (R C)`, which is no exponential. Who gives R and C asks for no beta."""
    derived = torch.exp(torch.ones(1) * (-module.time_step / (module.R * module.C)).cpu())
    if torch.equal(module.beta.detach().cpu().float(), derived.float()):
        return ""
    return "the membrane decays by 1 - time_step / (R C), and not by beta, as in snnTorch"


LEAKY = neuron_leaf(
    snntorch.Leaky,
    "beta learn_beta graded_spikes_factor learn_graded_spikes_factor reset_delay",
    {"mem": "v"},
    _build_leaky,
)
SYNAPTIC = neuron_leaf(
    snntorch.Synaptic, "alpha beta learn_alpha learn_beta reset_delay", {"syn": "i", "mem": "v"}, _build_synaptic
)
ALPHA = neuron_leaf(
    snntorch.Alpha,
    "alpha beta learn_alpha learn_beta",
    {"syn_exc": "i_exc", "syn_inh": "i_inh", "mem": "v"},
    _build_alpha,
)
LAPICQUE = neuron_leaf(
    snntorch.Lapicque, "beta R C time_step learn_beta", {"mem": "v"}, _build_lapicque, remark=_beta_of_lapicque
)
