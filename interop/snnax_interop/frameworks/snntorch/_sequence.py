"""LeakyParallel, StateLeaky and LinearLeaky: layers that take a whole sequence, time first."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import snntorch
import torch
from jaxtyping import Array

from snnax import snn

from ...converters.base import ModuleCall
from ...converters.context import ConversionContext
from ...converters.neuron import NeuronConverter
from ...converters.sequence import SequenceCall, SequenceConverter, SequencePart
from ..pytorch import LAYERS
from ._neuron import check_parameter
from ._quantiser import quantiser_of
from ._step import leaky_parallel_step, state_leaky_step
from ._surrogates import surrogate_of


class ExponentialTimeConstant(snn.AbstractDecay):
    """The decay `exp(-1 / tau)` of a time constant in time steps."""

    tau: Array

    @property
    def factor(self) -> Array:
        return jnp.exp(-1 / self.tau)


# LeakyParallel


def _build_leaky_parallel(module: Any, context: ConversionContext) -> snn.LeakyParallel:
    rnn = module.rnn
    hidden = context.with_shape(rnn.hidden_size)
    for name in ("threshold", "graded_spikes_factor"):
        check_parameter(module, name, hidden)
    graded = context.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any())
    firing = snn.Firing(
        hidden.neuron_parameter("threshold"),
        "none",
        amplitude=hidden.neuron_parameter("graded_spikes_factor") if graded else None,
        surrogate=surrogate_of(module, context),
    )
    layer = eqx.filter_eval_shape(
        lambda: snn.LeakyParallel(rnn.input_size, rnn.hidden_size, use_bias=rnn.bias, key=jax.random.key(0))
    )
    arrays = [context.parameter("rnn.weight_ih_l0"), context.parameter("rnn.weight_hh_l0"), firing]
    layer = eqx.tree_at(lambda layer: [layer.weight_ih, layer.weight_hh, layer.firing], layer, arrays)
    if not rnn.bias:
        return layer
    biases = [context.parameter("rnn.bias_ih_l0"), context.parameter("rnn.bias_hh_l0")]
    return eqx.tree_at(lambda layer: [layer.bias, layer.bias_hh], layer, biases, is_leaf=lambda x: x is None)


def _split_leaky_parallel(module: Any, call: ModuleCall) -> SequenceCall:
    x = call.argument()
    hidden, _ = module.rnn(x)
    part = SequencePart(converter=_LEAKY_PARALLEL_STEP, module=module, outs=call.result, states=(hidden,))
    return SequenceCall(x=x, parts=(part,), results=((call.result, None),))


_LEAKY_PARALLEL_STEP = NeuronConverter(
    kind=snntorch.LeakyParallel,
    framework="snntorch",
    options=(),
    build=_build_leaky_parallel,
    fields=("v",),
    run=leaky_parallel_step,
)
LEAKY_PARALLEL = SequenceConverter(
    kind=snntorch.LeakyParallel,
    framework="snntorch",
    options=(
        "input_size", "hidden_size", "beta", "bias", "threshold", "dropout", "spike_grad", "surrogate_disable",
        "learn_beta", "learn_threshold", "graded_spikes_factor", "learn_graded_spikes_factor", "weight_hh_enable",
        "device", "dtype",
    ),
    split_sequence=_split_leaky_parallel,
)  # fmt: skip


# StateLeaky and LinearLeaky


def _build_state_leaky(module: Any, context: ConversionContext) -> snn.LIF | snn.LI:
    if module.kernel_truncation_steps is not None:
        raise context.refuse(
            "kernel_truncation_steps", module.kernel_truncation_steps, allowed="None",
            advice="A membrane that forgets all at once after so many steps is no leaky neuron",
        )  # fmt: skip
    shape = context.x_shape
    check_parameter(module, "tau", context)
    decay = ExponentialTimeConstant(context.neuron_parameter("tau"))
    if not module.output:
        if module.state_quant:
            raise context.refuse(
                "state_quant", module.state_quant, allowed="False with output=False",
                advice="Set output=True and take the membrane",
            )  # fmt: skip
        return snn.LI(shape, decay)
    if context.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any()):
        raise context.refuse(
            "graded_spikes_factor", module.graded_spikes_factor.tolist(), allowed="1, not learned",
            advice="snnTorch 1.0 multiplies by it twice; multiply the spikes in forward instead",
        )  # fmt: skip
    if module.state_quant:
        raise context.refuse(
            "state_quant", module.state_quant, allowed="False",
            advice="snnTorch quantises the recorded membrane and not the one that it goes on with",
        )  # fmt: skip
    check_parameter(module, "threshold", context)
    return snn.LIF(
        shape,
        decay,
        context.neuron_parameter("threshold"),
        "none",
        surrogate=surrogate_of(module, context),
        quantise=quantiser_of(module, context),
    )


def _split_state_leaky(module: Any, call: ModuleCall) -> SequenceCall:
    return _state_leaky_call(module, call)


def _split_linear_leaky(module: Any, call: ModuleCall) -> SequenceCall:
    outs = module.linear(call.argument())
    linear = SequencePart(converter=LAYERS[torch.nn.Linear], module=module.linear, name="linear", outs=outs)
    return _state_leaky_call(module, call, linear)


def _state_leaky_call(module: Any, call: ModuleCall, *before: SequencePart) -> SequenceCall:
    outs, membranes = call.result if module.output else (call.result, call.result)
    results = ((outs, None), (membranes, 0)) if module.output else ((outs, None),)
    converter = _STEPS[type(module), bool(module.output)]
    # Two tensors for two roles: what is returned, and what the layer goes on with.
    step = SequencePart(converter=converter, module=module, outs=outs, states=(membranes.clone(),))
    return SequenceCall(x=call.argument(), parts=(*before, step), results=results)


def _decay_is_not_beta(module: Any) -> str:
    return "the membrane decays by exp(-1 / tau), which is exp(-(1 - beta)) and not beta, as in snnTorch"


_STEPS = {
    (kind, output): NeuronConverter(
        kind=kind,
        framework="snntorch",
        options=(),
        build=_build_state_leaky,
        fields=("v",),
        spikes=output,
        caveat=_decay_is_not_beta,
        run=state_leaky_step,
    )
    for kind in (snntorch.StateLeaky, snntorch.LinearLeaky)
    for output in (False, True)
}
_STATE_OPTIONS = (
    "beta", "threshold", "spike_grad", "surrogate_disable", "learn_beta", "learn_threshold", "state_quant", "output",
    "graded_spikes_factor", "learn_graded_spikes_factor", "kernel_truncation_steps",
)  # fmt: skip
STATE_LEAKY = SequenceConverter(
    kind=snntorch.StateLeaky,
    framework="snntorch",
    options=(*_STATE_OPTIONS, "channels"),
    split_sequence=_split_state_leaky,
)
LINEAR_LEAKY = SequenceConverter(
    kind=snntorch.LinearLeaky,
    framework="snntorch",
    options=(*_STATE_OPTIONS, "in_features", "out_features", "bias", "device", "dtype"),
    split_sequence=_split_linear_leaky,
)
