"""The values of a program outside of its loops."""

import abc
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from ..errors import LengthError, RecordingError
from ..ir.regions import Call, Constant, Value, values_in
from ..ir.sizes import Size
from ..loops.body import is_same, outputs_of
from ..loops.run import Runs
from ..ops import base_name, bind, op_name
from ..trace.tape import Entry, Ref, refs
from .entries import CallInRuns
from .sizing import Sizing


class AbstractLoopValues(abc.ABC):
    """What loops hand on."""

    @abc.abstractmethod
    def at_step(self, ref: Ref, other: Ref) -> Value:
        """A value at one time step of a loop before, outside."""

    @abc.abstractmethod
    def is_series(self, items: Sequence[Any], before: int) -> bool:
        """Whether a list holds values of successive time steps of loops before the one of this number."""

    @abc.abstractmethod
    def sequence(self, items: Sequence[Ref], other: Sequence[Ref]) -> Value:
        """A list of values over time as one value, with time as its first axis."""


class Surroundings:
    """Values of outside by their place on the given tape, with `items`: the calls and loops that make them, in order.

    Parameters and constants are defined where they are first read.
    """

    loops: AbstractLoopValues

    def __init__(self, runs: Runs, keys: Collection[str]):
        self.runs = runs
        self.keys = keys
        self.sizing = Sizing(runs)
        self.given, self.other_length = self.sizing.given, self.sizing.other_length
        self.other_batch = self.sizing.other_batch
        self.values: dict[int, Value] = {}
        self.parameters: dict[Value, str] = {}
        self.constants: dict[Value, Constant] = {}
        self.items: list[Any] = []
        self.makers = {ref.index: entry for entry in self.given.entries for ref in entry.made}
        self.other_makers = {ref.index: entry for entry in self.other_length.entries for ref in entry.made}

    def define(self, ref: Ref, other: Ref, name: str = "") -> Value:
        """A new value of outside."""
        self.values[ref.index] = self.new(ref, other, name)
        return self.values[ref.index]

    def new(self, ref: Ref, other: Ref, name: str = "") -> Value:
        """A value with the sizes of one on the tapes."""
        return Value(self.sizing.shape(ref, other), self.given.tensors[ref.index].dtype, name)

    def value(self, ref: Ref, other: Ref) -> Value:
        """A value of outside, defined now where nothing has."""
        if ref.index not in self.values:
            self.values[ref.index] = self.found(ref, other)
        return self.values[ref.index]

    def found(self, ref: Ref, other: Ref) -> Value:
        name = self.given.names.get(ref.index)
        if name is not None and name in self.keys:
            value = self.new(ref, other, name)
            self.parameters[value] = name
            return value
        if ref.index not in self.makers or self.is_constant(ref, other):
            return self.constant(ref, other, name or "")
        if ref.index in self.runs.given.at_steps:
            return self.loops.at_step(ref, other)
        entry = self.makers[ref.index]
        assert op_name(base_name(entry.target)) == "unbind", "a value is read before the call that makes it"
        return self.unbound(ref, other)

    def is_constant(self, ref: Ref, other: Ref) -> bool:
        """Whether a value is the same whatever the inputs and parameters, the length and the batch size are."""
        if ref.index not in self.makers or not self.given.is_constant(ref):
            return False
        first, second = self.given.tensors[ref.index], self.other_length.tensors[other.index]
        return is_same([first, second]) and self.is_of_sample(ref)

    def is_of_sample(self, ref: Ref) -> bool:
        """Whether a constant is the same for every sample of a batch of another size."""
        first, other = self.given.tensors[ref.index].detach(), self.other_batch.tensors[ref.index].detach()
        if first.ndim != other.ndim:
            return False
        sample = first
        for axis, size in enumerate(other.shape):
            sample = sample if sample.shape[axis] == size else sample.narrow(axis, 0, 1)
        return all(bool(((each == sample) | (each.isnan() & sample.isnan())).all()) for each in (first, other))

    def constant(self, ref: Ref, other: Ref, name: str) -> Value:
        value = self.new(ref, other, name)
        tensor = self.given.tensors[ref.index].detach()
        if not is_same([tensor, self.other_length.tensors[other.index]]):
            raise LengthError("a tensor that forward does not compute has other values at another length")
        if not self.is_of_sample(ref):
            raise RecordingError(
                f"a constant {tuple(tensor.shape)} has another value for each sample of the batch, or for another "
                "batch size. Allowed: constants without batch axis, or equal along it. Pass it as an input"
            )
        axis = value.batch_axis
        if axis is not None:
            tensor = tensor.narrow(axis, 0, 1)
        self.constants[value] = Constant(tensor, ref.index)
        return value

    def unbound(self, ref: Ref, other: Ref) -> Value:
        """One part of a sequence that was cut along an axis, at any length."""
        entry, other_entry = self.makers[ref.index], self.other_makers[other.index]
        parts, others = outputs_of(entry), outputs_of(other_entry)
        place = self.sizing.place(parts.index(ref), others.index(other), (len(parts), len(others)))
        base, other_base = refs(entry.args)[0], refs(other_entry.args)[0]
        dim = {**dict(zip(("input", "dim"), entry.args, strict=False)), **entry.kwargs}.get("dim", 0)
        call = self.synthetic(
            torch.select, (self.value(base, other_base), dim, place), self.sizing.shape(ref, other), like=entry
        )
        return call

    def synthetic(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        shape: tuple[Size, ...],
        *,
        like: Entry | None = None,
    ) -> Value:
        """The result of a call that no run has made, which is added outside of the loops."""
        value = Value(shape, values_in(args)[0].dtype)
        line, no_grad = ("", False) if like is None else (like.line, like.no_grad)
        op, arguments = bind(function, args, {})
        self.items.append(Call(op, function, args, {}, arguments, (value,), line=line, no_grad=no_grad))
        return value

    def is_folded_away(self, entries: CallInRuns) -> bool:
        """Whether all that a call makes is constant."""
        made = entries.results()
        return entries.given.converter is None and all(self.is_constant(ref, other) for ref, other in made)

    def entries(self, index: int) -> CallInRuns:
        """A call outside of all loops, in all runs."""
        runs = self.runs
        place = index
        if runs.other_length is not None:
            # As many calls before the end, or after the loop before it.
            for given, other in zip(runs.given.loops, runs.other_length.loops, strict=True):
                if given.stop <= index:
                    place = index - given.stop + other.stop
        tapes = (self.given, self.other_batch, self.other_length)
        return CallInRuns(*(tape.entries[at] for tape, at in zip(tapes, (index, index, place), strict=True)))
