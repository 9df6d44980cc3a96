"""Types, and functions that leave values as they are."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .mixing import whole
from .registry import op


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


@op("double", axes="elementwise")
@op("float", axes="elementwise")
def to_float(input) -> Array:
    """Casts between floating point types are left to the types of the parameters."""
    return input if jnp.issubdtype(input.dtype, jnp.floating) else input.astype(float_type())


@op("long", axes="elementwise")
def to_integer(input) -> Array:
    return input.astype(jax.dtypes.canonicalize_dtype(jnp.int64))


@op("int", axes="elementwise")
def to_int32(input) -> Array:
    return input.astype(jnp.int32)


@op("bool", axes="elementwise")
def to_bool(input) -> Array:
    return input != 0


_PLAIN = {"bool": jnp.bool_, "uint8": jnp.uint8, "int8": jnp.int8, "int16": jnp.int16, "int32": jnp.int32}
_FLOATS = {"float32", "float64", "FloatTensor", "DoubleTensor"}
_INTEGERS = {"int64", "LongTensor"}
_REFUSED = {"float16", "bfloat16", "half", "complex64", "complex128", "HalfTensor", "BFloat16Tensor"}


def _type_name(dtype: Any) -> str:
    return str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")


def is_dtype(value: Any) -> bool:
    """Whether an argument is a type of torch's, or the name of one; names of devices are none."""
    if isinstance(value, str):
        return _type_name(value) in {*_PLAIN, *_FLOATS, *_INTEGERS, *_REFUSED}
    return type(value).__name__ in ("dtype", "tensortype")


def _cast_form(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`x.to(other)`, `x.to(dtype)`, `x.to(device)`, `x.to(device, dtype)`: without the devices, with names."""
    named = dict(kwargs)
    for value in args[1:]:
        if is_dtype(value):
            named["dtype"] = value
        elif not (isinstance(value, str | int | None) or type(value).__name__ in ("device", "memory_format")):
            named["other"] = value
    return name, args[:1], named


@op("to", "type", axes="elementwise", names={"tensor": "other"}, form=_cast_form)
def to(input, dtype=None, other=None) -> Array:
    """`Tensor.to` and `Tensor.type`."""
    if other is not None:
        return type_as(input, other)
    if dtype is None:
        return input
    name = _type_name(dtype)
    if name in _FLOATS:
        return to_float(input)
    if name in _INTEGERS:
        return to_integer(input)
    if name in _PLAIN:
        if jnp.issubdtype(input.dtype, jnp.floating) and name not in ("bool", "int32"):
            input = input.astype(jnp.int32)  # what is too large wraps around; XLA would take the largest number
        return input.astype(_PLAIN[name])
    raise NotImplementedError(f"a cast to {name}")


def typed(value: Array, dtype: Any) -> Array:
    """A value in the type that is asked for, if one is."""
    return value if dtype is None else to(value, dtype)


@op("type_as", axes="elementwise")
def type_as(input, other) -> Array:
    return to_float(input) if jnp.issubdtype(other.dtype, jnp.floating) else input.astype(other.dtype)


@op("clone", "contiguous", "positive", axes="elementwise")
def identity(input) -> Array:
    return input


@op("detach", "data", axes="elementwise", gradient="none")
def detach(input) -> Array:
    return jax.lax.stop_gradient(input)


@op("unseen_write", axes="elementwise", gradient="of the tensor that is written over")
def unseen_write(input, value) -> Array:
    """The values of one tensor with the gradient of another."""
    return _with_gradient_of(input, value)


@jax.custom_jvp
def _with_gradient_of(input, value):
    return value


@_with_gradient_of.defjvp
def _(primals, tangents):
    return primals[1], tangents[0]


@op("off_diagonal_gradient", axes=whole("weight"), gradient="none on the diagonal")
def off_diagonal_gradient(weight) -> Array:
    """A square matrix whose diagonal has no gradient."""
    return jnp.where(jnp.eye(*weight.shape, dtype=bool), jax.lax.stop_gradient(weight), weight)
