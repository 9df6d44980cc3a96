"""The normal form of a call: one operation, its arguments by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from .names import functional_name, spelled
from .registry import OPS


def bind(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation that a call of a torch function is, and its arguments by the names of the operation's parameters.

    `function` is torch's function or method, or its `__name__`. Calls that compute the same have the same form:
    numbers in a row are one tuple, NumPy's names are torch's, the operands of `2 - x` are in order, and what does not
    change the values (devices, layouts, `out`, `inplace`, what is equal to its default) is left out.

    ```python
    >>> bind("__rsub__", ["x", 2], {})
    ('sub', {'input': 2, 'other': 'x'})
    >>> bind("sum", ["x"], {"axis": 1, "keepdims": True})
    ('sum', {'input': 'x', 'dim': 1, 'keepdim': True})
    >>> bind("view", ["x", 2, 3], {}) == bind("reshape", ["x"], {"shape": [2, 3]})
    True

    ```

    **Raises:** `LookupError` where there is no such operation, `TypeError` for a form that it does not take.
    """
    name, reflected = spelled(function if isinstance(function, str) else functional_name(function))
    if name not in OPS:
        raise LookupError(f"no operation is called {name}")
    if reflected:
        args, kwargs = (), _exchanged(name, args, kwargs)
    op, bound = OPS[name].bind(args, kwargs, _caller(function))
    return op.name, bound


def _exchanged(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name of an operator that is called with its operands in reverse."""
    left, right = list(OPS[name].signature.parameters)[:2]
    given = dict(zip((left, right), args, strict=False)) | dict(kwargs)
    return {{left: right, right: left}.get(key, key): value for key, value in given.items()}


def _caller(function: Any) -> str:
    """Which order arguments are in, where torch has several."""
    if inspect.ismethoddescriptor(function):
        return "method"
    return "builtin" if inspect.isbuiltin(function) else ""
