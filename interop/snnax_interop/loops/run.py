"""The runs of one network, and what comparing them tells: where the batch is, what grows with the length."""

import dataclasses
import functools
from collections.abc import Collection, Mapping

from ..errors import RecordingError
from ..trace.autograd_functions import makes_spikes
from ..trace.tape import Ref, Tape
from .detect import Segment, find_segments
from .roll import Body, LoopCarried, ValueAtStep, analyse, moments


@dataclasses.dataclass(frozen=True)
class Run:
    """A tape with its segments, and one time step of each of them."""

    tape: Tape
    segments: tuple[Segment, ...]

    @staticmethod
    def of(tape: Tape) -> "Run":
        """**Raises:** `RecordingError` where the calls of a loop are no equal time steps."""
        segments = find_segments(
            tape,
            functools.partial(analyse, tape),
            lambda found: functools.partial(_check_plain, tape, moments(tape, found)),
        )
        return Run(tape, tuple(segments))

    @functools.cached_property
    def moments(self) -> dict[int, ValueAtStep]:
        return moments(self.tape, list(self.segments))

    @functools.cached_property
    def bodies(self) -> tuple[Body, ...]:
        return tuple(map(self.body, range(len(self.segments))))

    @functools.cached_property
    def _found(self) -> dict[int, Body]:
        return {}

    def body(self, number: int) -> Body:
        """One time step of the segment of this number."""
        if number not in self._found:
            self._found[number] = analyse(self.tape, self.segments[number], self.moments)
        return self._found[number]

    @functools.cached_property
    def outline(self) -> list[object]:
        """What a run does, whatever its length is: its calls, with one time step of each segment."""
        found: list[object] = []
        stop = 0
        for segment in self.segments:
            found += [entry.signature for entry in self.tape.entries[stop : segment.start]]
            steps = self.tape.entries[segment.start : segment.start + segment.period]
            found.append(tuple(entry.signature for entry in steps))
            stop = segment.stop
        return found + [entry.signature for entry in self.tape.entries[stop:]]

    @functools.cached_property
    def pieces(self) -> dict[int, int]:
        """For each value made outside of all segments, how many segments come before it."""
        found: dict[int, int] = {}
        edges = [segment.start for segment in self.segments]
        piece = 0
        for index, entry in enumerate(self.tape.entries):
            while piece < len(edges) and index >= edges[piece]:
                piece += 1
            if piece == 0 or index >= self.segments[piece - 1].stop:
                found |= dict.fromkeys((ref.index for ref in entry.made), piece)
        return found


def _check_plain(tape: Tape, others: Mapping[int, ValueAtStep], segment: Segment) -> None:
    """Calls that step no neuron are a loop over time where they read or write another place at every step.

    Spikes that follow from those of the step before are a neuron that is written by hand, whatever it reads.
    """
    body = analyse(tape, segment, others)
    arguments = [argument for row in body.arguments for argument in row]
    follows_time = body.reads or body.writes or any(
        hasattr(argument, "stride") or hasattr(argument, "refs") for argument in arguments
    )  # fmt: skip
    if not follows_time and not (
        any(map(makes_spikes, body.entries)) and any(isinstance(each, LoopCarried) for each in arguments)
    ):
        raise RecordingError("the calls repeat without following time")


@dataclasses.dataclass(frozen=True)
class Runs:
    """One network as given, with another batch size, and with another length (None: it has no length).

    `lengths` are the sizes of the time axis of the inputs in the first and the last of them. A loop may run a fraction
    of the length: rounded (`rounds`), or without remainder at some lengths only (`whole`).
    """

    given: Run
    other_batch: Run | None
    other_length: Run | None
    batch_sizes: tuple[int, int]
    lengths: tuple[int, int] | None
    rounds: bool = False
    whole: bool = False

    @property
    def tape(self) -> Tape:
        return self.given.tape

    @property
    def there(self) -> Run:
        """The run of another length; the same where there is none."""
        return self.other_length or self.given


class Axes:
    """Where the batch is in every value, and what an integer becomes for one sample."""

    def __init__(self, runs: Runs):
        self.tape = runs.tape
        self.other = None if runs.other_batch is None else runs.other_batch.tape
        self.batch_sizes = runs.batch_sizes

    def batch_axis(self, ref: Ref) -> int | None:
        """The batch axis of a value; None when it has none of its own."""
        axis = self._grown(ref)
        return axis if axis is not None and not self.is_folded(ref) else None

    def is_folded(self, ref: Ref) -> bool:
        """Whether the batch is folded into another axis, such as time.

        For one sample that axis is just the other one: functions that treat its entries alike need no batch axis.
        """
        axis = self._grown(ref)
        return axis is not None and self.tape.shape(ref)[axis] != self.batch_sizes[0]

    def is_batched(self, ref: Ref) -> bool:
        return self._grown(ref) is not None

    def grows(self, ref: Ref, places: Collection[int]) -> bool:
        """Whether the batch lies, of its own or folded, in one of these axes of a value."""
        return self._grown(ref) in places

    def sample_shape(self, ref: Ref) -> tuple[int, ...]:
        shape, axis = self.tape.shape(ref), self._grown(ref)
        sizes = [size // self.batch_sizes[0] if place == axis else size for place, size in enumerate(shape)]
        return tuple(size for place, size in enumerate(sizes) if place != axis or self.is_folded(ref))

    def _grown(self, ref: Ref) -> int | None:
        """The axis that is larger for a larger batch.

        **Raises:** `RecordingError` when there are several, or one that does not grow in proportion.
        """
        if self.other is None:
            return None
        first, second = self.tape.shape(ref), self.other.shape(ref)
        if len(first) != len(second):
            raise RecordingError(
                f"a value of shape {first} has the shape {second} when the batch grows: its number of axes depends on "
                "the batch size. Allowed: axes that stay. Name the axis in squeeze(dim)"
            )
        changed = [axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        if not changed:
            return None
        small, large = self.batch_sizes
        if len(changed) == 1 and first[changed[0]] * large == second[changed[0]] * small:
            return changed[0]
        raise RecordingError(
            f"a value of shape {first} becomes {second} when the batch grows from {small} to {large}. "
            "Allowed: the batch as one axis, of its own or folded with time"
        )
