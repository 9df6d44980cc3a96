"""RLeaky and RSynaptic: neurons that see their own spikes of the time step before."""

import dataclasses
from typing import Any

import snntorch
import torch
from snntorch._neurons import rleaky, rsynaptic

from snnax import snn

from ...converters.context import Site, neuron_shape
from ...converters.leaf import Leaf
from ...nodes.call import Form
from ..pytorch import LEAVES as LAYERS
from ._neuron import decay, delay_options, firing_options, neuron_leaf, reset_of


_OPTIONS = "beta V all_to_all linear_features conv2d_channels kernel_size learn_beta learn_recurrent reset_delay"
_ONE_TO_ONE = (rleaky.RecurrentOneToOne, rsynaptic.RecurrentOneToOne)


def _build_rleaky(module: Any, site: Site) -> snn.Recurrent:
    return _recurrent(RLEAKY, module, site, [decay(RLEAKY, module, "beta", site)])


def _build_rsynaptic(module: Any, site: Site) -> snn.Recurrent:
    if not module.reset_delay:
        raise RSYNAPTIC.refuse(
            site.path, "reset_delay", False, allowed="True",
            advice="snnTorch 1.0 ignores it where states are passed, and raises an error where they are not",
        )  # fmt: skip
    return _recurrent(
        RSYNAPTIC,
        module,
        site,
        [decay(RSYNAPTIC, module, "beta", site), decay(RSYNAPTIC, module, "alpha", site)],
    )


def _recurrent(leaf: Leaf, module: Any, site: Site, decays: list[snn.Factor]) -> snn.Recurrent:
    neuron = snn.LIF(
        site.x_shape,
        decays,
        site.neuron_parameter("threshold"),
        reset_of(leaf, module, site.path),
        keep_input=False,
        **delay_options(module),
        **firing_options(leaf, module, site),
    )
    return snn.Recurrent(neuron, _connection(leaf, module, site))


def _connection(leaf: Leaf, module: Any, site: Site) -> Any:
    """What leads the spikes back to the neurons."""
    inner = module.recurrent
    if type(inner) in _ONE_TO_ONE:
        weight = inner.V
        shape = neuron_shape(weight, site.x_shape)
        if shape is None:
            raise leaf.refuse(
                site.path, "V", f"tensor of shape {tuple(weight.shape)}",
                allowed=f"a scalar or shapes that broadcast to {site.x_shape}", advice="One weight per neuron",
            )  # fmt: skip
        if weight is module.V:
            return snn.OneToOne(site.parameter("V", shape))
        return snn.OneToOne(site.constant("recurrent.V", weight.reshape(shape)))
    if type(inner) not in (torch.nn.Linear, torch.nn.Conv2d):
        raise leaf.refuse(
            site.path, "recurrent", inner, allowed="the Linear, Conv2d or one-to-one connection that it was built with",
            advice="Write another connection in forward, with a neuron that has none",
        )  # fmt: skip
    axis = site.form.in_axes[0]
    place = dataclasses.replace(
        site, path=site.key("recurrent"), module=inner, form=Form(in_axes=(axis,), out_axes=(axis,))
    )
    return LAYERS[type(inner)].build(inner, place)


def _remark(module: Any) -> str:
    weight = getattr(module.recurrent, "V", None)
    if weight is None or weight is module.V or torch.equal(weight, module.V):
        return ""
    return "V was replaced after construction; snnTorch computes with recurrent.V, which is what is converted"


RLEAKY = neuron_leaf(snntorch.RLeaky, _OPTIONS, {"spk": "z", "mem": "v"}, _build_rleaky, remark=_remark)
RSYNAPTIC = neuron_leaf(
    snntorch.RSynaptic,
    f"alpha learn_alpha {_OPTIONS}",
    {"spk": "z", "syn": "i", "mem": "v"},
    _build_rsynaptic,
    remark=_remark,
)
