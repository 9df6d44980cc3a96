"""Copies of torch tensors as the arrays that JAX can hold."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from ..transfer.trees import to_jax


def exact_array(tensor: torch.Tensor) -> Array | None:
    """A copy of a tensor as an array, None where JAX cannot hold its values; int64 becomes int32 where they fit."""
    if tensor.dtype == torch.int64 and _fits_int32(tensor):
        return jnp.asarray(tensor.to(torch.int32).numpy())
    name = str(np.dtype(jax.dtypes.canonicalize_dtype(to_numpy(tensor).dtype)))
    return stored_array(tensor) if torch_dtype_name(tensor) == name else None


def _fits_int32(tensor: torch.Tensor) -> bool:
    info = torch.iinfo(torch.int32)
    return not tensor.numel() or bool((tensor.min() >= info.min) & (tensor.max() <= info.max))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as a NumPy array."""
    return np.array(to_jax(tensor, copy="always")) if tensor.dtype == torch.bfloat16 else tensor.detach().numpy().copy()


def torch_dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def is_held(dtype: torch.dtype) -> bool:
    """Whether JAX has this floating point type: float64 only with `jax_enable_x64`."""
    return dtype != torch.float64 or jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def stored_array(tensor: torch.Tensor) -> Array:
    """A copy of a tensor as an array; float64 becomes float32 where JAX does not hold it."""
    return to_jax(tensor if is_held(tensor.dtype) else tensor.float(), copy="always")
