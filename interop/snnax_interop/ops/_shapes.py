"""Shapes, pieces, joins and repeats."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ._casts import is_dtype
from .mixing import Mixing, Operand, along, at
from .registry import op


# Other shapes


@op("flatten", axes="shape")
def flatten(input, start_dim=0, end_dim=-1) -> Array:
    if input.ndim == 0:
        return input.reshape(1)
    start, end = start_dim % input.ndim, end_dim % input.ndim
    return input.reshape(*input.shape[:start], math.prod(input.shape[start : end + 1]), *input.shape[end + 1 :])


@op("ravel", axes="shape")
def ravel(input) -> Array:
    return input.reshape(-1)


@op("unflatten", axes="shape", names={"unflattened_size": "sizes"})
def unflatten(input, dim, sizes) -> Array:
    dim = dim % input.ndim
    return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1 :])


def _view_form(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`x.view(dtype)` reads the same bits as other numbers."""
    if any(map(is_dtype, (*args[1:], *kwargs.values()))):
        raise TypeError(f"{name} is called with a type. Allowed: sizes; x.to(dtype) casts")
    return name, args, kwargs


@op("reshape", "view", axes="shape", variadic="shape", names={"size": "shape"}, form=_view_form)
def reshape(input, shape) -> Array:
    return input.reshape(shape)


@op("view_as", "reshape_as", axes="shape")
def view_as(input, other) -> Array:
    return input.reshape(other.shape)


@op("permute", axes="shape", variadic="dims")
def permute(input, dims) -> Array:
    return jnp.transpose(input, dims)


@op("transpose", "swapaxes", "swapdims", axes="shape", names={"axis0": "dim0", "axis1": "dim1"})
def transpose(input, dim0, dim1) -> Array:
    return jnp.swapaxes(input, dim0, dim1)


@op("T", "t", axes="shape")
def transposed(input) -> Array:
    return input.T


@op("mT", "adjoint", axes="shape")
def matrices_transposed(input) -> Array:
    return jnp.swapaxes(input, -1, -2)


@op("movedim", "moveaxis", axes="shape")
def movedim(input, source, destination) -> Array:
    return jnp.moveaxis(input, source, destination)


@op("squeeze", axes="shape", variadic="dim")
def squeeze(input, dim=None) -> Array:
    dims = range(input.ndim) if dim is None else dim
    return jnp.squeeze(input, tuple(each for each in dims if input.shape[each] == 1))


@op("unsqueeze", axes="shape")
def unsqueeze(input, dim) -> Array:
    return jnp.expand_dims(input, dim)


# Repeats


@op("expand", axes="shape", variadic="size")
def expand(input, size) -> Array:
    new = len(size) - input.ndim
    shape = [input.shape[axis - new] if n == -1 else n for axis, n in enumerate(size)]
    return jnp.broadcast_to(input, shape)


@op("broadcast_to", axes="shape", variadic="size")
def broadcast_to(input, size) -> Array:
    return expand(input, size)


@op("expand_as", axes="shape")
def expand_as(input, other) -> Array:
    return jnp.broadcast_to(input, other.shape)


@op("broadcast_tensors", axes="separate", variadic="tensors")
def broadcast_tensors(tensors) -> tuple[Array, ...]:
    return tuple(jnp.broadcast_arrays(*tensors))


@op("repeat", axes="shape", variadic="repeats")
def repeat(input, repeats) -> Array:
    return jnp.tile(input, repeats)


@op("tile", axes="shape", variadic="dims")
def tile(input, dims) -> Array:
    return jnp.tile(input, dims)


@op("repeat_interleave", axes=along())
def repeat_interleave(input, repeats, dim=None, *, output_size=None) -> Array:
    del output_size
    if not isinstance(repeats, int):
        raise NotImplementedError("another number of repeats for each element")
    return jnp.repeat(input, repeats, axis=dim)


# Joins


class Steps:
    """A list of one value over time, as one array with time on axis 0."""

    def __init__(self, array: Array):
        self.array = array

    def __len__(self) -> int:
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return iter(self.array)


@op("cat", "concat", "concatenate", axes="shape")
def cat(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        array = tensors.array
        dim = dim % (array.ndim - 1)
        shape = (*array.shape[1 : dim + 1], -1, *array.shape[dim + 2 :])
        return jnp.moveaxis(array, 0, dim).reshape(shape)
    return jnp.concatenate(tensors, axis=dim)


@op("stack", axes="shape")
def stack(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        return jnp.moveaxis(tensors.array, 0, dim)
    return jnp.stack(tensors, axis=dim)


def _rank(tensors) -> int:
    return next(iter(tensors)).ndim


@op("hstack", axes="shape")
def hstack(tensors) -> Array:
    return cat(tensors, 0 if _rank(tensors) < 2 else 1)


@op("vstack", "row_stack", axes="shape")
def vstack(tensors) -> Array:
    return stack(tensors, 0) if _rank(tensors) < 2 else cat(tensors, 0)


@op("dstack", axes="shape")
def dstack(tensors) -> Array:
    return jnp.dstack(list(tensors))


@op("column_stack", axes="shape")
def column_stack(tensors) -> Array:
    return jnp.column_stack(list(tensors))


# Pieces


@op("unbind", axes="shape")
def unbind(input, dim=0) -> tuple[Array, ...]:
    return tuple(jnp.take(input, index, axis=dim) for index in range(input.shape[dim]))


@op("split", axes="shape", names={"tensor": "input", "split_size": "split_size_or_sections"})
def split(input, split_size_or_sections, dim=0) -> tuple[Array, ...]:
    size = input.shape[dim]
    parts = split_size_or_sections
    if isinstance(parts, int):
        cuts = list(range(parts, size, parts))
    else:
        cuts = [sum(parts[: index + 1]) for index in range(len(parts) - 1)]
    return tuple(jnp.split(input, cuts, axis=dim))


@op("chunk", axes="shape")
def chunk(input, chunks, dim=0) -> tuple[Array, ...]:
    return split(input, -(-input.shape[dim] // chunks), dim)


_SECTIONS = {"sections": "indices_or_sections", "indices": "indices_or_sections"}


@op("tensor_split", axes="shape", names=_SECTIONS)
def tensor_split(input, indices_or_sections, dim=0) -> tuple[Array, ...]:
    return tuple(jnp.array_split(input, indices_or_sections, axis=dim))


@op("hsplit", axes="shape", names=_SECTIONS)
def hsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 0 if input.ndim < 2 else 1)


@op("vsplit", axes="shape", names=_SECTIONS)
def vsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 0)


@op("dsplit", axes="shape", names=_SECTIONS)
def dsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 2)


@op("unfold", axes=along("dimension"))
def windows(input, dimension, size, step) -> Array:
    """`Tensor.unfold`: windows along one axis, their elements on a last axis of their own."""
    count = (input.shape[dimension] - size) // step + 1
    places = [[start * step + place for place in range(size)] for start in range(count)]
    found = jnp.take(input, jnp.asarray(places), axis=dimension)
    return jnp.moveaxis(found, dimension % input.ndim + 1, -1)


# Other orders


@op("flip", axes=along("dims"), variadic="dims")
def flip(input, dims) -> Array:
    return jnp.flip(input, dims)


@op("fliplr", axes=at(1))
def fliplr(input) -> Array:
    return jnp.fliplr(input)


@op("flipud", axes=at(0))
def flipud(input) -> Array:
    return jnp.flipud(input)


@op("reversed", axes=at(0))
def reversed_(input) -> Array:
    return jnp.flip(input, 0)


@op("roll", axes=along("dims"))
def roll(input, shifts, dims=None) -> Array:
    return jnp.roll(input, shifts, axis=dims)


def _turned(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    return arguments["dims"] if arguments["k"] % 4 else ()


@op("rot90", axes=Mixing(_turned))
def rot90(input, k=1, dims=(0, 1)) -> Array:
    return jnp.rot90(input, k, dims)
