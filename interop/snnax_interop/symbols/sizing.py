"""Sizes and places in all runs of a network, as formulas of the batch size and the length."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..errors import LengthError, RecordingError
from ..ir.formulas import StepTable, fit_steps
from ..ir.regions import StepNumber
from ..ir.sizes import Size, SizeRatio
from ..loops.run import Runs
from ..trace.tape import Ref
from .entries import CallInRuns


class Sizing:
    """What a size, a number or a place is in all runs at once.

    Its methods raise `LengthError` for what does not follow from the length, and `RecordingError` for what does not
    follow from the batch size.
    """

    def __init__(self, runs: Runs):
        self.runs = runs
        self.given = runs.given.tape
        self.other_batch = self.given if runs.other_batch is None else runs.other_batch.tape
        self.other_length = runs.at_other_length.tape

    def shape(self, ref: Ref, other: Ref) -> tuple[Size, ...]:
        """The sizes of a value.

        **Raises:** `RecordingError` where an axis does not grow in proportion to the batch.
        """
        first, second = self.given.shape(ref), self.other_batch.shape(ref)
        third = self.other_length.shape(other)
        if len(first) != len(second):
            raise RecordingError(
                f"a value of shape {first} has the shape {second} when the batch grows: its number of axes depends on "
                "the batch size. Allowed: axes that stay. Name the axis in squeeze(dim)"
            )
        if len(first) != len(third):
            raise LengthError(f"a value of shape {first} has the shape {third} at another length")
        sizes = [self.size(*each) for each in zip(first, second, third, strict=True)]
        if any(size is None for size in sizes):
            small, large = self.runs.batch_sizes
            if first == second:
                raise LengthError(f"a value of shape {first} has the shape {third} at another length")
            raise RecordingError(
                f"a value of shape {first} becomes {second} when the batch grows from {small} to {large}. "
                "Allowed: axes that grow with the batch in proportion"
            )
        return tuple(size for size in sizes if size is not None)

    def size(self, a: int, b: int, c: int) -> Size | None:
        """The formula of an integer: as given, with another batch size, at another length."""
        small, large = self.runs.batch_sizes
        batched = a != b
        if batched:
            if a % small or c % small or a // small * large != b:
                return None
            a, c = a // small, c // small
        lengths = self.runs.lengths
        if lengths is None or a == c:
            return Size(0, a, batched=batched)
        found = (
            Size.fit((a, c), lengths, exact=self.runs.whole)
            or Size.rounding((a, c), lengths)
            or Size.affine((a, c), lengths)
        )
        return None if found is None else dataclasses.replace(found, batched=batched)

    def number(self, entries: CallInRuns, a: Any, b: Any, c: Any) -> Any:
        """A number among the arguments of a call: as it is, where it is always the same."""
        if a != b:
            found = self.number_of_samples(a, b, c)
            if found is None:
                first, second = self.runs.batch_sizes
                raise entries.refuse(f"a number depends on the batch size: {a} with {first} samples, {b} with {second}")
            return found
        lengths = self.runs.lengths
        if a == c or lengths is None:
            return a
        whole = isinstance(a, int) and isinstance(c, int)
        found = Size.fit((a, c), lengths) if whole else SizeRatio.fit((a, c), lengths)
        if found is None:
            what = f"a number depends on the length: {a} with {lengths[0]} steps, {c} with {lengths[1]}"
            raise entries.refuse(what, LengthError)
        return found

    def number_of_samples(self, a: Any, b: Any, c: Any) -> Size | SizeRatio | None:
        """The formula of a number that depends on the batch size; None where there is none."""
        if not all(isinstance(each, int | float) for each in (a, b, c)):
            return None
        (small, large), lengths = self.runs.batch_sizes, self.runs.lengths
        if all(isinstance(each, int) and each % small == 0 for each in (a, c)) and a // small * large == b:
            of_sample = (a // small, c // small)
            found = Size(0, of_sample[0]) if a == c or lengths is None else Size.fit(of_sample, lengths)
            if found is not None:
                return dataclasses.replace(found, batched=True)
        of_batch, of_all = Size(0, 1, batched=True), Size(1, 0, batched=True)
        if lengths is None:
            return SizeRatio.of((a, b), [(small, 0), (large, 0)], [of_batch])
        places = [(small, lengths[0]), (large, lengths[0]), (small, lengths[1])]
        return SizeRatio.of((a, b, c), places, [of_batch, of_all])

    def count(self, number: int) -> Size:
        """How many time steps a loop has.

        **Raises:** `LengthError` when that does not follow from the length of the inputs.
        """
        counts, lengths = self.counts(number), self.runs.lengths
        found = Size(0, counts[0]) if lengths is None else Size.fit(counts, lengths, exact=self.runs.whole)
        if found is None and lengths is not None and self.runs.rounds:
            found = Size.rounding(counts, lengths)
        if found is None:
            raise LengthError(f"the loop runs {counts[0]} and {counts[1]} steps at the lengths {lengths}")
        return found

    def counts(self, number: int) -> tuple[int, int]:
        return self.runs.given.loops[number].count, self.runs.at_other_length.loops[number].count

    def steps(self, values: Sequence[Any], other: Sequence[Any]) -> StepNumber:
        """Numbers that change from step to step."""
        if self.runs.lengths is None:
            return StepNumber(StepTable(tuple(values)))
        found = fit_steps([values, other])
        if found is None:
            shown = ", ".join(str(value) for value in list(values)[:4])
            raise LengthError(f"the numbers {shown}... follow no rule that is known for other lengths")
        return StepNumber(found)

    def place(self, step: int, other: int, counts: tuple[int, int]) -> int:
        """A time step counted from the start, or from the end where negative."""
        if counts[0] == counts[1]:
            return step - counts[0] if step == counts[0] - 1 else step
        if step - counts[0] == other - counts[1]:
            return step - counts[0]
        if step == other:
            return step
        raise LengthError(
            f"what follows the loop reads time step {step} of {counts[0]}, and {other} of {counts[1]}. Allowed: "
            "steps counted from the start or from the end"
        )

    def start(self, starts: tuple[int, ...], sizes: tuple[int, ...], *, from_end: bool) -> int:
        """A place in a sequence that holds at any length: from the start, or negative from the end."""
        ends = (starts[0] - sizes[0], starts[1] - sizes[1])
        if self.runs.other_length is None:
            return ends[0] if from_end else starts[0]
        if ends[0] == ends[1] and (from_end or starts[0] != starts[1]):
            return ends[0]
        if starts[0] == starts[1]:
            return starts[0]
        raise LengthError(
            f"the loop starts reading at {starts[0]} of {sizes[0]}, and at {starts[1]} of {sizes[1]}. Allowed: places "
            "counted from the start or from the end"
        )
