"""Arithmetic, comparison, and what is taken over axes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def absolute(input) -> Array:
    # The gradient at 0 is 0 (JAX's is 1).
    return jnp.sign(jax.lax.stop_gradient(input)) * input


def clamp(input, min=None, max=None) -> Array:
    # The gradient at a bound is 1 (JAX's is 1/2).
    inside = jnp.ones(jnp.shape(input), bool)
    inside = inside if min is None else inside & (input >= min)
    inside = inside if max is None else inside & (input <= max)
    return jnp.where(inside, input, jnp.clip(jax.lax.stop_gradient(input), min, max))


def binary(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda input, other: function(input, other)


def add(input, other, *, alpha=1) -> Array:
    return input + other if alpha == 1 else input + alpha * other


def sub(input, other, *, alpha=1) -> Array:
    return input - other if alpha == 1 else input - alpha * other


def div(input, other, *, rounding_mode=None) -> Array:
    if rounding_mode is None:
        return input / other
    return floor_divide(input, other) if rounding_mode == "floor" else jax.lax.stop_gradient(jnp.trunc(input / other))


def floor_divide(input, other) -> Array:
    """The quotient of the exact remainder: 1 // 0.1 is 9, and `floor(1 / 0.1)` is 10."""
    return jax.lax.stop_gradient(jnp.floor_divide(input, other))


def matmul(input, other) -> Array:
    return input @ other


def where(condition, input, other) -> Array:
    return jnp.where(condition, input, other)


def _axis(dim):
    return tuple(dim) if isinstance(dim, list | tuple) else dim


def reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(input, dim=None, keepdim=False, *, dtype=None):
        return function(input, axis=_axis(dim), keepdims=keepdim)

    return reduce


def extremum_along(values: Callable, indices: Callable) -> Callable:
    def extremum(input, dim=None, keepdim=False):
        if dim is None:
            return values(input)
        if not isinstance(dim, int):
            raise NotImplementedError("the elementwise form; use torch.maximum or torch.minimum")
        # One index gets the gradient, the first of equals, as in torch.
        where = indices(input, axis=dim, keepdims=True)
        found = jnp.take_along_axis(input, where, axis=dim)
        return (found, where) if keepdim else (jnp.squeeze(found, dim), jnp.squeeze(where, dim))

    return extremum


def argmax(input, dim=None, keepdim=False) -> Array:
    return jnp.argmax(input, axis=dim, keepdims=keepdim)


def argmin(input, dim=None, keepdim=False) -> Array:
    return jnp.argmin(input, axis=dim, keepdims=keepdim)


def extreme_of_two(greater: Callable) -> Callable:
    def choose(input, other):
        # Equal elements share the gradient, as in torch.
        chosen = jnp.where(greater(input, other), input, other)
        return jnp.where(input == other, (input + other) / 2, chosen)

    return choose


def var(input, dim=None, *, unbiased=True, correction=None, keepdim=False) -> Array:
    ddof = int(unbiased) if correction is None else correction
    return jnp.var(input, axis=_axis(dim), ddof=ddof, keepdims=keepdim)


def std(input, dim=None, *, unbiased=True, correction=None, keepdim=False) -> Array:
    ddof = int(unbiased) if correction is None else correction
    return jnp.std(input, axis=_axis(dim), ddof=ddof, keepdims=keepdim)


def logsumexp(input, dim, keepdim=False) -> Array:
    return jax.nn.logsumexp(input, axis=_axis(dim), keepdims=keepdim)


def masked_fill(input, mask, value) -> Array:
    return jnp.where(mask, jnp.asarray(value, input.dtype), input)


def remainder(input, other) -> Array:
    """The sign is that of the divisor; the quotient has no gradient, as in torch."""
    return input - other * floor_divide(input, other)


def fmod(input, other) -> Array:
    """The sign is that of the dividend."""
    signs = jax.lax.stop_gradient(jnp.sign(input) * jnp.sign(other))
    return input - other * signs * floor_divide(jnp.abs(input), jnp.abs(other))


def lerp(input, end, weight) -> Array:
    return input + weight * (end - input)


def tensordot(a, b, dims=2) -> Array:
    return jnp.tensordot(a, b, dims)


def inner(input, other) -> Array:
    return jnp.inner(input, other)


def vecdot(x, y, *, dim=-1) -> Array:
    return jnp.sum(x * y, axis=dim)


def extremum_so_far(running: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    """`cummax` and `cummin`; the gradient goes to the last of equals, as in torch."""

    def so_far(input, dim):
        axis = dim % input.ndim
        found = running(jax.lax.stop_gradient(input), axis=axis)
        places = jax.lax.broadcasted_iota(jax.dtypes.canonicalize_dtype(jnp.int64), input.shape, axis)
        where = jax.lax.cummax(jnp.where(input == found, places, 0), axis=axis)
        return jnp.take_along_axis(input, where, axis), where

    return so_far


def logcumsumexp(input, dim) -> Array:
    return jax.lax.cumlogsumexp(input, axis=dim % input.ndim)


def bucketize(input, boundaries, *, out_int32=False, right=False) -> Array:
    del out_int32
    found = jnp.searchsorted(boundaries, input, side="right" if right else "left")
    return found.astype(jax.dtypes.canonicalize_dtype(jnp.int64))


def einsum(equation, *operands) -> Array:
    operands = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    return jnp.einsum(equation, *operands)


def addcmul(input, tensor1, tensor2, *, value=1) -> Array:
    return input + value * tensor1 * tensor2


def addcdiv(input, tensor1, tensor2, *, value=1) -> Array:
    return input + value * tensor1 / tensor2


def addmm(input, mat1, mat2, *, beta=1, alpha=1) -> Array:
    return beta * input + alpha * (mat1 @ mat2)


def copysign(input, other) -> Array:
    return absolute(input) * jnp.where(jnp.signbit(other), -1, 1)


def atan2(input, other) -> Array:
    # The gradient at the origin is 0 (JAX's is not a number).
    origin = (input == 0) & (other == 0)
    angle = jnp.arctan2(jnp.where(origin, 0, input), jnp.where(origin, 1, other))
    return jnp.where(origin, jax.lax.stop_gradient(jnp.arctan2(input, other)), angle)


def logit(input, eps=None) -> Array:
    inside = input if eps is None else clamp(input, eps, 1 - eps)
    return jnp.log(inside / (1 - inside))


def nan_to_num(input, nan=0.0, posinf=None, neginf=None) -> Array:
    limits = jnp.finfo(input.dtype)
    for unusual, value in (
        (jnp.isnan(input), 0.0 if nan is None else nan),
        (input == jnp.inf, limits.max if posinf is None else posinf),
        (input == -jnp.inf, limits.min if neginf is None else neginf),
    ):
        input = jnp.where(unusual, value, input)
    return input


def mean_with(spread: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    def both(input, dim=None, *, unbiased=True, correction=None, keepdim=False):
        found = spread(input, dim, unbiased=unbiased, correction=correction, keepdim=keepdim)
        return found, jnp.mean(input, axis=_axis(dim), keepdims=keepdim)

    return both


def aminmax(input, *, dim=None, keepdim=False) -> tuple[Array, Array]:
    return jnp.min(input, axis=dim, keepdims=keepdim), jnp.max(input, axis=dim, keepdims=keepdim)


def count_nonzero(input, dim=None) -> Array:
    return jnp.sum(input != 0, axis=_axis(dim), dtype=jax.dtypes.canonicalize_dtype(jnp.int64))


def argsort(input, dim=-1, descending=False, stable=False) -> Array:
    """Equal elements stay in order, as torch has it on the CPU whether asked or not."""
    return jnp.argsort(input, axis=dim, descending=descending, stable=True)


def sort(input, dim=-1, descending=False, stable=False) -> tuple[Array, Array]:
    order = argsort(input, dim, descending)
    return jnp.take_along_axis(input, order, axis=dim), order


def one_hot(tensor, num_classes=-1) -> Array:
    if num_classes < 0:
        raise NotImplementedError("num_classes that depends on the values; name the number")
    return jax.nn.one_hot(tensor, num_classes, dtype=jax.dtypes.canonicalize_dtype(jnp.int64))
