"""Linear maps, convolutions, embeddings, padding, resizing."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    out = input @ weight.T
    return out if bias is None else out + bias


def _convolve(spatial: int, input, weight, bias, pads, dilation, groups, **strides) -> Array:
    """`strides`: how far windows move, or how far the input is spread; an input may lack the batch axis."""
    letters = "DHW"[-spatial:]
    layout = ("NC" + letters, "OI" + letters, "NC" + letters)
    unbatched = input.ndim == spatial + 1
    x = input[None] if unbatched else input
    options = {"window_strides": (1,) * spatial, **strides}
    out = jax.lax.conv_general_dilated(
        x,
        weight,
        padding=pads,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=layout,
        **options,
    )
    out = out if bias is None else out + bias.reshape(-1, *(1,) * spatial)
    return out[0] if unbatched else out


def conv(spatial: int) -> Callable[..., Array]:
    def conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
        dilation = sizes(dilation, spatial)
        pads = conv_padding(padding, weight.shape[2:], dilation)
        if padding_mode != "zeros":
            leading = ((0, 0),) * (input.ndim - spatial)
            input = jnp.pad(input, (*leading, *pads), mode=_PAD_MODES[padding_mode])
            pads = ((0, 0),) * spatial
        strides = {"window_strides": sizes(stride, spatial)}
        return _convolve(spatial, input, weight, bias, pads, dilation, groups, **strides)

    return conv


def sizes(value: int | float | Sequence[Any], count: int) -> tuple[Any, ...]:
    """One number for each of `count` axes."""
    values = (value,) * count if isinstance(value, int | float) else tuple(value)
    return values * count if len(values) == 1 else values


def conv_padding(
    padding: int | str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Padding on both sides of each axis; torch's "same" pads the odd one at the end."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    assert not isinstance(padding, str)
    return tuple((size, size) for size in sizes(padding, len(kernel)))


def conv_transpose(spatial: int) -> Callable[..., Array]:
    def conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        kernel, dilation = weight.shape[2:], sizes(dilation, spatial)
        # The gradient of a convolution: the input spread out by the stride, the kernel flipped, its channels exchanged.
        inputs, outputs = weight.shape[:2]
        weight = weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
        weight = jnp.flip(weight.reshape(groups * outputs, inputs // groups, *kernel), range(2, 2 + spatial))
        pads = []
        for axis, (pad, extra) in enumerate(zip(sizes(padding, spatial), sizes(output_padding, spatial), strict=True)):
            reach = dilation[axis] * (kernel[axis] - 1)
            pads.append((reach - pad, reach - pad + extra))
        strides = {"lhs_dilation": sizes(stride, spatial)}
        return _convolve(spatial, input, weight, bias, pads, dilation, groups, **strides)

    return conv_transpose


def bilinear(input1, input2, weight, bias=None) -> Array:
    out = jnp.einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else out + bias


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
) -> Array:
    if max_norm is not None or scale_grad_by_freq:
        raise NotImplementedError("max_norm or scale_grad_by_freq")
    if padding_idx is not None:  # a row that does not learn
        fixed = jnp.arange(weight.shape[0]) == padding_idx % weight.shape[0]
        weight = jnp.where(fixed[:, None], jax.lax.stop_gradient(weight), weight)
    return weight[input]


_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(input, pad, mode="constant", value=None) -> Array:
    """`pad` counts from the last axis; negative sizes cut, in the mode `constant` only."""
    pairs = [(pad[index], pad[index + 1]) for index in range(0, len(pad), 2)]
    pairs = [(0, 0)] * (input.ndim - len(pairs)) + pairs[::-1]
    if mode != "constant":
        if min(map(min, pairs)) < 0:
            raise NotImplementedError(f"negative sizes with mode={mode!r}")
        return jnp.pad(input, pairs, mode=_PAD_MODES[mode])
    fill = jnp.asarray(0 if value is None else value, input.dtype)
    return jax.lax.pad(input, fill, [(low, high, 0) for low, high in pairs])


def pixel_shuffle(input, upscale_factor) -> Array:
    *batch, channels, height, width = input.shape
    r = upscale_factor
    split = input.reshape(*batch, channels // r**2, r, r, height, width)
    axes = [len(batch) + axis for axis in (0, 3, 1, 4, 2)]
    return jnp.transpose(split, (*range(len(batch)), *axes)).reshape(*batch, channels // r**2, height * r, width * r)


def pixel_unshuffle(input, downscale_factor) -> Array:
    *batch, channels, height, width = input.shape
    r = downscale_factor
    split = input.reshape(*batch, channels, height // r, r, width // r, r)
    axes = [len(batch) + axis for axis in (0, 2, 4, 1, 3)]
    return jnp.transpose(split, (*range(len(batch)), *axes)).reshape(*batch, channels * r**2, height // r, width // r)


def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
) -> Array:
    """Nearest neighbour, and linear in one, two or three dimensions."""
    if mode not in ("nearest", "linear", "bilinear", "trilinear") or antialias:
        raise NotImplementedError(f"mode={mode!r}, antialias={antialias}; allowed are nearest and linear modes")
    spatial = input.ndim - 2
    lengths = input.shape[2:]
    factors: tuple[Any, ...] = (None,) * spatial
    if size is None:
        assert scale_factor is not None, "torch asks for one of size and scale_factor"
        factors = sizes(scale_factor, spatial)
        targets = tuple(math.floor(length * factor) for length, factor in zip(lengths, factors, strict=True))
        factors = (None,) * spatial if recompute_scale_factor else factors
    else:
        targets = sizes(size, spatial)
    for axis, (length, target, factor) in enumerate(zip(lengths, targets, factors, strict=True), start=2):
        step = length / target if factor is None else 1 / factor
        places = np.arange(target)
        if mode == "nearest":
            input = jnp.take(input, np.minimum(np.floor(places * step).astype(int), length - 1), axis=axis)
            continue
        if align_corners:
            at = places * ((length - 1) / (target - 1) if target > 1 else 0.0)
        else:
            at = np.maximum((places + 0.5) * step - 0.5, 0.0)
        low = np.minimum(np.floor(at).astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        weights = np.zeros((target, length))
        np.add.at(weights, (places, low), 1 - (at - low))
        np.add.at(weights, (places, high), at - low)
        spread = jnp.tensordot(input, jnp.asarray(weights, input.dtype), axes=([axis], [1]))
        input = jnp.moveaxis(spread, -1, axis)
    return input
