"""`PadSequences`: samples of different length in one batch, with a mask of what is real.

All writing goes through NumPy views of tensors that torch allocated: torch aligns memory so that JAX can share it, and
NumPy writes arrays that torch refuses to wrap without a warning, such as read-only ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import PyTree

from ..transfer.tensor import TO_NUMPY, TO_TORCH, as_numpy


_VALUES = (np.ndarray, np.generic, bool, int, float, complex, str, bytes)


@dataclass(frozen=True)
class PadSequences:
    """A `collate_fn` that pads sequences to one length and returns `(batch, mask)`.

    A sample is a tree (dict, tuple, ...) of tensors, NumPy arrays and numbers. **A leaf that has axes is a sequence**,
    unless `fixed` names it, and all sequences of one sample have the same length. Everything else is stacked as it is;
    floats become float32, strings a list. The mask is True where there is data: `(batch, time)`, or `(time, batch)`.

    Values are not touched, NaN included; dtypes stay. A batch takes one allocation per leaf, in its final layout.

    **Arguments:**

    - `length`: the length of every batch; a longer sample is an error, never cut. By default that of the longest.
    - `multiple`: round the length up to a multiple, so that compiled code meets few lengths.
    - `axis`: where a sample's sequences have their time axis.
    - `value`: what fills the rest.
    - `fixed`: paths of leaves that have axes and are no sequences, such as one-hot labels: `("1",)`, `("meta.pose",)`.
    - `time_major`: `(time, batch, ...)` as snnax runs it. By default `(batch, ...)` with time where the sample has it.

    **Raises:** `ValueError` for options that contradict each other, when made; when called, naming sample and leaf: for
    sequences that are too long, differ in length within a sample, or in dtype or another axis between samples; for
    samples of different structure; for a leaf that is no number, array or string; for a `value` that the dtype cannot
    hold; for no samples.

    **Example:**

    >>> import torch
    >>> from snnax_interop import JaxLoader, PadSequences
    >>> dataset = [(torch.ones(length, 34), length % 10) for length in (98, 99, 120)]
    >>> loader = torch.utils.data.DataLoader(dataset, 3, collate_fn=PadSequences(multiple=50, time_major=True))
    >>> for (x, label), mask in JaxLoader(loader):
    ...     print(x.shape, label, mask.sum(axis=0))
    (150, 3, 34) [8 9 0] [ 98  99 120]
    """

    length: int | None = None
    multiple: int | None = None
    axis: int = 0
    value: int | float = 0
    fixed: Sequence[str] = ()
    time_major: bool = False

    def __post_init__(self):
        if self.length is not None and self.multiple is not None:
            raise ValueError(f"length={self.length} and multiple={self.multiple}; allowed: one of them")
        if self.length is not None and self.length < 0:
            raise ValueError(f"length is {self.length}; allowed: 0 and more, or None for the longest of each batch")
        if self.multiple is not None and self.multiple < 1:
            raise ValueError(f"multiple is {self.multiple}; allowed: 1 and more, or None")
        if isinstance(self.fixed, str):
            raise ValueError(f"fixed is {self.fixed!r}; allowed: several paths, as in fixed=({self.fixed!r},)")

    def __call__(self, samples: Sequence[PyTree]) -> tuple[PyTree, torch.Tensor]:
        if not samples:
            raise ValueError("found a batch of no samples; allowed: one and more; look at what the sampler yields")
        paths, columns, structure = _transposed(samples)
        unknown = set(self.fixed) - set(paths)
        if unknown:
            raise ValueError(f"fixed names {sorted(unknown)}; allowed: paths of the sample's leaves, {paths}")
        isolated = [path in self.fixed or not np.ndim(column[0]) for path, column in zip(paths, columns, strict=True)]
        sequences = {path: column for path, column, alone in zip(paths, columns, isolated, strict=True) if not alone}
        lengths = self._lengths(sequences)
        total = self._total(lengths)
        leaves = [
            _stack(path, column) if alone else self._pad(path, column, lengths, total)
            for path, column, alone in zip(paths, columns, isolated, strict=True)
        ]
        mask = torch.empty((total, len(samples)) if self.time_major else (len(samples), total), dtype=torch.bool)
        real = np.arange(total) < np.array(lengths)[:, None]
        mask.numpy()[...] = real.T if self.time_major else real
        return jax.tree.unflatten(structure, leaves), mask

    def _lengths(self, sequences: dict[str, list[np.ndarray]]) -> list[int]:
        """The length of each sample, on which all its sequences agree."""
        if not sequences:
            raise ValueError(
                "found no sequence in the samples; allowed: one and more leaves with axes that fixed omits"
            )
        lengths: list[int] = []
        for path, column in sequences.items():
            for index, leaf in enumerate(column):
                if not -leaf.ndim <= self.axis < leaf.ndim:
                    raise _refusal(
                        index, path, f"shape {leaf.shape}", f"shapes with an axis {self.axis}", "name it in fixed"
                    )
                length = leaf.shape[self.axis]
                if index == len(lengths):
                    lengths.append(length)
                elif length != lengths[index]:
                    first = next(iter(sequences))
                    allowed = f"the length {lengths[index]} that '{first}' has, since one mask serves both"
                    raise _refusal(index, path, f"length {length}", allowed, "name what is no sequence in fixed")
                if self.length is not None and length > self.length:
                    do = "raise length, or cut the sample in the dataset"
                    raise _refusal(index, path, f"length {length}", f"up to length={self.length}", do)
        return lengths

    def _total(self, lengths: list[int]) -> int:
        if self.length is not None:
            return self.length
        multiple = self.multiple or 1
        return -(-max(lengths) // multiple) * multiple

    def _pad(self, path: str, column: list[np.ndarray], lengths: list[int], total: int) -> torch.Tensor:
        first = column[0]
        axis = self.axis % first.ndim
        rest = first.shape[:axis] + first.shape[axis + 1 :]
        for index, leaf in enumerate(column):
            _check_dtype(index, path, leaf, first)
            if leaf.ndim != first.ndim or leaf.shape[:axis] + leaf.shape[axis + 1 :] != rest:
                allowed = f"shapes that differ from {first.shape} of sample 0 along axis {axis} only"
                raise _refusal(index, path, f"shape {leaf.shape}", allowed, "pad the other axes in the dataset")
        dtype = _torch_dtype(path, first)
        fill = _fill(path, self.value, TO_NUMPY[dtype])
        if self.time_major:
            padded = torch.empty((total, len(column), *rest), dtype=dtype)
            by_sample = as_numpy(padded).swapaxes(0, 1)
            column = [np.moveaxis(leaf, axis, 0) for leaf in column]
            axis = 0
        else:
            padded = torch.empty((len(column), *rest[:axis], total, *rest[axis:]), dtype=dtype)
            by_sample = as_numpy(padded)
        before = (slice(None),) * axis
        for target, leaf, length in zip(by_sample, column, lengths, strict=True):
            target[(*before, slice(length))] = leaf
            target[(*before, slice(length, None))] = fill
        return padded


def _transposed(samples: Sequence[PyTree]) -> tuple[list[str], list[list[Any]], Any]:
    """The paths of the leaves, for each path the leaves of all samples, and the structure that the samples share."""
    keyed, structure = jax.tree_util.tree_flatten_with_path(samples[0])
    paths = [jax.tree_util.keystr(keys, simple=True, separator=".") for keys, _ in keyed]
    rows = []
    for index, sample in enumerate(samples):
        leaves, found = jax.tree.flatten(sample)
        if found != structure:
            raise ValueError(
                f"in sample {index}: found the structure {found}; allowed: {structure}, as of sample 0; "
                "make every sequence one array, and every sample alike"
            )
        rows.append([_as_array(index, path, leaf) for path, leaf in zip(paths, leaves, strict=True)])
    columns = [list(column) for column in zip(*rows, strict=True)]
    for path, column in zip(paths, columns, strict=True):
        for index, leaf in enumerate(column):
            if _kind(leaf) != _kind(column[0]):
                allowed = f"{_kind(column[0])}, as in sample 0"
                raise _refusal(index, path, _kind(leaf), allowed, "make every sample alike")
    return paths, columns, structure


def _as_array(index: int, path: str, leaf: Any) -> Any:
    """Tensors as NumPy views; arrays, numbers and strings as they are."""
    if isinstance(leaf, torch.Tensor):
        if leaf.device.type != "cpu" or leaf.layout != torch.strided or leaf.is_quantized or leaf.dtype not in TO_NUMPY:
            found = f"a tensor of {leaf.dtype}, {leaf.layout}, on {leaf.device}"
            raise _refusal(index, path, found, "dense tensors in host memory, of a dtype of JAX", "convert it")
        return as_numpy(leaf.detach().resolve_conj().resolve_neg())
    if isinstance(leaf, _VALUES):
        return leaf
    found = f"an object of type {type(leaf).__module__}.{type(leaf).__qualname__}"
    raise _refusal(index, path, found, "tensors, NumPy arrays, numbers and strings", "convert it in the dataset")


def _kind(leaf: Any) -> str:
    if isinstance(leaf, str | bytes):
        return "a string"
    return "an array" if isinstance(leaf, np.ndarray | np.generic) else "a number"


def _stack(path: str, column: list[Any]) -> torch.Tensor | list[Any]:
    first = column[0]
    if _kind(first) == "a string":
        return column
    if _kind(first) == "a number":
        return torch.tensor(column)
    for index, leaf in enumerate(column):
        _check_dtype(index, path, leaf, first)
        if leaf.shape != first.shape:
            allowed = f"{first.shape}, the shape in sample 0"
            raise _refusal(index, path, f"shape {leaf.shape}", allowed, "only sequences may differ in length")
    stacked = torch.empty((len(column), *first.shape), dtype=_torch_dtype(path, first))
    np.stack(column, out=as_numpy(stacked))
    return stacked


def _check_dtype(index: int, path: str, leaf: Any, first: Any) -> None:
    if np.dtype(leaf.dtype).newbyteorder("=") != np.dtype(first.dtype).newbyteorder("="):
        allowed = f"{first.dtype}, the dtype in sample 0"
        raise _refusal(index, path, f"dtype {leaf.dtype}", allowed, "cast it in the dataset")


def _torch_dtype(path: str, leaf: Any) -> torch.dtype:
    native = np.dtype(leaf.dtype).newbyteorder("=")
    if native not in TO_TORCH:
        do = "cast it, or return the fields of a structured array one by one"
        raise _refusal(0, path, f"dtype {leaf.dtype}", "the dtypes that JAX has", do)
    return TO_TORCH[native]


def _fill(path: str, value: int | float, dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        fill = np.asarray(value).astype(dtype)
    # A float may round, though not to infinity; an integer or a bool that changes has become something else
    fits = bool(fill == value) if dtype.kind in "iub" else bool(np.isfinite(fill)) == math.isfinite(value)
    if not fits:
        raise ValueError(f"at '{path}': found value={value}; allowed: what {dtype} holds; choose another value")
    return fill


def _refusal(index: int, path: str, found: str, allowed: str, do: str) -> ValueError:
    place = f"in sample {index} of the batch" + (f" at '{path}'" if path else "")
    return ValueError(f"{place}: found {found}; allowed: {allowed}; {do}")
