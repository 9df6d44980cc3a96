"""The runs of one network with their loops: as given, with another batch size, at another length."""

import dataclasses
import functools
from collections.abc import Mapping

from ..errors import RecordingError
from ..ir.refusal import Refusal, attempt
from ..trace.autograd_functions import makes_spikes
from ..trace.tape import Tape
from .body import Body, LoopCarried, Scanned, ScannedList, ValueAtStep, at_steps
from .detect import TapeLoop, find_loops
from .roll import analyse


@dataclasses.dataclass(frozen=True)
class Run:
    """A tape with its loops, and one time step of each of them."""

    tape: Tape
    loops: tuple[TapeLoop, ...]

    @staticmethod
    def of(tape: Tape) -> "Run":
        """**Raises:** `RecordingError` where the calls of a loop are no equal time steps."""
        loops = find_loops(
            tape,
            functools.partial(analyse, tape),
            lambda found: functools.partial(_check_without_neurons, tape, at_steps(tape, found)),
        )
        return Run(tape, tuple(loops))

    @functools.cached_property
    def at_steps(self) -> dict[int, ValueAtStep]:
        return at_steps(self.tape, list(self.loops))

    @functools.cached_property
    def bodies(self) -> tuple[Body, ...]:
        return tuple(map(self.body, range(len(self.loops))))

    @functools.cached_property
    def _found(self) -> dict[int, Body]:
        return {}

    def body(self, number: int) -> Body:
        """One time step of the loop of this number."""
        if number not in self._found:
            self._found[number] = analyse(self.tape, self.loops[number], self.at_steps)
        return self._found[number]

    def why_unequal(self) -> Refusal | None:
        """What makes the steps of a loop unequal; None where all are equal."""
        bodies = attempt(lambda: self.bodies)
        return bodies if isinstance(bodies, Refusal) else None

    @functools.cached_property
    def outline(self) -> list[object]:
        """What a run does, whatever its length is: its calls, with one time step of each loop."""
        found: list[object] = []
        stop = 0
        for loop in self.loops:
            found += [entry.signature for entry in self.tape.entries[stop : loop.start]]
            steps = self.tape.entries[loop.start : loop.start + loop.period]
            found.append(tuple(entry.signature for entry in steps))
            stop = loop.stop
        return found + [entry.signature for entry in self.tape.entries[stop:]]

    @functools.cached_property
    def pieces(self) -> dict[int, int]:
        """For each value made outside of all loops, how many loops come before it."""
        found: dict[int, int] = {}
        edges = [loop.start for loop in self.loops]
        piece = 0
        for index, entry in enumerate(self.tape.entries):
            while piece < len(edges) and index >= edges[piece]:
                piece += 1
            if piece == 0 or index >= self.loops[piece - 1].stop:
                found |= dict.fromkeys((ref.index for ref in entry.made), piece)
        return found


def _check_without_neurons(tape: Tape, others: Mapping[int, ValueAtStep], loop: TapeLoop) -> None:
    """Calls that step no neuron are a loop over time where they read or write another place at every step.

    Spikes that follow from those of the step before are a neuron that is written by hand, whatever it reads.
    """
    body = analyse(tape, loop, others)
    arguments = [argument for row in body.arguments for argument in row]
    follows_time = body.reads or body.writes or any(isinstance(each, Scanned | ScannedList) for each in arguments)
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
    def at_other_length(self) -> Run:
        """The run of another length; the same where there is none."""
        return self.other_length or self.given
