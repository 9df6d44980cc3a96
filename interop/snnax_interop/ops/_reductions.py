"""What is taken over axes: sums, extremes, spreads, orders."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._casts import typed
from ._elementary import absolute
from .mixing import along, last, whole
from .registry import op


def _axis(dim):
    return tuple(dim) if isinstance(dim, list | tuple) else dim


def _reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(input, dim=None, keepdim=False, *, dtype=None):
        return function(typed(input, dtype), axis=_axis(dim), keepdims=keepdim)

    return reduce


for _name, _function in {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "amax": jnp.max,
    "amin": jnp.min,
    "prod": jnp.prod,
    "any": jnp.any,
    "all": jnp.all,
}.items():
    op(_name, axes=along())(_reduction(_function))


def _index(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda input, dim=None, keepdim=False: function(input, axis=dim, keepdims=keepdim)


for _name, _function in (("argmax", jnp.argmax), ("argmin", jnp.argmin)):
    op(_name, axes=along())(_index(_function))


def _extremum_form(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`max(x)`, `max(x, dim)`; `max(x, y)` is `maximum`."""
    second = args[1] if len(args) > 1 else kwargs.get("other")
    return name if second is None or isinstance(second, int) else f"{name}imum", args, kwargs


def _extremum(values: Callable, indices: Callable) -> Callable:
    def extremum(input, dim=None, keepdim=False):
        if dim is None:
            return values(input)
        where = indices(input, axis=dim, keepdims=True)
        found = jnp.take_along_axis(input, where, axis=dim)
        return (found, where) if keepdim else (jnp.squeeze(found, dim), jnp.squeeze(where, dim))

    return extremum


for _name, _values, _indices in (("max", jnp.max, jnp.argmax), ("min", jnp.min, jnp.argmin)):
    op(_name, axes=along(), form=_extremum_form, gradient="along an axis, the first of equals gets it, not all")(
        _extremum(_values, _indices)
    )


@op("aminmax", axes=along())
def aminmax(input, *, dim=None, keepdim=False) -> tuple[Array, Array]:
    return jnp.min(input, axis=dim, keepdims=keepdim), jnp.max(input, axis=dim, keepdims=keepdim)


@op("logsumexp", axes=along())
def logsumexp(input, dim, keepdim=False) -> Array:
    return jax.nn.logsumexp(input, axis=_axis(dim), keepdims=keepdim)


@op("count_nonzero", axes=along(), variadic="dim")
def count_nonzero(input, dim=None) -> Array:
    return jnp.sum(input != 0, axis=_axis(dim), dtype=jax.dtypes.canonicalize_dtype(jnp.int64))


@op("trace", axes=whole("input"))
def trace(input) -> Array:
    return jnp.trace(input)


# Spreads


def _spread_form(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`var(x, unbiased)` and `var(x, dim, unbiased, keepdim)`, with a correction of 1 or 0."""
    order = ("input", "unbiased") if len(args) == 2 and isinstance(args[1], bool) else (
        "input", "dim", "unbiased", "keepdim"
    )  # fmt: skip
    named = dict(zip(order, args, strict=False)) | kwargs
    if "unbiased" in named:
        named["correction"] = int(named.pop("unbiased"))
    return name, args[4:], named


def _spread(function: Callable[..., Array]) -> Callable[..., Array]:
    def spread(input, dim=None, *, correction=None, keepdim=False):
        return function(input, axis=_axis(dim), ddof=1 if correction is None else correction, keepdims=keepdim)

    return spread


def _with_mean(function: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    def both(input, dim=None, *, correction=None, keepdim=False):
        found = _spread(function)(input, dim, correction=correction, keepdim=keepdim)
        return found, jnp.mean(input, axis=_axis(dim), keepdims=keepdim)

    return both


def _deviation(input, **options) -> Array:
    variance = jnp.var(input, **options)
    return jnp.where(variance == 0, 0, jnp.sqrt(jnp.where(variance == 0, 1, variance)))


for _name, _function in (("var", jnp.var), ("std", _deviation)):
    _gradient = "0 where all are equal" if _name == "std" else ""
    op(_name, axes=along(), form=_spread_form, gradient=_gradient)(_spread(_function))
    op(f"{_name}_mean", axes=along(), form=_spread_form, gradient=_gradient)(_with_mean(_function))


# Norms and distances


_NORM_GRADIENT = "0 at 0, where JAX's is not a number"


@op("linalg_vector_norm", axes=along(), gradient=_NORM_GRADIENT)
def vector_norm(input, ord: Any = 2, dim=None, keepdim=False, *, dtype=None) -> Array:
    axis = _axis(dim)
    size = absolute(input)
    if ord == 1:
        return jnp.sum(size, axis=axis, keepdims=keepdim)
    if ord == math.inf:
        return jnp.max(size, axis=axis, keepdims=keepdim)
    if ord <= 1 or ord == -math.inf:
        raise NotImplementedError(f"the norm of order {ord}; allowed are 1 and above")
    total = jnp.sum(input**2 if ord == 2 else size**ord, axis=axis, keepdims=keepdim)
    above = jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, 0, jnp.sqrt(above) if ord == 2 else above ** (1 / ord))


@op("norm", axes=along(), gradient=_NORM_GRADIENT)
def norm(input, p="fro", dim=None, keepdim=False, *, dtype=None) -> Array:
    if p == "nuc":
        raise NotImplementedError("the nuclear norm")
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim)


@op("linalg_norm", axes=along(), gradient=_NORM_GRADIENT)
def linalg_norm(input, ord=None, dim=None, keepdim=False, *, dtype=None) -> Array:
    axes = input.ndim if dim is None else len(dim) if isinstance(dim, list | tuple) else 1
    if ord is not None and axes == 2:
        raise NotImplementedError("the norm of a matrix; allowed is torch.linalg.vector_norm")
    return vector_norm(input, 2 if ord is None else ord, dim, keepdim)


@op("pairwise_distance", axes=last(1, of=("x1", "x2")), gradient=_NORM_GRADIENT)
def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False) -> Array:
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


@op("cdist", axes=last(1, of=("x1", "x2")), gradient=_NORM_GRADIENT)
def cdist(x1, x2, p=2.0, compute_mode=None) -> Array:
    del compute_mode
    return vector_norm(x1[..., :, None, :] - x2[..., None, :, :], p, -1)


# Along an axis that stays


def _running(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda input, dim, *, dtype=None: function(typed(input, dtype), axis=dim)


for _name, _function in (("cumsum", jnp.cumsum), ("cumprod", jnp.cumprod)):
    op(_name, axes=along())(_running(_function))


def _extremum_so_far(running: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    def so_far(input, dim):
        axis = dim % input.ndim
        fixed = jax.lax.stop_gradient(input)
        # From a NaN on, the last NaN is the extremum.
        unknown = jnp.isnan(fixed)
        behind = jax.lax.cummax(unknown.astype(jnp.int32), axis=axis) > 0
        chosen = jnp.where(behind, unknown, fixed == running(fixed, axis=axis))
        places = jax.lax.broadcasted_iota(jax.dtypes.canonicalize_dtype(jnp.int64), input.shape, axis)
        where = jax.lax.cummax(jnp.where(chosen, places, 0), axis=axis)
        return jnp.take_along_axis(input, where, axis), where

    return so_far


for _name, _function in (("cummax", jax.lax.cummax), ("cummin", jax.lax.cummin)):
    op(_name, axes=along(), gradient="the last of equals gets it")(_extremum_so_far(_function))


@op("logcumsumexp", axes=along())
def logcumsumexp(input, dim) -> Array:
    return jax.lax.cumlogsumexp(input, axis=dim % input.ndim)


@op("diff", axes=along())
def diff(input, n=1, dim=-1) -> Array:
    return jnp.diff(input, n, axis=dim)


@op("argsort", axes=along())
def argsort(input, dim=-1, descending=False, stable=False) -> Array:
    """Equal elements stay in order, as torch has it on the CPU whether asked or not."""
    return jnp.argsort(input, axis=dim, descending=descending, stable=True)


@op("sort", axes=along())
def sort(input, dim=-1, descending=False, stable=False) -> tuple[Array, Array]:
    order = argsort(input, dim, descending)
    return jnp.take_along_axis(input, order, axis=dim), order
