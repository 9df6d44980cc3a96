"""`torch.autograd.Function`s: what their forward and backward compute for each element, recorded.

Surrogate gradients are written this way. Both methods run once on real tensors while their tensor functions are
written down; elementwise functions of the inputs become a function with the same values and the same derivative.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import torch
from jaxtyping import Array
from torch.overrides import TorchFunctionMode

from snnax.surrogate import Derivative

from ..errors import RecordingError
from ..ops import ELEMENTWISE, OPS, op_name
from .refusals import METADATA, fault_of, is_in_place
from .tape import Entry, base_name, function_name, leaves_of


# Beside the elementwise functions: casts, writes at a mask, and constants of the shape of a tensor.
_ALLOWED = ELEMENTWISE | {
    "setitem", "zeros_like", "ones_like", "full_like", "empty_like", "to", "type", "type_as", "bool", "int", "double",
    "expand_as",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Value:
    """In the arguments of a step: the value of this number; inputs come first, then the results of the steps."""

    number: int


@dataclasses.dataclass(frozen=True)
class _Step:
    op: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """Elementwise functions of a gradient and of inputs, one after the other; a result None has no value."""

    steps: tuple[_Step, ...]
    results: tuple[Any, ...]

    def __call__(self, gradient: Array | None, xs: tuple[Array, ...]) -> list[Any]:
        values: list[Any] = [gradient, *xs]

        def filled(tree: Any) -> Any:
            if isinstance(tree, _Value):
                return values[tree.number]
            return tuple(map(filled, tree)) if isinstance(tree, tuple) else tree

        for step in self.steps:
            values.append(OPS[step.op](*filled(step.args), **{name: filled(value) for name, value in step.kwargs}))
        return [filled(result) for result in self.results]


@dataclasses.dataclass(frozen=True)
class CustomFunction:
    """An elementwise function of one or more arrays with a derivative of its own.

    `backward` gives a gradient for each input, None for zero; `torch` is the function itself.
    """

    name: str
    inputs: int
    forward: Program = dataclasses.field(repr=False)
    backward: Program = dataclasses.field(repr=False)
    torch: Callable[..., Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    def __call__(self, *xs: Array) -> Array:
        return _call(self, *xs)

    @functools.cached_property
    def spikes(self) -> bool:
        """Whether it is a spike function: 0 below a threshold and 1 above."""
        if self.inputs != 1:
            return False
        values = self(jnp.linspace(-3, 3, 25)).tolist()
        return values == sorted(values) and set(values) == {0, 1}

    def slope(self, x: Array) -> Array:
        """The derivative of a function of one input."""
        (slope,) = self.backward(jnp.ones_like(x), (x,))
        return jnp.zeros_like(x) if slope is None else jnp.broadcast_to(slope, x.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _call(function: CustomFunction, *xs: Array) -> Array:
    (out,) = function.forward(None, xs)
    return out


@_call.defjvp
def _call_jvp(function, primals, tangents):
    out = _call(function, *primals)
    slopes = function.backward(jnp.ones_like(out), primals)
    parts = [slope * dx for slope, dx in zip(slopes, tangents, strict=True) if slope is not None]
    tangent = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(out)
    return out, jnp.broadcast_to(tangent, out.shape).astype(out.dtype)


def custom_function(*args: Any, function: CustomFunction) -> Any:
    """In the place of `torch.autograd.Function.apply` on a tape."""
    assert function.torch is not None
    return function.torch(*args)


def makes_spikes(entry: Entry) -> bool:
    """Whether a call on a tape is one of a spike function."""
    return entry.target is custom_function and entry.kwargs["function"].spikes


def recorded_function(kind: Any, args: tuple[Any, ...], inputs: Collection[int]) -> CustomFunction:
    """What an autograd function computes for these arguments, of which those at the places `inputs` vary.

    **Raises:** `RecordingError` for what is not elementwise, draws random numbers, writes into its inputs, or whose
    backward is not linear in the gradient.
    """
    # In double precision, so that constants that are computed on the way have all their digits.
    args = tuple(_double(arg) for arg in args)
    context = _Context(tuple(place in inputs for place in range(len(args))))
    tracer = _Tracer(kind, [args[place] for place in inputs])
    random_state = torch.random.get_rng_state()
    with _double_precision(), torch.no_grad():
        with tracer:
            out = _forward(kind, context, args)
        forward = tracer.program((out,))
        if not isinstance(out, torch.Tensor):
            raise _refuse(kind, f"returns a {type(out).__name__}", "one tensor")
        gradient = tracer.gradient(torch.ones_like(out))
        with tracer:
            slopes = _gradients(kind, context, gradient)
        backward = tracer.program(slopes)
        if not torch.equal(random_state, torch.random.get_rng_state()):
            torch.random.set_rng_state(random_state)
            raise _refuse(kind, "draws random numbers", "functions of their arguments")
        weight = torch.linspace(-2, 2, out.numel()).reshape(out.shape)
        for slope, other in zip(slopes, _gradients(kind, context, weight), strict=True):
            if slope is not None and not torch.allclose(slope * weight, other, equal_nan=True):
                raise _refuse(kind, "has a backward that is not linear in the gradient", "a derivative times it")
    return CustomFunction(kind.__name__, len(tracer.inputs) - 1, forward, backward)


def recorded_surrogate(function: Callable[[torch.Tensor], torch.Tensor]) -> Derivative | None:
    """The surrogate of a spike function that is one autograd function; None where it is something else.

    Spikes are those above the threshold, and not on it.
    """
    found: list[CustomFunction] = []
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)

    def seen(kind: Any, apply: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if args and args[0] is x and not kwargs:
            found.append(recorded_function(kind, args, (0,)))
        return apply(*args, **kwargs)

    try:
        with seen_autograd_functions(seen), _double_precision():
            spikes = function(x)
    except RecordingError:
        return None
    if len(found) != 1 or found[0].inputs != 1 or not torch.equal(spikes, (x > 0).double()):
        return None
    return Derivative(found[0].slope)


@contextlib.contextmanager
def seen_autograd_functions(seen: Callable[[Any, Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
    """`Function.apply` goes past `__torch_function__`; inside, it is `seen(kind, apply, args, kwargs)`."""
    # What `Function.apply` itself calls: users keep `Spike.apply`, and the plain method with it.
    base: Any = torch.autograd.function._SingleLevelFunction
    own = base.apply.__func__ if "apply" in vars(base) else None

    def apply(kind, *args, **kwargs):
        return seen(
            kind, cast(Any, super(base, kind)).apply if own is None else functools.partial(own, kind), args, kwargs
        )

    base.apply = classmethod(apply)
    try:
        yield
    finally:
        if own is None:
            del base.apply
        else:
            base.apply = classmethod(own)


class _Context:
    """What an autograd function is given as `ctx`."""

    def __init__(self, needs_input_grad: tuple[bool, ...]):
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None:
        pass

    def set_materialize_grads(self, value: bool) -> None:
        pass


def _forward(kind: Any, context: _Context, args: tuple[Any, ...]) -> Any:
    if kind.setup_context is torch.autograd.Function.setup_context:
        return kind.forward(context, *args)
    out = kind.forward(*args)
    kind.setup_context(context, args, out)
    return out


def _gradients(kind: Any, context: _Context, gradient: torch.Tensor) -> list[Any]:
    """The gradients of the inputs among the arguments."""
    found = kind.backward(context, gradient)
    found = found if isinstance(found, tuple) else (found,)
    found += (None,) * (len(context.needs_input_grad) - len(found))
    return [each for each, needed in zip(found, context.needs_input_grad, strict=False) if needed]


class _Tracer(TorchFunctionMode):
    """Writes down the tensor functions that are called, as a `Program` of the inputs."""

    def __init__(self, kind: type, inputs: list[torch.Tensor]):
        super().__init__()
        self.kind = kind
        self.inputs = [None, *inputs]  # the gradient comes later
        self.numbers = {id(tensor): number for number, tensor in enumerate(inputs, 1)}
        self.count = len(self.inputs)
        self.steps: list[_Step] = []
        self.alive: list[Any] = []  # so that an id stays its own

    def program(self, results: Any) -> Program:
        return Program(tuple(self.steps), tuple(map(self.with_numbers, results)))

    def gradient(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, known as the gradient of the result from now on."""
        self.inputs[0] = tensor
        self.numbers[id(tensor)] = 0
        return tensor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = base_name(func)
        given = leaves_of((args, kwargs), torch.Tensor)
        known = any(id(tensor) in self.numbers for tensor in given)
        fault = fault_of(func, func.__name__, args, kwargs)
        if fault is not None:
            raise _refuse(self.kind, f"does what it cannot: {fault[0]}", fault[1].removeprefix("Allowed: ").rstrip("."))
        if name in METADATA:
            return func(*args, **kwargs)
        writes = is_in_place(name, kwargs)
        if writes and (given[0]._is_view() or any(given[0] is each for each in self.inputs) or "out" in kwargs):
            raise _refuse(self.kind, f"writes into its argument or a part of a tensor ({name})", "tensors of their own")
        # Before the call, which may write over what it is given.
        step = self.step(func, name, args, kwargs) if known else None
        result = func(*args, **kwargs)
        made = given[0] if writes else result
        if known and not isinstance(made, torch.Tensor):
            raise _refuse(self.kind, f"takes values out of a tensor ({name})", "tensor functions")
        if step is not None and (writes or not any(made is tensor for tensor in given)):
            self.add(step, made)
        return result

    def add(self, step: _Step, made: torch.Tensor) -> _Value:
        """A step, with the tensor that it makes."""
        self.steps.append(step)
        self.numbers[id(made)] = self.count
        self.alive.append(made)
        self.count += 1
        return _Value(self.count - 1)

    def step(self, function: Any, name: str, args: Any, kwargs: Any) -> _Step:
        op = op_name(name)
        if op in _OF_TWO and sum(isinstance(arg, torch.Tensor) for arg in args) == 2:
            op = _OF_TWO[op]
        if op not in _ALLOWED:
            raise _refuse(self.kind, f"calls {function_name(function)}", "functions of each element")
        named = tuple((key, self.with_numbers(value)) for key, value in kwargs.items() if key not in _IGNORED)
        return _Step(op, self.with_numbers(tuple(args)), named)

    def with_numbers(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) in self.numbers:
                return _Value(self.numbers[id(value)])
            if value.numel() == 1:
                return value.item()
            like = next((each for each in self.inputs if each is not None and each.shape == value.shape), None)
            if like is None or not bool((value == value.reshape(-1)[0]).all()):
                raise _refuse(self.kind, f"computes with a constant of shape {tuple(value.shape)}", "numbers")
            # `torch.zeros(x.shape)`, to be written into.
            return self.add(
                _Step("full_like", (_Value(self.numbers[id(like)]), value.reshape(-1)[0].item()), ()), value
            )
        if isinstance(value, list | tuple):
            return tuple(map(self.with_numbers, value))
        if isinstance(value, torch.dtype | torch.device | torch.memory_format):
            return str(value)
        if value is None or value is Ellipsis or isinstance(value, bool | int | float | str):
            return value
        raise _refuse(self.kind, f"has an argument of type {type(value).__name__}", "tensors and numbers")


# torch.max(x, y), beside the maximum along an axis.
_OF_TWO = {"max": "maximum", "min": "minimum"}
_IGNORED = {"device", "memory_format", "non_blocking", "copy", "layout", "pin_memory", "requires_grad"}


def _double(arg: Any) -> Any:
    if not isinstance(arg, torch.Tensor):
        return arg
    return arg.detach().double() if arg.is_floating_point() else arg.detach()


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(kind)


def _refuse(kind: Any, what: str, allowed: str) -> RecordingError:
    return RecordingError(
        f"the torch.autograd.Function {kind.__name__} {what}. Allowed: {allowed}; a function with its own gradient is "
        "converted where forward and backward are elementwise"
    )
