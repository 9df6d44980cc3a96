"""Where time runs on a tape: loops of equal time steps, one after the other.

Python's own bytecode says where an iteration of a loop begins: a call that comes before the last one in the same
activation of a function was reached by a jump back. Calls that repeat, from jump to jump, are time steps. A stretch
that steps neurons without repeating, such as the first step of a loop that does something else, is a loop of one
step.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np

from ..ir.refusal import Refusal, attempt
from ..trace.bytecode import loops
from ..trace.tape import Entry, Frame, Tape


@dataclasses.dataclass(frozen=True)
class TapeLoop:
    """Entries `start + t * period + position` of a tape, for `count` time steps `t`."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count

    def index(self, step: int, position: int) -> int:
        return self.start + step * self.period + position


Check = Callable[[TapeLoop], object]


@dataclasses.dataclass(frozen=True)
class _Calls:
    """The calls of a tape: which are alike, which step a neuron, and where Python jumped back before a call.

    The `levels` of these places order the loops whose iteration starts there: smaller is further out.
    """

    entries: list[Entry]
    codes: np.ndarray
    neurons: np.ndarray
    levels: dict[int, tuple[int, int]]

    @staticmethod
    def of(entries: list[Entry]) -> "_Calls":
        numbers: dict[Any, int] = {}
        codes = [numbers.setdefault(entry.signature, len(numbers)) for entry in entries]
        levels = {0: (0, 0), len(entries): _NO_LOOP}
        for index, (before, after) in enumerate(itertools.pairwise(entries), 1):
            level = _jump(before.place.frames, after.place.frames)
            if level is not None:
                levels[index] = level
        neurons = np.array([entry.is_neuron for entry in entries], dtype=bool)
        return _Calls(entries, np.array(codes, dtype=np.int64), neurons, levels)

    def steps_neurons(self, start: int, stop: int) -> bool:
        return bool(self.neurons[start:stop].any())


def find_loops(tape: Tape, check: Check, check_without_neurons: Callable[[list[TapeLoop]], Check]) -> list[TapeLoop]:
    """The loops of a tape in order, those of neurons and those that only compute.

    `check` raises `RecordingError` for equal calls that are no time steps. Where nothing in a stretch of a tape passes
    that steps neurons, that is the answer. Segments that step no neuron are as optional as their loops: calls that
    `check_without_neurons(loops)` refuses are taken one by one.
    """
    calls = _Calls.of(tape.entries)
    found = list(_stepping(calls, 0, len(tape.entries), check))
    check_others = check_without_neurons(found)
    edges = [0, *(edge for each in found for edge in (each.start, each.stop)), len(tape.entries)]
    for start, stop in list(zip(edges[::2], edges[1::2], strict=True)):
        found += _without_neurons(calls, start, stop, check_others)
    return sorted(found, key=lambda each: each.start)


def _stepping(calls: _Calls, start: int, stop: int, check: Check) -> Iterator[TapeLoop]:
    """The loops between two calls that step neurons."""
    if not calls.steps_neurons(start, stop):
        return
    refusal: Refusal | None = None
    for loop in _repetitions(calls, start, stop):
        if not calls.steps_neurons(loop.start, loop.stop):
            continue
        found = attempt(check, loop)
        if isinstance(found, Refusal):
            refusal = refusal or found
            continue
        yield from _stepping(calls, start, loop.start, check)
        yield loop
        yield from _stepping(calls, loop.stop, stop, check)
        return
    if refusal is not None:
        raise refusal.error
    yield from _single_steps(calls, start, stop)


def _single_steps(calls: _Calls, start: int, stop: int) -> Iterator[TapeLoop]:
    """A stretch without repetition, cut where a neuron is called again."""
    seen: set[str] = set()
    first = last = None
    for index in range(start, stop):
        entry = calls.entries[index]
        if not entry.is_neuron:
            continue
        if first is not None and last is not None and entry.path in seen:
            yield TapeLoop(first, last + 1 - first, 1)
            first, seen = last + 1, set()
        first = index if first is None else first
        last = index
        seen.add(entry.path)
    if first is not None and last is not None:
        yield TapeLoop(first, last + 1 - first, 1)


def _without_neurons(calls: _Calls, start: int, stop: int, check: Check) -> list[TapeLoop]:
    """The loops between two calls that step no neuron."""
    for loop in _repetitions(calls, start, stop):
        if isinstance(attempt(check, loop), Refusal):
            continue  # calls that repeat need not be time steps; one by one they are what they are
        before = _without_neurons(calls, start, loop.start, check)
        return [*before, loop, *_without_neurons(calls, loop.stop, stop, check)]
    return []


_MOST_ATTEMPTS = 16


def _repetitions(calls: _Calls, low: int, high: int) -> list[TapeLoop]:
    """Calls that repeat: those of neurons first, the longest, of the shortest period."""
    codes = calls.codes[low:high]
    found = []
    for period in _gaps(codes):
        for start, stop in _runs(codes[:-period] == codes[period:]):
            loop = _aligned(calls, low + start, stop - start + period, period)
            if loop is not None:
                no_neurons = not calls.steps_neurons(loop.start, loop.stop)
                found.append(((no_neurons, loop.start - loop.stop, period, loop.start), loop))
    return [loop for _, loop in sorted(found, key=lambda each: each[0])[:_MOST_ATTEMPTS]]


def _aligned(calls: _Calls, start: int, covered: int, period: int) -> TapeLoop | None:
    """The whole iterations in a stretch of calls that repeat.

    They begin where the outermost loop does, and end where Python jumps: a last one that goes on is another iteration.
    """
    offsets = sorted(range(covered % period + 1), key=lambda each: calls.levels.get(start + each, _NOWHERE))
    starts = [offset for offset in offsets if start + offset in calls.levels] or offsets[:1]
    for first in (start + offset for offset in starts):
        count = covered // period
        while count > 1 and first + count * period not in calls.levels:
            count -= 1
        if count > 1:
            return TapeLoop(first, period, count)
    return None


def _gaps(codes: np.ndarray) -> list[int]:
    """Distances between neighbouring calls of the same kind: the periods that a loop can have."""
    gaps: dict[int, None] = {}
    places: dict[int, list[int]] = {}
    for index, code in enumerate(codes.tolist()):
        places.setdefault(code, []).append(index)
    for each in places.values():
        gaps |= dict.fromkeys(b - a for a, b in itertools.pairwise(each))
        # A body that calls the same thing twice shows its period only as the sum of neighbouring gaps.
        gaps |= dict.fromkeys(place - each[0] for place in each[1:33])
    return sorted(gaps)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


# Jumps


_NO_LOOP = (1 << 30, 0)
_NOWHERE = (1 << 31, 0)


def _jump(before: tuple[Frame, ...], after: tuple[Frame, ...]) -> tuple[int, int] | None:
    """The level at which Python went back, into a loop or out of one between two calls; None if it went straight on."""
    depth = next((depth for depth, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    if depth is None:
        # The same instruction twice, or a call made by the instruction that made one.
        return _level(before, len(before) - 1) if len(before) == len(after) else None
    a, b = before[depth], after[depth]
    if a.activation != b.activation:  # one instruction called two functions
        return _level(before, depth - 1)
    if a.activation == b.activation and b.offset < a.offset:
        both = [loop for loop in _around(a) if loop in _around(b)]
        return (depth, both[-1][0] - both[-1][1] if both else 0)
    left = [loop for loop in _around(a) if loop not in _around(b)]
    left += [loop for frame in before[depth + 1 :] for loop in _around(frame)]
    for deeper, frame in enumerate(after[depth:], depth):
        entered = [loop for loop in _around(frame) if deeper > depth or loop not in _around(a)]
        if entered:
            start, stop = entered[0]
            return (deeper, start - stop)
    return _NO_LOOP if left else None


def _around(frame: Frame) -> list[tuple[int, int]]:
    """The loops around an instruction, the innermost last."""
    return _loops_around(frame.code, frame.offset)


@functools.lru_cache(maxsize=4096)
def _loops_around(code: CodeType, offset: int) -> list[tuple[int, int]]:
    return [loop for loop in loops(code) if loop[0] <= offset <= loop[1]]


def _level(frames: tuple[Frame, ...], depth: int) -> tuple[int, int]:
    """The innermost loop around an instruction."""
    if depth < 0:
        return (-1, 0)
    frame = frames[depth]
    around = _around(frame)
    return (depth, around[-1][0] - around[-1][1] if around else 0)
