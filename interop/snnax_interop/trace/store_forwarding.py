"""Reads and writes that a tape can do without.

What is read back out of a tensor that is filled piece by piece is the value that was put into it. What a write makes of
other tensors in the same memory is left out where nobody looks at them.
"""

import dataclasses
from typing import Any

import torch

from ..ops import op_name
from .tape import Entry, Ref, Tape, base_name, refs, replaced, with_values


@dataclasses.dataclass(frozen=True)
class _Filling:
    """A tensor that began as `first`, with the values put into it since then, by their places along one axis.

    `last` is where the last one was put.
    """

    first: Ref
    axis: int
    values: dict[int, Ref]
    last: int = -1


def forward_stores(tape: Tape) -> Tape:
    """The tape without reads from tensors that are filled along an axis: what was written stands in their place.

    `v[t + 1] = f(v[t])` hands `v` from step to step like `v = f(v)`. What is read before it is written is a part of the
    constant that the tensor began as; where it began as something else, it is read from that.
    """
    fillings: dict[int, _Filling] = {}
    values: dict[int, Ref] = {}
    written: dict[int, tuple[int, tuple[int, int]]] = {}
    blanks = _Blanks(tape)
    constants = _filled_constants(tape)
    entries: list[Entry] = []
    for given in tape.entries:
        entry = with_values(given, values)
        name = op_name(base_name(entry.target)) if entry.converter is None else ""
        if name == "setitem":
            filling = _filled(tape, entry, fillings)
            if filling is not None and isinstance(entry.result, Ref):
                target = entry.args[0]
                place = (filling.axis, filling.last)
                last = written.get(target.index)
                if last is not None and last[1] == place:
                    # What it writes over need not be written.
                    entries[last[0]] = dataclasses.replace(entries[last[0]], derived=True)
                    target = entries[last[0]].args[0]
                    entry = dataclasses.replace(entry, args=(target, *entry.args[1:]))
                fillings[entry.result.index] = filling
                written[entry.result.index] = (len(entries), place)
        elif name in ("getitem", "select") and isinstance(entry.result, Ref) and not entry.no_grad:
            base, place = _read(tape, name, entry)
            filling = fillings.get(base.index)
            if filling is None and place is not None and base.index in constants:
                filling = _Filling(base, place[0], {})
            if filling is not None and place is not None and place[0] == filling.axis:
                value = filling.values.get(place[1])
                if value is None and tape.is_constant(filling.first):
                    value = blanks.part(filling.first, *place)
                if value is not None:
                    values[entry.result.index] = value
                    continue
                entry = with_values(entry, {base.index: filling.first})
        entries.append(entry)
    result = replaced(tape.result, values)
    return dataclasses.replace(tape, entries=entries, tensors=blanks.tensors, shapes=blanks.shapes, result=result)


class _Blanks:
    """The parts of constants that are read; neighbours that hold the same are one value."""

    def __init__(self, tape: Tape):
        self.tensors = list(tape.tensors)
        self.shapes = list(tape.shapes)
        self.known: dict[tuple[int, int], Ref] = {}

    def part(self, constant: Ref, axis: int, number: int) -> Ref:
        content = self.tensors[constant.index].select(axis, number)
        last = self.known.get((constant.index, axis))
        if last is not None and torch.equal(self.tensors[last.index], content):
            return last
        self.tensors.append(content)
        self.shapes.append(tuple(content.shape))
        self.known[constant.index, axis] = Ref(len(self.tensors) - 1)
        return self.known[constant.index, axis]


def without_unused(tape: Tape) -> Tape:
    """The tape without the calls that the user has not made and nothing needs.

    A line that runs several times keeps them each time, or never.
    """
    used_lines: set[tuple[object, ...]] = set()
    while True:
        wanted = {ref.index for ref in refs(tape.result)}
        entries, before = [], len(used_lines)
        for entry in reversed(tape.entries):
            used = any(ref.index in wanted for ref in entry.made)
            if entry.derived and used:
                used_lines.add(entry.signature)
            if not entry.derived or used or entry.signature in used_lines:
                wanted |= {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}
                entries.append(entry)
        if len(used_lines) == before:
            return dataclasses.replace(tape, entries=entries[::-1])


def _filled_constants(tape: Tape) -> set[int]:
    """The constants that are filled later."""
    writes = (
        entry for entry in tape.entries if entry.converter is None and op_name(base_name(entry.target)) == "setitem"
    )
    return {entry.args[0].index for entry in writes if tape.is_constant(entry.args[0])}


def _filled(tape: Tape, entry: Entry, fillings: dict[int, _Filling]) -> _Filling | None:
    """The tensor after a value is put into it; None where that is no whole piece along its axis."""
    target, index, value = entry.args
    shape = tape.shape(target)
    place = _place(index, shape)
    if place is None or not isinstance(value, Ref) or entry.no_grad:
        return None
    axis, number = place
    before = fillings.get(target.index, _Filling(target, axis, {}))
    same = tape.tensors[value.index].dtype == tape.tensors[target.index].dtype
    if before.axis != axis or not same or tape.shape(value) != shape[:axis] + shape[axis + 1 :]:
        return None
    return dataclasses.replace(before, values=before.values | {number: value}, last=number)


def _read(tape: Tape, name: str, entry: Entry) -> tuple[Ref, tuple[int, int] | None]:
    """The tensor that is read, and the place along one axis."""
    if name == "getitem":
        base, index = entry.args
        return base, _place(index, tape.shape(base))
    named = dict(zip(("input", "dim", "index"), entry.args, strict=False)) | entry.kwargs
    base, dim, index = named["input"], named["dim"], named["index"]
    shape = tape.shape(base)
    return base, _place((*(slice(None),) * (dim % len(shape)), index), shape)


def _place(index: Any, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The axis and the place along it of a subscript that is one whole number, and takes all of the other axes."""
    row = index if isinstance(index, tuple) else (index,)
    numbers = [place for place, item in enumerate(row) if type(item) is int]
    if len(numbers) != 1 or not all(type(item) is int or item is Ellipsis or item == slice(None) for item in row):
        return None
    (place,) = numbers
    axis = len(shape) - (len(row) - place) if Ellipsis in row[:place] else place
    return axis, row[place] % shape[axis]
