"""The inputs of a call of a conversion: their check, and those that are the same at every time step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from snnax import Repeat

from .plan import InputSpec


class Constant(NamedTuple):
    """An input of one sample that is the same at every time step; `axis` is where it would have its time."""

    value: Array
    axis: int
    num_steps: int

    def sequence(self) -> Array:
        shape = list(self.value.shape)
        shape.insert(self.axis, self.num_steps)
        return jnp.broadcast_to(jnp.expand_dims(self.value, self.axis), shape)


def whole(value: Any) -> Any:
    """A value with all its time steps."""
    return value.sequence() if isinstance(value, Constant) else value


def of_sample(value: Any, spec: InputSpec) -> Any:
    """One sample of an input as a network reads it."""
    if not isinstance(value, Repeat):
        return value
    if spec.time_axis is None:
        return value.value
    before = spec.batch_axis is not None and spec.batch_axis < spec.time_axis
    return Constant(value.value, spec.time_axis - before, value.num_steps)


def size_along(value: Any, spec: InputSpec, axis: int) -> int:
    """The size of an input along an axis of its full shape."""
    if not isinstance(value, Repeat):
        return value.shape[axis]
    return value.num_steps if axis == spec.time_axis else value.value.shape[_place(value, spec, axis)]


def batch_axis(value: Any, spec: InputSpec) -> int | None:
    """The axis of the samples in the array that was given."""
    return None if spec.batch_axis is None else _place(value, spec, spec.batch_axis)


def _place(value: Any, spec: InputSpec, axis: int) -> int:
    dropped = isinstance(value, Repeat) and spec.time_axis is not None and spec.time_axis < axis
    return axis - dropped


def check_repeated(value: Any, spec: InputSpec, num_steps: list[int]) -> None:
    """Whether an input without a time axis is repeated as often as its network runs.

    **Raises:** `ValueError` with what to do where it is not.
    """
    if isinstance(value, Repeat) and spec.time_axis is None and {value.num_steps} != {*num_steps}:
        raise ValueError(
            f"input '{spec.name}' is repeated {value.num_steps} times, and forward runs {num_steps} time steps for any "
            "input; pass the input alone, or give the Repeat to converted.model, which runs as long as that says"
        )


def checked_inputs(inputs: tuple[Any, ...], specs: tuple[InputSpec, ...], dtype: str) -> list[Any]:
    """The inputs as JAX arrays, or `Repeat` of them.

    **Raises:** `ValueError` for another number of inputs or another shape, `TypeError` for another type or dtype.
    """
    if len(inputs) != len(specs):
        raise ValueError(f"expected {len(specs)} inputs {[spec.name for spec in specs]}, found {len(inputs)}")
    arrays = []
    sizes: dict[str, int] = {}
    for given, spec in zip(inputs, specs, strict=True):
        value = given.value if isinstance(given, Repeat) else given
        if isinstance(value, torch.Tensor):
            raise TypeError(f"input '{spec.name}' is a torch tensor; convert it with snnax_interop.to_jax")
        if not isinstance(value, jax.Array | np.ndarray):
            raise TypeError(f"input '{spec.name}' must be a JAX or NumPy array, found {type(value).__name__}")
        free = {spec.batch_axis: "batch", spec.time_axis: "time"}
        expected = [free.get(axis, size) for axis, size in enumerate(spec.shape)]
        found = list(value.shape)
        if isinstance(given, Repeat) and spec.time_axis is not None:
            del expected[spec.time_axis]
            sizes.setdefault("time", given.num_steps)
            if sizes["time"] != given.num_steps:
                raise ValueError(
                    f"input '{spec.name}' is repeated {given.num_steps} times, other inputs have {sizes['time']} along "
                    "time"
                )
        fits = len(found) == len(expected) and all(
            isinstance(size, str) or size == own for size, own in zip(expected, found, strict=True)
        )
        if not fits:
            step = " at each of its repeated steps" if isinstance(given, Repeat) else ""
            raise ValueError(
                f"input '{spec.name}' must have shape ({', '.join(map(str, expected))}){step}, found {value.shape}"
            )
        for size, own in zip(expected, found, strict=True):
            if isinstance(size, str) and sizes.setdefault(size, own) != own:
                raise ValueError(f"input '{spec.name}' has {own} along {size}, other inputs have {sizes[size]}")
        if spec.time_axis is not None and size_along(given, spec, spec.time_axis) < spec.shortest:
            raise ValueError(
                f"input '{spec.name}' has {size_along(given, spec, spec.time_axis)} time steps; allowed: "
                f"{spec.shortest} and more, since forward does something else with fewer"
            )
        # Floats follow the network; torch's int64 is int32 in JAX (to_jax checks the range).
        kind = dtype if jnp.issubdtype(jnp.dtype(spec.dtype), jnp.floating) else spec.dtype
        wanted = jax.dtypes.canonicalize_dtype(jnp.dtype(kind))
        if value.dtype != wanted:
            raise TypeError(f"input '{spec.name}' must have dtype {wanted}, found {value.dtype}; cast it")
        array = jnp.asarray(value)
        arrays.append(Repeat(array, given.num_steps) if isinstance(given, Repeat) else array)
    return arrays
