"""The names of torch's functions, and the operations that they are."""

from typing import Any

from .registry import OPS


_BINARY = {
    **{name: name for name in ("add", "sub", "mul", "div", "pow", "matmul")},
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
_COMMUTATIVE = {"add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"}
# The operations that are others with their arguments exchanged.
_REFLECTED = {"rsub": "sub", "rdiv": "div", "rpow": "pow", "rfloordiv": "floor_divide"}
_FROM_REFLECTED = {op: name for name, op in _REFLECTED.items()}
# Functions of torch.nn.functional that share their name with another method of tensors.
_FUNCTIONAL = {"unfold": "im2col"}


def base_name(function: Any) -> str:
    """A tensor function's `__name__`; of an attribute such as `.T`, the attribute's."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    return getattr(owner, "__name__", name) if name == "__get__" else name


def op_name(name: str) -> str:
    """The operation that a torch function's `__name__` is: `add_`, `__iadd__` and `add` are one.

    Operators with the tensor on the right have operations of their own here (`2 - x` is `rsub`); `spelled` tells
    their arguments' order. A name that no operation has is left as it is, without its marks.
    """
    op, reflected = spelled(name)
    return _FROM_REFLECTED.get(op, name.strip("_")) if reflected else op


def spelled(name: str) -> tuple[str, bool]:
    """The operation of a torch function's `__name__`, and whether its arguments are in reverse (`__rsub__`).

    Where the order makes no difference they are left as they are: torch records `2 + x` as `x + 2`.
    """
    dunder = name.startswith("__")
    bare = name.strip("_") if dunder else name.removesuffix("_")
    if bare in _REFLECTED:
        return _REFLECTED[bare], True
    if dunder and bare[0] == "r" and bare[1:] in _BINARY:
        op = _BINARY[bare[1:]]
        return op, op not in _COMMUTATIVE
    bare = bare[1:] if bare[:1] == "i" and bare[1:] in _BINARY else bare
    bare = _BINARY.get(bare, bare)
    return (OPS[bare].name if bare in OPS else bare), False


def functional_name(function: Any) -> str:
    """The name of a function, apart from that of a method of tensors that does something else."""
    name = base_name(function)
    return _FUNCTIONAL.get(name, name) if getattr(function, "__module__", None) == "torch.nn.functional" else name
