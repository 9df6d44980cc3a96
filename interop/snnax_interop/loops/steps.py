"""What functions of whole sequences make of one time step."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ..converters.layer import LayerConverter
from ..ir.regions import Call, Carried, Entries, Invariant, Loop, Operand, Value, call_with_values
from ..nodes.dropout import DRAWING
from ..ops import ELEMENTWISE, bind


class StepValues:
    """The values of a time step that sequences behind a loop are made of.

    `between` are the calls behind the loop, `behind` the values that it goes into. `calls` are those on whole sequences
    that have to be made at every step instead; `operands` are the loop's, with those that are added for earlier steps.
    """

    def __init__(self, loop: Loop, between: Sequence[Call], behind: set[Value]):
        self.loop = loop
        self.operands: dict[Value, Operand] = dict(loop.operands)
        self.behind = behind
        self.makers = {value: call for call in between for value in call.made}
        self.found: dict[tuple[Value, int], Value | None] = {}
        self.calls: list[Call] = []

    def of(self, sequence: Value, axis: int) -> Value | None:
        """What a step makes of a sequence along an axis; None where it is no sequence of the loop's steps."""
        if (sequence, axis) not in self.found:
            self.found[sequence, axis] = self._of(sequence, axis)
        return self.found[sequence, axis]

    def _of(self, sequence: Value, axis: int) -> Value | None:
        if sequence in self.loop.emitted:
            return self.loop.emitted[sequence] if axis == 0 else None
        call = self.makers.get(sequence)
        if call is None or call.no_grad or sequence not in self.behind:
            return None
        if call.op == "stack" and call.converter is None:
            return self._stacked(call, sequence, axis)
        if call.op == "cat" and call.converter is None:
            return self._delayed(call) if axis == 0 else None
        if acts_on_steps(call, len(sequence.shape), axis) and sequence.shape[axis] == self.loop.count:
            return self._applied(call, sequence, axis)
        return None

    def _stacked(self, call: Call, sequence: Value, axis: int) -> Value | None:
        entries, dim = call.arguments["tensors"], call.arguments.get("dim", 0)
        if not isinstance(entries, Entries) or dim % len(sequence.shape) != axis:
            return None
        return self.of(entries.value, 0)

    def _delayed(self, call: Call) -> Value | None:
        """What is read so many steps late: values of before the loop, joined with all but the last of a sequence."""
        first, sequence = call.arguments["tensors"][:-1], self.makers.get(call.arguments["tensors"][-1])
        if call.arguments.get("dim", 0) != 0 or sequence is None or sequence.op != "getitem":
            return None
        initials = [self._added(value) for value in first]
        whole = sequence.arguments["index"] in (slice(0, -len(first)), slice(None, -len(first)))
        if not whole or None in initials:
            return None
        value = self.of(sequence.arguments["input"], 0)
        if value is None:
            return None
        for initial in reversed(initials):
            operand = Carried(value, initial)
            value = dataclasses.replace(value)
            self.operands[value] = operand
        return value

    def _added(self, value: Value) -> Value | None:
        """The value of before the loop that is one entry of a sequence."""
        call = self.makers.get(value)
        if call is None or call.op != "unsqueeze" or call.arguments["dim"] != 0:
            return None
        initial = call.arguments["input"]
        return None if initial in self.behind else initial

    def _applied(self, call: Call, sequence: Value, axis: int) -> Value | None:
        """What a call makes of each time step."""
        whole = [value for value in dict.fromkeys(call.reads) if value in self.behind]
        # What else goes into it must have no axis of time.
        rest = [len(value.shape) for value in call.reads if value not in whole]
        if not whole or max(rest, default=0) > len(sequence.shape) - axis - 1:
            return None
        inner: dict[Value, Value] = {}
        for value in whole:
            same = len(value.shape) == len(sequence.shape) and value.shape[axis] == self.loop.count
            step = self.of(value, axis) if same else None
            if step is None:
                return None
            inner[value] = step
        self.calls.append(at_one_step(call, inner, axis))
        return self.calls[-1].results[0]


def invariant(operands: dict[Value, Operand], outer: Value) -> Value:
    """The value inside of a loop that is one of outside, as an operand that is added where there is none."""
    for value, each in operands.items():
        if each == Invariant(outer):
            return value
    value = dataclasses.replace(outer)
    operands[value] = Invariant(outer)
    return value


def with_operands(calls: Sequence[Call], loop: Loop, operands: dict[Value, Operand]) -> list[Call]:
    """Calls that are added to a loop, with operands for what they read of outside."""
    made = {value for call in (*loop.body, *calls) for value in call.made}
    live_ins = [value for call in calls for value in call.reads if value not in made and value not in operands]
    inner = {value: invariant(operands, value) for value in live_ins}
    return [call_with_values(call, inner) for call in calls]


def at_one_step(call: Call, inner: dict[Value, Value], axis: int) -> Call:
    """A call on whole sequences as a call on one time step of them, along an axis."""
    (out,) = call.results
    result = dataclasses.replace(out, shape=(*out.shape[:axis], *out.shape[axis + 1 :]))
    return dataclasses.replace(call_with_values(call, inner), results=(result,))


def acts_on_steps(call: Call, rank: int, axis: int) -> bool:
    """Whether a call does the same to every entry along an axis of its result."""
    if len(call.results) != 1 or not call.is_single or call.is_neuron:
        return False
    acts: Any
    if call.converter is not None:
        acts = call.converter.acts_on if isinstance(call.converter, LayerConverter) else None
    else:
        elementwise = call.op in ELEMENTWISE and call.op not in DRAWING
        acts = "elements" if elementwise else "last axis" if call.op == "linear" else None
    return acts == "elements" or (acts == "last axis" and axis < rank - 1)


def stack_of(emitted: Value, axis: int, result: Value, like: Call) -> Call:
    """The call that stacks what a loop emits along an axis, in the place of a call on the whole sequence."""
    args = (Entries(emitted), axis)
    op, arguments = bind(torch.stack, args, {})
    return Call(op, torch.stack, args, {}, arguments, (result,), path=like.path, line=like.line)
