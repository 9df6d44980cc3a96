"""Converters of neurons: modules with a state that goes on from time step to time step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from .base import Converter, ModuleCall, StepConverter


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronCall:
    """One time step of a neuron: input, state before, output, state after, as tensors.

    `state_in` None is the state that the neuron starts with by itself. `weights` are those of a neuron that multiplies
    its input by weights of its own first.
    """

    x: torch.Tensor
    state_in: tuple[torch.Tensor, ...] | None
    out: torch.Tensor
    state_out: tuple[torch.Tensor, ...]
    weights: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """What a neuron keeps on its module between calls.

    `read` gives it, in the order of the fields of the state, `reset` puts it back to its beginning. `instances` is the
    list that a framework keeps of all its neurons, such as for resetting them.
    """

    read: Callable[[Any], Any]
    reset: Callable[[Any], None] = lambda module: None
    instances: Callable[[], list[Any]] = lambda: []


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepAttributes:
    """The functions of a neuron whose forward is recorded, by the attributes of the module that hold them.

    `step` computes one time step, and `split_call` is given its calls; `start` makes a first state. Behind a call of
    it the neuron starts from its own, where `starts_itself`.
    """

    step: str
    start: str
    starts_itself: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuronConverter(StepConverter):
    """How a neuron is converted.

    - `fields`: of the native state, in the order of the tensors of `NeuronCall`.
    - `run(module, x, state)`: one time step by torch itself, as the output and the state after it. None in the place of
      a field, or of all, is the state that the module starts with.
    - `spikes`: whether the output is a spike train (and not a membrane potential).
    - `starts_at_zero`: whether the state that the module starts with is all zeros.
    - `read_every_call`: the options that the module reads at every call, so that setting them has an effect.
    - `split_call`: a call as a `NeuronCall`; None for what occurs only as a part of a call on a whole sequence.
    - `memory`: None where states are arguments and results alone.
    - `attributes`: None where the module is called once per time step.
    """

    fields: tuple[str, ...]
    run: Callable[[Any, torch.Tensor, Any], tuple[torch.Tensor, tuple[torch.Tensor, ...]]]
    spikes: bool = True
    starts_at_zero: Callable[[Any], bool] = lambda module: True
    read_every_call: tuple[str, ...] = ()
    split_call: Callable[[Any, ModuleCall], NeuronCall] | None = None
    memory: Memory | None = None
    attributes: StepAttributes | None = None

    def split(self, module: Any, call: ModuleCall) -> NeuronCall:
        assert self.split_call is not None
        return self.split_call(module, call)


def neuron_of(converter: Converter | None) -> NeuronConverter | None:
    """The converter of a neuron's time step; None for all else."""
    step = None if converter is None else converter.at_one_step
    return step if isinstance(step, NeuronConverter) else None
