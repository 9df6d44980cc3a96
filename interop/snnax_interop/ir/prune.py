"""A program without what nothing needs."""

import dataclasses

from .program import Program
from .regions import Carried, Item, Loop, Operand, Value, values_in


def prune(program: Program) -> Program:
    """The program without calls, operands, parameters and constants that no output depends on.

    Neurons stay, since their spikes and states can be asked for, and so do other modules that are called at every time
    step, which may keep statistics.
    """
    wanted = set(values_in(program.outputs))
    kept: list[Item] = []
    for item in reversed(program.body):
        if isinstance(item, Loop):
            loop = _pruned(item, wanted)
            kept.append(loop)
            wanted.update(loop.reads)
        elif any(value in wanted for value in item.made):
            kept.append(item)
            wanted.update(item.reads)
    return dataclasses.replace(
        program,
        body=tuple(reversed(kept)),
        parameters={value: key for value, key in program.parameters.items() if value in wanted},
        constants={value: each for value, each in program.constants.items() if value in wanted},
    )


def _pruned(loop: Loop, wanted: set[Value]) -> Loop:
    """A loop without what is read neither behind it nor in a later step."""
    finals = {outer: inner for outer, inner in loop.finals.items() if outer in wanted}
    emitted = {outer: inner for outer, inner in loop.emitted.items() if outer in wanted}
    needed = {*finals.values(), *emitted.values()}
    needed |= {value for call in loop.body if call.converter is not None for value in (*call.made, *call.reads)}
    before = -1
    while before != len(needed):
        before = len(needed)
        for call in reversed(loop.body):
            if any(value in needed for value in call.made):
                needed.update(call.reads)
        needed |= {
            operand.update
            for value, operand in loop.operands.items()
            if value in needed and isinstance(operand, Carried)
        }
    body = tuple(call for call in loop.body if any(value in needed for value in call.made))
    operands: dict[Value, Operand] = {value: each for value, each in loop.operands.items() if value in needed}
    return dataclasses.replace(loop, operands=operands, body=body, finals=finals, emitted=emitted)
