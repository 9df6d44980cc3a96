"""Sizes of a program: integers and numbers that follow from the batch size B and the length T."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


_LARGEST_DIVISOR = 16


@dataclasses.dataclass(frozen=True)
class Size:
    """The integer `(factor * T + offset) // divisor` of a length T; so many for each sample of a batch, if `batched`.

    With `exact`, only of lengths that leave no remainder. A size that is always the same has the factor 0.
    """

    factor: int
    offset: int
    divisor: int = 1
    exact: bool = False
    batched: bool = False

    def __call__(self, length: Any) -> Any:
        """The size for one sample.

        **Raises:** `ValueError` for a length with a remainder that has none.
        """
        found, rest = divmod(self.factor * length + self.offset, self.divisor)
        if self.exact and rest:
            raise ValueError(
                f"the network runs lengths n where n {self.offset:+} is a multiple of {self.divisor}, found "
                f"n = {length}: it does something else at the last steps of other lengths"
            )
        return found

    def at(self, batch: int, length: int) -> int:
        """The size of a batch."""
        return self(length) * (batch if self.batched else 1)

    @property
    def is_fixed(self) -> bool:
        """Whether the size is the same whatever the batch size and the length are."""
        return not self.batched and self.factor == 0

    @property
    def of_sample(self) -> "Size":
        """The size for one sample."""
        return dataclasses.replace(self, batched=False)

    def __str__(self) -> str:
        if self.factor == 0:
            per_sample = str(self.offset // self.divisor)
            return ("B" if per_sample == "1" else f"{per_sample}B") if self.batched else per_sample
        text = ("" if self.factor == 1 else str(self.factor)) + "T"
        if self.offset:
            text += f"{'+' if self.offset > 0 else '-'}{abs(self.offset)}"
        if self.divisor != 1:
            text = f"({text})" if self.offset or self.factor != 1 else text
            text += f"{'/' if self.exact else '//'}{self.divisor}"
        if self.batched:
            text = f"{text}*B" if self.divisor == 1 and not self.offset else f"({text})*B"
        return text

    @staticmethod
    def fit(values: Sequence[int], lengths: Sequence[int], *, exact: bool = False) -> "Size | None":
        """The formula for the values at two lengths; None where there is none.

        With `exact`, also a fraction of the length without remainder; a further length must confirm it.
        """
        (a, b), (n, m) = values, lengths
        if a == b:
            return Size(0, a)
        if a - n == b - m:
            return Size(1, a - n)
        if n and a % n == 0 and a * m == b * n:
            return Size(a // n, 0)
        if exact:
            divisor, rest = divmod(m - n, b - a)
            return None if rest or divisor < 1 else Size(1, a * divisor - n, divisor, exact=True)
        return None

    @staticmethod
    def rounding(values: Sequence[int], lengths: Sequence[int]) -> "Size | None":
        """A fraction of the length, rounded, for the values at two lengths; further lengths must confirm it."""
        for divisor in range(2, _LARGEST_DIVISOR + 1):
            found = [Size(1, offset, divisor) for offset in range(divisor)]
            found = [each for each in found if tuple(map(each, lengths)) == tuple(values)]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    @staticmethod
    def affine(values: Sequence[int], lengths: Sequence[int]) -> "Size | None":
        """The size of an axis at two lengths, where it grows by whole numbers with the length."""
        (a, b), (n, m) = values, lengths
        factor, rest = divmod(b - a, m - n)
        return None if rest else Size(factor, a - factor * n)


@dataclasses.dataclass(frozen=True)
class SizeRatio:
    """The number `numerator / size`, or with `inverted` its `numerator * size`."""

    numerator: float
    size: Size
    inverted: bool = False

    @property
    def batched(self) -> bool:
        return self.size.batched

    @property
    def factor(self) -> int:
        return self.size.factor

    def __call__(self, length: Any) -> Any:
        """The number for one sample."""
        return self._of(self.size(length))

    def at(self, batch: int, length: int) -> float:
        """The number of a batch."""
        return self._of(self.size.at(batch, length))

    def _of(self, size: Any) -> Any:
        return self.numerator * size if self.inverted else self.numerator / size

    def __str__(self) -> str:
        size = str(self.size) if str(self.size) in ("T", "B") else f"({self.size})"
        return f"{self.numerator:g}{'*' if self.inverted else '/'}{size}"

    @staticmethod
    def fit(values: Sequence[float], lengths: Sequence[int]) -> "SizeRatio | None":
        """The formula for the values at two lengths; None where there is none."""
        return SizeRatio.of(values, [(1, length) for length in lengths], [Size(1, offset) for offset in (0, -1, 1)])

    @staticmethod
    def of(values: Sequence[float], places: Sequence[tuple[int, int]], sizes: Sequence[Size]) -> "SizeRatio | None":
        """The formula with one of these sizes for the values at several batch sizes and lengths."""
        for size in sizes:
            found = [size.at(*place) for place in places]
            if not all(found):
                continue
            products = [value * each for value, each in zip(values, found, strict=True)]
            if all(is_close(each, products[0]) for each in products):
                return SizeRatio(float(rounded(products[0])), size)
            quotients = [value / each for value, each in zip(values, found, strict=True)]
            if all(is_close(each, quotients[0]) for each in quotients):
                return SizeRatio(quotients[0], size, inverted=True)
        return None


def is_close(a: int | float, b: int | float) -> bool:
    """Whether two numbers differ by rounding only."""
    return math.isclose(a, b, rel_tol=1e-13, abs_tol=1e-15)


def rounded(value: int | float) -> int | float:
    """Whole where only rounding keeps it from that."""
    return round(value) if is_close(value, round(value)) else value
