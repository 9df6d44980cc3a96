"""LeakyParallel, StateLeaky and LinearLeaky: layers that take a whole sequence, time first."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import snntorch
import torch
from jaxtyping import Array

from snnax import snn

from ...converters.context import Site
from ...converters.leaf import Leaf, Part, SequenceCall
from ..pytorch import LEAVES as LAYERS
from ._neuron import check_parameter
from ._quantiser import quantiser_of
from ._step import leaky_parallel_step, state_leaky_step
from ._surrogates import surrogate_of


class TimeConstant(snn.AbstractDecay):
    """The decay `exp(-1 / tau)` of a time constant in time steps."""

    tau: Array

    @property
    def factor(self) -> Array:
        return jnp.exp(-1 / self.tau)


# LeakyParallel


def _build_leaky_parallel(module: Any, site: Site) -> snn.LeakyParallel:
    rnn = module.rnn
    hidden = dataclasses.replace(site, x_shape=(rnn.hidden_size,))
    for name in ("threshold", "graded_spikes_factor"):
        check_parameter(LEAKY_PARALLEL, module, name, hidden)
    graded = site.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any())
    firing = snn.Firing(
        hidden.neuron_parameter("threshold"),
        "none",
        amplitude=hidden.neuron_parameter("graded_spikes_factor") if graded else None,
        surrogate=surrogate_of(module, site, LEAKY_PARALLEL),
    )
    layer = eqx.filter_eval_shape(
        lambda: snn.LeakyParallel(rnn.input_size, rnn.hidden_size, use_bias=rnn.bias, key=jax.random.key(0))
    )
    arrays = [site.parameter("rnn.weight_ih_l0"), site.parameter("rnn.weight_hh_l0"), firing]
    layer = eqx.tree_at(lambda layer: [layer.weight_ih, layer.weight_hh, layer.firing], layer, arrays)
    if not rnn.bias:
        return layer
    biases = [site.parameter("rnn.bias_ih_l0"), site.parameter("rnn.bias_hh_l0")]
    return eqx.tree_at(lambda layer: [layer.bias, layer.bias_hh], layer, biases, is_leaf=lambda x: x is None)


def _split_leaky_parallel(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> SequenceCall:
    x = args[0] if args else kwargs["input_"]
    hidden, _ = module.rnn(x)
    return SequenceCall(x, (Part(_LEAKY_PARALLEL_STEP, module, "", result, (hidden,)),), ((result, None),))


_LEAKY_PARALLEL_STEP = Leaf(
    kind=snntorch.LeakyParallel,
    framework="snntorch",
    options=(),
    build=_build_leaky_parallel,
    fields=("v",),
    run=leaky_parallel_step,
)
LEAKY_PARALLEL = dataclasses.replace(
    _LEAKY_PARALLEL_STEP,
    options=(
        "input_size", "hidden_size", "beta", "bias", "threshold", "dropout", "spike_grad", "surrogate_disable",
        "learn_beta", "learn_threshold", "graded_spikes_factor", "learn_graded_spikes_factor", "weight_hh_enable",
        "device", "dtype",
    ),
    split_sequence=_split_leaky_parallel,
    fields=(),
)  # fmt: skip


# StateLeaky and LinearLeaky


def _build_state_leaky(module: Any, site: Site) -> snn.LIF | snn.LI:
    leaf = LEAVES[type(module)]
    if module.kernel_truncation_steps is not None:
        raise leaf.refuse(
            site.path, "kernel_truncation_steps", module.kernel_truncation_steps, allowed="None",
            advice="A membrane that forgets all at once after so many steps is no leaky neuron",
        )  # fmt: skip
    shape = site.x_shape
    check_parameter(leaf, module, "tau", site)
    decay = TimeConstant(site.neuron_parameter("tau"))
    if not module.output:
        if module.state_quant:
            raise leaf.refuse(
                site.path, "state_quant", module.state_quant, allowed="False with output=False",
                advice="Set output=True and take the membrane",
            )  # fmt: skip
        return snn.LI(shape, decay)
    if site.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any()):
        raise leaf.refuse(
            site.path, "graded_spikes_factor", module.graded_spikes_factor.tolist(), allowed="1, not learned",
            advice="snnTorch 1.0 multiplies by it twice; multiply the spikes in forward instead",
        )  # fmt: skip
    if module.state_quant:
        raise leaf.refuse(
            site.path, "state_quant", module.state_quant, allowed="False",
            advice="snnTorch quantises the recorded membrane and not the one that it goes on with",
        )  # fmt: skip
    check_parameter(leaf, module, "threshold", site)
    return snn.LIF(
        shape,
        decay,
        site.neuron_parameter("threshold"),
        "none",
        surrogate=surrogate_of(module, site, leaf),
        quantise=quantiser_of(module, site.path, leaf),
    )


def _split_state_leaky(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> SequenceCall:
    x = args[0] if args else kwargs["input_"]
    return _state_leaky_call(module, x, (), result)


def _split_linear_leaky(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> SequenceCall:
    x = args[0] if args else kwargs["input_"]
    linear = Part(LAYERS[torch.nn.Linear], module.linear, "linear", module.linear(x))
    return _state_leaky_call(module, x, (linear,), result)


def _state_leaky_call(module: Any, x: torch.Tensor, before: tuple[Part, ...], result: Any) -> SequenceCall:
    step = _STEPS[type(module), bool(module.output)]
    outs, membranes = result if module.output else (result, result)
    results = ((outs, None), (membranes, 0)) if module.output else ((outs, None),)
    # Two tensors for two roles: what is returned, and what the layer goes on with.
    return SequenceCall(x, (*before, Part(step, module, "", outs, (membranes.clone(),))), results)


def _remark(module: Any) -> str:
    return "the membrane decays by exp(-1 / tau), which is exp(-(1 - beta)) and not beta, as in snnTorch"


_STEPS = {
    (kind, output): Leaf(
        kind=kind,
        framework="snntorch",
        options=(),
        build=_build_state_leaky,
        fields=("v",),
        spikes=output,
        remark=_remark,
        run=state_leaky_step,
    )
    for kind in (snntorch.StateLeaky, snntorch.LinearLeaky)
    for output in (False, True)
}
_STATE_OPTIONS = (
    "beta", "threshold", "spike_grad", "surrogate_disable", "learn_beta", "learn_threshold", "state_quant", "output",
    "graded_spikes_factor", "learn_graded_spikes_factor", "kernel_truncation_steps",
)  # fmt: skip
STATE_LEAKY = dataclasses.replace(
    _STEPS[snntorch.StateLeaky, True],
    options=(*_STATE_OPTIONS, "channels"),
    split_sequence=_split_state_leaky,
    fields=(),
)
LINEAR_LEAKY = dataclasses.replace(
    _STEPS[snntorch.LinearLeaky, True],
    options=(*_STATE_OPTIONS, "in_features", "out_features", "bias", "device", "dtype"),
    split_sequence=_split_linear_leaky,
    fields=(),
)
LEAVES = {leaf.kind: leaf for leaf in (LEAKY_PARALLEL, STATE_LEAKY, LINEAR_LEAKY)}
