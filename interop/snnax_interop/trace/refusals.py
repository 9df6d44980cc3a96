"""Tensor functions that no conversion can stand for, each with a message of its own."""

from collections.abc import Callable, Mapping
from typing import Any

import torch


# What is wrong, and what to do.
Fault = tuple[str, str]

# What tells Python something about a tensor other than its values.
METADATA = {
    "size", "dim", "ndim", "numel", "nelement", "stride", "shape", "dtype", "device", "layout", "requires_grad",
    "is_leaf", "get_device", "element_size", "__len__", "__hash__", "__repr__", "__str__", "__format__", "names",
    "is_sparse", "is_cuda", "is_quantized", "is_contiguous", "is_floating_point", "is_complex", "is_signed",
    "grad_fn", "_version", "data_ptr", "storage_offset", "is_meta", "ndimension", "is_mkldnn", "is_nested", "type",
    "output_nr", "_is_view", "is_inference", "itemsize", "nbytes", "_base", "is_same_size", "is_pinned", "is_shared",
    "retains_grad", "grad", "is_xla", "is_mps", "is_xpu", "is_cpu", "is_neg", "is_conj",
}  # fmt: skip

# Written like in-place functions, but they leave the values alone.
_HARMLESS = {"share_memory_"}


def fault_of(function: Callable, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Fault | None:
    """Why a call is refused, if it is."""
    if function is torch.autograd.grad or name == "backward":
        return (
            f"{'torch.autograd.grad' if name == 'grad' else name} computes gradients inside forward",
            "Allowed: forwards of tensor functions. Take gradients outside of the network, of what it returns.",
        )
    if name in ("register_hook", "retain_grad"):
        return (
            f"{name} attaches to the gradient of a tensor inside forward",
            "Allowed: tensor functions with their own gradients. Remove it; a converted network has no such hooks.",
        )
    if name == "__getitem__" and _mask_of(args[1]) is not None:
        return (
            "a boolean mask picks values, so the shape of the result depends on the values",
            "Allowed: shapes that follow from the inputs' shapes. Use torch.where(mask, x, 0), x * mask, or integer "
            "indices.",
        )
    if name == "__setitem__":
        return _mask_write(*args)
    return None


def _mask_write(target: torch.Tensor, index: Any, value: Any) -> Fault | None:
    mask = _mask_of(index)
    if mask is None:
        return None
    if isinstance(index, tuple) and not all(each is mask or _is_full(each) for each in index):
        return (
            "a boolean mask is combined with other indices in a write",
            "Allowed: x[mask] = value and x[:, mask] = value. Use torch.where(mask, value, x).",
        )
    rest = 0 if isinstance(index, tuple) else target.ndim - mask.ndim
    if isinstance(value, torch.Tensor) and value.numel() != 1 and value.ndim > rest:
        return (
            "a boolean mask writes one value for each place that it picks, which are as many as the values say",
            "Allowed: x[mask] = value with one value, or one for each of the axes behind the mask. Use "
            "torch.where(mask, value, x) with a value for every place.",
        )
    return None


def _mask_of(index: Any) -> torch.Tensor | None:
    """The boolean tensor in an index."""
    parts = index if isinstance(index, tuple) else (index,)
    masks = (x for x in parts if isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8))
    return next(masks, None)


def _is_full(index: Any) -> bool:
    return isinstance(index, slice) and index == slice(None)


def is_in_place(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function of this name writes into its first argument, or into `out`."""
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name.strip("_") not in ("invert", "index", "int"))
    return (name.endswith("_") and name not in _HARMLESS) or kwargs.get("out") is not None
