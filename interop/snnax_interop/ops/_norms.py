"""Normalisation, and dropout in evaluation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._arithmetic import absolute, clamp


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Array:
    if training or running_mean is None:
        raise NotImplementedError("batch statistics (training mode)")
    shape = (-1, *(1,) * (input.ndim - 2))
    mean, variance = (jax.lax.stop_gradient(each).reshape(shape) for each in (running_mean, running_var))
    return _scaled((input - mean) / jnp.sqrt(variance + eps), weight, bias)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Array:
    out = _standard(input, tuple(range(-len(normalized_shape), 0)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def rms_norm(input, normalized_shape, weight=None, eps=None) -> Array:
    axes = tuple(range(-len(normalized_shape), 0))
    eps = float(jnp.finfo(input.dtype).eps) if eps is None else eps
    out = input * jax.lax.rsqrt((input**2).mean(axes, keepdims=True) + eps)
    return out if weight is None else out * weight


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0) -> Array:
    channels = input.shape[1]
    padding = [(size // 2, (size - 1) // 2) if axis == 1 else (0, 0) for axis in range(input.ndim)]
    squares = jnp.pad(input**2, padding)
    total = sum(jax.lax.slice_in_dim(squares, start, start + channels, axis=1) for start in range(size))
    return input / (k + alpha * (total / size)) ** beta


def dropout(input, p=0.5, training=True, inplace=False) -> Array:
    if training and p > 0:
        raise NotImplementedError("training=True")
    return input


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5) -> Array:
    grouped = input.reshape(input.shape[0], num_groups, -1)
    return _scaled(_standard(grouped, (2,), eps).reshape(input.shape), weight, bias)


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


def normalize(input, p=2.0, dim=1, eps=1e-12, out=None) -> Array:
    if p != 2:
        raise NotImplementedError(f"p={p}; allowed is 2")
    return input / clamp(vector_norm(input, 2, dim, keepdim=True), min=eps)


def vector_norm(input, ord: Any = 2, dim=None, keepdim=False, *, dtype=None) -> Array:
    axis = tuple(dim) if isinstance(dim, list | tuple) else dim
    size = absolute(input)
    if ord == 1:
        return jnp.sum(size, axis=axis, keepdims=keepdim)
    if ord == math.inf:
        return jnp.max(size, axis=axis, keepdims=keepdim)
    if ord <= 1 or ord == -math.inf:
        raise NotImplementedError(f"the norm of order {ord}; allowed are 1 and above")
    total = jnp.sum(input**2 if ord == 2 else size**ord, axis=axis, keepdims=keepdim)
    # The root of zero has no gradient.
    above = jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, jnp.sqrt(above) if ord == 2 else above ** (1 / ord), 0)


def norm(input, p="fro", dim=None, keepdim=False, *, dtype=None) -> Array:
    if p == "nuc":
        raise NotImplementedError("the nuclear norm")
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim)


def linalg_norm(input, ord=None, dim=None, keepdim=False, *, dtype=None) -> Array:
    axes = input.ndim if dim is None else len(dim) if isinstance(dim, list | tuple) else 1
    if ord is not None and axes == 2:
        raise NotImplementedError("the norm of a matrix; allowed is torch.linalg.vector_norm")
    return vector_norm(input, 2 if ord is None else ord, dim, keepdim)


def cosine_similarity(x1, x2, dim=1, eps=1e-8) -> Array:
    x1, x2 = jnp.broadcast_arrays(x1, x2)
    a, b = (x / clamp(vector_norm(x, 2, dim, keepdim=True), min=eps) for x in (x1, x2))
    return jnp.sum(a * b, axis=dim)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False) -> Array:
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1, x2, p=2.0, compute_mode=None) -> Array:
    del compute_mode
    return vector_norm(x1[..., :, None, :] - x2[..., None, :, :], p, -1)


def weight_norm(v, g, dim=0) -> Array:
    """`torch._weight_norm`, what the parametrization of that name computes: direction `v`, length `g` along `dim`."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim or dim == -1)
    return v * (g / jnp.sqrt(jnp.sum(v * v, axes, keepdims=True)))
