"""What loops hand on, seen from outside: values at a time step, tensors that were filled, lists over time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import LengthError, RecordingError
from ..ir.regions import Entries, Value
from ..ir.sizes import Size
from ..loops.body import BodyValue
from ..loops.lists import Part, parts_of
from ..trace.functional import setitem
from ..trace.tape import Ref
from .loop_draft import LoopDraft
from .surroundings import AbstractLoopValues, Surroundings


class LoopValues(AbstractLoopValues):
    """The loops of a program so far, with what they hand on."""

    def __init__(self, surroundings: Surroundings):
        self.surroundings = surroundings
        self.sizing = surroundings.sizing
        self.runs = surroundings.runs
        self.drafts: list[LoopDraft] = []

    def at_step(self, ref: Ref, other: Ref) -> Value:
        """A value at one time step of a loop before."""
        found = self.runs.given.at_steps[ref.index]
        other_found = self.runs.at_other_length.at_steps[other.index]
        draft = self.drafts[found.loop]
        loop, value = found.loop, found.value
        write = draft.body.writes.get(value.position)
        if write is not None:
            if found.step != self.sizing.counts(loop)[0] - 1:
                raise RecordingError(
                    f"a tensor that the loop fills is read before the loop ends\n  {draft.line(value)}\n"
                    "Allowed: reading it after the loop"
                )
            return self.written(draft, value, ref, other)
        if loop != other_found.loop or value != other_found.value:
            raise LengthError("what follows the loop reads another value at another length. Allowed: the same one")
        index = self.sizing.place(found.step, other_found.step, self.sizing.counts(loop))
        if index == -1:
            return draft.final(value)
        emitted = draft.emit(value)
        return self.surroundings.synthetic(torch.select, (emitted, 0, index), emitted.shape[1:])

    def written(self, draft: LoopDraft, value: BodyValue, ref: Ref, other: Ref) -> Value:
        """A tensor that a loop filled, or made longer, step by step."""
        write, other_write = draft.body.writes[value.position], draft.other_body.writes[value.position]
        entry = draft.body.entries[value.position]
        sequence = draft.emit(draft.written_value(value.position))
        initial, other_initial = draft.written_target(value.position)
        shape = self.sizing.shape(ref, other)
        if write.start is None:
            axis = write.axis % len(shape)
            if not self.surroundings.given.tensors[initial.index].numel():
                return self.surroundings.synthetic(torch.cat, (Entries(sequence), axis), shape, like=entry)
            grown = self.surroundings.synthetic(
                torch.cat, (Entries(sequence), axis), self.grown(sequence, axis), like=entry
            )
            both = [self.surroundings.value(initial, other_initial), grown]
            return self.surroundings.synthetic(torch.cat, (both, axis), shape, like=entry)
        if write.stride < 0:
            sequence = self.surroundings.synthetic(torch.flip, (sequence, [0]), sequence.shape, like=entry)
        item = sequence.shape[1:]
        stacked = self.surroundings.synthetic(
            torch.stack,
            (Entries(sequence), write.axis),
            (*item[: write.axis], sequence.shape[0], *item[write.axis :]),
            like=entry,
        )
        counts = self.sizing.counts(draft.number)
        sizes = (
            self.surroundings.given.shape(initial)[write.axis],
            self.surroundings.other_length.shape(other_initial)[write.axis],
        )
        firsts, lasts = zip(write.bounds(counts[0]), other_write.bounds(counts[1]), strict=True)
        if firsts == (0, 0) and lasts == sizes:
            return stacked
        start = self.sizing.start(firsts, sizes, from_end=False)
        stop = self.sizing.start(lasts, sizes, from_end=lasts[0] == sizes[0])
        index = (*(slice(None),) * write.axis, slice(start, stop or None))
        target = self.surroundings.value(initial, other_initial)
        return self.surroundings.synthetic(setitem, (target, index, stacked), shape, like=entry)

    @staticmethod
    def grown(sequence: Value, axis: int) -> tuple[Size, ...]:
        """The shape of the entries of a sequence, one behind the other along an axis."""
        count, *item = sequence.shape
        size = item[axis]
        if size.factor == 0:
            times = size.offset
            item[axis] = dataclasses.replace(count, factor=count.factor * times, offset=count.offset * times)
        return tuple(item)

    # Lists of values over time

    def is_series(self, items: Any, before: int) -> bool:
        """Whether a list holds values of successive time steps of loops before the one of this number."""
        if len(items) < 2 or not all(isinstance(item, Ref) for item in items):
            return False
        found = [self.runs.given.at_steps.get(item.index) for item in items]
        if any(each is not None and each.loop >= before for each in found):
            return False
        return any(part.count > 1 for part in parts_of(items, self.runs.given.at_steps))

    def sequence(self, items: Sequence[Ref], other: Sequence[Ref]) -> Value:
        """A list of values over time as one value, with time as its first axis."""
        parts = parts_of(items, self.runs.given.at_steps)
        others = parts_of(other, self.runs.at_other_length.at_steps)
        if [part.kind for part in parts] != [part.kind for part in others]:
            raise LengthError("a list of values over time is another list at another length. Allowed: the same values")
        if len({_batch_axis(self.sizing.shape(a.ref, b.ref)) for a, b in zip(parts, others, strict=True)}) > 1:
            raise RecordingError("a list of values over time has the batch at different axes. Allowed: one axis")
        values = [self.part(a, b) for a, b in zip(parts, others, strict=True)]
        if len(values) == 1:
            return values[0]
        length = self.sizing.size(len(items), len(items), len(other))
        if length is None:
            raise LengthError("a list of values over time has a number of items that does not follow from the length")
        return self.surroundings.synthetic(torch.cat, (values, 0), (length, *values[0].shape[1:]))

    def part(self, part: Part, other: Part) -> Value:
        """Items of a list that follow each other in time."""
        if not part.at_steps:
            value = self.surroundings.value(part.ref, other.ref)
            return self.surroundings.synthetic(torch.unsqueeze, (value, 0), (Size(0, 1), *value.shape))
        loop = part.at_steps[0].loop
        draft, counts = self.drafts[loop], self.sizing.counts(loop)
        first, last = zip(part.steps, other.steps, strict=True)
        start = 0 if first == (0, 0) else self.sizing.place(*first, counts)
        # The next step of the list would be behind the end.
        to_the_end = all(each + part.stride > count for each, count in zip(last, counts, strict=True))
        stop = None if last == counts or to_the_end else self.sizing.place(*last, counts)
        step = None if part.stride in (1, -1) else part.stride
        sources = [draft.emit(at_step.value) for at_step in part.at_steps]
        length = self.sizing.size(part.count, part.count, other.count)
        if length is None:
            raise LengthError("a list of values over time has a number of items that does not follow from the length")
        value = sources[0]
        if len(sources) > 1:
            shape = (value.shape[0], Size(0, len(sources)), *value.shape[1:])
            value = self.surroundings.synthetic(torch.stack, (sources, 1), shape)
        if (start, stop, step) != (0, None, None):
            index = slice(start, stop, step)
            value = self.surroundings.synthetic(torch.Tensor.__getitem__, (value, index), (length, *value.shape[1:]))
        if len(sources) > 1:
            times = dataclasses.replace(
                length, factor=length.factor * len(sources), offset=length.offset * len(sources)
            )
            value = self.surroundings.synthetic(torch.flatten, (value, 0, 1), (times, *value.shape[2:]))
        return value if part.stride > 0 else self.surroundings.synthetic(torch.flip, (value, [0]), value.shape)


def _batch_axis(shape: tuple[Size, ...]) -> int | None:
    return next((axis for axis, size in enumerate(shape) if size == Size(0, 1, batched=True)), None)
