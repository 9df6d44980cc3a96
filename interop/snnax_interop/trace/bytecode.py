"""What CPython's bytecode says of a running function: which instruction it is at, and which loops are around that."""

import bisect
import dis
import functools
from types import CodeType


def instruction(code: CodeType, offset: int) -> int:
    """The offset of the instruction that `f_lasti` means.

    CPython specialises instructions while a function runs, and the same call is then made from the inline cache behind
    an instruction, or (3.11) from the `PRECALL` before it.
    """
    starts, names = _instructions(code)
    place = bisect.bisect_right(starts, offset) - 1
    return starts[place + 1] if names[place] == "PRECALL" else starts[place]


@functools.lru_cache(maxsize=4096)
def _instructions(code: CodeType) -> tuple[list[int], list[str]]:
    found = [(each.offset, each.opname) for each in dis.get_instructions(code)]
    return [offset for offset, _ in found], [name for _, name in found]


@functools.lru_cache(maxsize=4096)
def loops(code: CodeType) -> tuple[tuple[int, int], ...]:
    """The loops of a function as ranges of bytecode offsets, outer ones before those inside of them."""
    ends: dict[int, int] = {}
    for each in dis.get_instructions(code):
        if "BACKWARD" in each.opname and "INTERRUPT" not in each.opname:
            target = int(each.argval)
            ends[target] = max(ends.get(target, 0), each.offset)
    return tuple(sorted(ends.items(), key=lambda loop: loop[0] - loop[1]))
