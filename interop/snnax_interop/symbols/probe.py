"""The same network on other inputs: with another batch size, and with another length."""

import dataclasses
from collections.abc import Callable, Iterator

import torch

from ..errors import InteropError, RecordingError
from ..ir.sizes import Size
from ..loops.body import Argument, Scanned
from ..loops.run import Run
from ..trace.tape import Entry, Ref, Tape, refs


# So many steps may lie between the size of an input and that of what a loop reads.
_NEAR = 3

Inputs = tuple[torch.Tensor, ...]
Change = Callable[[torch.Tensor, int], torch.Tensor]
Recorder = Callable[[tuple[torch.Tensor, ...]], Tape]


@dataclasses.dataclass(frozen=True)
class OtherLength:
    """A run of another length: the axes that were changed, by input, and their size before and after.

    `rounds` where the steps of a loop are a fraction of the length, rounded; `whole` where other remainders do
    something else.
    """

    run: Run
    axes: dict[int, int]
    sizes: tuple[int, int]
    rounds: bool = False
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class OtherBatch:
    """A run with one more sample: the batch axis of each input, and the batch sizes; `run` None with a note on why."""

    run: Run | None
    axes: list[int | None]
    sizes: tuple[int, int]
    note: str = ""


def direct_time_axes(run: Run) -> dict[int, int]:
    """The axes that loops read inputs along, by input."""
    found: dict[int, int] = {}
    for each in _slices(run):
        if each.base in run.tape.inputs:
            found.setdefault(run.tape.inputs.index(each.base), each.axis)
    return found


def _slices(run: Run) -> Iterator[Scanned]:
    """What the time steps read of sequences."""
    for body in run.bodies:
        yield from (sliced for sliced, _ in body.reads.values())
        arguments: list[Argument] = [argument for row in body.arguments for argument in row]
        yield from (argument for argument in arguments if isinstance(argument, Scanned))


def other_length(record: Recorder, given: Run, inputs: tuple[torch.Tensor, ...]) -> tuple[OtherLength | None, str]:
    """A run of another length, or None where the length is not free, with a note on why.

    **Raises:** what recording the other run raises, with a note on its inputs.
    """
    note = ""
    for axes in time_axes(given, inputs):
        found, why = LengthProbe(record, given, inputs, axes).other_length()
        if found is not None:
            return found, ""
        note = note or why
    return None, note


def time_axes(given: Run, inputs: tuple[torch.Tensor, ...]) -> Iterator[dict[int, int]]:
    """Which axes of the inputs may be time, by input: those that loops read, or that make what loops read."""
    direct = direct_time_axes(given)
    sizes = {
        given.tape.shape(each.base)[each.axis]
        for each in _slices(given)
        if each.base not in given.tape.inputs and given.pieces.get(each.base.index, -1) >= 0
    }
    candidates = [direct] if direct else []
    for number, tensor in enumerate(inputs):
        # What a loop reads may be some steps shorter or longer than what it is made of.
        near = sorted(
            (min(abs(size - each) for each in sizes), axis) for axis, size in enumerate(tensor.shape) if sizes
        )
        candidates += [{**direct, number: axis} for distance, axis in near if distance <= _NEAR]
    for axes in candidates:
        if len({inputs[number].shape[axis] for number, axis in axes.items()}) == 1:
            yield axes


def changed_along(inputs: Inputs, axes: dict[int, int], change: Change) -> Inputs:
    """Inputs, changed along these axes, by input."""
    return tuple(change(x, axes[number]) if number in axes else x for number, x in enumerate(inputs))


@dataclasses.dataclass(frozen=True)
class LengthProbe:
    """Runs of other lengths than that of a given run, whose inputs have time along these axes, by input."""

    record: Recorder
    given: Run
    inputs: tuple[torch.Tensor, ...]
    axes: dict[int, int]

    @property
    def size(self) -> int:
        number, axis = next(iter(self.axes.items()))
        return self.inputs[number].shape[axis]

    def other_length(self) -> tuple[OtherLength | None, str]:
        """A run of another length; None where the network does something else there, with a note."""
        # One step more, or less, where more than twice as long is too long.
        for change in (beyond, _extended, _shortened):
            found = self.attempt(change)
            if found is None:
                continue
            confirmed = self.confirmed(found)
            if confirmed is None and change is beyond and not self.takes_the_same_steps(found):
                confirmed = self._grouped()
            if confirmed is not None:
                return confirmed, ""
            return (
                None,
                "converted for exactly this length: at another one, forward does something else than more steps",
            )
        return None, "converted for exactly this length: at another one, forward raises an error"

    def attempt(self, change: Change) -> OtherLength | None:
        """The run on changed inputs; None where the network raises an error."""
        changed = changed_along(self.inputs, self.axes, change)
        try:
            run = Run.of(self.record(changed))
        except InteropError as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in changed)
            error.add_note(f"This was found in a run of another length than the example, on inputs of shape {shapes}.")
            raise
        except Exception:  # whatever user code raises on a length that it was not written for
            return None
        number, axis = next(iter(self.axes.items()))
        return OtherLength(run, self.axes, (self.size, changed[number].shape[axis]))

    def takes_the_same_steps(self, found: OtherLength) -> bool:
        """Whether the run makes the same steps, more or fewer of them."""
        return self.given.outline == found.run.outline and any(a != b for a, b in self._counts(found))

    def confirmed(self, found: OtherLength) -> OtherLength | None:
        """The run, if it makes the same steps, and as many as follow from the length.

        Fractions of the length are confirmed by further lengths.
        """
        if not self.takes_the_same_steps(found):
            return None
        plain = [Size.fit(each, found.sizes) for each in self._counts(found)]
        if None not in plain:
            return found
        pairs = zip(plain, self._counts(found), strict=True)
        rounding = [formula or Size.rounding(each, found.sizes) for formula, each in pairs]
        if None not in rounding:
            divisor = max(formula.divisor for formula in rounding if formula is not None)
            if all(self._agrees(rounding, more) for more in (*range(1, divisor), self._far(divisor))):
                return dataclasses.replace(found, rounds=True)
        return self._in_whole_steps(found)

    def _counts(self, found: OtherLength) -> list[tuple[int, int]]:
        return [(a.count, b.count) for a, b in zip(self.given.loops, found.run.loops, strict=True)]

    def _grouped(self) -> OtherLength | None:
        """The run of steps in pairs or threes: they are whole, or leave as many over, at some lengths only."""
        for change in (_doubled, _twice) if self.size % 2 else (_twice,):
            found = self.attempt(change)
            if found is not None and self.given.outline == found.run.outline:
                confirmed = self._in_whole_steps(found)
                if confirmed is not None:
                    return confirmed
        return None

    def _in_whole_steps(self, found: OtherLength) -> OtherLength | None:
        """The run, if loops run a fraction of the length without remainder."""
        exact = [Size.fit(each, found.sizes, exact=True) for each in self._counts(found)]
        divisor = max((formula.divisor for formula in exact if formula is not None), default=1)
        if None in exact or divisor == 1:
            return None
        if not all(self._agrees(exact, more) for more in (divisor, self._far(divisor))):
            return None
        return dataclasses.replace(found, whole=True)

    def _far(self, divisor: int) -> int:
        """So many more entries that fractions that are nearly equal give other numbers of steps."""
        return divisor * (1 + 4 * max(loop.count for loop in self.given.loops) // divisor)

    def _agrees(self, formulas: list[Size | None], more: int) -> bool:
        """Whether so many more entries give the steps that the formulas say."""
        found = self.attempt(lambda tensor, axis: longer(tensor, axis, more))
        if found is None or self.given.outline != found.run.outline:
            return False
        expected = [None if formula is None else formula(found.sizes[1]) for formula in formulas]
        return [loop.count for loop in found.run.loops] == expected


def longer(tensor: torch.Tensor, axis: int, more: int) -> torch.Tensor:
    """So many more entries along an axis."""
    for _ in range(more):
        tensor = _extended(tensor, axis)
    return tensor


def _twice(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """All entries along an axis, and once more in reverse order."""
    return torch.cat([tensor, tensor.flip(axis)], axis)


def _extended(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """One more entry along an axis, and the others in reverse order: another size and other values."""
    return torch.cat([tensor.flip(axis), tensor.narrow(axis, 0, 1)], axis)


def _shortened(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """One entry less along an axis, and the others in reverse order."""
    return tensor.flip(axis).narrow(axis, 0, max(tensor.shape[axis] - 1, 1))


def beyond(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """More than twice as long, so that a limit beyond the example shows itself; even where the example is odd."""
    longer = _doubled(tensor, axis)
    return _extended(longer, axis) if tensor.shape[axis] % 2 else longer


def _doubled(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """All entries along an axis once more behind those of `_extended`."""
    return torch.cat([_extended(tensor, axis), tensor], axis)


def other_batches(
    record: Recorder, given: Run, inputs: tuple[torch.Tensor, ...], time_axes: dict[int, int]
) -> list[OtherBatch]:
    """Runs with one more sample, one for each place where the batch may be.

    It is the first axis that is not time; where no loop reads an input along its first axis, that may still be time,
    and the batch the second.

    **Raises:** `RecordingError` where the module does something else then.
    """
    first = [0 if time_axes.get(number) != 0 else 1 for number in range(len(inputs))]
    second = [axis if number in time_axes else 1 for number, axis in enumerate(first)]
    found: list[OtherBatch] = []
    refusal: InteropError | None = None
    note = ""
    for axes in [first] if first == second else [first, second]:
        fits = all(axis < tensor.ndim for axis, tensor in zip(axes, inputs, strict=True))
        sizes = {tensor.shape[axis] for axis, tensor in zip(axes, inputs, strict=True)} if fits else set()
        if len(sizes) != 1:
            note = note or "converted without a batch axis: the inputs have none in common"
            continue
        (size,) = sizes
        try:
            other = record(tuple(_extended(tensor, axis) for tensor, axis in zip(inputs, axes, strict=True)))
            _check_same(given.tape, other)
        except InteropError as error:
            refusal = refusal or error
        except Exception as error:  # whatever user code raises on a batch size that it was not written for
            lines = str(error).strip().splitlines()
            why = f"{type(error).__name__}: {lines[0] if lines else ''}"
            note = note or f"converted for exactly this batch: with another batch size, forward raises {why}"
        else:
            found.append(OtherBatch(Run(other, given.loops), list(axes), (size, size + 1)))
    if refusal is not None and not found:
        raise refusal
    return found or [OtherBatch(None, [None] * len(inputs), (1, 1), note)]


def _check_same(given: Tape, other: Tape) -> None:
    # The same calls in the same order number their values alike.
    entry = given.first_difference(other, lambda entry: (entry.signature, _values(entry)))
    if entry is not None:
        raise RecordingError(
            f"forward does something else with another batch size or other values: at {entry.name}\n  {entry.line}\n"
            "Allowed: control flow on settings and lengths. Use torch.where or masks for decisions on values",
            path=entry.path,
        )


def _values(entry: Entry) -> list[Ref]:
    """The values that a call reads."""
    return refs((entry.args, entry.kwargs, entry.state_in))
