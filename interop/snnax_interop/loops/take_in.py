"""Layers that are called on whole sequences before or after a loop, as layers of the loop's time step."""

import dataclasses

from ..ir.dependence import dependents
from ..ir.program import Program
from ..ir.regions import Call, Item, Loop, Operand, Scanned, Value, call_with_values, values_in
from ..ir.sizes import Size
from .steps import StepValues, acts_on_steps, at_one_step, invariant, stack_of, with_operands


def take_in_layers(program: Program) -> Program:
    """The program in which each loop has the layers that are called on its whole sequences before and after it."""
    for number in range(len(program.loops)):
        program = _before(program, number)
        program = _after(program, number)
    return program


# Before a loop


def _before(program: Program, number: int) -> Program:
    loop = program.loops[number]
    if loop.count in (Size(0, 0), Size(0, 1)):
        return program
    dependent, parametric = dependents(program, program.inputs), dependents(program, program.parameters)
    operands: dict[Value, Operand] = dict(loop.operands)
    first: list[Call] = []
    replaced: dict[Value, Value] = {}
    for value, operand in loop.operands.items():
        layers = _layers_before(program, loop, operand, dependent, parametric) if isinstance(operand, Scanned) else []
        if not layers:
            continue
        assert isinstance(operand, Scanned)
        del operands[value]
        source = _sequence_of(layers[-1], dependent)
        step = _scanned(operands, dataclasses.replace(operand, sequence=source))
        for call in reversed(layers):
            inner = {_sequence_of(call, dependent): step}
            inner |= {each: invariant(operands, each) for each in call.reads if each not in dependent}
            first.append(at_one_step(call, inner, operand.axis))
            step = first[-1].results[0]
        replaced[value] = step
    if not first:
        return program
    body = (*first, *(call_with_values(call, replaced) for call in loop.body))
    emitted = {outer: replaced.get(inner, inner) for outer, inner in loop.emitted.items()}
    finals = {outer: replaced.get(inner, inner) for outer, inner in loop.finals.items()}
    new = dataclasses.replace(loop, operands=operands, body=body, emitted=emitted, finals=finals)
    return dataclasses.replace(program, body=tuple(new if item is loop else item for item in program.body))


def _scanned(operands: dict[Value, Operand], operand: Scanned) -> Value:
    for value, each in operands.items():
        if each == operand:
            return value
    shape = operand.sequence.shape
    value = dataclasses.replace(operand.sequence, shape=(*shape[: operand.axis], *shape[operand.axis + 1 :]))
    operands[value] = operand
    return value


def _sequence_of(call: Call, dependent: set[Value]) -> Value:
    (value,) = dict.fromkeys(value for value in call.reads if value in dependent)
    return value


def _layers_before(
    program: Program, loop: Loop, operand: Scanned, dependent: set[Value], parametric: set[Value]
) -> list[Call]:
    """The calls that make a sequence out of another of the same steps, from the loop back to a layer."""
    if operand.width is not None:
        return []
    at = program.body.index(loop)
    start = max((place + 1 for place, item in enumerate(program.body[:at]) if isinstance(item, Loop)), default=0)
    makers = {value: item for item in program.body[start:at] if isinstance(item, Call) for value in item.made}
    returned = set(values_in(program.outputs))
    found: list[Call] = []
    value, user, taken = operand.sequence, loop, 0
    while value not in returned and all(each is user for each in _users(program, value)):
        call = makers.get(value)
        if call is None or call.no_grad or not acts_on_steps(call, len(value.shape), operand.axis):
            break
        whole = dict.fromkeys(each for each in call.reads if each in dependent)
        rest = [len(each.shape) for each in call.reads if each not in whole]
        if len(whole) != 1 or max(rest, default=0) > len(value.shape) - operand.axis - 1:
            break
        (source,) = whole
        if len(source.shape) != len(value.shape) or source.shape[operand.axis] != value.shape[operand.axis]:
            break
        found.append(call)
        value, user = source, call
        taken = len(found) if _is_layer(call, parametric, dependent) else taken
    return found[:taken]


def _users(program: Program, value: Value) -> list[Item]:
    return [item for item in program.body if value in item.reads]


def _is_layer(call: Call, parametric: set[Value], sequences: set[Value]) -> bool:
    """Whether a call has parameters, beside the sequences that it is called on."""
    return call.converter is not None or any(value in parametric for value in call.reads if value not in sequences)


# After a loop


def _after(program: Program, number: int) -> Program:
    loop = program.loops[number]
    if loop.count in (Size(0, 0), Size(0, 1)):
        return program
    at = program.body.index(loop)
    stop = next(
        (place for place, item in enumerate(program.body) if place > at and isinstance(item, Loop)), len(program.body)
    )
    following = [item for item in program.body[at + 1 : stop] if isinstance(item, Call)]
    behind, parametric = dependents(program, loop.made), dependents(program, program.parameters)
    steps = StepValues(loop, following, behind)
    emitted = dict(loop.emitted)
    changed: dict[Call, list[Call]] = {}
    for call in following:
        if len(call.results) != 1 or call.no_grad or not _is_layer(call, parametric, behind):
            continue
        (out,) = call.results
        for axis in range(len(out.shape)):
            inner = steps.of(out, axis)
            if inner is not None:
                sequence = dataclasses.replace(inner, shape=(loop.count, *inner.shape))
                emitted[sequence] = inner
                changed[call] = [stack_of(sequence, axis, out, call)]
                break
    if not changed:
        return program
    operands: dict[Value, Operand] = dict(loop.operands)
    body = (*loop.body, *with_operands(steps.calls, loop, operands))
    new = dataclasses.replace(loop, operands=operands, body=body, emitted=emitted)
    items: list[Item] = [*program.body[:at], new]
    for item in program.body[at + 1 :]:
        items += changed.get(item, [item]) if isinstance(item, Call) else [item]
    return dataclasses.replace(program, body=tuple(items))
