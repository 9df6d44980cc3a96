"""What all step neurons of snnTorch have in common: their calls, their resets, their shared options."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import snntorch
import torch

from snnax import snn

from ...converters.base import ModuleCall
from ...converters.context import ConversionContext, neuron_shape
from ...converters.neuron import Memory, NeuronCall, NeuronConverter
from ...errors import RecordingError
from ._quantiser import quantiser_of
from ._step import step_of
from ._surrogates import surrogate_of


# The arguments that all of them take.
SHARED_OPTIONS = (
    "threshold",
    "spike_grad",
    "surrogate_disable",
    "init_hidden",
    "inhibition",
    "learn_threshold",
    "reset_mechanism",
    "state_quant",
    "output",
)

# The attributes that hold states, and the fields of the native state that they are.
Attributes = Mapping[str, str]

# Bound methods that compute the reset; the `reset_mechanism` attributes may say something else than is computed.
_RESETS: dict[str, Literal["subtract", "zero", "none"]] = {
    "_base_sub": "subtract",
    "_base_zero": "zero",
    "_base_int": "none",
}


def neuron_converter(
    kind: type,
    options: str,
    attributes: Attributes,
    build: Callable[[Any, ConversionContext], Any],
    shape: Callable[[Any, torch.Size], tuple[int, ...]] = lambda module, shape: tuple(shape),
    needed: Callable[[Any, torch.Size], tuple[int, ...]] | None = None,
    caveat: Callable[[Any], str] = lambda module: "",
) -> NeuronConverter:
    """The converter of a neuron that is called once per time step.

    **Arguments:** `options`: names of constructor arguments beside the shared ones; `attributes`: in the order of the
    arguments of `forward`; `shape`: of the states, from the module and the input's shape; `needed`: which shape given
    states must have to be taken, where that is another one.
    """
    names = tuple(attributes)

    def read(module: Any) -> tuple[torch.Tensor, ...]:
        return tuple(getattr(module, name) for name in names)

    def reset(module: Any) -> None:
        for name in names:
            setattr(module, name, torch.zeros(0))

    def split(module: Any, call: ModuleCall) -> NeuronCall:
        given = call.arguments("input_", *names)
        x = given["input_"]
        kept = zip(names, call.kept, strict=True)
        state = [before if given.get(name) is None else given[name] for name, before in kept]
        # snnTorch starts from zeros, silently, wherever the shapes differ.
        wanted = (shape if needed is None else needed)(module, x.shape)
        taken = [tuple(each.shape) == wanted for each in state]
        if any(taken) and not all(taken):
            raise RecordingError(
                f"{kind.__name__} is given states of the shapes {[tuple(each.shape) for each in state]} for an input "
                f"of shape {tuple(x.shape)}; snnTorch would replace some of them by zeros. Allowed: all of shape "
                f"{wanted}, or all from reset_mem()",
                framework="snntorch",
            )
        out = call.result[0] if isinstance(call.result, tuple) else call.result
        return NeuronCall(x=x, state_in=tuple(state) if all(taken) else None, out=out, state_out=read(module))

    return NeuronConverter(
        kind=kind,
        framework="snntorch",
        options=(*SHARED_OPTIONS, *options.split()),
        build=build,
        fields=tuple(attributes.values()),
        split_call=split,
        memory=Memory(read=read, reset=reset, instances=lambda: snntorch.SpikingNeuron.instances),
        caveat=caveat,
        run=step_of(names),
    )


def reset_of(module: Any, context: ConversionContext) -> Literal["subtract", "zero", "none"]:
    """The reset that a neuron computes.

    **Raises:** `UnsupportedOptionError` where its attributes say another one.
    """
    reset = _RESETS[module.state_function.__name__]
    stored = list(type(module).reset_dict)[int(module.reset_mechanism_val)]
    if module.reset_mechanism != reset or stored != reset:
        raise context.refuse(
            "reset_mechanism",
            stored,
            allowed=f"the mechanism it was built with, {reset!r}",
            advice="snnTorch keeps computing that one after a change; build the neuron anew with the one you want",
        )
    return reset


def firing_options(module: Any, context: ConversionContext, *, inhibits: bool = True) -> dict[str, Any]:
    """The options of `snn.Firing` that all neurons share. `inhibits`: whether the class looks at `inhibition`."""
    delay = getattr(module, "reset_delay", True)
    for name in ("threshold", "graded_spikes_factor"):
        check_parameter(module, name, context)
    graded = context.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any())
    if not delay and bool((module.graded_spikes_factor == 0).any()):
        raise context.refuse(
            "graded_spikes_factor", 0.0, allowed="factors other than 0 with reset_delay=False",
            advice="snnTorch divides by it there",
        )  # fmt: skip
    inhibition = inhibits and bool(module.inhibition)
    if inhibition:
        if len(context.x_shape) != 1:
            raise context.refuse(
                "inhibition", True, allowed="inputs (batch, neurons)", advice="snnTorch itself fails on others"
            )
        if graded and not delay:
            raise context.refuse(
                "inhibition", True, allowed="reset_delay=True where graded_spikes_factor is not 1",
                advice="snnTorch divides ungraded spikes by the factor there",
            )  # fmt: skip
        if module.state_quant and not delay:
            raise context.refuse(
                "state_quant", module.state_quant, allowed="False with inhibition and reset_delay=False",
                advice="Use one of them",
            )  # fmt: skip
    return {
        "winner_take_all": inhibition,
        # snnTorch ignores the factor under inhibition.
        "amplitude": context.neuron_parameter("graded_spikes_factor") if graded and not inhibition else None,
        "surrogate": surrogate_of(module, context),
        "quantise": quantiser_of(module, context),
    }


def delay_options(module: Any) -> dict[str, Any]:
    """The options of `snn.Firing` for when the reset acts."""
    # snnTorch detaches the delayed reset, and lets the gradient through the one that reset_delay=False adds.
    delay = bool(module.reset_delay)
    return {"reset_delay": True if delay else "undone", "detach_reset": delay}


def decay(module: Any, name: str, context: ConversionContext) -> snn.Factor:
    """A decay factor, limited to [0, 1] as `torch.clamp` does it."""
    check_parameter(module, name, context)
    return snn.Factor(context.neuron_parameter(name), constraint="clip")


def check_parameter(module: Any, name: str, context: ConversionContext) -> None:
    """Refuse neuron parameters that snnTorch would broadcast over the batch, or that change the dtype of its states."""
    value = getattr(module, name)
    shape = tuple(value.shape)
    if neuron_shape(value, context.x_shape) is None:
        raise context.refuse(
            name, f"tensor of shape {shape}", allowed=f"a scalar or shapes that broadcast to {context.x_shape}",
            advice="One value per neuron, without a batch axis",
        )  # fmt: skip
    if value.ndim and value.dtype == torch.float64 and context.dtype != torch.float64:
        raise context.refuse(
            name, "a float64 tensor", allowed="float32 in a float32 network",
            advice="It would turn the membrane into float64; cast it",
        )  # fmt: skip
    if not bool(torch.isfinite(value).all()):
        raise context.refuse(name, value.tolist(), allowed="finite numbers", advice="Repair the parameter")
