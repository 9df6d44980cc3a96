"""Subscripts that move with the time step."""

import dataclasses
from typing import Any

from ..trace.tape import Entry, Ref


def has_stride(numbers: list[int], stride: int) -> bool:
    return stride != 0 and all(number == numbers[0] + stride * step for step, number in enumerate(numbers))


@dataclasses.dataclass(frozen=True)
class Moving:
    """An index that moves along `axis`, beginning at `starts`; `rest` is what remains of it once it has no time.

    `place` is where in a subscript the moving part is.
    """

    axis: int
    rest: Any
    starts: list[int]
    width: int | None
    place: int = 0

    def with_place(self, index: Any, start: int) -> Any:
        """A subscript like `index` that begins at `start`."""
        if not isinstance(index, tuple):
            return start
        return (*index[: self.place], start, *index[self.place + 1 :])


def moving_index(name: str, steps: list[Entry], rank: int) -> Moving | None:
    """The index of calls that take a part out of a tensor."""
    if name == "getitem":
        return moving_subscript([each.args[1] for each in steps], rank)
    names = ("input", "dim", "index") if name == "select" else ("input", "dim", "start", "length")
    given = [dict(zip(names, each.args, strict=False)) | each.kwargs for each in steps]
    starts = [each[names[2]] for each in given]
    fixed = {(each["dim"], each.get("length")) for each in given}
    if len(fixed) != 1 or not all(type(start) is int for start in starts):
        return None
    ((axis, width),) = fixed
    return Moving(axis % rank, (), starts, width)


def moving_subscript(indices: list[Any], rank: int) -> Moving | None:
    """Subscripts of a tensor with so many axes that differ in one integer or slice; None for others."""
    rows = [index if isinstance(index, tuple) else (index,) for index in indices]
    if len({len(row) for row in rows}) != 1:
        return None
    changing = [place for place in range(len(rows[0])) if any(not _equal(row[place], rows[0][place]) for row in rows)]
    if len(changing) != 1 or any(item is None or isinstance(item, Ref) for item in rows[-1]):
        return None
    (place,) = changing
    row, moving = rows[-1], [each[place] for each in rows]
    axis = rank - (len(row) - place) if Ellipsis in row[:place] else place
    if all(type(item) is int for item in moving):
        rest, starts, width = (*row[:place], *row[place + 1 :]), moving, None
    elif all(type(item) is slice and item.step is None for item in moving):
        bounds = [(item.start or 0, item.stop) for item in moving]
        if not all(type(start) is int and type(stop) is int for start, stop in bounds):
            return None
        widths = {stop - start for start, stop in bounds}
        if len(widths) != 1:
            return None
        rest, starts, width = (*row[:place], slice(None), *row[place + 1 :]), [start for start, _ in bounds], *widths
    else:
        return None
    trivial = all(item is Ellipsis or item == slice(None) for item in rest)
    return Moving(axis, () if trivial else rest, starts, width, place)


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b
