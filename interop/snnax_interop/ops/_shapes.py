"""Shapes, pieces and joins."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def flatten(input, start_dim=0, end_dim=-1) -> Array:
    if input.ndim == 0:
        return input.reshape(1)
    start, end = start_dim % input.ndim, end_dim % input.ndim
    return input.reshape(*input.shape[:start], math.prod(input.shape[start : end + 1]), *input.shape[end + 1 :])


def unflatten(input, dim, sizes=None, unflattened_size=()) -> Array:
    dim = dim % input.ndim
    return input.reshape(*input.shape[:dim], *(unflattened_size if sizes is None else sizes), *input.shape[dim + 1 :])


def _varargs(values: tuple[Any, ...]) -> tuple[int, ...]:
    """`view(2, 3)` and `view((2, 3))`."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], list | tuple) else tuple(values)


def reshape(input, *shape, **named) -> Array:
    return input.reshape(_varargs(shape or (named["shape"],)))


def permute(input, *dims, **named) -> Array:
    return jnp.transpose(input, _varargs(dims or (named["dims"],)))


def transpose(input, dim0, dim1) -> Array:
    return jnp.swapaxes(input, dim0, dim1)


def movedim(input, source, destination) -> Array:
    return jnp.moveaxis(input, source, destination)


def squeeze(input, dim=None) -> Array:
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return jnp.squeeze(input, tuple(each for each in dims if input.shape[each] == 1))


def unsqueeze(input, dim) -> Array:
    return jnp.expand_dims(input, dim)


def expand(input, *size, **named) -> Array:
    wanted = _varargs(size or (named["size"],))
    new = len(wanted) - input.ndim
    shape = [input.shape[axis - new] if n == -1 else n for axis, n in enumerate(wanted)]
    return jnp.broadcast_to(input, shape)


def repeat(input, *repeats, **named) -> Array:
    return jnp.tile(input, _varargs(repeats or (named["repeats"],)))


class Steps:
    """A list of one value over time, as one array with time on axis 0."""

    def __init__(self, array: Array):
        self.array = array

    def __len__(self) -> int:
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return iter(self.array)


def cat(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        array = tensors.array
        dim = dim % (array.ndim - 1)
        shape = (*array.shape[1 : dim + 1], -1, *array.shape[dim + 2 :])
        return jnp.moveaxis(array, 0, dim).reshape(shape)
    return jnp.concatenate(tensors, axis=dim)


def stack(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        return jnp.moveaxis(tensors.array, 0, dim)
    return jnp.stack(tensors, axis=dim)


def unbind(input, dim=0) -> tuple[Array, ...]:
    return tuple(jnp.take(input, index, axis=dim) for index in range(input.shape[dim]))


def split(tensor, split_size_or_sections, dim=0) -> tuple[Array, ...]:
    size = tensor.shape[dim]
    parts = split_size_or_sections
    if isinstance(parts, int):
        cuts = list(range(parts, size, parts))
    else:
        cuts = [sum(parts[: index + 1]) for index in range(len(parts) - 1)]
    return tuple(jnp.split(tensor, cuts, axis=dim))


def chunk(input, chunks, dim=0) -> tuple[Array, ...]:
    return split(input, -(-input.shape[dim] // chunks), dim)


def getitem(input, index) -> Array:
    return input[index]


def select(input, dim, index) -> Array:
    return jax.lax.index_in_dim(input, index, dim, keepdims=False)


def narrow(input, dim, start, length) -> Array:
    return jax.lax.slice_in_dim(input, start, start + length, axis=dim)


def setitem(input, index, value) -> Array:
    place = _mask_place(index)
    if place is None:
        return input.at[index].set(value)
    mask = (index if isinstance(index, tuple) else (index,))[place]
    mask = mask.reshape(*(1,) * place, *mask.shape, *(1,) * (input.ndim - mask.ndim - place)).astype(bool)
    value = jnp.asarray(value, input.dtype)
    return jnp.where(mask, value.reshape(()) if value.size == 1 else value, input)


def _mask_place(index: Any) -> int | None:
    """Where a boolean array is in an index."""
    parts = index if isinstance(index, tuple) else (index,)
    return next((n for n, x in enumerate(parts) if getattr(x, "dtype", None) in (jnp.bool_, jnp.uint8)), None)


def repeat_interleave(input, repeats, dim=None, *, output_size=None) -> Array:
    if not isinstance(repeats, int):
        raise NotImplementedError("another number of repeats for each element")
    return jnp.repeat(input, repeats, axis=dim)


def tile(input, *dims, **named) -> Array:
    return jnp.tile(input, _varargs(dims or (named["dims"],)))


def broadcast_to(input, size) -> Array:
    return expand(input, *size)


def hstack(tensors) -> Array:
    return cat(tensors, 0 if _rank(tensors) < 2 else 1)


def vstack(tensors) -> Array:
    return stack(tensors, 0) if _rank(tensors) < 2 else cat(tensors, 0)


def dstack(tensors) -> Array:
    return jnp.dstack(list(tensors))


def _rank(tensors) -> int:
    return next(iter(tensors)).ndim


def tensor_split(input, indices_or_sections, dim=0) -> tuple[Array, ...]:
    return tuple(jnp.array_split(input, indices_or_sections, axis=dim))


def hsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 0 if input.ndim < 2 else 1)


def diff(input, n=1, dim=-1) -> Array:
    return jnp.diff(input, n, axis=dim)


def windows(input, dimension, size, step) -> Array:
    """`Tensor.unfold`: windows along one axis, their elements on a last axis of their own."""
    count = (input.shape[dimension] - size) // step + 1
    places = [[start * step + place for place in range(size)] for start in range(count)]
    found = jnp.take(input, jnp.asarray(places), axis=dimension)
    return jnp.moveaxis(found, dimension % input.ndim + 1, -1)


def flip(input, *dims, **named) -> Array:
    return jnp.flip(input, _varargs(dims or (named["dims"],)))


def roll(input, shifts, dims=None) -> Array:
    return jnp.roll(input, shifts, axis=dims)


def gather(input, dim, index, *, sparse_grad=False) -> Array:
    del sparse_grad
    axis = dim % input.ndim
    # Along all other axes, torch takes as much of the input as there are indices.
    taken = tuple(slice(None) if each == axis else slice(size) for each, size in enumerate(index.shape))
    return jnp.take_along_axis(input[taken], index, axis)


def take_along_dim(input, indices, dim=None) -> Array:
    return jnp.take_along_axis(input, indices, dim)


def scatter(input, dim, index, src=None, *, value=None, reduce=None) -> Array:
    if reduce is not None:
        raise NotImplementedError(f"reduce={reduce!r}; use scatter_add for sums")
    source = value if src is None else src
    return input.at[_places(input, dim, index)].set(_written(source, index))


def scatter_add(input, dim, index, src) -> Array:
    return input.at[_places(input, dim, index)].add(_written(src, index))


def _places(input, dim, index) -> tuple[Any, ...]:
    """Where each index points to: itself along `dim`, its own place along the other axes."""
    axis = dim % input.ndim
    own = jnp.meshgrid(*map(jnp.arange, index.shape), indexing="ij", sparse=True)
    return tuple(index if each == axis else place for each, place in enumerate(own))


def _written(source, index) -> Any:
    """As much of the source as there are indices; a number is written as it is."""
    return source[tuple(map(slice, index.shape))] if jnp.ndim(source) else source


def index_add(input, dim, index, source, *, alpha=1) -> Array:
    place = (*(slice(None),) * (dim % input.ndim), index)
    return input.at[place].add(alpha * source)


def diagonal(input, offset=0, dim1=0, dim2=1) -> Array:
    return jnp.diagonal(input, offset, dim1, dim2)


def diag_embed(input, offset=0, dim1=-2, dim2=-1) -> Array:
    size = input.shape[-1] + abs(offset)
    rows = jnp.arange(input.shape[-1]) + max(-offset, 0)
    matrix = jnp.zeros((*input.shape[:-1], size, size), input.dtype)
    matrix = matrix.at[..., rows, rows + offset].set(input)
    return jnp.moveaxis(matrix, (-2, -1), (dim1, dim2))


def rot90(input, k=1, dims=(0, 1)) -> Array:
    return jnp.rot90(input, k, dims)


def column_stack(tensors) -> Array:
    return jnp.column_stack(list(tensors))


def vsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 0)


def dsplit(input, indices_or_sections) -> tuple[Array, ...]:
    return tensor_split(input, indices_or_sections, 2)


def broadcast_tensors(*tensors) -> tuple[Array, ...]:
    return tuple(jnp.broadcast_arrays(*(tensors[0] if isinstance(tensors[0], list | tuple) else tensors)))


def index_select(input, dim, index) -> Array:
    return jnp.take(input, index, axis=dim)


def reversed_(input) -> Array:
    return jnp.flip(input, 0)
