"""Loops that are one: those of equal length that follow each other become one loop over the calls of both.

Two loops are one where the second reads no later step of the first than its own: what it scans is what the first emits,
as it stands, stacked, or changed by functions that do the same to every time step.
"""

import dataclasses
from collections.abc import Mapping

from ..ir.dependence import dependents
from ..ir.program import Program
from ..ir.regions import Call, Carried, Loop, Operand, Scanned, Value, call_with_values
from ..ir.sizes import Size
from .steps import StepValues, with_operands


def join_loops(program: Program) -> Program:
    """The program with as few loops as must follow each other."""
    number = 0
    while number + 1 < len(program.loops):
        joined = _join(program, number)
        # A loop that has grown may be one with the loop before it.
        program, number = (program, number + 1) if joined is None else (joined, max(number - 1, 0))
    return program


def _join(program: Program, number: int) -> Program | None:
    """The program in which the loop of this number and the next one are one; None where they are not."""
    first, second = program.loops[number : number + 2]
    if first.count != second.count or first.count in (Size(0, 0), Size(0, 1)) or _neurons(first) & _neurons(second):
        return None
    behind = dependents(program, first.made)
    at, to = program.body.index(first), program.body.index(second)
    between = program.body[at + 1 : to]
    steps = StepValues(first, [item for item in between if isinstance(item, Call)], behind)
    replaced: dict[Value, Value] = {}
    operands = steps.operands
    for value, operand in second.operands.items():
        if not any(each in behind for each in operand.reads):
            operands[value] = operand
            continue
        known = isinstance(operand, Scanned) and (operand.start, operand.stride, operand.width) == (0, 1, None)
        inner = steps.of(operand.sequence, operand.axis) if known else None  # type: ignore[union-attr]
        if inner is None:
            return None
        replaced[value] = inner
    added = with_operands(steps.calls, first, operands)
    body = [*first.body, *added, *(call_with_values(call, replaced) for call in second.body)]
    joined = Loop(
        first.count,
        {value: _with_update(operand, replaced) for value, operand in operands.items()},
        tuple(body),
        {**first.finals, **_replaced(second.finals, replaced)},
        {**first.emitted, **_replaced(second.emitted, replaced)},
        first.line,
    )
    before = [item for item in between if not any(value in behind for value in item.reads)]
    after = [item for item in between if item not in before]
    return dataclasses.replace(program, body=(*program.body[:at], *before, joined, *after, *program.body[to + 1 :]))


def _neurons(loop: Loop) -> set[str]:
    return {call.path for call in loop.body if call.is_neuron}


def _with_update(operand: Operand, replaced: dict[Value, Value]) -> Operand:
    if isinstance(operand, Carried):
        return dataclasses.replace(operand, update=replaced.get(operand.update, operand.update))
    return operand


def _replaced(handed_on: Mapping[Value, Value], replaced: dict[Value, Value]) -> dict[Value, Value]:
    return {outer: replaced.get(inner, inner) for outer, inner in handed_on.items()}
