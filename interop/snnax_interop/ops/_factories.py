"""Constants whose size or values follow from the length of the inputs; all others are kept as they were made."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._casts import float_type, typed
from .registry import op


def _filled(value: float) -> Callable[..., Array]:
    return lambda size, dtype=None: typed(jnp.full(size, value, float_type()), dtype)


def _new_filled(value: float) -> Callable[..., Array]:
    return lambda input, size, dtype=None: typed(jnp.full(size, value, input.dtype), dtype)


def _filled_like(value: float) -> Callable[..., Array]:
    return lambda input, dtype=None: typed(jnp.full_like(jax.lax.stop_gradient(input), value), dtype)


# What an empty tensor holds is never read.
for _name, _value in (("zeros", 0.0), ("ones", 1.0), ("empty", 0.0)):
    op(_name, axes="constant", variadic="size")(_filled(_value))
    op(f"new_{_name}", axes="constant", variadic="size")(_new_filled(_value))
    op(f"{_name}_like", axes="constant")(_filled_like(_value))


@op("full", axes="constant")
def full(size, fill_value, dtype=None) -> Array:
    return typed(jnp.full(tuple(size), fill_value, float_type() if isinstance(fill_value, float) else None), dtype)


@op("tensor", axes="constant")
def tensor(data, dtype=None) -> Array:
    is_float = any(isinstance(each, float) for each in jax.tree.leaves(data))
    return typed(jnp.asarray(jax.lax.stop_gradient(data), float_type() if is_float else None), dtype)


@op("new_full", axes="constant")
def new_full(input, size, fill_value, dtype=None) -> Array:
    return typed(jnp.full(tuple(size), fill_value, input.dtype), dtype)


@op("full_like", axes="constant")
def full_like(input, fill_value, dtype=None) -> Array:
    return typed(jnp.full_like(jax.lax.stop_gradient(input), fill_value), dtype)


def _arange_form(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The end alone, the start and the end, or these and the step."""
    named = dict(zip(("end",) if len(args) == 1 else ("start", "end", "step"), args, strict=False))
    return name, args[3:], named | kwargs


@op("arange", axes="constant", form=_arange_form)
def arange(end, start=0, step=1, dtype=None) -> Array:
    return typed(jnp.arange(start, end, step), dtype)


@op("linspace", axes="constant")
def linspace(start, end, steps, dtype=None) -> Array:
    return typed(jnp.linspace(start, end, steps, dtype=float_type()), dtype)
