"""The operations: one record for each, made by a decorator on the function that computes it in JAX."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .mixing import Axes, Mixing, Operand


# From the name and the arguments of a call in another form, an operation's name and arguments in its own form.
Form = Callable[[str, tuple[Any, ...], dict[str, Any]], tuple[str, tuple[Any, ...], dict[str, Any]]]

# What leaves the values of a result alone, or is said by where the result goes.
_IRRELEVANT = {
    "inplace", "device", "out", "memory_format", "layout", "pin_memory", "non_blocking", "copy", "_stacklevel",
    "requires_grad", "cudnn_enabled", "cudnn_enable", "sparse_grad", "generator",
}  # fmt: skip
# torch takes NumPy's names of arguments as well.
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}

OPS: dict[str, "Op"] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One tensor operation.

    `function` takes torch's arguments by torch's names, in normal form. `synonyms` are names of torch functions that
    compute the same. `axes` says which axes of its operands it mixes (see `mixing`). `gradient` is torch's convention
    where that of JAX's own function is another, and this one is followed. What other forms of a call become is told
    by `names` (other names of parameters), `variadic` (the parameter that numbers in a row are: `x.view(2, 3)`),
    `orders` (the order of arguments of a "method", or of a "builtin" function of torch beside one of
    torch.nn.functional) and `form`.
    """

    name: str
    function: Callable[..., Any]
    synonyms: tuple[str, ...]
    axes: Axes
    gradient: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variadic: str | None = None
    orders: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    form: Form | None = None

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """What the parameters are that a call does not give."""
        given = self.signature.parameters.values()
        return {each.name: each.default for each in given if each.default is not each.empty}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any], caller: str = "") -> tuple["Op", dict[str, Any]]:
        """The operation and its arguments by name, of a call in any form that torch takes. Defaults are left out.

        The operation is another one where torch has two under one name: `max(x, y)` is `maximum`.

        **Raises:** `TypeError` for a form that the operation does not take.
        """
        if self.form is not None:
            name, args, kwargs = self.form(self.name, tuple(args), dict(kwargs))
            if name != self.name:
                return OPS[name].bind(args, kwargs, caller)
        order = self.orders.get(caller) or self._order
        if self.variadic in order[: len(args)]:
            place = order.index(self.variadic)
            args = (*args[:place], _in_a_row(args[place:]))
        if len(args) > len(order):
            raise self._refuse(f"{len(args)} arguments in a row")
        bound = dict(zip(order, args, strict=False))
        for key, value in kwargs.items():
            name = self._parameter(key)
            if name in bound:
                raise self._refuse(f"{name!r} twice")
            bound[name] = _in_a_row((value,)) if name == self.variadic else value
        for name in self.signature.parameters:
            if name not in bound and name not in self.defaults:
                raise self._refuse(f"no {name!r}")
        parameters = [name for name in self.signature.parameters if name in bound and name not in _IRRELEVANT]
        given = {
            name: _with_tuple(bound[name]) if name != "index" else bound[name] for name in parameters
        }  # x[[0, 1]], x[0, 1]
        return self, {name: value for name, value in given.items() if not self._is_default(name, value)}

    def mixed_axes(self, operand: Operand, arguments: Mapping[str, Any]) -> frozenset[int]:
        """The axes of an operand that the operation mixes, given all its arguments by name."""
        return self.axes(operand, self.defaults | dict(arguments)) if isinstance(self.axes, Mixing) else frozenset()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        op, bound = self.bind(args, kwargs)
        return op.function(**bound)

    @functools.cached_property
    def _order(self) -> tuple[str, ...]:
        parameters = self.signature.parameters.values()
        return tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)

    def _is_default(self, name: str, value: Any) -> bool:
        default = self.defaults.get(name, inspect.Parameter.empty)
        return type(value) is type(default) and value == default

    def _parameter(self, key: str) -> str:
        """The parameter of a name."""
        known = {*self.signature.parameters, *_IRRELEVANT}
        for name in (key, self.names.get(key), _NUMPY_NAMES.get(key)):
            if name in known:
                return name
        raise self._refuse(f"{key!r}")

    def _refuse(self, what: str) -> TypeError:
        taken = ", ".join(self.signature.parameters)
        return TypeError(f"{self.name} is called with {what}. Allowed: {self.name}({taken})")


def op(
    name: str,
    *synonyms: str,
    axes: Axes,
    gradient: str = "",
    names: Mapping[str, str] | None = None,
    variadic: str | None = None,
    method: str = "",
    builtin: str = "",
    form: Form | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as the operation of this name; it stays the function that it is. See `Op`.

    `method` and `builtin` list parameters in their order there, separated by spaces.
    """
    if not (isinstance(axes, Mixing) or axes in ("elementwise", "separate", "shape", "constant")):
        raise TypeError(
            f"the axes of {name} are {axes!r}. Allowed: 'elementwise', 'separate', 'shape', 'constant', a Mixing"
        )
    orders = {caller: tuple(order.split()) for caller, order in (("method", method), ("builtin", builtin)) if order}

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Op(name, function, synonyms, axes, gradient, names or {}, variadic, orders, form)
        for each in (name, *synonyms):
            if each in OPS:
                raise ValueError(f"{each} is an operation already: {OPS[each].name}")
            OPS[each] = made
        return function

    return register


def _with_tuple(value: Any) -> Any:
    """A list as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _in_a_row(values: Sequence[Any]) -> tuple[Any, ...] | None:
    """`view(2, 3)` and `view((2, 3))`."""
    if len(values) == 1 and (values[0] is None or isinstance(values[0], list | tuple)):
        return None if values[0] is None else tuple(values[0])
    return tuple(values)
