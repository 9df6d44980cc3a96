"""Functions of the elements of two or three operands that lie at one place."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._casts import float_type
from ._elementary import absolute
from .registry import op


def _of_two(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda input, other: function(input, other)


# Comparisons, logic, and functions whose gradients are JAX's.
for _names, _function in {
    "mul multiply": operator.mul,
    "gt greater": operator.gt,
    "ge greater_equal": operator.ge,
    "lt less": operator.lt,
    "le less_equal": operator.le,
    "eq": operator.eq,
    "ne not_equal": operator.ne,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "bitwise_left_shift": operator.lshift,
    "bitwise_right_shift": operator.rshift,
    "hypot": jnp.hypot,
}.items():
    op(*_names.split(), axes="elementwise")(_of_two(_function))


@op("add", axes="elementwise")
def add(input, other, *, alpha=1) -> Any:
    return input + other if alpha == 1 else input + alpha * other


@op("sub", "subtract", axes="elementwise")
def sub(input, other, *, alpha=1) -> Any:
    return input - other if alpha == 1 else input - alpha * other


@op("div", "divide", "true_divide", axes="elementwise", gradient="none of a rounded quotient")
def div(input, other, *, rounding_mode=None) -> Any:
    if rounding_mode is None:
        whole = not jnp.issubdtype(jnp.result_type(input, other), jnp.inexact)
        return (jnp.asarray(input, float_type()) if whole else input) / other
    return floor_divide(input, other) if rounding_mode == "floor" else jax.lax.stop_gradient(jnp.trunc(input / other))


@op("floor_divide", axes="elementwise", gradient="none")
def floor_divide(input, other) -> Any:
    """The quotient of the exact remainder: 1 // 0.1 is 9, and `floor(1 / 0.1)` is 10."""
    return jax.lax.stop_gradient(jnp.floor_divide(input, other))


@op("pow", names={"self": "input"}, axes="elementwise")
def power(input, exponent) -> Any:
    return input**exponent


# Operators with the tensor on the right. In normal form they are the four above, with their operands in order.


@op("rsub", axes="elementwise")
def reflected_sub(input, other, *, alpha=1) -> Any:
    return sub(other, input, alpha=alpha)


@op("rdiv", axes="elementwise")
def reflected_div(input, other) -> Any:
    return other / input


@op("rfloordiv", axes="elementwise", gradient="none")
def reflected_floor_divide(input, other) -> Any:
    return floor_divide(other, input)


@op("rpow", axes="elementwise")
def reflected_power(input, base) -> Any:
    return base**input


def _with_tangent(function: Callable[[Any, Any], Array], tangent: Callable[..., Array]) -> Callable[..., Array]:
    """A function of two tensors, of which floats have this tangent, given both and the tangents of both."""

    @jax.custom_jvp
    def of_floats(first, second):
        return function(first, second)

    @of_floats.defjvp
    def _(primals, tangents):
        return of_floats(*primals), tangent(*primals, *tangents)

    def of_two(input, other):
        dtype = jnp.result_type(input, other)
        first, second = jnp.broadcast_arrays(jnp.asarray(input, dtype), jnp.asarray(other, dtype))
        return of_floats(first, second) if jnp.issubdtype(dtype, jnp.floating) else function(first, second)

    return of_two


# The sign of a remainder is that of the divisor, or of the dividend. The quotient has no gradient.
for _name, _function, _quotient in (
    ("remainder", jnp.remainder, jnp.floor_divide),
    ("fmod", jnp.fmod, lambda first, second: jnp.trunc(first / second)),
):

    def _remains(first, second, a, b, quotient=_quotient):
        return a - b * quotient(first, second)

    op(_name, axes="elementwise", gradient="the quotient has none")(_with_tangent(_function, _remains))


def _lesser_has_none(loses: Callable[[Any, Any], Array]) -> Callable[..., Array]:
    def tangent(first, second, a, b):
        apart = jnp.where(loses(first, second), 0, a) + jnp.where(loses(second, first), 0, b)
        return jnp.where(first == second, apart / 2, apart)

    return tangent


for _name, _extreme, _loses in (("maximum", jnp.maximum, jnp.less), ("minimum", jnp.minimum, jnp.greater)):
    # Of NaN beside a number, both have the gradient.
    op(_name, axes="elementwise", gradient="equal elements share it")(_with_tangent(_extreme, _lesser_has_none(_loses)))

for _name, _function, _power in (("logaddexp", jnp.logaddexp, jnp.exp), ("logaddexp2", jnp.logaddexp2, jnp.exp2)):

    def _shares(first, second, a, b, power=_power):
        return a / (1 + power(second - first)) + b / (1 + power(first - second))

    op(_name, axes="elementwise", gradient="0 of the other where one is infinite")(_with_tangent(_function, _shares))


@op("lerp", axes="elementwise")
def lerp(input, end, weight) -> Array:
    return input + weight * (end - input)


@op("addcmul", axes="elementwise")
def addcmul(input, tensor1, tensor2, *, value=1) -> Array:
    return input + value * tensor1 * tensor2


@op("addcdiv", axes="elementwise")
def addcdiv(input, tensor1, tensor2, *, value=1) -> Array:
    return input + value * tensor1 / tensor2


@op("where", axes="elementwise", method="input condition other", names={"self": "input"})
def where(condition, input, other) -> Array:
    return jnp.where(condition, input, other)


@op("masked_fill", axes="elementwise")
def masked_fill(input, mask, value) -> Array:
    return jnp.where(mask, jnp.asarray(value, input.dtype), input)


@op("heaviside", axes="elementwise", gradient="none")
def heaviside(input, values) -> Array:
    """0 for NaN."""
    return jax.lax.stop_gradient(jnp.where(input == 0, values, (input > 0).astype(jnp.result_type(input, values))))


@op("xlogy", axes="elementwise", gradient="none where the value is 0 of no logarithm")
def xlogy(input, other) -> Array:
    undefined = (input == 0) & (other <= 0)
    return jnp.where(undefined, 0, jax.scipy.special.xlogy(input, jnp.where(undefined, 1, other)))


@op("copysign", axes="elementwise", gradient="0 at 0, as that of abs")
def copysign(input, other) -> Array:
    return absolute(input) * jnp.where(jnp.signbit(other), -1, 1)


@op("atan2", "arctan2", axes="elementwise", gradient="0 at the origin, where JAX's is not a number")
def atan2(input, other) -> Array:
    origin = (input == 0) & (other == 0)
    angle = jnp.arctan2(jnp.where(origin, 0, input), jnp.where(origin, 1, other))
    return jnp.where(origin, jax.lax.stop_gradient(jnp.arctan2(input, other)), angle)


@op("custom_function", axes="elementwise", variadic="inputs", gradient="the function's own")
def custom_function(inputs, *, function) -> Array:
    """A `torch.autograd.Function` of each element."""
    return function(*inputs)
