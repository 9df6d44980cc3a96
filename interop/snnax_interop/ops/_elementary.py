"""Functions of each element by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .registry import op


def _of_one(function: Callable[[Any], Array]) -> Callable[[Any], Array]:
    return lambda input: function(input)


def _sign(input) -> Array:
    """0 for NaN, as in torch."""
    return jnp.where(jnp.isnan(input), 0, jnp.sign(input))


def _without_gradient(function: Callable[[Any], Array]) -> Callable[[Any], Array]:
    return lambda input: jax.lax.stop_gradient(function(input))


for _names, _function in {
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "log10": jnp.log10,
    "sqrt": jnp.sqrt,
    "rsqrt": jax.lax.rsqrt,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "asin arcsin": jnp.arcsin,
    "acos arccos": jnp.arccos,
    "atan arctan": jnp.arctan,
    "asinh arcsinh": jnp.arcsinh,
    "acosh arccosh": jnp.arccosh,
    "atanh arctanh": jnp.arctanh,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
    "erfinv": jax.scipy.special.erfinv,
    "lgamma": jax.scipy.special.gammaln,
    "sinc": jnp.sinc,
    "deg2rad": jnp.deg2rad,
    "rad2deg": jnp.rad2deg,
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "isfinite": jnp.isfinite,
    "signbit": jnp.signbit,
    "logical_not": jnp.logical_not,
    "bitwise_not invert": jnp.bitwise_not,
    "neg negative": jnp.negative,
    "square": lambda input: input * input,
    "reciprocal": lambda input: 1 / input,
    "frac": lambda input: input - jax.lax.stop_gradient(jnp.trunc(input)),
}.items():
    op(*_names.split(), axes="elementwise")(_of_one(_function))

for _names, _function in {
    "sign sgn": _sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "trunc fix": jnp.trunc,
}.items():
    op(*_names.split(), axes="elementwise", gradient="none")(_without_gradient(_function))


@op("abs", "absolute", axes="elementwise", gradient="0 at 0, where JAX's is 1")
def absolute(input) -> Array:
    return _sign(jax.lax.stop_gradient(input)) * input


@op("clamp", "clip", axes="elementwise", gradient="1 at a bound, where JAX's is 1/2")
def clamp(input, min=None, max=None) -> Array:
    inside = jnp.ones(jnp.shape(input), bool)
    inside = inside if min is None else inside & (input >= min)
    inside = inside if max is None else inside & (input <= max)
    return jnp.where(inside, input, jnp.clip(jax.lax.stop_gradient(input), min, max))


@op("clamp_min", axes="elementwise", gradient="1 at the bound, where JAX's is 1/2")
def clamp_min(input, min) -> Array:
    return clamp(input, min=min)


@op("clamp_max", axes="elementwise", gradient="1 at the bound, where JAX's is 1/2")
def clamp_max(input, max) -> Array:
    return clamp(input, max=max)


@op("logit", axes="elementwise", gradient="that of clamp at the bounds")
def logit(input, eps=None) -> Array:
    inside = input if eps is None else clamp(input, eps, 1 - eps)
    return jnp.log(inside / (1 - inside))


@op("nan_to_num", axes="elementwise", gradient="0 where a number is put in")
def nan_to_num(input, nan=0.0, posinf=None, neginf=None) -> Array:
    limits = jnp.finfo(input.dtype)
    for unusual, value in (
        (jnp.isnan(input), 0.0 if nan is None else nan),
        (input == jnp.inf, limits.max if posinf is None else posinf),
        (input == -jnp.inf, limits.min if neginf is None else neginf),
    ):
        input = jnp.where(unusual, value, input)
    return input
