"""Pooling."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax.snn import max_of, window_slices

from ._activations import relu
from ._elementary import absolute
from ._layers import sizes
from .mixing import last
from .registry import op


def _pool_windows(input, spatial, kernel_size, stride, padding, dilation, ceil_mode):
    kernel = sizes(kernel_size, spatial)
    stride = kernel if stride is None or stride == [] or stride == () else sizes(stride, spatial)
    padding = sizes(padding, spatial)
    dilation = sizes(dilation, spatial)
    pads = []
    for axis in range(spatial):
        size = input.shape[input.ndim - spatial + axis]
        window = dilation[axis] * (kernel[axis] - 1) + 1
        free = size + 2 * padding[axis] - window
        count = (-(-free // stride[axis]) if ceil_mode else free // stride[axis]) + 1
        # A window that would start in the right padding does not count.
        if ceil_mode and (count - 1) * stride[axis] >= size + padding[axis]:
            count -= 1
        end = (count - 1) * stride[axis] + window - size - padding[axis]
        pads.append((padding[axis], max(end, 0)))
    leading = input.ndim - spatial
    return (
        (1,) * leading + kernel,
        (1,) * leading + stride,
        ((0, 0),) * leading + tuple(pads),
        (1,) * leading + dilation,
    )


def max_pooling(spatial: int) -> Callable[..., Array]:
    def max_pool(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if return_indices:
            raise NotImplementedError("return_indices=True")
        window, strides, pads, dilation = _pool_windows(
            input, spatial, kernel_size, stride, padding, dilation, ceil_mode
        )
        padded = jnp.pad(input, pads, constant_values=-jnp.inf) if any(map(sum, pads)) else input
        # As torch: the first of equal elements gets the gradient; among spikes, equals are the rule.
        return max_of(window_slices(padded, window, strides, dilation))

    return max_pool


def avg_pooling(spatial: int) -> Callable[..., Array]:
    def avg_pool(
        input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        window, strides, pads, _ = _pool_windows(input, spatial, kernel_size, stride, padding, 1, ceil_mode)
        total = jax.lax.reduce_window(input, 0.0, jax.lax.add, window, strides, pads)
        if divisor_override is not None:
            return total / divisor_override
        # How many elements of each window count: padding does when asked, the overhang of ceil_mode never.
        ones = jnp.ones(input.shape[input.ndim - spatial :], total.dtype)
        if count_include_pad:
            ones = jnp.pad(ones, [(size, size) for size in sizes(padding, spatial)], constant_values=1)
            pads = tuple((0, max(high - low, 0)) for low, high in pads)
        count = jax.lax.reduce_window(ones, 0.0, jax.lax.add, window[-spatial:], strides[-spatial:], pads[-spatial:])
        return total / count

    return avg_pool


def _adaptive_bounds(size: int, target: int | None) -> list[tuple[int, int]]:
    """Window i covers [floor(i size / target), ceil((i + 1) size / target))."""
    target = size if target is None else target
    return [(i * size // target, -(-(i + 1) * size // target)) for i in range(target)]


def adaptive_max_pooling(spatial: int) -> Callable[..., Array]:
    def adaptive_max_pool(input, output_size, return_indices=False):
        if return_indices:
            raise NotImplementedError("return_indices=True")
        # From the last axis to the first, the first of equal elements is torch's: it gets the gradient.
        for axis, target in reversed(list(enumerate(sizes(output_size, spatial), start=input.ndim - spatial))):
            windows = [
                max_of([jax.lax.index_in_dim(input, place, axis, keepdims=False) for place in range(start, stop)])
                for start, stop in _adaptive_bounds(input.shape[axis], target)
            ]
            input = jnp.stack(windows, axis=axis)
        return input

    return adaptive_max_pool


def lp_pooling(spatial: int) -> Callable[..., Array]:
    def lp_pool(input, norm_type, kernel_size, stride=None, ceil_mode=False):
        kernel = sizes(kernel_size, spatial)
        mean = avg_pooling(spatial)(input**norm_type, kernel, stride, 0, ceil_mode)
        rectified = jax.lax.stop_gradient(jnp.sign(mean)) * relu(absolute(mean))
        return (rectified * math.prod(kernel)) ** (1 / norm_type)

    return lp_pool


def adaptive_avg_pooling(spatial: int) -> Callable[..., Array]:
    def adaptive_avg_pool(input, output_size):
        targets = sizes(output_size, spatial)
        for axis, target in zip(range(input.ndim - spatial, input.ndim), targets, strict=True):
            size = input.shape[axis]
            rows = [
                [1.0 / (stop - start) if start <= place < stop else 0.0 for place in range(size)]
                for start, stop in _adaptive_bounds(size, target)
            ]
            weights = jnp.asarray(rows, input.dtype)
            input = jnp.moveaxis(jnp.tensordot(input, weights, axes=([axis], [1])), -1, axis)
        return input

    return adaptive_avg_pool


_FIRST = "the first of equal elements gets it"

for _spatial in (1, 2, 3):
    _last = last(_spatial)
    op(f"max_pool{_spatial}d", axes=_last, gradient=_FIRST)(max_pooling(_spatial))
    op(f"avg_pool{_spatial}d", axes=_last)(avg_pooling(_spatial))
    op(f"lp_pool{_spatial}d", axes=_last)(lp_pooling(_spatial))
    op(f"adaptive_max_pool{_spatial}d", axes=_last, gradient=_FIRST)(adaptive_max_pooling(_spatial))
    op(f"adaptive_avg_pool{_spatial}d", axes=_last)(adaptive_avg_pooling(_spatial))
