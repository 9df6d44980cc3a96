"""The shape of a layer's neurons: given at construction, or taken from the input."""

import operator
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


Shape = int | Sequence[int] | None


def as_shape(shape: Shape) -> tuple[int, ...] | None:
    """`11` -> `(11,)`; None stays None: the input decides."""
    if shape is None:
        return None
    sizes = shape if isinstance(shape, Sequence) else (shape,)
    shape = tuple(operator.index(size) for size in sizes)
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape has no negative sizes, found {shape}")
    return shape


def resolve_shape(given: tuple[int, ...] | None, inferred: tuple[int, ...] | None) -> tuple[int, ...]:
    """The one shape that construction and input agree on.

    **Raises:** `ValueError` when they disagree or neither is known.
    """
    if inferred is None:
        if given is None:
            raise ValueError("the layer was built without a shape: give it one, or pass input_shape to init_states")
        return given
    if given is not None and given != tuple(inferred):
        raise ValueError(f"the layer was built for neurons of shape {given}, but its input has shape {tuple(inferred)}")
    return tuple(inferred)


def check_parameters(layer: eqx.Module, shape: tuple[int, ...]) -> None:
    """**Raises:** `ValueError` when a parameter of a layer is larger than one value per neuron of `shape`."""
    for parameter in jax.tree.leaves(eqx.filter(layer, eqx.is_array)):
        pairs = zip(reversed(parameter.shape), reversed(shape), strict=False)
        if parameter.ndim > len(shape) or any(size not in (1, neurons) for size, neurons in pairs):
            raise ValueError(f"neurons of shape {shape} cannot have parameters of shape {parameter.shape}")


def output_dtype(x: Array) -> Any:
    """The dtype of what a layer makes of `x`: its own, or JAX's default float for integers and Booleans."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.result_type(float)


def as_float(x: Array) -> Array:
    """Integers and Booleans, such as event frames, as numbers that can be scaled."""
    return jnp.asarray(x, output_dtype(x))


def owned(value: Array | float, shape: tuple[int, ...]) -> Array:
    """A first state of neurons of `shape`, in JAX's default float and in memory of its own."""
    return jnp.array(jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), shape))


def check_input(x: Array, v: Array) -> Array:
    """The input in the dtype of the state.

    **Raises:** `ValueError` when its shape is not that of the neurons.
    """
    if jnp.shape(x) != v.shape:
        raise ValueError(
            f"the neurons have shape {v.shape}, but their input has shape {jnp.shape(x)} (batch with jax.vmap)"
        )
    return jnp.asarray(x, dtype=v.dtype)
