"""What all neurons of SpikingJelly have in common: their calls in both step modes, their memories, their options."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import torch
from jaxtyping import Array

from snnax import snn

from ...converters.base import ModuleCall, StepConverter
from ...converters.context import ConversionContext
from ...converters.neuron import Memory, NeuronCall, NeuronConverter
from ...converters.sequence import FoldedCall, SequenceCall, SequenceConverter, SequencePart
from ._decay import TimeConstant
from ._memory import read, taken
from ._surrogates import surrogate_of


# The arguments that nearly all of them take.
SHARED_OPTIONS = ("v_threshold", "v_reset", "surrogate_function", "detach_reset", "step_mode", "store_v_seq")

# Those that every call reads; where a memory starts is decided at construction.
_READ_EVERY_CALL = ("v_threshold", "detach_reset", "tau", "decay_input")


def neuron_converter(
    kind: type,
    options: str,
    memories: Mapping[str, str],
    build: Callable[[Any, ConversionContext], Any],
    *,
    shared: tuple[str, ...] = SHARED_OPTIONS,
    spikes: bool = True,
    starts_at_zero: Callable[[Any], bool] = lambda module: not module.v_reset,
    caveat: Callable[[Any], str] = lambda module: "",
    over_time: Callable[[Any], NeuronConverter | None] = lambda module: None,
) -> SequenceConverter:
    """The converter of a neuron with one state for each input.

    **Arguments:** `options`: names of constructor arguments beside the `shared` ones; `memories`: in their order, with
    the fields of the native state that they are; `over_time`: what a module is in step mode 'm', where that is
    something else.
    """
    names = tuple(memories)

    def split(module: Any, call: ModuleCall) -> NeuronCall:
        x = call.argument()
        state_out = tuple(module._memories[name] for name in names)
        return NeuronCall(x=x, state_in=taken(call.kept, x), out=call.result, state_out=state_out)

    def split_sequence(module: Any, call: ModuleCall) -> SequenceCall | None:
        if module.step_mode == "s":
            return None
        xs = call.argument()
        begin = taken(call.kept, xs[0])
        trajectory = _trajectory(module, xs, begin)
        # What the neuron goes on with are its own tensors.
        states = tuple(
            [*(state[number] for state in trajectory[:-1]), module._memories[name]] for number, name in enumerate(names)
        )
        stored = getattr(module, "v_seq", None)
        results = ((call.result, None), *(() if stored is None else ((stored, 0),)))
        converter = over_time(module) or step
        part = SequencePart(converter=converter, module=module, outs=call.result, states=states, state_in=begin)
        return SequenceCall(x=xs, parts=(part,), results=results)

    step = NeuronConverter(
        kind=kind,
        framework="spikingjelly",
        options=(*options.split(), *shared),
        build=build,
        fields=tuple(memories.values()),
        spikes=spikes,
        starts_at_zero=starts_at_zero,
        split_call=split,
        memory=Memory(read=lambda module: read(module, names)),
        caveat=caveat,
        run=_run_step,
        read_every_call=tuple(name for name in _READ_EVERY_CALL if name in (*options.split(), *shared)),
    )
    return in_both_modes(step, split_sequence)


def in_both_modes(
    step: StepConverter, split_sequence: Callable[[Any, ModuleCall], SequenceCall | FoldedCall | None]
) -> SequenceConverter:
    """The converter of a class that steps in step mode 's', and takes a whole sequence in step mode 'm'."""
    return SequenceConverter(
        kind=step.kind,
        framework=step.framework,
        options=step.options,
        may_change=("step_mode",),
        split_sequence=split_sequence,
        step=step,
    )


def _run_step(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """One time step from a given state."""
    states = copy.deepcopy(tuple(module._memories_rv.values()))
    if state is not None:
        states = tuple(own if given is None else given for own, given in zip(states, state, strict=True))
    states = module.materialize_states((x,), states, "s")
    (out, *_), after = module.single_step_functional_forward((x,), states)
    return out, tuple(after)


def _trajectory(module: Any, xs: torch.Tensor, begin: tuple[torch.Tensor, ...] | None) -> list[tuple[Any, ...]]:
    """The memories of a neuron after each time step."""
    first = tuple(module._memories_rv.values()) if begin is None else begin
    states = module.materialize_states((xs,), copy.deepcopy(first) if begin is None else first, "m")
    found = []
    with torch.no_grad():
        for x in xs:
            _, states = module.single_step_functional_forward((x,), states)
            found.append(states)
    return found


# Options


def number(module: Any, name: str, context: ConversionContext) -> Array:
    """A parameter that is one number for all neurons.

    **Raises:** `UnsupportedOptionError` for a tensor in its place.
    """
    value = getattr(module, name)
    if not isinstance(value, int | float):
        raise context.refuse(
            name, value, allowed="a number",
            advice="SpikingJelly itself takes numbers only; write a neuron of its own for one value per neuron",
        )  # fmt: skip
    return context.constant(name, torch.tensor(float(value), dtype=torch.float64))


def time_constant(module: Any, context: ConversionContext, name: str = "tau") -> TimeConstant:
    """The decay of a time constant in time steps."""
    return TimeConstant(number(module, name, context))


def reset_of(module: Any, context: ConversionContext) -> Any:
    """The reset of `snn.Firing`: `v_reset` is None for a subtraction of the threshold."""
    if module.v_reset is None:
        return "subtract"
    return "zero" if module.v_reset == 0 else number(module, "v_reset", context)


def firing_options(module: Any, context: ConversionContext) -> dict[str, Any]:
    """The options of `snn.Firing` that all neurons share."""
    precision = getattr(module, "_neuron_precision", None)
    if precision is not None:
        raise context.refuse(
            "precision", precision, allowed="None",
            advice="Reset the neuron precision: the conversion computes in the dtype of its input",
        )  # fmt: skip
    return {
        "detach_reset": bool(module.detach_reset),
        "spike_at_threshold": True,
        "surrogate": surrogate_of(module, context),
    }


def firing_of(module: Any, context: ConversionContext) -> snn.Firing:
    """Threshold, spike and reset of a neuron."""
    return snn.Firing(
        number(module, "v_threshold", context), reset_of(module, context), **firing_options(module, context)
    )


class StartingAt(snn.AbstractLayer):
    """A neuron whose state starts at other values than its own, such as where its membrane is reset to."""

    neuron: Any
    values: tuple[Array, ...]
    fields: tuple[str, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> Any:
        """The neuron's own state, with the given values in the fields."""
        state = self.neuron.init_state(shape, key=key)

        def of(state: Any) -> list[Any]:
            return [getattr(state, field) for field in self.fields]

        filled = [
            jnp.broadcast_to(value.astype(before.dtype), before.shape)
            for value, before in zip(self.values, of(state), strict=True)
        ]
        return eqx.tree_at(of, state, filled)

    def __call__(self, state: Any, x: Array, *, key: Any = None) -> tuple[Any, Array]:
        return self.neuron(state, x, key=key)


def starting_at(neuron: Any, context: ConversionContext, **starts: tuple[float, float]) -> Any:
    """A neuron with fields that start at a number each; `starts` has that number and the one that is its own."""
    given = {field: start for field, (start, own) in starts.items() if start != own}
    if not given:
        return neuron
    values = tuple(
        context.constant(f"{field}_start", torch.tensor(start, dtype=torch.float64)) for field, start in given.items()
    )
    return StartingAt(neuron, values, tuple(given))
