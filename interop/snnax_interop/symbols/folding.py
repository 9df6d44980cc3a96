"""How the batch lies in axes that it is folded into, and whether a reshape keeps the elements of a sample together.

A reshape keeps the order of all elements, and says nothing of where samples are. It is one of single samples exactly
where as many elements lie before the batch in the result as before it in the argument: `[T, B, N]` as `[T * B, N]` is,
and `[B, T, N]` is not, which gives each sample parts of others.
"""

import math
from collections.abc import Mapping

from ..ir.program import Program
from ..ir.regions import Call, Carried, Entries, Invariant, Item, Loop, Value
from ..ir.sizes import Size


# Numbers at the example's length and at another one; equal numbers are equal formulas then.
Numbers = tuple[int, ...]

_FAR = 720720  # a multiple of all divisors that sizes have

_RESHAPES = {"reshape", "view_as", "flatten", "ravel", "unflatten", "Flatten", "Unflatten"}


class Folding:
    """The places of the batch in all values of a program."""

    def __init__(self, program: Program, makers: Mapping[Value, Item]):
        self.makers = makers
        self.operands = {value: each for loop in program.loops for value, each in loop.operands.items()}
        self.lengths = (program.example[1], program.example[1] + _FAR)
        self.found: dict[Value, Numbers | None] = {}

    def scatters(self, call: Call) -> bool:
        """Whether a call is a reshape that does not keep samples together, as far as is known."""
        if call.op not in _RESHAPES:
            return False
        (out,) = call.results
        value = call.reads[0]
        if not value.has_batch or not out.has_batch:
            return False
        before, leading = self.before(value), self.leading(out)
        if before is None:
            return True
        if not out.is_folded:
            return before != leading
        return any(a % b for a, b in zip(before, leading, strict=True))

    def before(self, value: Value) -> Numbers | None:
        """How many elements of a sample lie before the batch; None where that is not known."""
        leading = self.leading(value)
        if not value.is_folded:
            return leading
        within = self.within(value)
        return None if within is None else _times(leading, within)

    def leading(self, value: Value) -> Numbers:
        """How many elements of a sample the axes before that of the batch have."""
        sizes = value.shape[: value.batched_axes[0]]
        return tuple(math.prod(size(length) for size in sizes) for length in self.lengths)

    def within(self, value: Value) -> Numbers | None:
        """How many elements of a sample lie before the batch in the axis that it is folded into."""
        if value not in self.found:
            self.found[value] = None  # for values that are carried
            self.found[value] = self._within(value)
        return self.found[value]

    def _within(self, value: Value) -> Numbers | None:
        operand = self.operands.get(value)
        if isinstance(operand, Carried):
            source = operand.initial if isinstance(operand.initial, Value) else operand.update
            return self._of_same(value, [source])
        if operand is not None:
            return self.within(operand.value) if isinstance(operand, Invariant) else None
        maker = self.makers.get(value)
        if isinstance(maker, Loop):
            return self.within({**maker.finals, **maker.emitted}[value])
        if maker is None or len(value.batched_axes) > 1:
            return None
        if maker.op in _RESHAPES:
            before, leading = self.before(maker.reads[0]), self.leading(value)
            return None if before is None else tuple(a // b for a, b in zip(before, leading, strict=True))
        if maker.op in ("repeat", "tile") and maker.reads[0].batch_axis is not None:
            return tuple(_batched_sizes(value)[0](length) for length in self.lengths)
        if maker.op == "cat":
            return self._joined(maker)
        return self._of_same(value, maker.reads)

    def _of_same(self, value: Value, reads: list[Value]) -> Numbers | None:
        """The place in the values that one is computed from, element by element along the axis, where they agree."""
        folded = [each for each in reads if each.has_batch]
        if any(_batched_sizes(each) != _batched_sizes(value) for each in folded):
            return None
        found = {self.within(each) for each in folded}
        return found.pop() if len(found) == 1 else None

    def _joined(self, call: Call) -> Numbers | None:
        """The place where batches are joined one behind the other."""
        tensors, dim = call.arguments["tensors"], call.arguments.get("dim", 0)
        (out,) = call.results
        if isinstance(tensors, Entries):
            axes = [None if tensors.value.batch_axis is None else tensors.value.batch_axis - 1]
            count = tuple(tensors.value.shape[0](length) for length in self.lengths)
        else:
            axes = [each.batch_axis if isinstance(each, Value) else None for each in tensors]
            count = (len(axes),) * len(self.lengths)
        return count if set(axes) == {dim % len(out.shape)} else None


def _batched_sizes(value: Value) -> list[Size]:
    return [size for size in value.shape if size.batched]


def _times(a: Numbers, b: Numbers) -> Numbers:
    return tuple(x * y for x, y in zip(a, b, strict=True))
