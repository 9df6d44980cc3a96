"""Activation functions, with torch's gradients where they have none."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def _with_gradient_of(function: Array, value: Array) -> Array:
    return function + jax.lax.stop_gradient(value - function)


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


def relu6(input, inplace=False) -> Array:
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input, inplace=False) -> Array:
    inside = hardtanh(input, -3.0, 3.0)
    return _with_gradient_of(inside * float(np.float32(1 / 6)), inside / 6 + 0.5)  # torch's slope is a float32


def hardswish(input, inplace=False) -> Array:
    return jnp.where(input <= -3, 0, jnp.where(input < 3, input * (input + 3) / 6, input))


def mish(input, inplace=False) -> Array:
    return input * jnp.tanh(jax.nn.softplus(input))


def selu(input, inplace=False) -> Array:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return scale * elu(input, alpha)


def celu(input, alpha=1.0, inplace=False) -> Array:
    negative = jnp.where(input > 0, 0, input)
    rounded = alpha * jnp.expm1(negative / float(np.float32(alpha)))  # as torch has it in the gradient
    return jnp.where(input > 0, input, _with_gradient_of(rounded, alpha * jnp.expm1(negative / alpha)))


def log_sigmoid(input) -> Array:
    return -jnp.logaddexp(-input, 0)


def softsign(input) -> Array:
    return input / (1 + jnp.sign(jax.lax.stop_gradient(input)) * input)


def tanhshrink(input) -> Array:
    return input - jnp.tanh(input)


def softshrink(input, lambd=0.5) -> Array:
    return jnp.where(input > lambd, input - lambd, jnp.where(input < -lambd, input + lambd, 0))


def hardshrink(input, lambd=0.5) -> Array:
    return jnp.where((input >= -lambd) & (input <= lambd), 0, input)


def threshold(input, threshold, value, inplace=False) -> Array:
    return jnp.where(input > threshold, input, value)


def prelu(input, weight) -> Array:
    if weight.size > 1:
        weight = weight.reshape(-1, *(1,) * (input.ndim - 2))  # of the channels, axis 1
    return jnp.where(input > 0, input, weight * input)


def glu(input, dim=-1) -> Array:
    a, b = jnp.split(input, 2, axis=dim)
    return a * jax.nn.sigmoid(b)


def softmin(input, dim, _stacklevel=3, dtype=None) -> Array:
    return jax.nn.softmax(-input, axis=dim)
