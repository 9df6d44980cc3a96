"""In-place calls as functions: what the tape has of `x += y`, `x[i] = y`, `torch.add(a, b, out=x)`, `F.relu(x, True)`.

Each has the same value as the call, and leaves its arguments alone.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch

from .refusals import is_in_place
from .tape import leaves_of


# What torch calls for `x.data = y` and for `x.requires_grad = False`.
_ATTRIBUTES: Any = torch.Tensor
SET_DATA, SET_REQUIRES_GRAD = _ATTRIBUTES.data.__set__, _ATTRIBUTES.requires_grad.__set__


def setitem(input: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """`input[index] = value`, as a tensor of its own."""
    result = input.clone()
    result[index] = value
    return result


@dataclasses.dataclass(frozen=True)
class Functional:
    """A call without its write: the function, and what it is given."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return self.target(*self.args, **self.kwargs)


# Operators that write, by the method that they are a form of.
_AUGMENTED = {
    "__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div", "__idiv__": "div",
    "__ifloordiv__": "floor_divide", "__imod__": "remainder", "__ipow__": "pow", "__iand__": "bitwise_and",
    "__ior__": "bitwise_or", "__ixor__": "bitwise_xor", "__ilshift__": "bitwise_left_shift",
    "__irshift__": "bitwise_right_shift",
}  # fmt: skip

# What writes whatever was there before, by the number of the argument that is written; None writes zero.
_OVERWRITING = {"copy_": 1, "fill_": 1, "zero_": None}

# What changes the shape of a tensor, and leaves its memory alone.
RESHAPING_IN_PLACE = {"unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_"}

# Their results are of another dtype than their arguments.
_LOGICAL = {"gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal", "not_equal"}
_LOGICAL |= {f"logical_{name}" for name in ("and", "or", "xor", "not")}


def written_arguments(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[torch.Tensor]:
    """The arguments that a call writes into, if it writes at all."""
    if kwargs.get("out") is not None:
        return leaves_of(kwargs["out"], torch.Tensor)
    if is_in_place(name, kwargs) or _takes_in_place(function, args, kwargs):
        return leaves_of((args, kwargs), torch.Tensor)[:1]
    return []


def cuts_gradient(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call only says whether a gradient passes a tensor: `x.detach_()`, `x.requires_grad = False`."""
    return name in ("detach_", "requires_grad_") or function == SET_REQUIRES_GRAD


def changes_to(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a gradient passes after such a call."""
    if name == "detach_":
        return False
    return bool(args[1] if len(args) > 1 else kwargs.get("requires_grad", True))


def _takes_in_place(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function such as `F.relu` is told to write."""
    if "inplace" in kwargs:
        return bool(kwargs["inplace"])
    if not isinstance(function, FunctionType) or not any(arg is True for arg in args):
        return False
    return bool(inspect.signature(function).bind(*args, **kwargs).arguments.get("inplace"))


def overwritten(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any] | None:
    """What a call writes all over its first argument; None for calls that compute with what is there."""
    if name not in _OVERWRITING or kwargs.get("out") is not None:
        return None
    place = _OVERWRITING[name]
    if place is None:
        return (0,)
    return (args[place] if len(args) > place else next(iter(kwargs.values())),)


def functional(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Functional | None:
    """A call that writes, without its write; None where torch has no such function."""
    if kwargs.get("out") is not None:
        return Functional(function, args, {key: value for key, value in kwargs.items() if key != "out"})
    if not is_in_place(name, kwargs):
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.arguments["inplace"] = False
        left = {key: value for key, value in bound.kwargs.items() if key != "inplace"}
        return Functional(function, bound.args, left)
    if name == "__setitem__":
        return Functional(setitem, args, dict(kwargs))
    if name == "index_put_" and not _accumulates(args, kwargs):
        indices, values = (*args[1:], *kwargs.values())[:2]
        return Functional(setitem, (args[0], tuple(indices), values), {})
    if name.startswith("_foreach_"):
        return None
    functional = _AUGMENTED.get(name, name.removesuffix("_"))
    owners = (torch.Tensor, torch.nn.functional, torch)
    target = next((getattr(owner, functional) for owner in owners if callable(getattr(owner, functional, None))), None)
    return None if target is None else Functional(target, args, dict(kwargs))


def _accumulates(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return bool(args[3] if len(args) > 3 else kwargs.get("accumulate"))


def may_differ(name: str, given: Any, written: list[torch.Tensor]) -> bool:
    """Whether the function of an in-place call may have a result of another dtype or layout than what is written."""
    if name == "__setitem__":
        return False
    tensors = leaves_of(given, torch.Tensor)
    kinds = {tensor.dtype for tensor in (*tensors, *written)}
    if len(kinds) > 1 or _AUGMENTED.get(name, name.removesuffix("_")) in _LOGICAL:
        return True
    # What computes with the tensor that it writes into keeps its layout.
    return not is_in_place(name, {}) and not all(tensor.is_contiguous() for tensor in tensors)
