"""The surrogates of `spikingjelly.activation_based.surrogate`: of neurons, and called by themselves.

All of them spike at the threshold itself. Their derivatives are those of `backward`, which for some is not that of the
smooth function that they compute with `spiking=False`.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from spikingjelly.activation_based import surrogate as theirs

from snnax import snn, surrogate

from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ...converters.layer import LayerConverter


class PiecewiseExp(surrogate.AbstractSurrogate):
    """Derivative `alpha/2 exp(-alpha |x|)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x < 0, jnp.exp(self.alpha * x), 2 - jnp.exp(-self.alpha * x)) / 2


class SoftSign(surrogate.AbstractSurrogate):
    """Derivative `alpha / (2 (1 + alpha |x|)^2)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        scale = lambda x: 1 + self.alpha * jnp.abs(x)  # noqa: E731
        value, derivative = lambda x: self.alpha * x / (2 * scale(x)), lambda x: self.alpha / 2 / scale(x) ** 2
        return surrogate.with_derivative(value, derivative)(x)


class SuperSpike(surrogate.AbstractSurrogate):
    """Derivative `alpha / (1 + |x|)^2`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        scale = lambda x: 1 + jnp.abs(x)  # noqa: E731
        return surrogate.with_derivative(lambda x: self.alpha * x / scale(x), lambda x: self.alpha / scale(x) ** 2)(x)


class Erf(surrogate.AbstractSurrogate):
    """Derivative `alpha / sqrt(pi) exp(-(alpha x)^2)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jax.lax.erf(self.alpha * x) / 2


class Rect(surrogate.AbstractSurrogate):
    """Derivative `alpha` where `|x| < 1 / (2 alpha)`, else 0."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(jnp.abs(x) < 0.5 / self.alpha, self.alpha * x, 0 * x)


class LeakyKReLU(surrogate.AbstractSurrogate):
    """Derivative `k` at and above the threshold, `leak` below it."""

    leak: float = eqx.field(static=True)
    k: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x >= 0, self.k * x, self.leak * x)


class PiecewiseLeakyReLU(surrogate.AbstractSurrogate):
    """Derivative `1 / (2 w)` where `|x| < w`, else `c`."""

    w: float = eqx.field(static=True)
    c: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(jnp.abs(x) < self.w, x / (2 * self.w), self.c * x)


class NonzeroSignLogAbs(surrogate.AbstractSurrogate):
    """Derivative `1 / (1 / alpha + |x|)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x < 0, -jnp.log(1 - self.alpha * x), jnp.log(1 + self.alpha * x))


class QPseudoSpike(surrogate.AbstractSurrogate):
    """Derivative `(1 + 2 / (alpha - 1) |x|)^-alpha`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        steep = 2 / (self.alpha - 1)
        falling, rising = (1 + steep * x) ** (1 - self.alpha), (1 - steep * x) ** (1 - self.alpha)
        return jnp.where(x < 0, rising, 2 - falling) / 2


class S2NN(surrogate.AbstractSurrogate):
    """Derivative `alpha s (1 - s)` with `s = sigmoid(alpha x)` below the threshold, `beta / (x + 1)` from there on."""

    alpha: float = eqx.field(static=True)
    beta: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x < 0, jax.nn.sigmoid(self.alpha * x), self.beta * jnp.log(x + 1))


class SquarewaveFourierSeries(surrogate.AbstractSurrogate):
    """Derivative `4 / T_period` times the sum of `cos(2 pi (2 i - 1) x / T_period)` over `i` from 1 to `n - 1`."""

    n: int = eqx.field(static=True)
    T_period: float = eqx.field(static=True)

    def relaxation(self, x):
        waves = [(2 * i - 1) * 2 * math.pi / self.T_period for i in range(1, self.n)]
        return 4 / self.T_period * sum((jnp.sin(wave * x) / wave for wave in waves), jnp.zeros_like(x))


class LogTailedReLU(surrogate.AbstractSurrogate):
    """Derivative `alpha` up to the threshold, 1 from there to 1, `1 / x` above."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x > 1, jnp.log(x), jnp.where(x > 0, x, self.alpha * x))


class FakeNumericalGradient(surrogate.AbstractSurrogate):
    """Derivative `min(1 / |x|, alpha)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        beyond = jnp.where(x < 0, -jnp.log(-x), jnp.log(x))
        return jnp.where(self.alpha * jnp.abs(x) < 1, self.alpha * x, beyond)


class SpikeCount(eqx.Module):
    """`MultiLevelSpikeCount`: the nearest whole number of spikes, with derivative 1 from `grad_min` to `grad_max`."""

    max_spike_count: int = eqx.field(static=True)
    grad_min: float = eqx.field(static=True)
    grad_max: float = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        count = jnp.round(jnp.clip(x, 0, self.max_spike_count))
        inside = ((x >= self.grad_min) & (x <= self.grad_max)).astype(x.dtype)
        # Zero in value; carries the gradient.
        return jax.lax.stop_gradient(count) + jax.lax.stop_gradient(inside) * (x - jax.lax.stop_gradient(x))


class Spike(snn.AbstractFunction):
    """A surrogate that is called by itself: spikes at and above zero."""

    surrogate: surrogate.AbstractSurrogate

    def __call__(self, x: Array) -> Array:
        return self.surrogate(x, at_threshold=True)


class Count(snn.AbstractFunction):
    """`MultiLevelSpikeCount` that is called by itself."""

    count: SpikeCount

    def __call__(self, x: Array) -> Array:
        return self.count(x)


# How each surrogate is written here, from its arguments; those that draw random numbers are missing.
_SURROGATES: dict[type, Callable[..., surrogate.AbstractSurrogate]] = {
    theirs.Sigmoid: lambda alpha: surrogate.Sigmoid(alpha),
    theirs.ATan: lambda alpha: surrogate.ATan(alpha),
    theirs.PiecewiseQuadratic: lambda alpha: surrogate.Triangular(1 / alpha, alpha),
    theirs.PiecewiseExp: PiecewiseExp,
    theirs.SoftSign: SoftSign,
    theirs.SuperSpike: SuperSpike,
    theirs.Erf: Erf,
    theirs.Rect: Rect,
    theirs.LeakyKReLU: LeakyKReLU,
    theirs.PiecewiseLeakyReLU: PiecewiseLeakyReLU,
    theirs.NonzeroSignLogAbs: NonzeroSignLogAbs,
    theirs.QPseudoSpike: QPseudoSpike,
    theirs.S2NN: S2NN,
    theirs.SquarewaveFourierSeries: SquarewaveFourierSeries,
    theirs.LogTailedReLU: LogTailedReLU,
    theirs.FakeNumericalGradient: FakeNumericalGradient,
    theirs.DeterministicPass: surrogate.StraightThrough,
}
_ARGUMENTS: dict[type, tuple[str, ...]] = {
    theirs.LeakyKReLU: ("leak", "k"),
    theirs.PiecewiseLeakyReLU: ("w", "c"),
    theirs.S2NN: ("alpha", "beta"),
    theirs.SquarewaveFourierSeries: ("n", "T_period"),
    theirs.DeterministicPass: (),
}


def surrogate_of(module: Any, context: ConversionContext) -> surrogate.AbstractSurrogate:
    """The surrogate of a neuron, as the user named it or by its class.

    **Raises:** `UnsupportedOptionError` for another class, a learnable argument, or `spiking=False`.
    """
    function = module.surrogate_function
    for each, named in context.surrogates.items():
        if each is function:
            return named
    return _surrogate(function, context, "surrogate_function")


def spike_count_of(module: Any, context: ConversionContext) -> SpikeCount:
    """The function that counts the spikes of one time step."""
    function = module.surrogate_function
    if type(function) is not theirs.MultiLevelSpikeCount:
        raise context.refuse(
            "surrogate_function", function, allowed="MultiLevelSpikeCount", advice="Use the class itself"
        )
    return _count(function, context)


def _count(function: Any, context: ConversionContext) -> SpikeCount:
    _check_spiking(function, context)
    return SpikeCount(function.max_spike_count, float(function.grad_min), float(function.grad_max))


def _surrogate(function: Any, context: ConversionContext, option: str) -> surrogate.AbstractSurrogate:
    kind = type(function)
    if kind not in _SURROGATES:
        known = ", ".join(each.__name__ for each in _SURROGATES)
        raise context.refuse(
            option, function, allowed=f"surrogate.{known}",
            advice="Its gradient cannot be read from the function; choose one of these, or name what it computes: "
            "from_torch(..., surrogates={function: snnax.surrogate.ATan()})",
        )  # fmt: skip
    _check_spiking(function, context)
    values = {name: getattr(function, name) for name in _ARGUMENTS.get(kind, ("alpha",))}
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise context.refuse(
                f"{option}.{name}", value, allowed="a number",
                advice="A surrogate that is learned has no counterpart; set the number",
            )  # fmt: skip
    return _SURROGATES[kind](**{name: value if name == "n" else float(value) for name, value in values.items()})


def _check_spiking(function: Any, context: ConversionContext) -> None:
    if not getattr(function, "spiking", True):
        raise context.refuse(
            "spiking", False, allowed="True",
            advice="A neuron that gives out its surrogate does not spike; write the smooth function in forward",
        )  # fmt: skip


def _build_spike(module: Any, context: ConversionContext) -> Spike:
    return Spike(_surrogate(module, context, "surrogate"))


def _build_count(module: Any, context: ConversionContext) -> Count:
    return Count(_count(module, context))


def _surrogate_converter(kind: type, build: Callable[[Any, ConversionContext], Any], *options: str) -> LayerConverter:
    return LayerConverter(kind=kind, framework="spikingjelly", options=options, build=build, acts_on="elements")


CONVERTERS = by_class(
    *(
        _surrogate_converter(
            kind,
            _build_spike,
            *_ARGUMENTS.get(kind, ("alpha",)),
            *(() if kind is theirs.FakeNumericalGradient else ("spiking",)),
        )
        for kind in _SURROGATES
    ),
    _surrogate_converter(theirs.MultiLevelSpikeCount, _build_count, "max_spike_count", "spiking", "grad_window"),
)
