"""Which axes of its operands an operation mixes.

An axis is *mixed* where the operation does not act on each place along it by itself, alike at every place: a sum over
it, a softmax along it, a flip of it, a triangle cut out of it. Along an axis that is not mixed, the result of one
place is the place of the result: an axis of samples can be taken away there, as `jax.vmap` would. Every operation
declares one of

- `"elementwise"`: each element by itself; operands broadcast from the last axis on. No axis is mixed.
- `"separate"`: no axis is mixed, but axes have meanings by their place (channels are axis 1).
- `"shape"`: elements are moved, cut out or joined, and never computed with. Where an axis went is read off the sizes.
- `"constant"`: the values of the operands do not matter.
- A `Mixing`: the rule that names the mixed axes of each operand.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple


class Operand(NamedTuple):
    """A tensor argument: the parameter that it is given for, its number of axes, its place in a list of tensors."""

    name: str
    rank: int
    position: int = 0


# From an operand and all arguments by name, defaults filled in: the mixed axes, negative ones from the end.
Rule = Callable[[Operand, Mapping[str, Any]], Iterable[int]]


@dataclasses.dataclass(frozen=True)
class Mixing:
    """The axes that an operation mixes; `a | b` names those of both.

    `moves` is for operations that only move elements: along the axes that are not named, the sizes tell what became
    of them.
    """

    rule: Rule
    moves: bool = False

    def __call__(self, operand: Operand, arguments: Mapping[str, Any]) -> frozenset[int]:
        return frozenset(axis % operand.rank for axis in self.rule(operand, arguments)) if operand.rank else frozenset()

    def __or__(self, other: "Mixing") -> "Mixing":
        return Mixing(lambda operand, arguments: self(operand, arguments) | other(operand, arguments))


Axes = Literal["elementwise", "separate", "shape", "constant"] | Mixing


def along(parameter: str = "dim", *, of: Collection[str] = ("input",)) -> Mixing:
    """The axes that a parameter names; all where it is None or names none."""

    def rule(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
        dims = arguments[parameter]
        if operand.name not in of:
            return ()
        return range(operand.rank) if dims is None or dims == () else (dims,) if isinstance(dims, int) else dims

    return Mixing(rule)


def last(count: int, *, of: Collection[str] = ("input",)) -> Mixing:
    """The last axes, or as many of them as there are."""
    return Mixing(lambda operand, _: range(-min(count, operand.rank), 0) if operand.name in of else ())


def behind(first: int, *, of: Collection[str] = ("input",)) -> Mixing:
    """This axis and all behind it."""
    return Mixing(lambda operand, _: range(first, operand.rank) if operand.name in of else ())


def at(*axes: int, of: Collection[str] = ("input",)) -> Mixing:
    return Mixing(lambda operand, _: axes if operand.name in of else ())


def whole(*of: str) -> Mixing:
    """All axes of these operands."""
    return Mixing(lambda operand, _: range(operand.rank) if operand.name in of else ())


def contracted(left: str, right: str) -> Mixing:
    """A product of matrices, or of vectors: the last axis of the one, the last but one of the other."""

    def rule(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
        return (-1,) if operand.name == left else (-min(operand.rank, 2),) if operand.name == right else ()

    return Mixing(rule)
