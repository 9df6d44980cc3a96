"""What tensor functions compute, in JAX, with torch's arguments, defaults and gradients.

`OPS` maps the name of a torch function or tensor method (`F.relu`, `torch.relu` and `Tensor.relu_` are all "relu") to
its counterpart. Functions see the batch axis where torch saw it. Where JAX's own function has another gradient
(`relu` and `abs` at 0, `clamp` at a bound), torch's is written out.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax.snn import max_of, window_slices


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    out = input @ weight.T
    return out if bias is None else out + bias


def _conv(spatial: int) -> Callable[..., Array]:
    letters = "DHW"[-spatial:]
    layout = ("NC" + letters, "OI" + letters, "NC" + letters)

    def conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        unbatched = input.ndim == spatial + 1
        x = input[None] if unbatched else input
        dilation = sizes(dilation, spatial)
        pads = conv_padding(padding, weight.shape[2:], dilation)
        out = jax.lax.conv_general_dilated(
            x,
            weight,
            sizes(stride, spatial),
            pads,
            rhs_dilation=dilation,
            feature_group_count=groups,
            dimension_numbers=layout,
        )
        out = out if bias is None else out + bias.reshape(-1, *(1,) * spatial)
        return out[0] if unbatched else out

    return conv


def sizes(value: int | Sequence[Any], count: int) -> tuple[Any, ...]:
    """One integer for each of `count` axes."""
    values = (value,) * count if isinstance(value, int) else tuple(value)
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


def _max_pool(spatial: int) -> Callable[..., Array]:
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


def _avg_pool(spatial: int) -> Callable[..., Array]:
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


def _adaptive_avg_pool(spatial: int) -> Callable[..., Array]:
    def adaptive_avg_pool(input, output_size):
        targets = sizes(output_size, spatial)
        for axis, target in zip(range(input.ndim - spatial, input.ndim), targets, strict=True):
            size = input.shape[axis]
            target = size if target is None else target
            # Window i covers [floor(i size / target), ceil((i + 1) size / target)).
            rows = [
                [
                    1.0 / (-(-(i + 1) * size // target) - i * size // target)
                    if i * size // target <= j < -(-(i + 1) * size // target)
                    else 0.0
                    for j in range(size)
                ]
                for i in range(target)
            ]
            weights = jnp.asarray(rows, input.dtype)
            input = jnp.moveaxis(jnp.tensordot(input, weights, axes=([axis], [1])), -1, axis)
        return input

    return adaptive_avg_pool


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Array:
    if training or running_mean is None:
        raise NotImplementedError("batch statistics (training mode)")
    shape = (-1, *(1,) * (input.ndim - 2))
    mean, variance = (jax.lax.stop_gradient(each).reshape(shape) for each in (running_mean, running_var))
    out = (input - mean) / jnp.sqrt(variance + eps)
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5) -> Array:
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdims=True)
    out = centred / jnp.sqrt((centred**2).mean(axes, keepdims=True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def dropout(input, p=0.5, training=True, inplace=False) -> Array:
    if training and p > 0:
        raise NotImplementedError("training=True")
    return input


def relu(input, inplace=False) -> Array:
    return jnp.where(input > 0, input, 0)


def leaky_relu(input, negative_slope=0.01, inplace=False) -> Array:
    return jnp.where(input > 0, input, negative_slope * input)


def elu(input, alpha=1.0, inplace=False) -> Array:
    return jnp.where(input > 0, input, alpha * jnp.expm1(jnp.where(input > 0, 0, input)))


def gelu(input, approximate="none") -> Array:
    return jax.nn.gelu(input, approximate=approximate == "tanh")


def softplus(input, beta=1.0, threshold=20.0) -> Array:
    scaled = input * beta
    return jnp.where(scaled > threshold, input, jnp.logaddexp(scaled, 0) / beta)


def silu(input, inplace=False) -> Array:
    return input * jax.nn.sigmoid(input)


def hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False) -> Array:
    # torch's gradient is 0 at both bounds, unlike that of clamp.
    inside = (input > min_val) & (input < max_val)
    return jnp.where(inside, input, jax.lax.stop_gradient(jnp.clip(input, min_val, max_val)))


def softmax(input, dim, _stacklevel=3, dtype=None) -> Array:
    return jax.nn.softmax(input, axis=dim)


def log_softmax(input, dim, _stacklevel=3, dtype=None) -> Array:
    return jax.nn.log_softmax(input, axis=dim)


def absolute(input) -> Array:
    # The gradient at 0 is 0 (JAX's is 1).
    return jnp.sign(jax.lax.stop_gradient(input)) * input


def clamp(input, min=None, max=None) -> Array:
    # The gradient at a bound is 1 (JAX's is 1/2).
    inside = jnp.ones(jnp.shape(input), bool)
    inside = inside if min is None else inside & (input >= min)
    inside = inside if max is None else inside & (input <= max)
    return jnp.where(inside, input, jnp.clip(jax.lax.stop_gradient(input), min, max))


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda input, other: function(input, other)


def add(input, other, *, alpha=1) -> Array:
    return input + other if alpha == 1 else input + alpha * other


def sub(input, other, *, alpha=1) -> Array:
    return input - other if alpha == 1 else input - alpha * other


def div(input, other, *, rounding_mode=None) -> Array:
    if rounding_mode is None:
        return input / other
    quotient = jnp.floor(input / other) if rounding_mode == "floor" else jnp.trunc(input / other)
    return jax.lax.stop_gradient(quotient)


def matmul(input, other) -> Array:
    return input @ other


def where(condition, input, other) -> Array:
    return jnp.where(condition, input, other)


def _axis(dim):
    return tuple(dim) if isinstance(dim, list | tuple) else dim


def _reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(input, dim=None, keepdim=False, *, dtype=None):
        return function(input, axis=_axis(dim), keepdims=keepdim)

    return reduce


def _extremum(values: Callable, indices: Callable) -> Callable:
    def extremum(input, dim=None, keepdim=False):
        if dim is None:
            return values(input)
        if not isinstance(dim, int):
            raise NotImplementedError("the elementwise form; use torch.maximum or torch.minimum")
        # One index gets the gradient, the first of equals, as in torch.
        where = indices(input, axis=dim, keepdims=True)
        found = jnp.take_along_axis(input, where, axis=dim)
        return (found, where) if keepdim else (jnp.squeeze(found, dim), jnp.squeeze(where, dim))

    return extremum


def argmax(input, dim=None, keepdim=False) -> Array:
    return jnp.argmax(input, axis=dim, keepdims=keepdim)


def _extreme_sides(greater: Callable) -> Callable:
    def choose(input, other):
        # Equal elements share the gradient, as in torch.
        chosen = jnp.where(greater(input, other), input, other)
        return jnp.where(input == other, (input + other) / 2, chosen)

    return choose


def flatten(input, start_dim=0, end_dim=-1) -> Array:
    if input.ndim == 0:
        return input.reshape(1)
    start, end = start_dim % input.ndim, end_dim % input.ndim
    return input.reshape(*input.shape[:start], math.prod(input.shape[start : end + 1]), *input.shape[end + 1 :])


def unflatten(input, dim, sizes=None, unflattened_size=()) -> Array:
    dim = dim % input.ndim
    return input.reshape(*input.shape[:dim], *(unflattened_size if sizes is None else sizes), *input.shape[dim + 1 :])


def _varargs(values: tuple[Any, ...]) -> tuple[int, ...]:
    """`view(2, 3)` and `view((2, 3))`."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], list | tuple) else tuple(values)


def reshape(input, *shape, **named) -> Array:
    return input.reshape(_varargs(shape or (named["shape"],)))


def permute(input, *dims, **named) -> Array:
    return jnp.transpose(input, _varargs(dims or (named["dims"],)))


def transpose(input, dim0, dim1) -> Array:
    return jnp.swapaxes(input, dim0, dim1)


def movedim(input, source, destination) -> Array:
    return jnp.moveaxis(input, source, destination)


def squeeze(input, dim=None) -> Array:
    dims = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return jnp.squeeze(input, tuple(each for each in dims if input.shape[each] == 1))


def unsqueeze(input, dim) -> Array:
    return jnp.expand_dims(input, dim)


def expand(input, *size, **named) -> Array:
    wanted = _varargs(size or (named["size"],))
    new = len(wanted) - input.ndim
    shape = [input.shape[axis - new] if n == -1 else n for axis, n in enumerate(wanted)]
    return jnp.broadcast_to(input, shape)


def repeat(input, *repeats, **named) -> Array:
    return jnp.tile(input, _varargs(repeats or (named["repeats"],)))


class Steps:
    """A list of one value over time, as one array with time on axis 0."""

    def __init__(self, array: Array):
        self.array = array

    def __len__(self) -> int:
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return iter(self.array)


def cat(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        array = tensors.array
        dim = dim % (array.ndim - 1)
        shape = (*array.shape[1 : dim + 1], -1, *array.shape[dim + 2 :])
        return jnp.moveaxis(array, 0, dim).reshape(shape)
    return jnp.concatenate(tensors, axis=dim)


def stack(tensors, dim=0) -> Array:
    if isinstance(tensors, Steps):
        return jnp.moveaxis(tensors.array, 0, dim)
    return jnp.stack(tensors, axis=dim)


def unbind(input, dim=0) -> tuple[Array, ...]:
    return tuple(jnp.take(input, index, axis=dim) for index in range(input.shape[dim]))


def split(tensor, split_size_or_sections, dim=0) -> tuple[Array, ...]:
    size = tensor.shape[dim]
    parts = split_size_or_sections
    if isinstance(parts, int):
        cuts = list(range(parts, size, parts))
    else:
        cuts = [sum(parts[: index + 1]) for index in range(len(parts) - 1)]
    return tuple(jnp.split(tensor, cuts, axis=dim))


def chunk(input, chunks, dim=0) -> tuple[Array, ...]:
    return split(input, -(-input.shape[dim] // chunks), dim)


def getitem(input, index) -> Array:
    return input[index]


def select(input, dim, index) -> Array:
    return jax.lax.index_in_dim(input, index, dim, keepdims=False)


def narrow(input, dim, start, length) -> Array:
    return jax.lax.slice_in_dim(input, start, start + length, axis=dim)


def setitem(input, index, value) -> Array:
    return input.at[index].set(value)


def to_float(input, *args, **kwargs) -> Array:
    """Casts between floating point types are left to the types of the parameters."""
    return input if jnp.issubdtype(input.dtype, jnp.floating) else input.astype(jnp.float32)


_DTYPES = {"bool": jnp.bool_, "uint8": jnp.uint8, "int8": jnp.int8, "int16": jnp.int16, "int32": jnp.int32}


def to(input, *args, dtype=None, **kwargs) -> Array:
    """`Tensor.to` and `Tensor.type`; arguments that name no dtype (devices) change nothing."""
    for target in (dtype, *args):
        if hasattr(target, "dtype"):
            return type_as(input, target)
        name = str(target).removeprefix("torch.")
        if name in ("float32", "float64", "FloatTensor", "DoubleTensor"):
            return to_float(input)
        if name in _DTYPES:
            return input.astype(_DTYPES[name])
        if name in ("int64", "LongTensor"):
            return to_integer(input)
        if name in ("float16", "bfloat16", "half"):
            raise NotImplementedError(f"a cast to {name}")
    return input


def type_as(input, other) -> Array:
    return to_float(input) if jnp.issubdtype(other.dtype, jnp.floating) else input.astype(other.dtype)


def to_integer(input) -> Array:
    return input.astype(jax.dtypes.canonicalize_dtype(jnp.int64))


def identity(input, *args, **kwargs) -> Array:
    return input


def detach(input) -> Array:
    return jax.lax.stop_gradient(input)


def var(input, dim=None, *, unbiased=True, correction=None, keepdim=False) -> Array:
    ddof = int(unbiased) if correction is None else correction
    return jnp.var(input, axis=_axis(dim), ddof=ddof, keepdims=keepdim)


def std(input, dim=None, *, unbiased=True, correction=None, keepdim=False) -> Array:
    ddof = int(unbiased) if correction is None else correction
    return jnp.std(input, axis=_axis(dim), ddof=ddof, keepdims=keepdim)


OPS: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "conv3d": _conv(3),
    "max_pool1d": _max_pool(1),
    "max_pool2d": _max_pool(2),
    "max_pool3d": _max_pool(3),
    "avg_pool1d": _avg_pool(1),
    "avg_pool2d": _avg_pool(2),
    "avg_pool3d": _avg_pool(3),
    "adaptive_avg_pool1d": _adaptive_avg_pool(1),
    "adaptive_avg_pool2d": _adaptive_avg_pool(2),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "dropout": dropout,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
    "softplus": softplus,
    "hardtanh": hardtanh,
    "sigmoid": lambda input: jax.nn.sigmoid(input),
    "tanh": lambda input: jnp.tanh(input),
    "softmax": softmax,
    "log_softmax": log_softmax,
    "exp": lambda input: jnp.exp(input),
    "log": lambda input: jnp.log(input),
    "sqrt": lambda input: jnp.sqrt(input),
    "square": lambda input: input * input,
    "sin": lambda input: jnp.sin(input),
    "cos": lambda input: jnp.cos(input),
    "sign": lambda input: jax.lax.stop_gradient(jnp.sign(input)),
    "floor": lambda input: jax.lax.stop_gradient(jnp.floor(input)),
    "ceil": lambda input: jax.lax.stop_gradient(jnp.ceil(input)),
    "neg": lambda input: -input,
    "reciprocal": lambda input: 1 / input,
    "abs": absolute,
    "clamp": clamp,
    "clip": clamp,
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": lambda input, other: other - input,
    "mul": _binary(operator.mul),
    "multiply": _binary(operator.mul),
    "div": div,
    "divide": div,
    "true_divide": div,
    "rdiv": lambda input, other: other / input,
    "pow": lambda input, exponent: input**exponent,
    "rpow": lambda input, base: base**input,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "maximum": _extreme_sides(jnp.greater),
    "minimum": _extreme_sides(jnp.less),
    "gt": _binary(operator.gt),
    "ge": _binary(operator.ge),
    "lt": _binary(operator.lt),
    "le": _binary(operator.le),
    "eq": _binary(operator.eq),
    "ne": _binary(operator.ne),
    "logical_and": _binary(jnp.logical_and),
    "logical_or": _binary(jnp.logical_or),
    "logical_not": lambda input: jnp.logical_not(input),
    "where": where,
    "sum": _reduction(jnp.sum),
    "mean": _reduction(jnp.mean),
    "amax": _reduction(jnp.max),
    "amin": _reduction(jnp.min),
    "max": _extremum(jnp.max, jnp.argmax),
    "min": _extremum(jnp.min, jnp.argmin),
    "argmax": argmax,
    "var": var,
    "std": std,
    "cumsum": lambda input, dim: jnp.cumsum(input, axis=dim),
    "flatten": flatten,
    "unflatten": unflatten,
    "view": reshape,
    "reshape": reshape,
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    "movedim": movedim,
    "moveaxis": movedim,
    "t": lambda input: input.T,
    "T": lambda input: input.T,
    "mT": lambda input: jnp.swapaxes(input, -1, -2),
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "expand": expand,
    "expand_as": lambda input, other: jnp.broadcast_to(input, other.shape),
    "repeat": repeat,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    "unbind": unbind,
    "split": split,
    "chunk": chunk,
    "getitem": getitem,
    "item": getitem,
    "select": select,
    "narrow": narrow,
    "setitem": setitem,
    "clone": identity,
    "contiguous": identity,
    "float": to_float,
    "double": to_float,
    "to": to,
    "type": to,
    "type_as": type_as,
    "bool": lambda input: input != 0,
    "int": lambda input: input.astype(jnp.int32),
    "long": to_integer,
    "detach": detach,
    "data": detach,
}

# Functions that act on each element by itself: they need no batch axis to be right.
ELEMENTWISE = {
    "dropout", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "hardtanh", "sigmoid", "tanh", "exp", "log",
    "sqrt", "square", "sin", "cos", "sign", "floor", "ceil", "neg", "reciprocal", "abs", "clamp", "clip", "add", "sub",
    "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "rdiv", "pow", "rpow", "maximum", "minimum",
    "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not", "where", "clone", "contiguous",
    "float", "detach", "data",
}  # fmt: skip


def op_name(name: str) -> str:
    """The key in `OPS` of a torch function's `__name__`: `__radd__`, `add_` and `add` are one operation."""
    name = name.strip("_") if name.startswith("__") else name.removesuffix("_")
    name = name[1:] if name.startswith("i") and name[1:] in _IN_PLACE else name
    return _SYNONYMS.get(name, name)


_IN_PLACE = {"add", "sub", "mul", "truediv", "pow", "div"}
_SYNONYMS = {
    "radd": "add",
    "rmul": "mul",
    "truediv": "div",
    "rtruediv": "rdiv",
    "rpow": "rpow",
    "absolute": "abs",
    "negative": "neg",
    "and": "logical_and",
    "or": "logical_or",
    "invert": "logical_not",
    "_softmax": "softmax",
}
