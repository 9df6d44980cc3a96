"""Normalisation, and dropout in evaluation."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._elementary import clamp
from ._reductions import vector_norm
from .mixing import Mixing, Operand, along, at, behind, whole
from .registry import op


@op("batch_norm", axes="separate", gradient="none of the running statistics",
    builtin="input weight bias running_mean running_var training momentum eps cudnn_enabled")  # fmt: skip
def batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Array:
    if training or running_mean is None:
        raise NotImplementedError("batch statistics (training mode)")
    shape = (-1, *(1,) * (input.ndim - 2))
    mean, variance = (jax.lax.stop_gradient(each).reshape(shape) for each in (running_mean, running_var))
    return _scaled((input - mean) / jnp.sqrt(variance + eps), weight, bias)


def _normalised(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """The axes of `normalized_shape`, the last ones."""
    return range(-len(arguments["normalized_shape"]), 0)


@op("layer_norm", axes=Mixing(_normalised), builtin="input normalized_shape weight bias eps cudnn_enable")
def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Array:
    out = _standard(input, tuple(range(-len(normalized_shape), 0)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@op("rms_norm", axes=Mixing(_normalised))
def rms_norm(input, normalized_shape, weight=None, eps=None) -> Array:
    axes = tuple(range(-len(normalized_shape), 0))
    eps = float(jnp.finfo(input.dtype).eps) if eps is None else eps
    out = input * jax.lax.rsqrt((input**2).mean(axes, keepdims=True) + eps)
    return out if weight is None else out * weight


@op("local_response_norm", axes=at(1))
def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0) -> Array:
    channels = input.shape[1]
    padding = [(size // 2, (size - 1) // 2) if axis == 1 else (0, 0) for axis in range(input.ndim)]
    squares = jnp.pad(input**2, padding)
    total = sum(jax.lax.slice_in_dim(squares, start, start + channels, axis=1) for start in range(size))
    return input / (k + alpha * (total / size)) ** beta


def _dropout(input, p=0.5, training=True, inplace=False) -> Array:
    if training and p > 0:
        raise NotImplementedError("training=True")
    return input


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    op(_name, axes="elementwise", names={"train": "training"})(_dropout)


@op("group_norm", axes=behind(1) | whole("weight", "bias"), builtin="input num_groups weight bias eps cudnn_enabled")
def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5) -> Array:
    grouped = input.reshape(input.shape[0], num_groups, -1)
    return _scaled(_standard(grouped, (2,), eps).reshape(input.shape), weight, bias)


def _instances(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    return range(2, operand.rank) if operand.name == "input" and arguments["use_input_stats"] else ()


@op("instance_norm", axes=Mixing(_instances),
    builtin="input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled")  # fmt: skip
def instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
) -> Array:
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    if running_mean is not None:
        raise NotImplementedError("running statistics that change (training mode)")
    return _scaled(_standard(input, tuple(range(2, input.ndim)), eps), weight, bias)


def _standard(input, axes, eps) -> Array:
    centred = input - input.mean(axes, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axes, keepdims=True) + eps)


def _scaled(input, weight, bias) -> Array:
    """With a factor and a term per channel, axis 1."""
    shape = (-1, *(1,) * (input.ndim - 2))
    out = input if weight is None else input * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


@op("normalize", axes=along())
def normalize(input, p=2.0, dim=1, eps=1e-12, out=None) -> Array:
    if p != 2:
        raise NotImplementedError(f"p={p}; allowed is 2")
    return input / clamp(vector_norm(input, 2, dim, keepdim=True), min=eps)


@op("cosine_similarity", axes=along(of=("x1", "x2")))
def cosine_similarity(x1, x2, dim=1, eps=1e-8) -> Array:
    if dim >= 0 and x1.ndim != x2.ndim:
        raise NotImplementedError("dim from the first axis, of operands with different numbers of axes")
    x1, x2 = jnp.broadcast_arrays(x1, x2)
    a, b = (x / clamp(vector_norm(x, 2, dim, keepdim=True), min=eps) for x in (x1, x2))
    return jnp.sum(a * b, axis=dim)


def _lengths(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """All axes of the direction but `dim`, or all of them."""
    dim = arguments["dim"]
    remaining = set() if dim == -1 else {dim % operand.rank}
    return set(range(operand.rank)) - remaining if operand.name == "v" else ()


@op("_weight_norm", axes=Mixing(_lengths))
def weight_norm(v, g, dim=0) -> Array:
    """`torch._weight_norm`, what the parametrization of that name computes: direction `v`, length `g` along `dim`."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim or dim == -1)
    return v * (g / jnp.sqrt(jnp.sum(v * v, axes, keepdims=True)))
