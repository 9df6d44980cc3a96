"""RLeaky and RSynaptic: neurons that see their own spikes of the time step before."""

from typing import Any

import snntorch
import torch
from snntorch._neurons import rleaky, rsynaptic

from snnax import snn

from ...converters.context import ConversionContext, neuron_shape
from ...nodes.call import Form
from ..pytorch import LAYERS
from ._neuron import decay, delay_options, firing_options, neuron_converter, reset_of


_OPTIONS = "beta V all_to_all linear_features conv2d_channels kernel_size learn_beta learn_recurrent reset_delay"
_ONE_TO_ONE = (rleaky.RecurrentOneToOne, rsynaptic.RecurrentOneToOne)


def _build_rleaky(module: Any, context: ConversionContext) -> snn.Recurrent:
    return _recurrent(module, context, [decay(module, "beta", context)])


def _build_rsynaptic(module: Any, context: ConversionContext) -> snn.Recurrent:
    if not module.reset_delay:
        raise context.refuse(
            "reset_delay", False, allowed="True",
            advice="snnTorch 1.0 ignores it where states are passed, and raises an error where they are not",
        )  # fmt: skip
    return _recurrent(
        module,
        context,
        [decay(module, "beta", context), decay(module, "alpha", context)],
    )


def _recurrent(module: Any, context: ConversionContext, decays: list[snn.Factor]) -> snn.Recurrent:
    neuron = snn.LIF(
        context.x_shape,
        decays,
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        keep_input=False,
        **delay_options(module),
        **firing_options(module, context),
    )
    return snn.Recurrent(neuron, _connection(module, context))


def _connection(module: Any, context: ConversionContext) -> Any:
    """What leads the spikes back to the neurons."""
    inner = module.recurrent
    if type(inner) in _ONE_TO_ONE:
        weight = inner.V
        shape = neuron_shape(weight, context.x_shape)
        if shape is None:
            raise context.refuse(
                "V", f"tensor of shape {tuple(weight.shape)}",
                allowed=f"a scalar or shapes that broadcast to {context.x_shape}", advice="One weight per neuron",
            )  # fmt: skip
        if weight is module.V:
            return snn.OneToOne(context.parameter("V", shape))
        return snn.OneToOne(context.constant("recurrent.V", weight.reshape(shape)))
    if type(inner) not in (torch.nn.Linear, torch.nn.Conv2d):
        raise context.refuse(
            "recurrent", inner, allowed="the Linear, Conv2d or one-to-one connection that it was built with",
            advice="Write another connection in forward, with a neuron that has none",
        )  # fmt: skip
    axis, converter = context.batch_axis, LAYERS[type(inner)]
    return converter.build(
        inner, context.within("recurrent", inner, converter, Form(in_axes=(axis,), out_axes=(axis,)))
    )


def _replaced_weight(module: Any) -> str:
    weight = getattr(module.recurrent, "V", None)
    if weight is None or weight is module.V or torch.equal(weight, module.V):
        return ""
    return "V was replaced after construction; snnTorch computes with recurrent.V, which is what is converted"


RLEAKY = neuron_converter(snntorch.RLeaky, _OPTIONS, {"spk": "z", "mem": "v"}, _build_rleaky, caveat=_replaced_weight)
RSYNAPTIC = neuron_converter(
    snntorch.RSynaptic,
    f"alpha learn_alpha {_OPTIONS}",
    {"spk": "z", "syn": "i", "mem": "v"},
    _build_rsynaptic,
    caveat=_replaced_weight,
)
