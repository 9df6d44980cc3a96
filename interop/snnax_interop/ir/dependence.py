"""Which values of a program depend on which."""

from collections.abc import Iterable

from .program import Program
from .regions import Call, Invariant, Loop, Scanned, Value


# Their values do not depend on the tensor that they are given.
_OF_SHAPES = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


def dependents(program: Program, sources: Iterable[Value]) -> set[Value]:
    """The values of a program, those inside of loops too, that `sources` go into."""
    found = set(sources)
    for item in program.body:
        if isinstance(item, Loop):
            _spread(item, found)
        elif _depends(item, found):
            found.update(item.made)
    return found


def _depends(call: Call, found: set[Value]) -> bool:
    of_shape = call.converter is None and call.op in _OF_SHAPES
    return not of_shape and any(value in found for value in call.reads)


def _spread(loop: Loop, found: set[Value]) -> None:
    """Until a step hands on nothing new."""
    before = -1
    while before != len(found):
        before = len(found)
        for value, operand in loop.operands.items():
            if isinstance(operand, Invariant):
                depends = operand.value in found
            elif isinstance(operand, Scanned):
                depends = operand.sequence in found
            else:
                depends = operand.update in found or (isinstance(operand.initial, Value) and operand.initial in found)
            if depends:
                found.add(value)
        for call in loop.body:
            if _depends(call, found):
                found.update(call.made)
    for outer, inner in (*loop.finals.items(), *loop.emitted.items()):
        if inner in found:
            found.add(outer)
