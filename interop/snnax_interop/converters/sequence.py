"""Converters of layers whose calls may be on a whole sequence, time first."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .base import Converter, ModuleCall, StepConverter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequencePart:
    """What a call on a whole sequence does at every time step: a converter, with all outputs and states.

    `outs` and `states` have time as their first axis, or are lists over time; `name` is the module's name below the
    called one, empty for itself. `state_in` None is the state that a neuron starts with by itself.
    """

    converter: StepConverter
    module: torch.nn.Module
    outs: torch.Tensor | Sequence[torch.Tensor]
    name: str = ""
    states: tuple[torch.Tensor | Sequence[torch.Tensor], ...] = ()
    state_in: tuple[torch.Tensor, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceCall:
    """A call on a whole sequence: its input `(time, ...)`, and the parts that follow each other at every time step.

    `results` are the tensors that the call returns: each the output of the last part, None, or a field of its state.
    """

    x: torch.Tensor
    parts: tuple[SequencePart, ...]
    results: tuple[tuple[torch.Tensor, int | None], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldedCall:
    """A call of a layer on a whole sequence `(time, batch, ...)` whose time is a part of the batch.

    Batch normalisation in training does this: its statistics are of all time steps together.
    """

    x: torch.Tensor
    converter: StepConverter
    result: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConverter(Converter):
    """How a class is converted whose calls may be on a whole sequence.

    - `split_sequence`: what a call does at every time step; None for a call that is on one time step.
    - `step`: the converter of calls on one time step; None where there are none.
    """

    split_sequence: Callable[[Any, ModuleCall], SequenceCall | FoldedCall | None]
    step: StepConverter | None = None

    @property
    def at_one_step(self) -> StepConverter | None:
        return self.step

    def split(self, module: Any, call: ModuleCall) -> Any:
        found = self.split_sequence(module, call)
        if found is not None:
            return found
        assert self.step is not None
        return self.step.split(module, call)
