"""What is read from places, and written to them."""

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .mixing import Mixing, Operand, along, last, whole
from .registry import op


def _subscripted(index: Any, rank: int) -> Iterator[tuple[int, Any]]:
    """The axes that a subscript names, each with what it is subscripted by."""
    row = [item for item in (index if isinstance(index, tuple) else (index,)) if item is not None]
    dots = next((place for place, item in enumerate(row) if item is Ellipsis), len(row))
    yield from enumerate(row[:dots])
    yield from ((rank - len(row) + place, item) for place, item in enumerate(row) if place > dots)


def _with_arrays(index: Any) -> Any:
    """A subscript with arrays in the place of lists of places, as in `x[[1, 0]]` and `x[:, [1, 0]]`."""
    if isinstance(index, tuple):
        return tuple(jnp.asarray(item) if isinstance(item, list | tuple) else item for item in index)
    return jnp.asarray(index) if isinstance(index, list) else index


def _is_array(item: Any) -> bool:
    return not isinstance(item, Integral | slice)


def _is_mask(item: Any) -> bool:
    return str(getattr(item, "dtype", "")).removeprefix("torch.") in ("bool", "uint8")


def _names_places(item: Any) -> bool:
    """Whether a subscript names places by number: one, several, or a slice that begins or ends at one."""
    if isinstance(item, list | tuple):
        return True
    if isinstance(item, slice):
        bounds = [bound for bound in (item.start, item.stop) if isinstance(bound, Integral)]
        return any(bounds) or item.step not in (None, 1)
    return isinstance(item, Integral)


def _picked(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Axes that are subscripted by arrays; what numbers and slices leave is read off the sizes."""
    if operand.name != "input":
        return ()
    return [axis for axis, item in _subscripted(arguments["index"], operand.rank) if _is_array(item)]


def _written(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Axes along which some places are written: a mask writes wherever it is true, alike at every place.

    An array whose type is not known counts as a mask.
    """
    if operand.name != "input":
        return ()
    return [
        axis
        for axis, item in _subscripted(arguments["index"], operand.rank)
        if _names_places(item) or (hasattr(item, "dtype") and not _is_mask(item))
    ]


@op("getitem", axes=Mixing(_picked, moves=True))
def getitem(input, index) -> Array:
    return input[_with_arrays(index)]


@op("item", axes="shape")
def item(input, index) -> Array:
    """One of the several results of a call."""
    return input[index]


@op("setitem", axes=Mixing(_written))
def setitem(input, index, value) -> Array:
    place = _mask_place(index)
    if place is None:
        return input.at[_with_arrays(index)].set(value)
    mask = (index if isinstance(index, tuple) else (index,))[place]
    mask = mask.reshape(*(1,) * place, *mask.shape, *(1,) * (input.ndim - mask.ndim - place)).astype(bool)
    value = jnp.asarray(value, input.dtype)
    return jnp.where(mask, value.reshape(()) if value.size == 1 else value, input)


def _mask_place(index: Any) -> int | None:
    """Where a boolean array is in an index."""
    return next((n for n, x in enumerate(index if isinstance(index, tuple) else (index,)) if _is_mask(x)), None)


@op("select", axes="shape")
def select(input, dim, index) -> Array:
    return jax.lax.index_in_dim(input, index, dim, keepdims=False)


@op("narrow", axes="shape")
def narrow(input, dim, start, length) -> Array:
    return jax.lax.slice_in_dim(input, start, start + length, axis=dim)


@op("index_select", axes=along())
def index_select(input, dim, index) -> Array:
    return jnp.take(input, index, axis=dim)


@op("gather", axes=along())
def gather(input, dim, index) -> Array:
    axis = dim % input.ndim
    # Along all other axes, torch takes as much of the input as there are indices.
    taken = tuple(slice(None) if each == axis else slice(size) for each, size in enumerate(index.shape))
    return jnp.take_along_axis(input[taken], index, axis)


def _flat(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    return range(operand.rank) if operand.name == "indices" and arguments["dim"] is None and operand.rank > 1 else ()


@op("take_along_dim", axes=along() | Mixing(_flat))
def take_along_dim(input, indices, dim=None) -> Array:
    return jnp.take_along_axis(input, indices, dim)


@op("scatter", axes=along(of=("input", "index", "src")), names={"value": "src"})
def scatter(input, dim, index, src, *, reduce=None) -> Array:
    if reduce is not None:
        raise NotImplementedError(f"reduce={reduce!r}; use scatter_add for sums")
    return input.at[_places(input, dim, index)].set(_source(src, index))


@op("scatter_add", axes=along(of=("input", "index", "src")))
def scatter_add(input, dim, index, src) -> Array:
    return input.at[_places(input, dim, index)].add(_source(src, index))


def _places(input, dim, index) -> tuple[Any, ...]:
    """Where each index points to: itself along `dim`, its own place along the other axes."""
    axis = dim % input.ndim
    own = jnp.meshgrid(*map(jnp.arange, index.shape), indexing="ij", sparse=True)
    return tuple(index if each == axis else place for each, place in enumerate(own))


def _source(src, index) -> Any:
    """As much of the source as there are indices; a number is written as it is."""
    return src[tuple(map(slice, index.shape))] if jnp.ndim(src) else src


@op("index_add", axes=along(of=("input", "source")) | whole("index"))
def index_add(input, dim, index, source, *, alpha=1) -> Array:
    place = (*(slice(None),) * (dim % input.ndim), index)
    return input.at[place].add(alpha * source)


@op("one_hot", axes="separate", names={"input": "tensor"})
def one_hot(tensor, num_classes=-1) -> Array:
    if num_classes < 0:
        raise NotImplementedError("num_classes that depends on the values; name the number")
    return jax.nn.one_hot(tensor, num_classes, dtype=jax.dtypes.canonicalize_dtype(jnp.int64))


@op("bucketize", axes=whole("boundaries"))
def bucketize(input, boundaries, *, out_int32=False, right=False) -> Array:
    del out_int32
    found = jnp.searchsorted(boundaries, input, side="right" if right else "left")
    return found.astype(jax.dtypes.canonicalize_dtype(jnp.int64))


# Triangles and diagonals


@op("tril", axes=last(2))
def tril(input, diagonal=0) -> Array:
    return jnp.tril(input, diagonal)


@op("triu", axes=last(2))
def triu(input, diagonal=0) -> Array:
    return jnp.triu(input, diagonal)


@op("diag", axes=whole("input"))
def diag(input, diagonal=0) -> Array:
    return jnp.diag(input, diagonal)


@op("diagonal", axes=along("dim1") | along("dim2"))
def diagonal(input, offset=0, dim1=0, dim2=1) -> Array:
    return jnp.diagonal(input, offset, dim1, dim2)


@op("diag_embed", axes=last(1))
def diag_embed(input, offset=0, dim1=-2, dim2=-1) -> Array:
    size = input.shape[-1] + abs(offset)
    rows = jnp.arange(input.shape[-1]) + max(-offset, 0)
    matrix = jnp.zeros((*input.shape[:-1], size, size), input.dtype)
    matrix = matrix.at[..., rows, rows + offset].set(input)
    return jnp.moveaxis(matrix, (-2, -1), (dim1, dim2))
