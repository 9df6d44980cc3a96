"""What is read back out of a tensor that is filled piece by piece, as the values that were put into it."""

import dataclasses
from typing import Any

from ..ops import op_name
from .tape import Entry, Ref, Tape, base_name, replaced, with_values


@dataclasses.dataclass(frozen=True)
class _Filling:
    """A tensor that began as `first`, with the values put into it since then, by their places along one axis."""

    first: Ref
    axis: int
    values: dict[int, Ref]


def forwarded(tape: Tape) -> Tape:
    """The tape without reads from tensors that are filled along an axis: what was written stands in their place.

    `v[t + 1] = f(v[t])` hands `v` from step to step like `v = f(v)`. What is read before it is written is a part of the
    constant that the tensor began as; where it began as something else, reads stay as they are.
    """
    fillings: dict[int, _Filling] = {}
    values: dict[int, Ref] = {}
    entries, tensors, shapes = [], list(tape.tensors), list(tape.shapes)
    for given in tape.entries:
        entry = with_values(given, values)
        name = op_name(base_name(entry.target)) if entry.converter is None else ""
        if name == "setitem":
            filling = _filled(tape, entry, fillings)
            if filling is not None and isinstance(entry.result, Ref):
                fillings[entry.result.index] = filling
        elif name in ("getitem", "select") and isinstance(entry.result, Ref) and not entry.no_grad:
            base, place = _read(tape, name, entry)
            filling = fillings.get(base.index)
            if filling is not None and place is not None and place[0] == filling.axis:
                value = filling.values.get(place[1])
                if value is None and tape.is_constant(filling.first):
                    value = Ref(len(tensors))
                    tensors.append(tape.tensors[filling.first.index].select(*place))
                    shapes.append(tuple(tensors[-1].shape))
                if value is not None:
                    values[entry.result.index] = value
                    continue
        entries.append(entry)
    if not values:
        return tape
    result = replaced(tape.result, values)
    return dataclasses.replace(tape, entries=entries, tensors=tensors, shapes=shapes, result=result)


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
    return dataclasses.replace(before, values=before.values | {number: value})


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
