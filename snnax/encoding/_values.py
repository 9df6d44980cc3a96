"""What every encoder asks of its values and of the number of time steps."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array


def as_values(where: str, values: Any) -> Array:
    """The values of an encoder as an array.

    **Raises:** `TypeError` unless they are floating point, `ValueError` for NaN where the values are known (not inside
    `jax.jit` or `jax.vmap`, where looking at them would stop the device).
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(
            f"{where} encodes floating point values, found {values.dtype}: scale them and convert with .astype(float32)"
        )
    if not isinstance(values, Tracer) and bool(jnp.isnan(values).any()):
        count = int(jnp.isnan(values).sum())
        raise ValueError(f"{where} encodes numbers, found NaN in {count} of {values.size} values: replace them first")
    return values


def widened(values: Array) -> Array:
    """In float32 at least: eight bits of bfloat16 would move spike times and probabilities."""
    return values if jnp.finfo(values.dtype).bits >= 32 else values.astype(jnp.float32)


def as_num_steps(where: str, num_steps: int) -> int:
    """**Raises:** `ValueError` for a negative number of time steps."""
    num_steps = operator.index(num_steps)
    if num_steps < 0:
        raise ValueError(f"{where} needs num_steps >= 0, found {num_steps}")
    return num_steps


def check_choice(where: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """**Raises:** `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} of {where} must be one of {list(allowed)}, found {value!r}")


def check_key(where: str, key: Any) -> None:
    """**Raises:** `ValueError` without a key."""
    if key is None:
        raise ValueError(f"{where} draws random spikes and found key=None: pass key=jax.random.key(seed)")


def step_index(num_steps: int, ndim: int) -> Array:
    """`0, 1, ...` along a leading time axis, to be compared with arrays of `ndim` further axes."""
    return jax.lax.broadcasted_iota(jnp.int32, (num_steps,) + (1,) * ndim, 0)
