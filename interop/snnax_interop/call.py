"""A recorded tensor function as a node of a native model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax import snn

from .errors import UnsupportedOptionError
from .ops import OPS, Steps


@dataclasses.dataclass(frozen=True)
class Input:
    """In a call's arguments: the node's input of this number."""

    number: int


@dataclasses.dataclass(frozen=True)
class Held:
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
class StepCount:
    """In a call's arguments: `factor * n + offset`, where the input of this number is the count of time steps `n`."""

    number: int
    factor: int
    offset: int


@dataclasses.dataclass(frozen=True)
class StepList:
    """In a call's arguments: the list of the values over time of the input of this number."""

    number: int


class Call(snn.AbstractFunction):
    """`OPS[op]` with its arguments as recorded, for one sample.

    torch's functions count axes with the batch among them. Where that matters (`in_axes`), inputs get a batch axis of
    length one, and the outputs lose it at `out_axes`.
    """

    arrays: tuple[Array, ...]
    op: str = eqx.field(static=True)
    args: Items = eqx.field(static=True)
    kwargs: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    in_axes: tuple[int | None, ...] = eqx.field(static=True)
    out_axes: tuple[int | None, ...] = eqx.field(static=True)
    detached: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of_arrays(
        op: str, arrays: Mapping[str, Array], options: Mapping[str, Any], batch_axis: int | None, out_axis: int | None
    ) -> "Call":
        """A call of one input, with arrays and options by name."""
        held = {name: Held(number) for number, name in enumerate(arrays)}
        kwargs = tuple({**held, **options}.items())
        return Call(tuple(arrays.values()), op, Items((Input(0),)), kwargs, (batch_axis,), (out_axis,))

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
        outs = result if isinstance(result, tuple) else (result,)
        outs = tuple(
            out if axis is None else jnp.squeeze(out, axis) for out, axis in zip(outs, self.out_axes, strict=True)
        )
        outs = jax.lax.stop_gradient(outs) if self.detached else outs
        return outs if isinstance(result, tuple) else outs[0]

    def _filled(self, template: Any, values: tuple[Any, ...]) -> Any:
        if isinstance(template, Input):
            return values[template.number]
        if isinstance(template, StepCount):
            return template.factor * values[template.number] + template.offset
        if isinstance(template, StepList):
            return Steps(values[template.number])
        if isinstance(template, Held):
            return self.arrays[template.number]
        if isinstance(template, Items):
            return tuple(self._filled(item, values) for item in template.items)
        if isinstance(template, Slice):
            return slice(*(self._filled(item, values) for item in (template.start, template.stop, template.step)))
        return template
