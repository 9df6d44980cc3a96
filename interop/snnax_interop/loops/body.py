"""What one time step of a loop is made of: its calls, and where each of their arguments comes from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..trace.tape import Entry, Ref, Tape, refs
from .detect import TapeLoop


@dataclasses.dataclass(frozen=True)
class BodyValue:
    """A value made in a time step: by the call at `position`, its output number `item` or state field `item`."""

    position: int
    item: int
    is_state: bool


@dataclasses.dataclass(frozen=True)
class ValueAtStep:
    """A value at one time step of the loop of this number."""

    loop: int
    step: int
    value: BodyValue


@dataclasses.dataclass(frozen=True)
class SameStep:
    """An argument made earlier in the same step."""

    value: BodyValue


@dataclasses.dataclass(frozen=True)
class LoopCarried:
    """An argument made as many steps ago as there are `initials`: a `Ref` or a number for each step before that."""

    value: BodyValue
    initials: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Invariant:
    """An argument made before the loop, the same at every step."""

    ref: Ref


@dataclasses.dataclass(frozen=True)
class Scanned:
    """A time step of a value made before the loop: entry `start + t * stride` along `axis`.

    With a `width` these are so many entries from there on, along the axis that then remains.
    """

    base: Ref
    axis: int
    start: int = 0
    stride: int = 1
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class ScannedList:
    """An argument that another loop made: one value for each step."""

    refs: tuple[Ref, ...]


@dataclasses.dataclass(frozen=True)
class StepNumbers:
    """In the arguments of a call: a number that changes from step to step."""

    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Write:
    """A call that only keeps a value for later: the value's argument number, and the axis along which steps follow.

    It fills entries `start`, `start + stride` and so on, or, with `start` None, makes its target longer.
    """

    argument: int
    axis: int
    start: int | None
    stride: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """The first entry that so many steps fill, and the one behind the last."""
        first = self.start or 0
        last = first + self.stride * (count - 1)
        return min(first, last), max(first, last) + 1


Argument = SameStep | LoopCarried | Invariant | Scanned | ScannedList


@dataclasses.dataclass
class Body:
    """The calls of one time step. `arguments[position]` holds, for each `Ref` slot of the call, where it comes from.

    `reads` are the positions that only take a time step out of a sequence, with what is left of their index; `writes`
    those that only keep a value; `constants` those that depend on no input and parameter, with their results at all
    steps. `states` holds the origins of a neuron's state, None in the place of a field or of all for its beginning.
    """

    loop: TapeLoop
    entries: list[Entry] = dataclasses.field(default_factory=list)
    arguments: list[list[Argument]] = dataclasses.field(default_factory=list)
    states: list[list[Argument | None] | None] = dataclasses.field(default_factory=list)
    reads: dict[int, tuple[Scanned, Any]] = dataclasses.field(default_factory=dict)
    writes: dict[int, Write] = dataclasses.field(default_factory=dict)
    constants: dict[int, list[list[Ref]]] = dataclasses.field(default_factory=dict)


def outputs_of(entry: Entry) -> list[Ref]:
    return refs(entry.result)


def slots(entry: Entry) -> tuple[list[Any], Any]:
    """The leaves of a call's arguments, and their structure, which equals that of calls with other leaves."""
    leaves: list[Any] = []
    return leaves, _structure((entry.args, entry.kwargs), leaves)


_LEAVES = frozenset({Ref, bool, int, float, str, type(None)})


def _structure(tree: Any, leaves: list[Any]) -> Any:
    """The structure of a tree, whose leaves are added to others; torch's own flattening takes several times as long."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return (kind, *[_structure(item, leaves) for item in tree])
    if kind is dict:
        return (kind, tuple(tree), *[_structure(item, leaves) for item in tree.values()])
    if kind in _LEAVES:
        leaves.append(tree)
        return None
    found, structure = pytree.tree_flatten(tree)
    leaves += found
    return None if structure.is_leaf() else structure


def values_made(entry: Entry, position: int) -> dict[int, BodyValue]:
    """All values that a call makes, by their indices; a state that is an output as well counts as the output."""
    found = {ref.index: BodyValue(position, item, True) for item, ref in enumerate(entry.state_out)}
    return found | {ref.index: BodyValue(position, item, False) for item, ref in enumerate(outputs_of(entry))}


def at_steps(tape: Tape, loops: list[TapeLoop]) -> dict[int, ValueAtStep]:
    """Where every value comes from that a loop makes."""
    found = {}
    for number, loop in enumerate(loops):
        for step in range(loop.count):
            for position in range(loop.period):
                entry = tape.entries[loop.index(step, position)]
                for ref, value in values_made(entry, position).items():
                    found[ref] = ValueAtStep(number, step, value)
    return found


def is_same(constants: Sequence[torch.Tensor]) -> bool:
    """Whether constants have one value."""
    first = constants[0]
    return all(first.shape == other.shape and torch.equal(first, other) for other in constants[1:])
