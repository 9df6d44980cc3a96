"""Normalisation, and dropout in evaluation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._arithmetic import clamp


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
    size = jnp.sum(input**2, axis=dim, keepdims=True)
    # The root of zero has no gradient.
    length = jnp.where(size > 0, jnp.sqrt(jnp.where(size > 0, size, 1)), 0)
    return input / clamp(length, min=eps)
