"""The arguments of a call as the template of a node: places for inputs and arrays, numbers of one sample."""

from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import RecordingError
from ..ir.regions import Call, Entries, StepNumber, Value
from ..ir.sizes import Size, SizeRatio
from ..nodes.call import BatchValue, Input, Items, LengthValue, Slice, StepList, StoredArray
from ..runtime.plan import InputLength, Schedule
from ..trace.autograd_functions import CustomFunction
from .draft import GraphDraft


@runtime_checkable
class Scope(Protocol):
    """Where a call is lowered: the graph that grows, and what values are there."""

    draft: GraphDraft

    def source(self, value: Value) -> Any:
        """The source of a value in the graph."""
        ...

    def array(self, value: Value) -> Any:
        """The array that a value is; None where it is computed."""
        ...


class ArgumentLowering:
    """Fills the arguments of a call, and says what goes into its node."""

    def __init__(self, call: Call, scope: Scope, *, holds_arrays: bool = True):
        self.call = call
        self.scope = scope
        self.holds_arrays = holds_arrays
        self.sources: list[Any] = []
        self.values: list[Value | None] = []
        self.in_axes: list[int | None] = []
        self.ranks: list[int] = []
        self.arrays: list[Any] = []
        self.array_ranks: list[int] = []

    def arguments(self) -> tuple[tuple[str, Any], ...]:
        """All arguments of the call by name, filled."""
        return tuple((name, self.fill(value)) for name, value in self.call.arguments.items())

    def fill(self, item: Any) -> Any:
        if isinstance(item, Value):
            return self.value(item)
        if isinstance(item, Entries):
            return StepList(self.source(item.value).number)
        if isinstance(item, Size | SizeRatio):
            return self.number(item)
        if isinstance(item, StepNumber):
            return self.input(self.scope.draft.input(Schedule(item.formula), "schedule"), None, 0)
        if isinstance(item, list | tuple):
            return Items(tuple(map(self.fill, item)))
        if isinstance(item, slice):
            return Slice(*(self.fill(part) for part in (item.start, item.stop, item.step)))
        if item is None or item is Ellipsis or isinstance(item, bool | int | float | str | CustomFunction):
            return item
        if isinstance(item, torch.dtype | torch.device | torch.memory_format):
            return str(item)
        raise RecordingError(
            f"{self.call.op}: an argument is a {type(item).__name__}\n  {self.call.line}\nAllowed: tensors, numbers, "
            "names, and lists of them",
            path=self.call.path,
        )

    def value(self, value: Value) -> Any:
        array = self.scope.array(value) if self.holds_arrays else None
        if array is not None:
            self.arrays.append(array)
            self.array_ranks.append(len(value.shape))
            return StoredArray(len(self.arrays) - 1)
        return self.source(value)

    def source(self, value: Value) -> Input:
        """An input that is a value."""
        return self.input(self.scope.source(value), value.batch_axis, len(value.shape), value)

    def input(self, source: Any, axis: int | None, rank: int, value: Value | None = None) -> Input:
        self.sources.append(source)
        self.values.append(value)
        self.in_axes.append(axis)
        self.ranks.append(rank)
        return Input(len(self.sources) - 1)

    def number(self, formula: Size | SizeRatio) -> Any:
        """A number, for one sample."""
        if isinstance(formula, Size):
            formula = formula.of_sample
        return formula(0) if formula.factor == 0 else LengthValue(self.length().number, formula)

    def length(self) -> Input:
        """An input that is the length."""
        return self.input(self.scope.draft.input(InputLength(), "num_steps"), None, 0)

    def aligned(self, out_axis: int | None, out_rank: int) -> bool:
        """Whether an elementwise function needs no batch axis: it lies at the same place, counted from the end."""
        if out_axis is None:
            return True
        behind = out_rank - out_axis - 1
        batched = zip(self.in_axes, self.ranks, strict=True)
        return all(rank - axis - 1 == behind if axis is not None else rank <= behind for axis, rank in batched) and all(
            rank <= behind for rank in self.array_ranks
        )


class BatchArguments(ArgumentLowering):
    """The arguments of a call of all samples."""

    def value(self, value: Value) -> Any:
        return self.source(value) if value.has_batch else super().value(value)

    def source(self, value: Value) -> Input:
        draft = self.scope.draft
        source = draft.whole[value] if value in draft.whole else draft.of_all_samples(value, self.scope.source(value))
        return self.input(source, None, len(value.shape), value)

    def number(self, formula: Size | SizeRatio) -> Any:
        if not formula.batched:
            return super().number(formula)
        return BatchValue(None if formula.factor == 0 else self.length().number, formula)
