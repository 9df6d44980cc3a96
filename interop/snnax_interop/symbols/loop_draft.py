"""One time step of a loop, as it is in all runs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from ..errors import LengthError, RecordingError
from ..ir.regions import Call, Carried, Invariant, Loop, Operand, Scanned, Value
from ..ir.sizes import Size
from ..loops import body as rolled
from ..loops.body import BodyValue, is_same
from ..ops import OPS, bind
from ..trace.tape import Ref
from .arguments import AbstractScope, unified_call
from .entries import CallInRuns
from .surroundings import Surroundings


class LoopDraft(AbstractScope):
    """A loop while it grows: what is final or emitted shows only behind it."""

    def __init__(self, surroundings: Surroundings, number: int):
        self.surroundings = surroundings
        self.sizing = surroundings.sizing
        self.number = number
        runs = surroundings.runs
        self.body = runs.given.bodies[number]
        self.body_batch = runs.given.bodies[number] if runs.other_batch is None else runs.other_batch.bodies[number]
        self.other_body = runs.at_other_length.bodies[number]
        self.count = self.sizing.count(number)
        self.operands: dict[Value, Operand] = {}
        self.made: dict[BodyValue, Value] = {}
        self.calls: list[Call] = []
        self.finals: dict[Value, Value] = {}
        self.emitted: dict[Value, Value] = {}
        self.position = 0

    def line(self, value: BodyValue) -> str:
        return self.body.entries[value.position].line

    def loop(self) -> Loop:
        """The finished loop."""
        first = next((entry.line for entry in self.body.entries if entry.line), "")
        return Loop(
            self.count,
            self.operands,
            tuple(self.calls),
            {outer: inner for inner, outer in self.finals.items()},
            {outer: inner for inner, outer in self.emitted.items()},
            first,
        )

    def build(self) -> None:
        """Add all calls of a time step."""
        for position in range(len(self.body.entries)):
            if position in self.body.writes or position in self.body.constants:
                continue  # what is written is emitted, constants are defined where they are read
            if position in self.body.reads:
                self.value(BodyValue(position, 0, False))
            else:
                self.call(position)

    # What the loop hands on

    def final(self, value: BodyValue) -> Value:
        """A value of the last step, outside."""
        inner = self.value(value)
        if inner not in self.finals:
            self.finals[inner] = Value(inner.shape, inner.dtype)
        return self.finals[inner]

    def emit(self, value: BodyValue) -> Value:
        """A value of all steps, stacked, outside."""
        inner = self.value(value)
        if inner not in self.emitted:
            self.emitted[inner] = Value((self.count, *inner.shape), inner.dtype)
        return self.emitted[inner]

    def written_value(self, position: int) -> BodyValue:
        """What a write keeps."""
        argument = self.body.arguments[position][1]
        if not isinstance(argument, rolled.SameStep):
            raise RecordingError(
                f"the loop writes a value that it does not compute\n  {self.body.entries[position].line}\n"
                "Allowed: values of the same step"
            )
        return argument.value

    def written_target(self, position: int) -> tuple[Ref, Ref]:
        """The tensor that a write starts from, as given and at the other length."""
        given, other = (body.arguments[position][0] for body in (self.body, self.other_body))
        if isinstance(given, rolled.LoopCarried) and isinstance(other, rolled.LoopCarried):
            first, other_first = given.initials[0], other.initials[0]
            if isinstance(first, Ref) and isinstance(other_first, Ref):
                return first, other_first
        raise RecordingError(
            f"the loop writes into another tensor at every step\n  {self.body.entries[position].line}\n"
            "Allowed: one tensor that is filled"
        )

    # Values of a step

    def value(self, value: BodyValue) -> Value:
        """A value of the same step."""
        if value not in self.made:
            self.made[value] = self.found(value)
        return self.made[value]

    def found(self, value: BodyValue) -> Value:
        position, body = value.position, self.body
        entry = body.entries[position]
        if position in body.writes:
            raise RecordingError(
                f"the loop reads a tensor that it is filling step by step\n  {entry.line}\n"
                "Allowed: reading it after the loop",
                path=entry.path,
            )
        if position in body.constants:
            return self.constant(value)
        if position in body.reads:
            return self.read(position)
        entries = self.entries(position)
        pairs = entries.states() if value.is_state else entries.results()
        return self.surroundings.new(*pairs[value.item])

    def entries(self, position: int) -> CallInRuns:
        return CallInRuns(*(body.entries[position] for body in (self.body, self.body_batch, self.other_body)))

    def constant(self, value: BodyValue) -> Value:
        """A value that depends on no input and parameter: the same at every step, or a number that follows a rule."""
        surroundings = self.surroundings
        rows = [[step[value.item] for step in body.constants[value.position]] for body in (self.body, self.other_body)]
        tapes = (surroundings.given, surroundings.other_length)
        tensors = [[tape.tensors[ref.index] for ref in row] for tape, row in zip(tapes, rows, strict=True)]
        ref, other = rows[0][-1], rows[1][-1]
        if all(map(is_same, tensors)):
            known = surroundings.is_constant(ref, other)
            return self.live_in(surroundings.value(ref, other)) if known else self.computed(value)
        if not all(bool((tensor == tensor.ravel()[0]).all()) for row in tensors for tensor in row):
            raise RecordingError(
                f"a constant changes from step to step\n  {self.line(value)}\n"
                "Allowed: the same at every step, or numbers. Make a tensor of all of them before the loop, and read "
                "it by index"
            )
        numbers = [[tensor.ravel()[0].item() for tensor in row] for row in tensors]
        result = surroundings.new(ref, other)
        number = self.sizing.steps(*numbers)
        options = {"dtype": result.dtype}
        args = (result.shape, number)
        op, arguments = bind(torch.full, args, options)
        self.calls.append(Call(op, torch.full, args, options, arguments, (result,), line=self.line(value)))
        return result

    def computed(self, value: BodyValue) -> Value:
        """A constant that follows from the length or the batch size: made in every step, as the last one makes it."""
        entries = self.entries(value.position)
        if entries.op not in OPS:
            raise LengthError(
                "a constant of the loop is another one at another length, or for another batch size\n"
                f"  {entries.given.line}"
            )
        call = unified_call(self.surroundings, entries, _OfConstants(self))
        self.calls.append(call)
        self.made |= {BodyValue(value.position, item, False): each for item, each in enumerate(call.results)}
        return call.results[value.item]

    def read(self, position: int) -> Value:
        """A time step of a sequence."""
        (sliced, rest), (other, other_rest) = self.body.reads[position], self.other_body.reads[position]
        entry = self.body.entries[position]
        if rest != other_rest:
            raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
        value = self.operand(sliced, other)
        if rest or entry.no_grad:
            result = self.surroundings.new(*self.entries(position).results()[0])
            args = (value, rest) if rest else (value,)
            function: Callable[..., Any] = torch.Tensor.__getitem__ if rest else torch.clone
            op, arguments = bind(function, args, {})
            self.calls.append(
                Call(op, function, args, {}, arguments, (result,), line=entry.line, no_grad=entry.no_grad)
            )
            return result
        return value

    # Operands

    def argument(self, place: int, ref: Ref, other: Ref) -> Value:
        """The argument of this number of the call at the present position."""
        del ref, other
        arguments = (body.arguments[self.position][place] for body in (self.body, self.other_body))
        return self.operand(*arguments)

    def operand(self, given: Any, other: Any) -> Value:
        """What an argument is, inside of the loop."""
        surroundings = self.surroundings
        if type(given) is not type(other):
            raise RecordingError("a value comes from another place at another length. Allowed: the same at any length")
        if isinstance(given, rolled.SameStep):
            return self.value(given.value)
        if isinstance(given, rolled.LoopCarried):
            return self.carried(given, other)
        if isinstance(given, rolled.Invariant):
            return self.live_in(surroundings.value(given.ref, other.ref))
        if isinstance(given, rolled.Scanned):
            return self.scanned(given, other)
        return self.scan(Scanned(surroundings.loops.sequence(given.refs, other.refs)))

    def live_in(self, value: Value) -> Value:
        """A value of outside."""
        return self.add(Invariant(value), value.shape, value)

    def scanned(self, given: rolled.Scanned, other: rolled.Scanned) -> Value:
        surroundings = self.surroundings
        same = ("axis", "stride", "width")
        if any(getattr(given, name) != getattr(other, name) for name in same):
            raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
        sizes = (
            surroundings.given.shape(given.base)[given.axis],
            surroundings.other_length.shape(other.base)[other.axis],
        )
        start = self.sizing.start((given.start, other.start), sizes, from_end=given.stride < 0)
        sequence = surroundings.value(given.base, other.base)
        if sequence.shape[given.axis].batched:
            raise RecordingError(
                "the loop runs over the samples of the batch. Allowed: a loop over time, on all samples at once"
            )
        return self.scan(Scanned(sequence, given.axis, start, given.stride, given.width))

    def scan(self, operand: Scanned) -> Value:
        before, behind = operand.sequence.shape[: operand.axis], operand.sequence.shape[operand.axis + 1 :]
        kept = () if operand.width is None else (Size(0, operand.width),)
        return self.add(operand, (*before, *kept, *behind), operand.sequence)

    def carried(self, given: rolled.LoopCarried, other: rolled.LoopCarried) -> Value:
        """A value of as many steps ago as there are initial values: of the step before, and so on."""
        if given.value != other.value or len(given.initials) != len(other.initials):
            raise RecordingError("a step reads another value at another length. Allowed: the same at any length")
        value = self.value(given.value)
        for first, other_first in reversed(list(zip(given.initials, other.initials, strict=True))):
            initial = self.surroundings.value(first, other_first) if isinstance(first, Ref) else first
            value = self.add(Carried(value, initial), value.shape, value)
        return value

    def add(self, operand: Operand, shape: tuple[Size, ...], like: Value) -> Value:
        """The operand's value inside of the loop; one for all that are equal."""
        for value, each in self.operands.items():
            if each == operand:
                return value
        value = Value(shape, like.dtype, like.name)
        self.operands[value] = operand
        return value

    # Calls

    def call(self, position: int) -> None:
        self.position = position
        entries = self.entries(position)
        entry = entries.given
        results = [self.value(BodyValue(position, item, False)) for item in range(len(entries.results()))]
        call = unified_call(self.surroundings, entries, self, results)
        if entry.is_neuron:
            states, others = self.body.states[position], self.other_body.states[position]
            call = dataclasses.replace(
                call,
                state_in=None if states is None or others is None else tuple(map(self.state, states, others)),
                state_out=tuple(map(self.value, self.state_values(position))),
            )
        self.calls.append(call)

    def state_values(self, position: int) -> list[BodyValue]:
        """The state of a neuron after a step; a field that is the output as well is the output."""
        entry = self.body.entries[position]
        values = rolled.values_made(entry, position)
        return [values[ref.index] for ref in entry.state_out]

    def state(self, given: Any, other: Any) -> Value | None:
        return None if given is None or other is None else self.operand(given, other)


class _OfConstants(AbstractScope):
    """The calls of a time step that depend on no input: their arguments are other constants."""

    def __init__(self, draft: LoopDraft):
        self.draft = draft
        self.number = draft.number

    def argument(self, place: int, ref: Ref, other: Ref) -> Value:
        del place
        found = self.draft.surroundings.runs.given.at_steps.get(ref.index)
        if found is not None and found.loop == self.number:
            return self.draft.value(found.value)
        return self.live_in(self.draft.surroundings.value(ref, other))

    def live_in(self, value: Value) -> Value:
        return self.draft.live_in(value)
