"""Where time runs on a tape: segments of equal time steps, one after the other.

Python's own bytecode says where an iteration of a loop begins: a call that comes before the last one in the same
activation of a function was reached by a jump back. Between such jumps lie blocks of calls; blocks that repeat are
time steps. A stretch that steps neurons without repeating, such as the first step of a loop that does something else,
is a segment of one step.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .bytecode import loops
from .errors import RecordingError
from .recording import Entry, Frame, Tape


@dataclasses.dataclass(frozen=True)
class Segment:
    """Entries `start + t * period + position` of a tape, for `count` time steps `t`."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count

    def index(self, step: int, position: int) -> int:
        return self.start + step * self.period + position


@dataclasses.dataclass(frozen=True)
class _Block:
    """Calls between two jumps. `level` orders the loops whose iteration starts with it: smaller is further out."""

    start: int
    stop: int
    token: int
    level: tuple[int, int]
    steps_neurons: bool


Check = Callable[[Segment], object]


def find_segments(tape: Tape, check: Check, check_plain: Callable[[list[Segment]], Check]) -> list[Segment]:
    """The segments of a tape in order, those of neurons and those that only compute.

    `check` raises `RecordingError` for equal calls that are no time steps. Where nothing in a stretch of a tape passes
    that steps neurons, that is the answer. Segments that step no neuron are as optional as their loops: calls that
    `check_plain(segments)` refuses are taken one by one.
    """
    blocks = _blocks(tape.entries)
    found = list(_stepping(tape, blocks, 0, len(blocks), check))
    plain = check_plain(found)
    edges = [0, *(edge for each in found for edge in (each.start, each.stop)), len(tape.entries)]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    for start, stop in list(gaps):
        inside = [index for index, block in enumerate(blocks) if start <= block.start and block.stop <= stop]
        if inside:
            found += _plain(blocks, inside[0], inside[-1] + 1, plain)
    return sorted(found, key=lambda each: each.start)


def _stepping(tape: Tape, blocks: list[_Block], low: int, high: int, check: Check) -> Iterator[Segment]:
    """The segments between two blocks that step neurons."""
    if not any(block.steps_neurons for block in blocks[low:high]):
        return
    refusal: RecordingError | None = None
    for first, period, count in _repetitions(blocks, low, high):
        span = blocks[first : first + period * count]
        if not any(block.steps_neurons for block in span):
            continue
        segment = Segment(span[0].start, (span[-1].stop - span[0].start) // count, count)
        try:
            check(segment)
        except RecordingError as error:
            refusal = refusal or error
            continue
        yield from _stepping(tape, blocks, low, first, check)
        yield segment
        yield from _stepping(tape, blocks, first + period * count, high, check)
        return
    if refusal is not None:
        raise refusal
    yield from _single_steps(tape, blocks[low].start, blocks[high - 1].stop)


def _single_steps(tape: Tape, start: int, stop: int) -> Iterator[Segment]:
    """A stretch without repetition, cut where a neuron is called again."""
    seen: set[str] = set()
    first = last = None
    for index in range(start, stop):
        entry = tape.entries[index]
        if not entry.is_neuron:
            continue
        if first is not None and last is not None and entry.path in seen:
            yield Segment(first, last + 1 - first, 1)
            first, seen = last + 1, set()
        first = index if first is None else first
        last = index
        seen.add(entry.path)
    if first is not None and last is not None:
        yield Segment(first, last + 1 - first, 1)


def _plain(blocks: list[_Block], low: int, high: int, check: Check) -> list[Segment]:
    """The loops between two blocks that step no neuron."""
    for first, period, count in _repetitions(blocks, low, high):
        span = blocks[first : first + period * count]
        segment = Segment(span[0].start, (span[-1].stop - span[0].start) // count, count)
        try:
            check(segment)
        except RecordingError:
            continue  # calls that repeat need not be time steps; one by one they are what they are
        behind = first + period * count
        return [*_plain(blocks, low, first, check), segment, *_plain(blocks, behind, high, check)]
    return []


_MOST_ATTEMPTS = 16


def _repetitions(blocks: list[_Block], low: int, high: int) -> list[tuple[int, int, int]]:
    """Repeated blocks as `(first, period, count)`: those of neurons first, the longest, of the shortest period."""
    codes = np.array([block.token for block in blocks[low:high]], dtype=np.int64)
    found = []
    for period in _gaps(codes):
        for start, stop in _runs(codes[:-period] == codes[period:]):
            covered = stop - start + period
            if covered < 2 * period:
                continue
            # A run that is longer than whole iterations begins where its outermost loop does.
            offset = min(range(covered % period + 1), key=lambda each: blocks[low + start + each].level)
            first, count = low + start + offset, covered // period
            span = blocks[first : first + period * count]
            steps_neurons = any(block.steps_neurons for block in span)
            found.append((not steps_neurons, span[0].start - span[-1].stop, period, first, count))
    return [(first, period, count) for _, _, period, first, count in sorted(found)[:_MOST_ATTEMPTS]]


def _gaps(codes: np.ndarray) -> list[int]:
    """Distances between neighbouring blocks of the same kind: the periods that a loop can have."""
    gaps: dict[int, None] = {}
    places: dict[int, list[int]] = {}
    for index, code in enumerate(codes.tolist()):
        places.setdefault(code, []).append(index)
    for each in places.values():
        gaps |= dict.fromkeys(b - a for a, b in itertools.pairwise(each))
        # A body that repeats a block shows its period only as the sum of neighbouring gaps.
        gaps |= dict.fromkeys(place - each[0] for place in each[1:33])
    return sorted(gaps)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


# Blocks


def _blocks(entries: list[Entry]) -> list[_Block]:
    levels: dict[int, tuple[int, int]] = {0: (0, 0)} if entries else {}
    for index in range(1, len(entries)):
        level = _jump(entries[index - 1].place.frames, entries[index].place.frames)
        if level is not None:
            levels[index] = level
    starts = list(levels)
    tokens: dict[tuple, int] = {}
    blocks = []
    for start, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        calls = entries[start:stop]
        token = tokens.setdefault(tuple(entry.signature for entry in calls), len(tokens))
        blocks.append(_Block(start, stop, token, levels[start], any(entry.is_neuron for entry in calls)))
    return blocks


_NO_LOOP = (1 << 30, 0)


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
    return [loop for loop in loops(frame.code) if loop[0] <= frame.offset <= loop[1]]


def _level(frames: tuple[Frame, ...], depth: int) -> tuple[int, int]:
    """The innermost loop around an instruction."""
    if depth < 0:
        return (-1, 0)
    frame = frames[depth]
    around = _around(frame)
    return (depth, around[-1][0] - around[-1][1] if around else 0)
