"""The arguments of a call in terms of values and sizes."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..converters.neuron import NeuronConverter
from ..errors import InteropError, LengthError
from ..ir.regions import Call, Entries, StepNumber, Value
from ..loops.body import StepNumbers
from ..loops.subscripts import moving_subscript
from ..trace.tape import Ref, function_name
from .entries import CallInRuns, normal_form
from .surroundings import Surroundings


class AbstractScope(abc.ABC):
    """Where a call is made: outside of all loops, or in one. `number` is that of the loop, or how many are done."""

    number: int

    @abc.abstractmethod
    def argument(self, place: int, ref: Ref, other: Ref) -> Value:
        """The value of an argument, from its number among those of the call."""

    @abc.abstractmethod
    def live_in(self, value: Value) -> Value:
        """A value of outside, as it is here."""


class Arguments:
    """The arguments of one call, in terms of values; integers become formulas."""

    def __init__(self, surroundings: Surroundings, entries: CallInRuns, scope: AbstractScope):
        self.surroundings = surroundings
        self.sizing = surroundings.sizing
        self.entries = entries
        self.scope = scope
        self.place = 0

    def filled(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        entries = self.entries
        args = self.items(*self.places_from_the_end())
        kwargs = {
            name: self.fill(value, *(other.kwargs[name] for other in (entries.batch, entries.length)))
            for name, value in entries.given.kwargs.items()
            if name != "out"
        }
        return tuple(args), kwargs

    def places_from_the_end(self) -> list[Any]:
        """The positional arguments in all runs; an index that is as far from the end at any length is negative."""
        rows = [entry.args for entry in self.entries.all]
        if self.entries.op != "getitem" or not isinstance(rows[0][0], Ref):
            return rows
        given = self.surroundings.given.shape(rows[0][0])
        other = self.surroundings.other_length.shape(rows[2][0])
        found = moving_subscript([rows[0][1], rows[2][1]], len(given))
        if (
            found is None
            or found.width is not None
            or found.starts[0] - given[found.axis] != (found.starts[1] - other[found.axis])
        ):
            return rows
        return [(row[0], found.with_place(row[1], found.starts[0] - given[found.axis])) for row in rows]

    def fill(self, a: Any, b: Any, c: Any) -> Any:
        if isinstance(a, Ref):
            place, self.place = self.place, self.place + 1
            return self.scope.argument(place, a, c if isinstance(c, Ref) else a)
        if isinstance(a, StepNumbers):
            return self.step_numbers(a, b, c)
        if isinstance(a, list | tuple):
            return self.sequence(a, b, c)
        if isinstance(a, slice):
            return slice(*(self.fill(*(getattr(each, part) for each in (a, b, c))) for part in _SLICE))
        if isinstance(a, bool) or a is None or a is Ellipsis or isinstance(a, str):
            if not (a == b == c):
                raise self.entries.refuse(f"an argument is {a} here, and {b} or {c} at another batch size or length")
            return a
        if isinstance(a, np.generic):
            return self.fill(*(each.item() for each in (a, b, c)))
        if isinstance(a, int | float):
            if isinstance(c, StepNumbers):
                raise self.entries.refuse(
                    f"a number is {a} at every step here, and changes from step to step at another length", LengthError
                )
            return self.sizing.number(self.entries, a, b, c)
        return a

    def sequence(self, a: Any, b: Any, c: Any) -> Any:
        if self.surroundings.loops.is_series(a, self.scope.number):
            self.place += len(a)
            return Entries(self.scope.live_in(self.surroundings.loops.sequence(a, c)))
        items = self.items(a, b, c)
        return items if isinstance(a, list) else tuple(items)

    def items(self, a: Any, b: Any, c: Any) -> list[Any]:
        if not (isinstance(b, list | tuple) and isinstance(c, list | tuple) and len(a) == len(b) == len(c)):
            raise self.entries.refuse(
                f"an argument has {len(a)} items here and another number at another length", LengthError
            )
        return [self.fill(*items) for items in zip(a, b, c, strict=True)]

    def step_numbers(self, a: StepNumbers, b: Any, c: Any) -> StepNumber:
        if a != b:
            shown = b.values[:3] if isinstance(b, StepNumbers) else b
            raise self.entries.refuse(f"numbers depend on the batch size: {a.values[:3]} and {shown}")
        return self.sizing.steps(a.values, c.values if isinstance(c, StepNumbers) else ())


_SLICE = ("start", "stop", "step")


def unified_call(
    surroundings: Surroundings, entries: CallInRuns, scope: AbstractScope, results: Sequence[Value] | None = None
) -> Call:
    """A call in terms of values. `results` are those that it makes, where they are defined already."""
    entry = entries.given
    try:
        args, kwargs = Arguments(surroundings, entries, scope).filled()
        if results is None:
            results = [surroundings.define(ref, other) for ref, other in entries.results()]
    except InteropError as error:
        if not error.path and entry.line and entry.line not in str(error):
            raise type(error)(f"{error}\n  {entry.line}", path=entry.path) from error
        raise
    converter = entry.converter
    op, arguments = normal_form(entry, args, kwargs)
    return Call(
        op=op,
        target=entry.target,
        args=args,
        kwargs=kwargs,
        arguments=arguments,
        results=tuple(results),
        is_single=isinstance(entry.result, Ref),
        path=entry.path,
        line=entry.line,
        shown="" if converter is not None else function_name(entry.target),
        converter=converter,
        fields=converter.fields if isinstance(converter, NeuronConverter) else (),
        no_grad=entry.no_grad,
    )
