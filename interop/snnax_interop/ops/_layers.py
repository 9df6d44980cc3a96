"""Linear maps, convolutions, embeddings, padding, resizing."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from snnax.snn import max_of, window_slices

from .mixing import Mixing, Operand, at, behind, last
from .registry import op


@op("linear", axes=last(1, of=("input", "weight")))
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


def _kernel(first: int) -> Mixing:
    """All of a kernel but its output channels, axis `first`; all of it and the bias where channels are in groups."""

    def rule(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
        if operand.name not in ("weight", "bias"):
            return ()
        grouped = arguments["groups"] != 1
        return (
            range(operand.rank) if grouped else set(range(operand.rank)) - {first} if operand.name == "weight" else ()
        )

    return Mixing(rule)


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


for _spatial in (1, 2, 3):
    op(f"conv{_spatial}d", axes=last(_spatial + 1) | _kernel(0))(conv(_spatial))
    op(f"conv_transpose{_spatial}d", axes=last(_spatial + 1) | _kernel(1))(conv_transpose(_spatial))


def _pairs(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    return (1, 2) if operand.name == "weight" else ()


@op("bilinear", axes=last(1, of=("input1", "input2")) | Mixing(_pairs))
def bilinear(input1, input2, weight, bias=None) -> Array:
    out = jnp.einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else out + bias


@op("embedding", axes=at(0, of=("weight",)), names={"indices": "input"}, builtin="weight input",
    gradient="none of the row padding_idx")  # fmt: skip
def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
) -> Array:
    if max_norm is not None or scale_grad_by_freq:
        raise NotImplementedError("max_norm or scale_grad_by_freq")
    if padding_idx is not None:  # a row that does not learn
        fixed = jnp.arange(weight.shape[0]) == padding_idx % weight.shape[0]
        weight = jnp.where(fixed[:, None], jax.lax.stop_gradient(weight), weight)
    return weight[input]


@op("embedding_bag", axes=at(1, of=("input", "per_sample_weights")) | at(0, of=("weight",)), builtin="weight")
def embedding_bag(
    input,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    mode="mean",
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
) -> Array:
    if input.ndim != 2 or offsets is not None:
        raise NotImplementedError("bags of several sizes; allowed are indices of two axes")
    rows = embedding(input, weight, None, max_norm, norm_type, scale_grad_by_freq)
    counts = jnp.ones(input.shape, bool) if padding_idx is None else input != padding_idx % weight.shape[0]
    number = counts.sum(1)[:, None]
    if mode == "max":
        rows = jnp.where(counts[..., None], rows, -jnp.inf)
        return jnp.where(number > 0, max_of([rows[:, place] for place in range(input.shape[1])]), 0)
    rows = rows if per_sample_weights is None else rows * per_sample_weights[..., None]
    total = jnp.sum(jnp.where(counts[..., None], rows, 0), axis=1)
    return total / jnp.maximum(number, 1) if mode == "mean" else total


@op("im2col", axes=last(3))
def im2col(input, kernel_size, dilation=1, padding=0, stride=1) -> Array:
    """`F.unfold`: the windows of an image as columns; the image may lack the batch axis."""
    kernel, dilation, stride = (sizes(each, 2) for each in (kernel_size, dilation, stride))
    leading = input.ndim - 2
    padded = jnp.pad(input, [(0, 0)] * leading + [(size, size) for size in sizes(padding, 2)])
    ones = (1,) * leading
    slices = window_slices(padded, ones + kernel, ones + stride, ones + dilation)
    columns = jnp.stack(list(slices), axis=leading)
    return columns.reshape(*input.shape[: leading - 1], input.shape[leading - 1] * math.prod(kernel), -1)


@op("fold", "col2im", axes=last(2))
def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1) -> Array:
    """The transpose of `im2col`: overlapping windows add up."""
    channels = input.shape[-2] // math.prod(sizes(kernel_size, 2))
    image = jax.ShapeDtypeStruct((*input.shape[:-2], channels, *sizes(output_size, 2)), input.dtype)
    (out,) = jax.linear_transpose(lambda x: im2col(x, kernel_size, dilation, padding, stride), image)(input)
    return out


@op("channel_shuffle", axes=at(1))
def channel_shuffle(input, groups) -> Array:
    batch, channels, *rest = input.shape
    return input.reshape(batch, groups, channels // groups, *rest).swapaxes(1, 2).reshape(input.shape)


_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _padded(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Sizes come in pairs, from the last axis on."""
    return {-1 - place // 2 for place, size in enumerate(arguments["pad"]) if size != 0}


@op("pad", axes=Mixing(_padded))
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


@op("pixel_shuffle", axes=last(3))
def pixel_shuffle(input, upscale_factor) -> Array:
    *batch, channels, height, width = input.shape
    r = upscale_factor
    split = input.reshape(*batch, channels // r**2, r, r, height, width)
    axes = [len(batch) + axis for axis in (0, 3, 1, 4, 2)]
    return jnp.transpose(split, (*range(len(batch)), *axes)).reshape(*batch, channels // r**2, height * r, width * r)


@op("pixel_unshuffle", axes=last(3))
def pixel_unshuffle(input, downscale_factor) -> Array:
    *batch, channels, height, width = input.shape
    r = downscale_factor
    split = input.reshape(*batch, channels, height // r, r, width // r, r)
    axes = [len(batch) + axis for axis in (0, 2, 4, 1, 3)]
    return jnp.transpose(split, (*range(len(batch)), *axes)).reshape(*batch, channels * r**2, height // r, width // r)


@op("interpolate", axes=behind(2))
def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
) -> Array:
    """Nearest neighbour, linear in one, two or three dimensions, and cubic in two."""
    if mode == "area" or antialias:
        raise NotImplementedError(f"mode={mode!r}, antialias={antialias}; allowed are nearest, linear and cubic modes")
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
        if mode in ("nearest", "nearest-exact"):
            shift = 0.0 if mode == "nearest" else 0.5
            at = np.minimum(np.floor((places + shift) * step).astype(int), length - 1)
            input = jnp.take(input, at, axis=axis)
            continue
        if align_corners:
            at = places * ((length - 1) / (target - 1) if target > 1 else 0.0)
        else:
            at = (places + 0.5) * step - 0.5
            at = at if mode == "bicubic" else np.maximum(at, 0.0)
        low = np.floor(at).astype(int)
        weights = np.zeros((target, length))
        for offset, weight in _taps(mode, at - low):
            np.add.at(weights, (places, np.clip(low + offset, 0, length - 1)), weight)
        spread = jnp.tensordot(input, jnp.asarray(weights, input.dtype), axes=([axis], [1]))
        input = jnp.moveaxis(spread, -1, axis)
    return input


def _taps(mode: str, rest: Any) -> list[tuple[int, Any]]:
    """The neighbours that count, from the one below, and their weights, `rest` above the one below."""
    if mode != "bicubic":
        return [(0, 1 - rest), (1, rest)]
    a = -0.75

    def near(x):
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x):
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [(-1, far(rest + 1)), (0, near(rest)), (1, near(1 - rest)), (2, far(2 - rest))]
