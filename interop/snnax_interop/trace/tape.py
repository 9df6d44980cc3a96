"""What one run of a torch module did: all its calls in order, with the identities of their tensors."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, TypeVar

import torch
from torch.overrides import resolve_name
from torch.utils import _pytree as pytree

from ..converters.base import StepConverter
from ..converters.neuron import NeuronConverter
from ..ops import base_name as base_name, op_name


_T = TypeVar("_T")


# Their values do not depend on the tensor that they are given.
CONSTANT_FUNCTIONS = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


@dataclasses.dataclass(frozen=True)
class Ref:
    """A tensor value on the tape; writing into a tensor in place makes a new value of it, and of its views."""

    index: int


@dataclasses.dataclass(frozen=True)
class Frame:
    """A Python function on the stack of a call: which activation of it, and the bytecode offset that it is at."""

    activation: int
    code: CodeType
    offset: int


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a call is made: the frames from the outermost to the innermost, and the user's own line."""

    frames: tuple[Frame, ...]
    line: str

    @functools.cached_property
    def location(self) -> tuple[Any, ...]:
        """The same each time that the line runs."""
        return tuple((frame.code, frame.offset) for frame in self.frames)


@dataclasses.dataclass
class Entry:
    """One call: of a module that is converted as a whole (`converter` is set) or of a tensor function.

    `args`, `kwargs` and `result` are the call's own structures with `Ref` in the place of tensors. `state_in` and
    `state_out` hold the state of a neuron around the call; None in `state_in` is the layer's own initial state.
    `derived` calls are none of the user's: they make of a write what other tensors in the same memory hold then.
    """

    target: Any
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    place: Place
    converter: StepConverter | None = None
    state_in: tuple[Ref, ...] | None = None
    state_out: tuple[Ref, ...] = ()
    no_grad: bool = False
    derived: bool = False

    @property
    def constant(self) -> bool:
        """Whether the result is the same whatever the values of the arguments are."""
        return self.converter is None and getattr(self.target, "__name__", "") in CONSTANT_FUNCTIONS

    @functools.cached_property
    def signature(self) -> tuple[Any, ...]:
        """What is the same each time that a line of a loop runs."""
        return (self.place.location, *self.kind)

    @functools.cached_property
    def kind(self) -> tuple[str, bool, bool]:
        """Which module is called, or which operation, and whether a gradient passes.

        `total += x` is `0 + x` at first, and in place from then on.
        """
        is_module = self.converter is not None
        name = self.path if is_module else op_name(base_name(self.target)) or function_name(self.target)
        return (name, is_module, self.no_grad)

    @property
    def line(self) -> str:
        """The user's own line, for people to read."""
        return self.place.line

    @functools.cached_property
    def made(self) -> list[Ref]:
        """All values that the call makes."""
        return [*refs(self.result), *self.state_out]

    @property
    def is_neuron(self) -> bool:
        return isinstance(self.converter, NeuronConverter)

    @property
    def name(self) -> str:
        """The module path, or the function's name."""
        return self.path if self.converter is not None else function_name(self.target)


@dataclasses.dataclass
class Tape:
    """All calls of one run, in order.

    `tensors` holds every value by index, `names` the parameters and buffers among them; `dependent` are the values that
    inputs go into, `parametric` those that parameters and buffers go into, `read` names the parameters
    and buffers that Python has looked into (`float(self.scale)`). `called` holds the paths of all modules that
    ran, `continuing` those of neurons that would go on from their last state in the next run. `draws` says whether a
    dropout drew random numbers.
    """

    entries: list[Entry]
    inputs: tuple[Ref, ...]
    result: Any
    tensors: list[torch.Tensor]
    names: dict[int, str]
    dependent: set[int]
    parametric: set[int]
    read: frozenset[str]
    shapes: list[tuple[int, ...]]
    called: set[str]
    continuing: tuple[str, ...] = ()
    draws: bool = False

    def is_constant(self, ref: Ref) -> bool:
        """Whether a value depends neither on the inputs nor on a parameter or buffer."""
        return ref.index not in self.dependent and ref.index not in self.parametric

    def is_zero(self, ref: Ref) -> bool:
        """Whether a value is zero whatever the inputs and parameters are."""
        return self.is_constant(ref) and not bool(self.tensors[ref.index].any())

    def shape(self, ref: Ref) -> tuple[int, ...]:
        return self.shapes[ref.index]

    def first_difference(
        self, other: "Tape", what: Callable[[Entry], Any] = lambda entry: entry.signature
    ) -> Entry | None:
        """The first call that another tape does not make, or for which `what` is something else there."""
        for a, b in zip(self.entries, other.entries, strict=False):
            if what(a) != what(b):
                return a
        longer = max(self.entries, other.entries, key=len)
        shared = min(len(self.entries), len(other.entries))
        return longer[shared] if len(longer) > shared else None


def function_name(function: Any) -> str:
    """A tensor function's name as a user would write it."""
    name = resolve_name(function) or getattr(function, "__qualname__", None) or repr(function)
    return name.replace("torch.nn.functional.", "F.").replace("torch._C._nn.", "F.")


def replaced(tree: Any, values: Mapping[int, Ref]) -> Any:
    """A structure with other values in the place of those with these indices."""
    return pytree.tree_map(lambda item: values.get(item.index, item) if isinstance(item, Ref) else item, tree)


def with_values(entry: Entry, values: Mapping[int, Ref]) -> Entry:
    """A call that reads other values in the place of those with these indices."""
    given = (entry.args, entry.kwargs, entry.state_in)
    if not any(ref.index in values for ref in refs(given)):
        return entry
    args, kwargs, state_in = replaced(given, values)
    return dataclasses.replace(entry, args=args, kwargs=kwargs, state_in=state_in)


def refs(tree: Any) -> list[Ref]:
    """All values in a structure, in order."""
    return leaves_of(tree, Ref)


def leaves_of(tree: Any, kind: type[_T]) -> list[_T]:
    """All values of a class in a structure, in order."""
    found: list[_T] = []
    _gather(tree, kind, found)
    return found


def _gather(tree: Any, kind: type, found: list[Any]) -> None:
    if isinstance(tree, kind):
        found.append(tree)
    elif type(tree) in (tuple, list):  # by far the most; torch's own flattening takes several times as long
        for item in tree:
            _gather(item, kind, found)
    elif type(tree) is dict:
        for item in tree.values():
            _gather(item, kind, found)
    elif tree is not None and type(tree) not in (bool, int, float, str):
        found += [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, kind)]
