"""A recorded tensor function as a node of a native model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax import snn

from ..errors import UnsupportedOptionError
from ..ir.sizes import Size, SizeRatio
from ..ops import OPS, Operand, Steps
from .batch import number_of_samples


@dataclasses.dataclass(frozen=True)
class Input:
    """In a call's arguments: the node's input of this number."""

    number: int


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """In a call's arguments: the array of this number that the node itself holds."""

    number: int


@dataclasses.dataclass(frozen=True)
class Items:
    """A list or tuple in a call's arguments, hashable."""

    items: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice in a call's arguments, hashable."""

    start: Any
    stop: Any
    step: Any


@dataclasses.dataclass(frozen=True)
class LengthValue:
    """In a call's arguments: a number that follows from the length, which is the input of this number."""

    number: int
    formula: Size | SizeRatio


@dataclasses.dataclass(frozen=True)
class BatchValue:
    """In a call's arguments: a number that follows from the batch size, and from the length where that is an input."""

    number: int | None
    formula: Size | SizeRatio


@dataclasses.dataclass(frozen=True)
class StepList:
    """In a call's arguments: the list of the values over time of the input of this number."""

    number: int


@dataclasses.dataclass(frozen=True)
class Form:
    """How a layer is called: its arguments by name, and where torch had the batch in its inputs and outputs."""

    arguments: tuple[tuple[str, Any], ...] = (("input", Input(0)),)
    in_axes: tuple[int | None, ...] = (None,)
    out_axes: tuple[int | None, ...] = (None,)


class Call(snn.AbstractFunction):
    """`OPS[op]` with its arguments as recorded, for one sample.

    torch's functions count axes with the batch among them. Where that matters (`in_axes`), inputs get a batch axis of
    length one, and the outputs lose it at `out_axes`. A call of all samples is given their batch as it is. Several
    outputs are one flat tuple, without what is None.
    """

    arrays: tuple[Array, ...]
    op: str = eqx.field(static=True)
    args: Items = eqx.field(static=True)
    kwargs: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    in_axes: tuple[int | None, ...] = eqx.field(static=True)
    out_axes: tuple[int | None, ...] = eqx.field(static=True)
    detached: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of_form(op: str, form: Form, options: Mapping[str, Any]) -> "Call":
        """A call in this form, with options by name: arrays, lists of arrays, and settings."""
        arrays: list[Array] = []

        def stored(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return Items(tuple(map(stored, value)))
            if eqx.is_array(value):
                arrays.append(value)
                return StoredArray(len(arrays) - 1)
            return value

        kwargs = (*form.arguments, *((name, stored(value)) for name, value in options.items()))
        return Call(tuple(arrays), op, Items(()), kwargs, form.in_axes, form.out_axes)

    def worked_axes(self, ranks: Sequence[int]) -> dict[int, set[int]]:
        """For each input, of these ranks, the axes that the operation mixes."""
        try:
            op, arguments = OPS[self.op].bind(
                _with_tuples(self.args), {name: _with_tuples(value) for name, value in self.kwargs}
            )
        except TypeError as error:
            raise UnsupportedOptionError(f"{self.op} cannot be converted in this form: {error}") from error
        found: dict[int, set[int]] = {}
        for name, value in arguments.items():
            for position, each in enumerate(value if isinstance(value, tuple) else (value,)):
                if isinstance(each, Input):
                    operand = Operand(name, ranks[each.number], position)
                    found.setdefault(each.number, set()).update(op.mixed_axes(operand, arguments))
        return found

    def __call__(self, *xs: Any) -> Any:
        values = tuple(
            x if axis is None else jnp.expand_dims(x, axis) for x, axis in zip(xs, self.in_axes, strict=True)
        )
        args = self._filled(self.args, values)
        kwargs = {name: self._filled(value, values) for name, value in self.kwargs}
        try:
            result = OPS[self.op](*args, **kwargs)
        except NotImplementedError as error:
            raise UnsupportedOptionError(f"{self.op} cannot be converted in this form: {error}") from error
        outs = tuple(jax.tree.leaves(result)) if isinstance(result, tuple) else (result,)
        outs = tuple(
            out if axis is None else jnp.squeeze(out, axis) for out, axis in zip(outs, self.out_axes, strict=True)
        )
        outs = jax.lax.stop_gradient(outs) if self.detached else outs
        return outs if isinstance(result, tuple) else outs[0]

    def _filled(self, argument: Any, values: tuple[Any, ...]) -> Any:
        if isinstance(argument, Input):
            return values[argument.number]
        if isinstance(argument, LengthValue):
            return argument.formula(values[argument.number])
        if isinstance(argument, BatchValue):
            length = 0 if argument.number is None else values[argument.number]
            return argument.formula.at(number_of_samples(), length)
        if isinstance(argument, StepList):
            return Steps(values[argument.number])
        if isinstance(argument, StoredArray):
            return self.arrays[argument.number]
        if isinstance(argument, Items):
            return tuple(self._filled(item, values) for item in argument.items)
        if isinstance(argument, Slice):
            return slice(*(self._filled(item, values) for item in (argument.start, argument.stop, argument.step)))
        return argument


def call_of(op: str, *options: Any) -> Call:
    """A call of one input and options on one sample, without batch axis."""
    return Call((), op, Items((Input(0), *options)), (), (None,), (None,))


def _with_tuples(argument: Any) -> Any:
    """An argument with tuples in the place of `Items`; what a slice leaves is read off the sizes."""
    if isinstance(argument, Slice):
        return slice(None)
    argument = argument.items if isinstance(argument, Items) else argument
    return tuple(map(_with_tuples, argument)) if isinstance(argument, tuple) else argument
