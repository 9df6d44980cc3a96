"""Pooling that is fast on CPUs too, on `(channels, *space)`.

Windows are cut out as strided slices and combined elementwise: XLA fuses that, where the gradient of its own window
reductions is a scatter, slow on CPUs. Of equal elements - among spikes, equals are the rule - the first gets the
gradient, as in torch.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...engine import AbstractFunction
from ...surrogate import AbstractSurrogate, SuperSpike
from ..parts import as_float, output_dtype, parameter


Sizes = int | Sequence[int]


def window_slices(
    x: Array, window: Sequence[int], strides: Sequence[int], dilation: Sequence[int] | None = None
) -> list[Array]:
    """The first, second, ... element of every window, in row-major order; one size per axis of `x` each."""
    dilation = (1,) * x.ndim if dilation is None else dilation
    counts = [
        (size - step * (width - 1) - 1) // stride + 1
        for size, width, stride, step in zip(x.shape, window, strides, dilation, strict=True)
    ]
    slices = []
    for offsets in itertools.product(*map(range, window)):
        starts = [offset * step for offset, step in zip(offsets, dilation, strict=True)]
        limits = [
            start + (count - 1) * stride + 1 for start, count, stride in zip(starts, counts, strides, strict=True)
        ]
        slices.append(jax.lax.slice(x, starts, limits, strides))
    return slices


def max_of(slices: Sequence[Array]) -> Array:
    """The elementwise maximum; the first of equal elements gets the gradient. NaN wins, as in torch."""
    return functools.reduce(lambda a, b: jnp.where((b > a) | jnp.isnan(b), b, a), slices)


class MaxPool(AbstractFunction):
    """The maximum of each window, over all axes but the first.

    >>> MaxPool(2)(jnp.arange(16.0).reshape(1, 4, 4)).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """

    kernel_size: Sizes = eqx.field(static=True)
    stride: Sizes | None = eqx.field(static=True, default=None)
    padding: Sizes = eqx.field(static=True, default=0)

    def __call__(self, x: Shaped[Array, "channels ..."]) -> Float[Array, "channels ..."]:
        """**Arguments:** `x`: `(channels, *space)`; a kernel size, stride (default: the kernel size) and padding on
        both sides for all spatial axes, or one each.

        **Raises:** `ValueError` for sizes that do not fit.
        """
        return _pool(self, x, -jnp.inf, max_of)


class AvgPool(AbstractFunction):
    """The mean of each window, over all axes but the first; padding counts as zeros, as in torch.

    >>> AvgPool(2)(jnp.arange(16.0).reshape(1, 4, 4)).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """

    kernel_size: Sizes = eqx.field(static=True)
    stride: Sizes | None = eqx.field(static=True, default=None)
    padding: Sizes = eqx.field(static=True, default=0)

    def __call__(self, x: Shaped[Array, "channels ..."]) -> Float[Array, "channels ..."]:
        """Arguments and errors as for `MaxPool`."""
        return _pool(self, x, 0.0, lambda slices: functools.reduce(jnp.add, slices) / len(slices))


class SpikingMaxPool(AbstractFunction):
    r"""Max pooling that gives spikes again: $H(\max(x) - \theta)$ with a surrogate gradient.

    On spikes the value is that of `MaxPool` for a threshold within [0, 1); on membranes or graded spikes it is a spike
    wherever one element of the window is above threshold.

    >>> SpikingMaxPool(2, threshold=0.5)(jnp.array([[0.0, 1.0, 0.2, 0.4]])).tolist()
    [[1.0, 0.0]]
    """

    threshold: Array
    surrogate: AbstractSurrogate
    kernel_size: Sizes = eqx.field(static=True)
    stride: Sizes | None = eqx.field(static=True)
    padding: Sizes = eqx.field(static=True)

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        *,
        threshold: ArrayLike = 0.5,
        surrogate: AbstractSurrogate | None = None,
    ):
        """**Arguments:** sizes as for `MaxPool`; `surrogate`: `SuperSpike()` when not given."""
        self.threshold = parameter("threshold", threshold)
        self.surrogate = SuperSpike() if surrogate is None else surrogate
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Shaped[Array, "channels ..."]) -> Float[Array, "channels ..."]:
        """Arguments and errors as for `MaxPool`."""
        return self.surrogate(_pool(self, x, -jnp.inf, max_of) - self.threshold.astype(output_dtype(x)))


def _pool(layer: Any, x: Array, fill: float, combine: Callable[[list[Array]], Array]) -> Array:
    x = as_float(x)
    spatial = x.ndim - 1
    window = _per_axis("kernel_size", layer.kernel_size, spatial, 1)
    strides = window if layer.stride is None else _per_axis("stride", layer.stride, spatial, 1)
    padding = _per_axis("padding", layer.padding, spatial, 0)
    if any(2 * pad > width for pad, width in zip(padding, window, strict=True)):
        raise ValueError(f"padding must be at most half of the kernel size, found {padding} for {window}")
    if any(size + 2 * pad < width for size, pad, width in zip(x.shape[1:], padding, window, strict=True)):
        raise ValueError(f"the windows {window} are larger than the input of shape {x.shape}, padding {padding}")
    if any(padding):
        x = jnp.pad(x, [(0, 0), *((pad, pad) for pad in padding)], constant_values=fill)
    return combine(window_slices(x, (1, *window), (1, *strides)))


def _per_axis(name: str, sizes: Sizes, spatial: int, least: int) -> tuple[int, ...]:
    found = (sizes,) * spatial if isinstance(sizes, int) else tuple(sizes)
    if len(found) != spatial or any(size < least for size in found):
        raise ValueError(f"{name} must be one size of at least {least}, or {spatial} of them, found {sizes}")
    return found
