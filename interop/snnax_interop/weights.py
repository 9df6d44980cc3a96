"""Parameters both ways: torch tensors by their state_dict keys, and where each of them sits in the native model."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from .call import Call, Form
from .surrogates import Surrogates
from .transfer import to_jax


# The name that the batch has inside of a converted network, for layers that need all of its samples.
BATCH = "snnax_interop batch"


@dataclasses.dataclass(frozen=True)
class Slot:
    """In the place of an array of the native model: which stored array belongs there, in which shape.

    `exact` keeps integers and booleans as they are; neurons compute with floating point numbers, also where torch keeps
    an integer.
    """

    key: str
    shape: tuple[int, ...]
    exact: bool = False


class Frozen(eqx.Module):
    """An array that is not trained: a buffer, or a parameter with `requires_grad=False`.

    It is kept as bytes, so that no gradient, optimiser or weight decay sees a floating point leaf; it is still an array
    that is traced, saved and sharded like any other.
    """

    bits: Array | None
    dtype: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, value: Array):
        self.dtype = str(value.dtype)
        self.shape = tuple(value.shape)
        self.bits = value if value.dtype == bool else jax.lax.bitcast_convert_type(value, jnp.uint8)

    @property
    def value(self) -> Array:
        assert self.bits is not None
        return self.bits if self.dtype == "bool" else jax.lax.bitcast_convert_type(self.bits, jnp.dtype(self.dtype))


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
        self.wide: dict[str, np.ndarray] = {}
        self.remarks: dict[str, str] = {}  # by the path of a module, what would surprise its user
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


def place_holder() -> Frozen:
    """In the place of a buffer whose value is fixed."""
    return Frozen(jnp.zeros((), bool))


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


def neuron_shape(value: torch.Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a neuron parameter without its leading axes of length 1 where torch has the batch.

    None when it does not broadcast to neurons of `shape` without enlarging them.
    """
    extra = max(value.ndim - len(shape), 0)
    leading, own = tuple(value.shape[:extra]), tuple(value.shape[extra:])
    pairs = zip(reversed(own), reversed(shape), strict=False)
    broadcasts = all(size == 1 for size in leading) and all(size in (1, found) for size, found in pairs)
    return own if broadcasts else None


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a leaf module is converted: its path, how it is called, and its parameters.

    `x_shape` is the shape of the first input without batch, `batch_axis` where torch had the batch in it (None:
    nowhere, or, where `folded`, as a part of the first axis). `axis_name` is the name of the batch, where there is one,
    `surrogates` what the user has named.
    """

    path: str
    module: torch.nn.Module
    x_shape: tuple[int, ...]
    form: Form
    dtype: torch.dtype
    weights: Weights
    axis_name: str | None = None
    folded: bool = False
    surrogates: Surrogates = dataclasses.field(default_factory=dict)

    @property
    def batch_axis(self) -> int | None:
        return self.form.in_axes[0]

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def parameter(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """A parameter or buffer of the module."""
        return self.weights.parameter(self.key(name), shape)

    def neuron_parameter(self, name: str) -> Array:
        """A parameter with at most one value per neuron."""
        return self.parameter(name, neuron_shape(getattr(self.module, name), self.x_shape))

    def constant(self, name: str, tensor: torch.Tensor) -> Array:
        """A value that the module computes with and that its state_dict does not hold."""
        return self.weights.constant(self.key(name), tensor)

    def learns(self, name: str) -> bool:
        """Whether the module trains this parameter."""
        return self.weights.canonical[self.key(name)] in self.weights.trainable

    def call(self, op: str, *names: str, **options: Any) -> Call:
        """The module as a function of its inputs, with those of the named parameters that it has."""
        held = {name: self.parameter(name) for name in names if getattr(self.module, name) is not None}
        return Call.of_form(op, self.form, {**held, **options})
