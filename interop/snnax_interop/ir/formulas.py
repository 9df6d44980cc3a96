"""Numbers that depend on the time step or on the length, as formulas that hold at any length."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


_LARGEST_DIVISOR = 16


@dataclasses.dataclass(frozen=True)
class Length:
    """The integer `(factor * n + offset) // divisor` of a length `n`.

    With `exact`, only of lengths that leave no remainder.
    """

    factor: int
    offset: int
    divisor: int = 1
    exact: bool = False

    def __call__(self, n: Any) -> Any:
        """**Raises:** `ValueError` for a length with a remainder that has none."""
        found, rest = divmod(self.factor * n + self.offset, self.divisor)
        if self.exact and rest:
            raise ValueError(
                f"the network runs lengths n where n {self.offset:+} is a multiple of {self.divisor}, found n = {n}: "
                "it does something else at the last steps of other lengths"
            )
        return found

    @staticmethod
    def fit(values: tuple[int, int], lengths: tuple[int, int], *, exact: bool = False) -> "Length | None":
        """The formula for the values at two lengths; None where there is none.

        With `exact`, also a fraction of the length without remainder; a further length must confirm it.
        """
        (a, b), (n, m) = values, lengths
        if a == b:
            return Length(0, a)
        if a - n == b - m:
            return Length(1, a - n)
        if n and a % n == 0 and a * m == b * n:
            return Length(a // n, 0)
        if exact:
            divisor, rest = divmod(m - n, b - a)
            return None if rest or divisor < 1 else Length(1, a * divisor - n, divisor, exact=True)
        return None

    @staticmethod
    def rounding(values: tuple[int, int], lengths: tuple[int, int]) -> "Length | None":
        """A fraction of the length, rounded, for the values at two lengths; further lengths must confirm it."""
        for divisor in range(2, _LARGEST_DIVISOR + 1):
            found = [Length(1, offset, divisor) for offset in range(divisor)]
            found = [each for each in found if tuple(map(each, lengths)) == values]
            if found:
                return found[0] if len(found) == 1 else None
        return None


@dataclasses.dataclass(frozen=True)
class Fraction:
    """The number `numerator / (n + offset)`, or with `inverted` its `numerator * (n + offset)`, of a length `n`."""

    numerator: float
    offset: int
    inverted: bool = False

    def __call__(self, n: Any) -> Any:
        return self.numerator * (n + self.offset) if self.inverted else self.numerator / (n + self.offset)

    @staticmethod
    def fit(values: tuple[float, float], lengths: tuple[int, int]) -> "Fraction | None":
        """The formula for the values at two lengths; None where there is none."""
        for offset in (0, -1, 1):
            a, b = (n + offset for n in lengths)
            if a and b and _is_close(values[0] * a, values[1] * b):
                product = values[0] * a
                return Fraction(float(_rounded(product)), offset)
            if a and b and _is_close(values[0] / a, values[1] / b):
                return Fraction(values[0] / a, offset, inverted=True)
        return None


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers that are known for so many time steps only."""

    values: tuple[Any, ...]

    def __call__(self, n: int) -> np.ndarray:
        assert n == len(self.values)
        return np.asarray(self.values)


@dataclasses.dataclass(frozen=True)
class Progression:
    """A number at each of `n` time steps, from the step counted from the start (`k = t`) or the end (`k = t - n`).

    - `"affine"`: `a + b k`; `"reciprocal"`: one over that.
    - `"geometric"`: `a b^k`; `"power"`: `b^(a + k)` and `"falling"`: `b^(a - k)`, as Python rounds them.
    - `"share"`: `(a + b t) / (n + c)`, with whole numbers.
    - `"switch"`: `a` before step `c`, `b` from it on.
    """

    kind: Literal["affine", "reciprocal", "geometric", "power", "falling", "share", "switch"]
    from_end: bool
    a: Any
    b: Any
    c: int = 0
    whole: bool = False

    def __call__(self, n: int) -> np.ndarray:
        values = [self._at(step, n) for step in range(n)]
        return np.asarray([round(value) for value in values] if self.whole else values)

    def _at(self, step: int, n: int) -> Any:
        k = step - n if self.from_end else step
        match self.kind:
            case "affine":
                return self.a + self.b * k
            case "reciprocal":
                return 1 / (self.a + self.b * k)
            case "geometric":
                return self.a * self.b**k
            case "power":
                return self.b ** (self.a + k)
            case "falling":
                return self.b ** (self.a - k)
            case "share":
                start = self.a + (n if self.from_end else 0)
                return (start + self.b * step) / (n + self.c)
            case "switch":
                return self.b if k >= self.c else self.a


def fit_progression(rows: Sequence[Sequence[Any]]) -> Progression | None:
    """The formula for numbers at every step of two runs of different length; None where none of them fits both."""
    for propose in (_affine, _power, _geometric, _reciprocal, _share, _switch):
        for candidate in propose(rows):
            if all(_agrees(candidate, row) for row in rows):
                return candidate
    return None


def _agrees(candidate: Progression, row: Sequence[Any]) -> bool:
    try:
        found = candidate(len(row))
    except (ArithmeticError, ValueError):
        return False
    return all(_is_close(float(a), float(b)) for a, b in zip(row, found, strict=True))


def _is_close(a: int | float, b: int | float) -> bool:
    return math.isclose(a, b, rel_tol=1e-13, abs_tol=1e-15)


def _ends(rows: Sequence[Sequence[Any]]) -> list[tuple[bool, list[Any], int]]:
    """The longer row counted from its start and from its end, with the first `k`."""
    row = list(rows[-1])
    return [(False, row, 0), (True, row, -len(row))]


def _affine(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    whole = all(type(value) is int for row in rows for value in row)
    found = []
    for from_end, row, first in _ends(rows):
        slope = row[1] - row[0]
        found.append(Progression("affine", from_end, row[0] - slope * first, slope, whole=whole))
    return found


def _reciprocal(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    if not all(value for row in rows for value in row):
        return []
    inverse = [[_rounded(1 / value) for value in row] for row in rows]
    return [dataclasses.replace(each, kind="reciprocal", whole=False) for each in _affine(inverse)]


def _power(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    """Powers of one of the numbers, so that Python's own rounding comes out."""
    found = []
    for from_end, row, first in _ends(rows):
        if not all(value > 0 for value in row):
            continue
        for step, value in enumerate(row):
            if math.isclose(value, row[1] / row[0], rel_tol=1e-9):
                found.append(Progression("power", from_end, 1 - (first + step), value))
            if math.isclose(value, row[0] / row[1], rel_tol=1e-9):
                found.append(Progression("falling", from_end, 1 + (first + step), value))
    return found


def _geometric(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    found = []
    for from_end, row, first in _ends(rows):
        if all(row):
            ratio = (row[-1] / row[0]) ** (1 / (len(row) - 1)) if row[-1] / row[0] > 0 else 0.0
            if ratio:
                found.append(Progression("geometric", from_end, row[0] / ratio**first, ratio))
    return found


def _share(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    found = []
    for offset in (0, -1, 1):
        scaled = [[value * (len(row) + offset) for value in row] for row in rows]
        if all(_is_close(value, round(value)) for row in scaled for value in row):
            slope = round(scaled[-1][1] - scaled[-1][0])
            start = [round(row[0]) for row in scaled]
            found.append(Progression("share", False, start[-1], slope, offset))
            found.append(Progression("share", True, start[-1] - len(rows[-1]), slope, offset))
    return found


def _switch(rows: Sequence[Sequence[Any]]) -> list[Progression]:
    found = []
    for from_end, row, first in _ends(rows):
        place = next((step for step, value in enumerate(row) if value != row[0]), None)
        if place is not None:
            found.append(Progression("switch", from_end, row[0], row[place], first + place))
    return found


def _rounded(value: int | float) -> int | float:
    """Whole where only rounding keeps it from that."""
    return round(value) if _is_close(value, round(value)) else value
