"""Types, and functions that leave values as they are."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


_FLOAT: contextvars.ContextVar[Any] = contextvars.ContextVar("float", default=jnp.float32)


def float_type() -> Any:
    """The floating point type of the network that runs, in the place of torch's float32."""
    return _FLOAT.get()


@contextlib.contextmanager
def floats_are(dtype: Any) -> Iterator[None]:
    """Inside, casts and factories make floating point numbers of this type."""
    token = _FLOAT.set(jnp.dtype(dtype))
    try:
        yield
    finally:
        _FLOAT.reset(token)


def to_float(input, *args, **kwargs) -> Array:
    """Casts between floating point types are left to the types of the parameters."""
    return input if jnp.issubdtype(input.dtype, jnp.floating) else input.astype(float_type())


_DTYPES = {"bool": jnp.bool_, "uint8": jnp.uint8, "int8": jnp.int8, "int16": jnp.int16, "int32": jnp.int32}


def to(input, *args, dtype=None, **kwargs) -> Array:
    """`Tensor.to` and `Tensor.type`; arguments that name no dtype (devices) change nothing."""
    for target in (dtype, *args):
        if hasattr(target, "dtype"):
            return type_as(input, target)
        name = str(target).removeprefix("torch.")
        if name in ("float32", "float64", "FloatTensor", "DoubleTensor"):
            return to_float(input)
        if name in _DTYPES:
            return input.astype(_DTYPES[name])
        if name in ("int64", "LongTensor"):
            return to_integer(input)
        if name in ("float16", "bfloat16", "half"):
            raise NotImplementedError(f"a cast to {name}")
    return input


def type_as(input, other) -> Array:
    return to_float(input) if jnp.issubdtype(other.dtype, jnp.floating) else input.astype(other.dtype)


def to_integer(input) -> Array:
    return input.astype(jax.dtypes.canonicalize_dtype(jnp.int64))


def identity(input, *args, **kwargs) -> Array:
    return input


def detach(input) -> Array:
    return jax.lax.stop_gradient(input)


def off_diagonal_gradient(weight) -> Array:
    """A square matrix whose diagonal has no gradient."""
    return jnp.where(jnp.eye(*weight.shape, dtype=bool), jax.lax.stop_gradient(weight), weight)
