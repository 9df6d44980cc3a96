"""Leaves that hold values: arrays, typed keys and Python numbers, and how each becomes plain bytes and comes back."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np


Kind = Literal["array", "key", "bool", "int", "float", "complex"]
NUMBERS: dict[type, Kind] = {bool: "bool", int: "int", float: "float", complex: "complex"}
# What every numpy reads; all others that JAX has (bfloat16, float8, int4, ...) are stored as their bits.
NATIVE = frozenset(
    ["bool", "complex64", "complex128", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclasses.dataclass(frozen=True)
class LeafSpec:
    """What is known of a leaf without its values. `shape` and `dtype` belong to arrays and keys only."""

    kind: Kind
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def __post_init__(self):
        sizes = all(type(size) is int and size >= 0 for size in self.shape)
        if self.kind not in get_args(Kind) or type(self.dtype) is not str or not sizes:
            raise ValueError(f"no leaf is {self.kind!r} of shape {self.shape!r} and dtype {self.dtype!r}")

    def __str__(self) -> str:
        if self.kind in NUMBERS.values():
            return f"a Python {self.kind}"
        return f"{self.kind} of shape {self.shape} and dtype {self.dtype}"


def leaf_spec(leaf: Any) -> LeafSpec | None:
    """What kind of leaf this is; None for what is no value: functions, strings, any other object.

    Python numbers count by their exact type: an `enum.IntEnum` is no number.
    """
    if type(leaf) in NUMBERS:
        return LeafSpec(NUMBERS[type(leaf)])
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return LeafSpec("key", tuple(leaf.shape), str(leaf.dtype))
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        return LeafSpec("array", tuple(leaf.shape), leaf.dtype.name)
    return None


def encode(spec: LeafSpec, leaf: Any) -> tuple[Any, np.ndarray | None]:
    """A leaf of this kind as a JSON value and, of arrays and keys, an array of a dtype that every numpy reads.

    **Raises:** `TypeError` for a `jax.ShapeDtypeStruct`, for dtypes that JAX does not have, and for arrays that are not
    whole in this process.
    """
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError("found a jax.ShapeDtypeStruct, expected values; save the arrays themselves")
    if type(leaf) in NUMBERS:
        return encode_number(leaf), None
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            raise TypeError(
                f"found an array in parts on several processes ({leaf.sharding}), expected one that is whole in this "
                "process; replicate it in all of them first: jax.device_put(array, NamedSharding(mesh, P()))"
            )
        leaf = leaf.addressable_data(0)
    if spec.kind == "key":
        return str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf))
    array = np.asarray(leaf, order="C")
    if array.dtype.name in NATIVE:
        return None, array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.type.__module__ == "ml_dtypes":
        return None, array.view(f"<u{array.dtype.itemsize}")
    raise TypeError(f"found an array of dtype {array.dtype}, expected a dtype that JAX has; leave it out or convert it")


def encode_number(number: bool | int | float | complex) -> Any:
    """Hexadecimal, which is exact for integers of any size and for floats with infinities and NaN."""
    if isinstance(number, bool):
        return number
    if isinstance(number, int):
        return hex(number)
    return number.hex() if isinstance(number, float) else [number.real.hex(), number.imag.hex()]


def decode_number(kind: Kind, value: Any) -> bool | int | float | complex:
    """The inverse of `encode_number`. **Raises:** `ValueError` or `TypeError` for anything it does not return.

    >>> decode_number("float", encode_number(0.1)), decode_number("int", encode_number(-(2**70)))
    (0.1, -1180591620717411303424)
    """
    if kind == "complex":
        real, imaginary = value
        return complex(float.fromhex(real), float.fromhex(imaginary))
    if kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is no bool")
        return value
    return int(value, 16) if kind == "int" else float.fromhex(value)


def stored_dtype(leaf: Any) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype of the bytes that `encode` gives for an array of the shape and dtype of `leaf`; and for a key, the
    shape of its data behind that of the key.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return np.dtype(data.dtype).newbyteorder("<"), data.shape
    dtype = np.dtype(leaf.dtype)
    return (dtype if dtype.name in NATIVE else np.dtype(f"u{dtype.itemsize}")).newbyteorder("<"), tuple(leaf.shape)


def decode(like: Any, extra: Any, array: np.ndarray) -> Any:
    """The inverse of `encode` for arrays and keys: the values of `array` as the kind of array that `like` is, and where
    `like` was put. Nobody else may use `array`: where it can be, it becomes the result.

    `extra` is the JSON value of `encode`: for keys the name of the implementation.

    **Raises:** `ValueError` for an implementation that JAX does not know or that is not the one of `like`.
    """
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        if not isinstance(extra, str):
            raise ValueError(f"{extra!r} is no name of an implementation")
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=extra)
        if key.dtype != like.dtype:
            raise ValueError(f"a key of {extra!r} has the dtype {key.dtype}")
        return _placed(like, lambda index: key[index])
    dtype = np.dtype(like.dtype)
    array = array.astype(dtype, copy=False) if dtype.name in NATIVE else array.view(dtype)
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, np.ndarray):
        return array
    # Of several devices each needs memory of its own; one takes over what was read, which may be most of what there is.
    alone = like.sharding is None or len(like.sharding.device_set) == 1
    # Without this, JAX narrows 64 bits to 32 wherever x64 is off. `like` has 64 bits, so they are wanted.
    with jax.enable_x64(True):
        return _placed(like, lambda index: (jax.device_put if alone else jnp.array)(array[index]))


def _placed(like: jax.Array | jax.ShapeDtypeStruct, part: Callable[[Any], jax.Array]) -> jax.Array:
    """An array of which `part` gives any part. What nobody put anywhere stays so: it mixes with arrays of any place."""
    if like.sharding is None or (isinstance(like, jax.Array) and not like.committed):
        return part(...)
    # Each device gets its part, and each process those of its devices
    return jax.make_array_from_callback(like.shape, like.sharding, part)
