"""Three runs of a network as one program, whose sizes are formulas of the batch size and the length.

Behind this pass nothing knows that there were runs: as given, with another batch size, with another length. What they
do not agree on, or what no formula explains, is refused here.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import RecordingError
from ..ir.program import Program
from ..ir.regions import Entries, Value
from ..loops import body as rolled
from ..loops.body import Body
from ..loops.run import Runs
from ..trace.tape import Ref, refs
from .arguments import AbstractScope, unified_call
from .loop_draft import LoopDraft
from .series import LoopValues
from .surroundings import Surroundings


@dataclasses.dataclass(frozen=True)
class Length:
    """Which input, along which axis, says how long the network runs."""

    number: int
    axis: int


def unify(runs: Runs, name: str, input_names: Sequence[str], keys: Collection[str], length: Length | None) -> Program:
    """The program that all runs are instances of. `keys` are those of the state_dict.

    **Raises:** `LengthError` for what does not follow from the length, `RecordingError` for what does not follow from
    the batch size, each with the user's line.
    """
    return _Unifier(runs, keys).program(name, input_names, length)


class _Unifier(AbstractScope):
    """The program while it grows, in the order of the given run."""

    def __init__(self, runs: Runs, keys: Collection[str]):
        self.runs = runs
        self.surroundings = Surroundings(runs, keys)
        self.loops = self.surroundings.loops = LoopValues(self.surroundings)

    @property
    def number(self) -> int:  # type: ignore[override]
        """How many loops are done."""
        return len(self.loops.drafts)

    def argument(self, place: int, ref: Ref, other: Ref) -> Value:
        del place
        return self.surroundings.value(ref, other)

    def live_in(self, value: Value) -> Value:
        return value

    def program(self, name: str, input_names: Sequence[str], length: Length | None) -> Program:
        surroundings, runs = self.surroundings, self.runs
        tapes = (surroundings.given.inputs, surroundings.other_length.inputs)
        inputs = {
            surroundings.define(ref, other): wanted for ref, other, wanted in zip(*tapes, input_names, strict=True)
        }
        live = _live(surroundings)
        stop = 0
        for number, loop in enumerate(runs.given.loops):
            self.straight(range(stop, loop.start), live)
            draft = LoopDraft(surroundings, number)
            draft.build()
            self.loops.drafts.append(draft)
            surroundings.items.append(draft)
            stop = loop.stop
        self.straight(range(stop, len(surroundings.given.entries)), live)
        outputs = self.outputs(
            surroundings.given.result, surroundings.other_batch.result, surroundings.other_length.result
        )
        return Program(
            name=name,
            inputs=inputs,
            parameters=surroundings.parameters,
            constants=surroundings.constants,
            body=tuple(item.loop() if isinstance(item, LoopDraft) else item for item in surroundings.items),
            outputs=outputs,
            example=(runs.batch_sizes[0], 0 if runs.lengths is None else runs.lengths[0]),
            length=None if length is None else (length.number, length.axis),
        )

    def straight(self, indices: range, live: set[int]) -> None:
        """The calls of these numbers, which are in no loop."""
        surroundings = self.surroundings
        for index in indices:
            entries = surroundings.entries(index)
            if index in live and not surroundings.is_folded_away(entries) and entries.op != "unbind":
                surroundings.items.append(unified_call(surroundings, entries, self))

    def outputs(self, item: Any, batch: Any, length: Any) -> Any:
        """The structure that forward returns."""
        if isinstance(item, Ref):
            return self.surroundings.value(item, length)
        if isinstance(item, list | tuple) and self.loops.is_series(item, self.number):
            return Entries(self.loops.sequence(item, length))
        if isinstance(item, dict):
            if list(item) != list(length):
                raise RecordingError(f"forward returns {list(item)} here, and {list(length)} at another length")
            return type(item)((key, self.outputs(item[key], batch[key], length[key])) for key in item)
        if isinstance(item, list | tuple):
            if len(item) != len(length):
                raise RecordingError(f"forward returns {len(item)} values here, and {len(length)} at another length")
            found = [self.outputs(*each) for each in zip(item, batch, length, strict=True)]
            return type(item)(*found) if type(item) not in (list, tuple) else type(item)(found)
        return self.plain(item, batch, length)

    def plain(self, item: Any, batch: Any, length: Any) -> Any:
        """What forward returns beside tensors; a whole number may be a size.

        **Raises:** `RecordingError` for what is something else at another batch size or length.
        """
        if repr(item) == repr(batch) == repr(length):
            return item
        if all(type(each) is int for each in (item, batch, length)):
            size = self.surroundings.sizing.size(item, batch, length)
            if size is not None:
                return size
        raise RecordingError(
            f"forward returns {item!r} here, {batch!r} at another batch size and {length!r} at another length. Allowed "
            "beside tensors: what is always the same, and sizes. Return it as a tensor, or compute it from the outputs"
        )


def _live(surroundings: Surroundings) -> set[int]:
    """The numbers of the calls outside of loops that what forward returns, or a loop, depends on."""
    run, tape = surroundings.runs.given, surroundings.given
    wanted = {ref.index for ref in refs(tape.result)}
    for body in run.bodies:
        wanted |= {ref.index for ref in _read_by(body)}
    found: set[int] = set()
    for index in reversed(range(len(tape.entries))):
        entry = tape.entries[index]
        if any(ref.index in wanted for ref in entry.made) and not any(ref.index in run.at_steps for ref in entry.made):
            found.add(index)
            made = surroundings.entries(index)
            if not surroundings.is_folded_away(made):
                wanted |= {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}
    return found


def _read_by(body: Body) -> list[Ref]:
    """The values of outside that the steps of a loop read."""
    found: list[Ref] = []
    arguments = [argument for row in body.arguments for argument in row]
    arguments += [state for row in body.states for state in row or () if state is not None]
    arguments += [sliced for sliced, _ in body.reads.values()]
    for each in arguments:
        if isinstance(each, rolled.Invariant):
            found.append(each.ref)
        elif isinstance(each, rolled.Scanned):
            found.append(each.base)
        elif isinstance(each, rolled.ScannedList):
            found += each.refs
        elif isinstance(each, rolled.LoopCarried):
            found += refs(list(each.initials))
    return found
