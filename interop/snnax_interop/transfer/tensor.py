"""One tensor or NumPy array made ready to cross to JAX: dtype, row-major strides, alignment to 64 bytes.

Every check runs here, before JAX sees the memory: for the same mistakes JAX raises four kinds of exception, or narrows
64-bit values without a word. Whatever has to change is changed in one copy, into memory that torch allocates: torch
aligns to the 64 bytes that JAX asks for before it shares memory, and NumPy does not.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..errors import TransferError


Copy = Literal["if_needed", "never", "always"]

_ALIGNMENT = 64  # bytes; XLA's CPU client shares memory from this alignment on and copies the rest

_INTEGERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
_FLOATS = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
_FLOATS_8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
_NAMES = [name for name in _INTEGERS + _FLOATS + _FLOATS_8 if name in vars(torch)]  # torch 2.6 lacks float8_e8m0fnu
TO_NUMPY = {getattr(torch, name): np.dtype(getattr(jnp, name)) for name in _NAMES}
TO_TORCH = {after: before for before, after in TO_NUMPY.items()}
# What torch does not exchange with NumPy as such, it exchanges as unsigned integers of the same size
_BITS = {TO_NUMPY[torch.bfloat16]: torch.uint16} | {np.dtype(name): torch.uint8 for name in _NAMES if "float8" in name}


def check_copy(copy: str) -> None:
    """**Raises:** `ValueError` when `copy` is not one of the three modes."""
    if copy not in get_args(Copy):
        raise ValueError(f"copy is {copy!r}; allowed: {', '.join(map(repr, get_args(Copy)))}")


def refusal(path: str, found: str, allowed: str, do: str) -> TransferError:
    """The error for the leaf at `path`, in the one wording that they all have."""
    return TransferError(f"found {found}; allowed: {allowed}; {do}", path=path)


def prepare_tensor(tensor: torch.Tensor, copy: Copy, path: str) -> tuple[torch.Tensor, str]:
    """A detached tensor that JAX can share, and why it had to be a copy (`""`: it shares the memory of `tensor`)."""
    found = f"a torch tensor of {tensor.dtype}"
    if tensor.layout != torch.strided or tensor.is_nested:
        found = f"a sparse or nested tensor (layout {tensor.layout})"
        raise refusal(path, found, "dense tensors", "call .to_dense(), or pad it")
    if tensor.is_quantized:
        raise refusal(path, "a quantised tensor", "plain dtypes", "call .dequantize() first")
    if tensor.is_meta:
        raise refusal(path, "a tensor on the meta device", "tensors that hold values", "materialise it first")
    if tensor.dtype not in TO_NUMPY:
        raise refusal(path, found, ", ".join(_NAMES), "cast it with .to(...) first")
    # A TensorImpl of its own, which a later `tensor.data = ...` or `tensor.set_()` does not reach
    source = tensor.detach()
    before = TO_NUMPY[source.dtype]
    after = _canonical(before, path, found)
    reason = _reason(
        requested=copy == "always",
        dtype=after != before,
        conjugate=source.is_conj() or source.is_neg(),
        strides=not source.is_contiguous(),
        alignment=source.numel() > 0 and source.data_ptr() % _ALIGNMENT != 0,
    )
    if not reason:
        if source.device.type != "cpu":
            # Along an axis of length 1 a contiguous tensor has any stride, and DLPack hands it on as another layout
            strides = torch.empty(source.shape, device="meta").stride()
            source = source.as_strided(source.shape, strides, source.storage_offset())
        return source, ""
    refuse_copy(copy, path, found, reason)
    if after != before:
        source = source.view(torch.int64)  # torch has no minimum of uint64; values beyond int64 turn negative
        low, high = torch.aminmax(source) if source.numel() else (0, 0)
        _check_range(int(low), int(high), after, path, found)
    # torch and not NumPy: 10 MB of channels-last images take 0.3 ms, and 15 ms by np.copyto
    return torch.empty(source.shape, dtype=TO_TORCH[after], device=source.device).copy_(source), reason


def prepare_array(array: np.ndarray, copy: Copy, path: str) -> tuple[np.ndarray, str]:
    """As `prepare_tensor`, of a NumPy array."""
    found = f"a NumPy array of {array.dtype}"
    native = array.dtype.newbyteorder("=")
    refuse_mask(path, array)
    if native not in TO_TORCH:
        do = "cast it, or pass the fields of a structured array one by one (events: DataLoader(collate_fn=PackEvents))"
        raise refusal(path, found, ", ".join(_NAMES), do)
    source = np.asarray(array)
    after = _canonical(native, path, found)
    reason = _reason(
        requested=copy == "always",
        dtype=after != native,
        byte_order=not array.dtype.isnative,
        strides=not source.flags.c_contiguous,
        alignment=source.size > 0 and source.ctypes.data % _ALIGNMENT != 0,
    )
    if not reason:
        return source, ""
    refuse_copy(copy, path, found, reason)
    if after != native and source.size:
        _check_range(int(source.min()), int(source.max()), after, path, found)
    return as_numpy(copy_of(source, after)), reason


def array_obstacle(path: str, array: np.ndarray) -> str:
    """Why torch cannot share a NumPy array; `""`: it can, with the strides that it has."""
    refuse_mask(path, array)
    return _reason(
        read_only=not array.flags.writeable,
        byte_order=not array.dtype.isnative,
        strides=any(stride < 0 or stride % array.itemsize for stride in array.strides),
        alignment=not array.flags.aligned,
    )


def refuse_mask(path: str, array: np.ndarray) -> None:
    """**Raises:** `TransferError` for a masked array, whose mask would be lost."""
    if isinstance(array, np.ma.MaskedArray):
        raise refusal(path, "a masked NumPy array", "arrays without a mask", "fill it, or pass data and mask")


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a CPU tensor as a NumPy array of the same dtype; torch then refuses to resize that memory."""
    dtype = TO_NUMPY[tensor.dtype]
    return tensor.view(_BITS[dtype]).numpy().view(dtype) if dtype in _BITS else tensor.numpy()


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The memory of a writeable NumPy array as a torch tensor of the same dtype."""
    dtype = TO_TORCH[array.dtype]
    # The view turns C's `unsigned long long`, which torch does not know, into the uint64 that it equals
    return torch.from_numpy(array.view(TO_NUMPY[_BITS.get(array.dtype, dtype)])).view(dtype)


def copy_of(array: np.ndarray, dtype: np.dtype) -> torch.Tensor:
    """One row-major copy in host memory; `dtype` holds all values, for which the caller has to see."""
    fresh = torch.empty(array.shape, dtype=TO_TORCH[dtype], device="cpu")
    np.copyto(as_numpy(fresh), array, casting="unsafe")
    return fresh


def _canonical(dtype: np.dtype, path: str, found: str) -> np.dtype:
    """What `dtype` becomes in JAX as it is configured. Integers narrow under a range check; nothing else narrows."""
    after = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
    if after != dtype and dtype.kind in "fc":
        do = f"cast it to {after.name}, or enable jax_enable_x64"
        raise refusal(path, found, "up to 32 bits per real number while jax_enable_x64 is off", do)
    return after


def _reason(**needs: bool) -> str:
    """The first need that holds: a copy for several reasons is counted under one of them."""
    return next((name.replace("_", "-") for name, need in needs.items() if need), "")


def refuse_copy(copy: Copy, path: str, found: str, reason: str) -> None:
    """**Raises:** `TransferError` when `copy` is `"never"`, with what makes the copy superfluous."""
    if copy != "never":
        return
    aligned = "it is a view into other memory or comes from an allocator that aligns less"
    do = {
        "dtype": "cast it where it is made (int64 to int32), or enable jax_enable_x64",
        "byte-order": 'cast it where it is made, with .astype(x.dtype.newbyteorder("="))',
        "conjugate": "call .resolve_conj().resolve_neg() first",
        "strides": "call .contiguous() (NumPy: np.ascontiguousarray) first",
        "alignment": f"{aligned}: .clone() it first (NumPy: torch.from_numpy(x).clone())",
        "read-only": "torch has no read-only tensors: make it writeable where it is made (np.memmap: mode 'c' or 'r+')",
        "placement": "torch shares arrays on one device that it can use: jax.device_put(x, device) first",
    }[reason]
    allowed = 'what needs no copy, as copy="never" asks'
    raise refusal(path, f"{found} that needs a copy ({reason})", allowed, f'{do}, or allow copy="if_needed"')


def _check_range(low: int, high: int, after: np.dtype, path: str, found: str) -> None:
    limits = np.iinfo(after)
    if low < limits.min or high > limits.max:
        found = f"{found} with values outside {after.name} (as int64 from {low} to {high})"
        raise refusal(path, found, f"{limits.min} to {limits.max} while jax_enable_x64 is off", "enable jax_enable_x64")
