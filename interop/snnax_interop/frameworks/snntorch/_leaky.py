"""Leaky, Synaptic, Alpha and Lapicque: neurons without weights."""

from typing import Any

import snntorch
import torch

from snnax import snn

from ...converters.context import ConversionContext
from ._neuron import check_parameter, decay, delay_options, firing_options, neuron_converter, reset_of


def _build_leaky(module: Any, context: ConversionContext) -> snn.LIF:
    return snn.LIF(
        context.x_shape,
        decay(module, "beta", context),
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        **delay_options(module),
        **firing_options(module, context),
    )


def _build_synaptic(module: Any, context: ConversionContext) -> snn.LIF:
    return snn.LIF(
        context.x_shape,
        [decay(module, "beta", context), decay(module, "alpha", context)],
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        keep_input=False,
        **delay_options(module),
        **firing_options(module, context),
    )


def _build_alpha(module: Any, context: ConversionContext) -> snn.Alpha:
    return snn.Alpha(
        context.x_shape,
        decay(module, "alpha", context),
        decay(module, "beta", context),
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        **firing_options(module, context),
    )


def _build_lapicque(module: Any, context: ConversionContext) -> snn.Lapicque:
    if context.learns("beta"):
        raise context.refuse(
            "learn_beta", True, allowed="False",
            advice="snnTorch computes C from beta once, at construction, so training never reaches the membrane",
        )  # fmt: skip
    for name in ("R", "C"):
        check_parameter(module, name, context)
    return snn.Lapicque(
        context.x_shape,
        context.neuron_parameter("R"),
        context.neuron_parameter("C"),
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        dt=float(module.time_step),
        reset_delay=True,
        keep_input=False,
        **firing_options(module, context),
    )


def _beta_of_lapicque(module: Any) -> str:
    """Its decay is `1 - dt / (R C)`, which is no exponential. Who gives R and C asks for no beta."""
    derived = torch.exp(torch.ones(1) * (-module.time_step / (module.R * module.C)).cpu())
    if torch.equal(module.beta.detach().cpu().float(), derived.float()):
        return ""
    return "the membrane decays by 1 - time_step / (R C), and not by beta, as in snnTorch"


LEAKY = neuron_converter(
    snntorch.Leaky,
    "beta learn_beta graded_spikes_factor learn_graded_spikes_factor reset_delay",
    {"mem": "v"},
    _build_leaky,
)
SYNAPTIC = neuron_converter(
    snntorch.Synaptic, "alpha beta learn_alpha learn_beta reset_delay", {"syn": "i", "mem": "v"}, _build_synaptic
)
ALPHA = neuron_converter(
    snntorch.Alpha,
    "alpha beta learn_alpha learn_beta",
    {"syn_exc": "i_exc", "syn_inh": "i_inh", "mem": "v"},
    _build_alpha,
)
LAPICQUE = neuron_converter(
    snntorch.Lapicque, "beta R C time_step learn_beta", {"mem": "v"}, _build_lapicque, caveat=_beta_of_lapicque
)
