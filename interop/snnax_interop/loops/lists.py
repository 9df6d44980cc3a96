"""Lists of values, as pieces that follow each other in time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..trace.tape import Ref
from .body import ValueAtStep


@dataclasses.dataclass(frozen=True)
class Part:
    """Items of a list: `count` time steps of one or several values of a loop, or a single value of another place.

    `at_steps` are those of the first step, in the order of the list; `stride` leads from one step to the next, -1
    backwards in time.
    """

    at_steps: tuple[ValueAtStep, ...]
    ref: Ref
    count: int = 1
    stride: int = 1

    @property
    def kind(self) -> tuple[Any, ...]:
        """What is the same whatever the length is."""
        return (self.stride, *((at_step.loop, at_step.value) for at_step in self.at_steps))

    @property
    def steps(self) -> tuple[int, int]:
        """The first time step, and the one behind the last."""
        first, last = self.at_steps[0].step, self.at_steps[0].step + self.stride * (self.count - 1)
        return min(first, last), max(first, last) + 1


def parts_of(items: Sequence[Ref], at_steps: Mapping[int, ValueAtStep]) -> list[Part]:
    """A list cut into pieces that follow each other in time."""
    found = [at_steps.get(ref.index) for ref in items]
    parts: list[Part] = []
    start = 0
    while start < len(items):
        part = _longest(found, items, start)
        parts.append(part)
        start += part.count * max(len(part.at_steps), 1)
    return parts


def _longest(found: Sequence[ValueAtStep | None], items: Sequence[Ref], start: int) -> Part:
    """The longest piece of a list that begins at a place."""
    first = found[start]
    if first is None:
        return Part((), items[start])

    def runs(width: int, stride: int) -> int:
        """How many steps of so many values follow each other."""
        count = 1
        while all(_follows(found, start + each, width * count, stride * count) for each in range(width)):
            count += 1
        return count

    together = start
    while together < len(found) and _same_step(found[together], first):
        together += 1
    width = together - start
    following = found[start + 1] if start + 1 < len(found) else None
    stride = following.step - first.step if following is not None and following.value == first.value else 1
    stride = stride if stride >= -1 and stride != 0 else 1
    candidates = [(runs(1, stride), 1, stride), (runs(width, 1), width, 1)]
    count, width, stride = max(candidates, key=lambda each: (each[0] * each[1] if each[0] > 1 else 1, -each[1]))
    if count == 1:
        return Part((first,), items[start])
    cycle = tuple(at_step for at_step in found[start : start + width] if at_step is not None)
    return Part(cycle, items[start + width * count - 1], count, stride)


def _same_step(at_step: ValueAtStep | None, first: ValueAtStep) -> bool:
    return at_step is not None and (at_step.loop, at_step.step) == (first.loop, first.step)


def _follows(found: Sequence[ValueAtStep | None], place: int, distance: int, steps: int) -> bool:
    """Whether the item so far behind a place is the same value so many steps later."""
    if place + distance >= len(found):
        return False
    first, later = found[place], found[place + distance]
    return first is not None and later == dataclasses.replace(first, step=first.step + steps)
