"""Constants whose size or values follow from the length of the inputs; all others are kept as they were made."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._casts import float_type, to


def _typed(value: Array, dtype: Any) -> Array:
    return value if dtype is None else to(value, dtype)


def _shape(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple) else size


def filled(value: float) -> Callable[..., Array]:
    """`torch.zeros`, `ones` and `empty`; what an empty tensor holds is never read."""

    def make(*args, size=None, dtype=None) -> Array:
        return _typed(jnp.full(_shape(args) if size is None else tuple(size), value, float_type()), dtype)

    return make


def full(size, fill_value, dtype=None) -> Array:
    return _typed(jnp.full(tuple(size), fill_value, float_type() if isinstance(fill_value, float) else None), dtype)


def new_filled(value: float) -> Callable[..., Array]:
    """`Tensor.new_zeros` and its relatives."""

    def make(input, *args, size=None, dtype=None) -> Array:
        shape = _shape(args) if size is None else tuple(size)
        return _typed(jnp.full(shape, value, input.dtype), dtype)

    return make


def new_full(input, size, fill_value, dtype=None) -> Array:
    return _typed(jnp.full(tuple(size), fill_value, input.dtype), dtype)


def like(value: float) -> Callable[..., Array]:
    """`torch.zeros_like` and its relatives."""
    return lambda input, dtype=None: _typed(jnp.full_like(jax.lax.stop_gradient(input), value), dtype)


def full_like(input, fill_value, dtype=None) -> Array:
    return _typed(jnp.full_like(jax.lax.stop_gradient(input), fill_value), dtype)


def arange(*args, start=0, end=None, step=1, dtype=None) -> Array:
    bounds = args if end is None else (start, end, *args)
    bounds = (0, *bounds) if len(bounds) == 1 else bounds
    first, stop, step = bounds if len(bounds) == 3 else (*bounds, step)
    return _typed(jnp.arange(first, stop, step), dtype)


def linspace(start, end, steps, dtype=None) -> Array:
    return _typed(jnp.linspace(start, end, steps, dtype=float_type()), dtype)
