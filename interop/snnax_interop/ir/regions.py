"""What a program is made of: values that are defined once, calls that make them, and loops over time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from .formulas import StepFormula, StepTable
from .sizes import Size


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor, defined once; compared by identity. A size that grows with the batch is `batched`."""

    shape: tuple[Size, ...]
    dtype: torch.dtype
    name: str = ""

    @property
    def batched_axes(self) -> tuple[int, ...]:
        """The axes that the batch is a part of."""
        return tuple(axis for axis, size in enumerate(self.shape) if size.batched)

    @property
    def has_batch(self) -> bool:
        return bool(self.batched_axes)

    @property
    def is_folded(self) -> bool:
        """Whether the batch is folded into another axis, such as time, or stands in several.

        For one sample an axis that it is folded into is just the other one: functions that treat its entries alike
        need no batch axis.
        """
        axes = self.batched_axes
        return len(axes) > 1 or any(self.shape[axis].of_sample != Size(0, 1) for axis in axes)

    @property
    def batch_axis(self) -> int | None:
        """The axis that is the batch; None where it has none of its own."""
        return None if self.is_folded or not self.has_batch else self.batched_axes[0]

    @property
    def sample_shape(self) -> tuple[Size, ...]:
        """The sizes for one sample."""
        axis = self.batch_axis
        return tuple(size.of_sample for place, size in enumerate(self.shape) if place != axis)


# What the arguments of calls are made of, beside constants, lists, tuples, dicts and slices


@dataclasses.dataclass(frozen=True)
class Entries:
    """The list of the entries of a value along its first axis: what a loop has collected."""

    value: Value


@dataclasses.dataclass(frozen=True)
class StepNumber:
    """A number that changes from step to step of the loop around a call."""

    formula: StepFormula | StepTable


# Calls


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call: of a tensor function, or of a module as a whole, where `converter` is set.

    In normal form, `op` is the operation's name, or the class's, and `arguments` are by the names of its parameters,
    with values in the place of tensors; `target`, `args` and `kwargs` are the same as torch is called. `state_in` and
    `state_out` are a neuron's state around the call: None in the place of a field, or of all, is the state that it
    starts with by itself. Under `no_grad` no gradient passes. What is `batched` is of all samples at once, which it may
    mix; all other calls are of each sample by itself.
    """

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]
    results: tuple[Value, ...]
    is_single: bool = True
    path: str = ""
    line: str = ""
    shown: str = ""
    converter: Any = None
    fields: tuple[str, ...] = ()
    state_in: tuple[Value | None, ...] | None = None
    state_out: tuple[Value, ...] = ()
    no_grad: bool = False
    batched: bool = False

    @property
    def is_neuron(self) -> bool:
        return bool(self.fields)

    @property
    def name(self) -> str:
        """The module's path, or the function's name, as a user would write it."""
        return self.path if self.converter is not None else self.shown or self.op

    @property
    def reads(self) -> list[Value]:
        """The values that the call reads, in order."""
        return values_in((self.args, dict(self.kwargs), self.state_in))

    @property
    def made(self) -> list[Value]:
        """The values that the call defines; a state that is the output as well is one of them."""
        return list(dict.fromkeys((*self.results, *self.state_out)))


def squeezed_axes(call: Call) -> tuple[int, ...]:
    """The axes that a squeeze takes out; others, of length one by chance, stay."""
    shape, dims = call.arguments["input"].shape, call.arguments.get("dim")
    named = range(len(shape)) if dims is None else dims if isinstance(dims, list | tuple) else (dims,)
    return tuple(dim % len(shape) for dim in named if shape[dim] == Size(0, 1))


# Loops


@dataclasses.dataclass(frozen=True)
class Invariant:
    """An operand that is the same value of outside at every step."""

    value: Value

    @property
    def reads(self) -> list[Value]:
        return [self.value]


@dataclasses.dataclass(frozen=True)
class Scanned:
    """An operand that is another entry of a sequence at every step: `start + t * stride` along `axis`.

    A negative `start` counts from the end. With a `width`, so many entries from there on, along the axis that remains.
    """

    sequence: Value
    axis: int = 0
    start: int = 0
    stride: int = 1
    width: int | None = None

    @property
    def reads(self) -> list[Value]:
        return [self.sequence]


@dataclasses.dataclass(frozen=True)
class Carried:
    """An operand that is what the step before has made as `update`; at the first step `initial`.

    `initial` is a value of outside, a number, or None for the beginning of the neuron or layer that takes it.
    """

    update: Value
    initial: Value | int | float | None

    @property
    def reads(self) -> list[Value]:
        """The values of outside."""
        return [self.initial] if isinstance(self.initial, Value) else []


Operand = Invariant | Scanned | Carried


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """`count` time steps of `body`.

    The body reads values of outside by `operands` only. `finals` are values of outside that are one of the body's after
    the last step, `emitted` those that are the stack of one over all steps, along axis 0.
    """

    count: Size
    operands: Mapping[Value, Operand]
    body: tuple[Call, ...]
    finals: Mapping[Value, Value]
    emitted: Mapping[Value, Value]
    line: str = ""

    @property
    def reads(self) -> list[Value]:
        """The values of outside that the loop reads."""
        return [value for operand in self.operands.values() for value in operand.reads]

    @property
    def made(self) -> list[Value]:
        return [*self.finals, *self.emitted]

    @property
    def needed(self) -> list[Value]:
        """The values of the body that something behind a step reads."""
        carried = [each.update for each in self.operands.values() if isinstance(each, Carried)]
        return list(dict.fromkeys((*self.finals.values(), *self.emitted.values(), *carried)))


Item = Call | Loop


@dataclasses.dataclass(frozen=True)
class Constant:
    """A tensor that is no parameter, as it is for one sample: with a batch axis of length one where it spans the batch.

    `origin` says which value of a run it was.
    """

    tensor: torch.Tensor
    origin: int


# Structures


def values_in(tree: Any) -> list[Value]:
    """All values in a structure of arguments, in order."""
    return list(_values(tree))


def _values(tree: Any) -> Iterator[Value]:
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, Entries):
        yield tree.value
    elif isinstance(tree, Mapping):
        for each in tree.values():
            yield from _values(each)
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _values(each)
    elif isinstance(tree, slice):
        yield from _values((tree.start, tree.stop, tree.step))


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """A structure of arguments with `function` of everything in it that is no list, tuple, dict or slice."""
    if isinstance(tree, Mapping):
        return {name: map_leaves(function, each) for name, each in tree.items()}
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return type(tree)(*(map_leaves(function, each) for each in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_leaves(function, each) for each in tree)
    if isinstance(tree, slice):
        return slice(*(map_leaves(function, each) for each in (tree.start, tree.stop, tree.step)))
    return function(tree)


def with_values(tree: Any, new: Mapping[Value, Value]) -> Any:
    """A structure with other values in the place of some."""

    def replaced(leaf: Any) -> Any:
        if isinstance(leaf, Value):
            return new.get(leaf, leaf)
        return Entries(new.get(leaf.value, leaf.value)) if isinstance(leaf, Entries) else leaf

    return map_leaves(replaced, tree)


def call_with_values(call: Call, new: Mapping[Value, Value]) -> Call:
    """A call that reads other values in the place of some."""
    if not any(value in new for value in call.reads):
        return call
    given = (call.args, call.kwargs, call.arguments, call.state_in)
    args, kwargs, arguments, state_in = with_values(given, new)
    return dataclasses.replace(call, args=args, kwargs=kwargs, arguments=arguments, state_in=state_in)
