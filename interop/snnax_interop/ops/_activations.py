"""Activation functions, with torch's gradients where they have none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._casts import typed
from .mixing import along
from .registry import op


def _with_gradient_of(function: Array, value: Array) -> Array:
    return function + jax.lax.stop_gradient(value - function)


@op("relu", axes="elementwise", gradient="0 at 0, where the gradient of jax.numpy.maximum is 1/2")
def relu(input, inplace=False) -> Array:
    return jnp.where(input <= 0, 0, input)  # NaN stays


@op("leaky_relu", axes="elementwise", gradient="the slope at 0")
def leaky_relu(input, negative_slope=0.01, inplace=False) -> Array:
    return jnp.where(input > 0, input, negative_slope * input)


@op("elu", axes="elementwise")
def elu(input, alpha=1.0, inplace=False) -> Array:
    return jnp.where(input > 0, input, alpha * jnp.expm1(jnp.where(input > 0, 0, input)))


@op("gelu", axes="elementwise")
def gelu(input, approximate="none") -> Array:
    return jax.nn.gelu(input, approximate=approximate == "tanh")


@op("softplus", axes="elementwise")
def softplus(input, beta=1.0, threshold=20.0) -> Array:
    scaled = input * beta
    return jnp.where(scaled > threshold, input, jnp.logaddexp(scaled, 0) / beta)


@op("silu", axes="elementwise")
def silu(input, inplace=False) -> Array:
    return input * jax.nn.sigmoid(input)


@op("hardtanh", axes="elementwise", gradient="0 at both bounds, unlike that of clamp")
def hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False) -> Array:
    inside = (input > min_val) & (input < max_val)
    return jnp.where(inside, input, jax.lax.stop_gradient(jnp.clip(input, min_val, max_val)))


@op("relu6", axes="elementwise", gradient="that of hardtanh")
def relu6(input, inplace=False) -> Array:
    return hardtanh(input, 0.0, 6.0)


@op("hardsigmoid", axes="elementwise", gradient="a slope of float32's 1/6, 0 at both bounds")
def hardsigmoid(input, inplace=False) -> Array:
    inside = hardtanh(input, -3.0, 3.0)
    return _with_gradient_of(inside * float(np.float32(1 / 6)), inside / 6 + 0.5)  # torch's slope is a float32


@op("hardswish", axes="elementwise")
def hardswish(input, inplace=False) -> Array:
    return jnp.where(input <= -3, 0, jnp.where(input < 3, input * (input + 3) / 6, input))


@op("mish", axes="elementwise")
def mish(input, inplace=False) -> Array:
    return input * jnp.tanh(jax.nn.softplus(input))


@op("selu", axes="elementwise")
def selu(input, inplace=False) -> Array:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return scale * elu(input, alpha)


@op("celu", axes="elementwise", gradient="alpha rounded to float32")
def celu(input, alpha=1.0, inplace=False) -> Array:
    negative = jnp.where(input > 0, 0, input)
    rounded = alpha * jnp.expm1(negative / float(np.float32(alpha)))  # as torch has it in the gradient
    return jnp.where(input > 0, input, _with_gradient_of(rounded, alpha * jnp.expm1(negative / alpha)))


@op("log_sigmoid", "logsigmoid", axes="elementwise")
def log_sigmoid(input) -> Array:
    return -jnp.logaddexp(-input, 0)


@op("softsign", axes="elementwise", gradient="1 at 0")
def softsign(input) -> Array:
    return input / (1 + jnp.sign(jax.lax.stop_gradient(input)) * input)


@op("tanhshrink", axes="elementwise")
def tanhshrink(input) -> Array:
    return input - jnp.tanh(input)


@op("softshrink", axes="elementwise")
def softshrink(input, lambd=0.5) -> Array:
    return jnp.where(input > lambd, input - lambd, jnp.where(input < -lambd, input + lambd, 0))


@op("hardshrink", axes="elementwise")
def hardshrink(input, lambd=0.5) -> Array:
    return jnp.where((input >= -lambd) & (input <= lambd), 0, input)


@op("threshold", axes="elementwise")
def threshold(input, threshold, value, inplace=False) -> Array:
    return jnp.where(input > threshold, input, value)


@op("prelu", axes="separate", gradient="the weight at 0")
def prelu(input, weight) -> Array:
    if weight.size > 1:
        weight = weight.reshape(-1, *(1,) * (input.ndim - 2))  # of the channels, axis 1
    return jnp.where(input > 0, input, weight * input)


@op("glu", axes=along())
def glu(input, dim=-1) -> Array:
    a, b = jnp.split(input, 2, axis=dim)
    return a * jax.nn.sigmoid(b)


def _softmax_form(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`torch._softmax` has a flag where others have a type."""
    return name, tuple(each for each in args if not isinstance(each, bool)), kwargs


def _along_one(function: Any) -> Any:
    """torch guesses an axis that is not named from the number of axes, and warns."""

    def normalise(input, dim, _stacklevel=3, dtype=None) -> Array:
        if dim is None:
            raise NotImplementedError("dim=None; name the axis")
        return function(typed(input, dtype), axis=dim)

    return normalise


for _names, _function in {
    "softmax _softmax": jax.nn.softmax,
    "log_softmax _log_softmax": jax.nn.log_softmax,
    "softmin": lambda input, axis: jax.nn.softmax(-input, axis=axis),
}.items():
    op(*_names.split(), axes=along(), method="input dim dtype", builtin="input dim dtype", form=_softmax_form)(
        _along_one(_function)
    )

for _name, _function in (("sigmoid", jax.nn.sigmoid), ("tanh", jnp.tanh)):
    op(_name, axes="elementwise")(lambda input, function=_function: function(input))
