"""Parameters both ways: torch tensors by their state_dict keys, and where each of them sits in the native model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from ..runtime.slots import Frozen, Slot, place_holder
from .arrays import exact_array, stored_array, to_numpy


class Weights:
    """The tensors of a torch module while its native model is built."""

    def __init__(self, module: torch.nn.Module):
        self.keys = list(module.state_dict())
        named = dict(module.named_parameters(remove_duplicate=False)) | dict(
            module.named_buffers(remove_duplicate=False)
        )
        self.by_identity: dict[int, str] = {}
        self.canonical = {key: self.by_identity.setdefault(id(tensor), key) for key, tensor in named.items()}
        self.tensors = {key: named[key].detach() for key in dict.fromkeys(self.canonical.values())}
        self.trainable = {key for key in self.tensors if named[key].requires_grad}
        self.constants: dict[str, np.ndarray] = {}
        self.float64_constants: dict[str, np.ndarray] = {}
        self.caveats: dict[str, str] = {}  # by the path of a module, what it does against expectation
        self.placed: dict[int, tuple[Array, Slot]] = {}

    def parameter(self, key: str, shape: tuple[int, ...] | None = None, *, exact: bool = False) -> Array:
        """The array of a parameter or buffer, for a place in the native model."""
        canonical = self.canonical[key]
        return self._place(canonical, stored_array(self.tensors[canonical]), shape, exact)

    def constant(self, key: str, tensor: torch.Tensor, *, exact: bool = False) -> Array:
        """An array that is no entry of the state_dict."""
        while key in self.constants or key in self.tensors:
            key += "'"
        self.constants[key] = to_numpy(tensor)
        return self._place(key, stored_array(tensor.detach()), None, exact)

    def _place(self, key: str, value: Array, shape: tuple[int, ...] | None, exact: bool) -> Array:
        if not exact and not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(jnp.result_type(float))
        # Reshaping makes an array of its own, whose identity finds the slot again in the finished model.
        value = jnp.array(value).reshape(value.shape if shape is None else shape)
        self.placed[id(value)] = (value, Slot(key, value.shape, exact))
        return value

    def slot(self, leaf: Any) -> Any:
        """The slot of an array that was placed; anything else stays itself."""
        if id(leaf) in self.placed:
            return self.placed[id(leaf)][1]
        if eqx.is_array(leaf):
            raise AssertionError(f"an array of shape {leaf.shape} in the native model has no origin in the module")
        return leaf

    def arrays(self) -> tuple[dict[str, Array], dict[str, Frozen], dict[str, np.ndarray]]:
        """Trainable arrays, frozen ones, and fixed values.

        Fixed are constants, and tensors whose exact value JAX cannot hold (int64, float64 without x64).
        """
        parameters, buffers, fixed = {}, {}, dict(self.constants)
        for key, tensor in self.tensors.items():
            if key in self.trainable:
                parameters[key] = stored_array(tensor)
            elif (array := exact_array(tensor)) is not None:
                buffers[key] = Frozen(array)
            else:
                fixed[key] = to_numpy(tensor)
                buffers[key] = place_holder()
        return parameters, buffers, fixed
