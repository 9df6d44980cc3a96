"""Surrogate gradients of `snntorch.surrogate`, recognised by the factory that made them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import snntorch

from snnax import surrogate

from ...converters.context import ConversionContext
from ...trace.autograd_functions import recorded_surrogate


class Heaviside(surrogate.AbstractSurrogate):
    """`surrogate.heaviside`: derivative 1 above threshold, else 0."""

    def relaxation(self, x):
        return jnp.where(x > 0, x, 0)


class Tent(surrogate.AbstractSurrogate):
    """`surrogate.triangular`: derivative `threshold` below threshold and `-threshold` at and above it."""

    threshold: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x < 0, self.threshold * x, -self.threshold * x)


class SpikeRateEscape(surrogate.AbstractSurrogate):
    """`surrogate.spike_rate_escape`: derivative `slope exp(-beta |x - 1|)`."""

    beta: float = eqx.field(static=True)
    slope: float = eqx.field(static=True)

    def relaxation(self, x):
        rising = jnp.exp(self.beta * (x - 1))
        falling = 2 - jnp.exp(-self.beta * (x - 1))
        return self.slope / self.beta * jnp.where(x < 1, rising, falling)


class SparseFastSigmoid(surrogate.AbstractSurrogate):
    """`surrogate.SFS`: derivative `1 / (1 + slope |x|)^2` above `B`, else 0."""

    slope: float = eqx.field(static=True)
    B: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x > self.B, surrogate.FastSigmoid(self.slope).relaxation(x), 0)


# How each factory of snntorch.surrogate is written here; the arguments are those of its closure.
_SURROGATES: dict[str, Callable[..., surrogate.AbstractSurrogate]] = {
    "atan": surrogate.ATan,
    "fast_sigmoid": surrogate.FastSigmoid,
    "sigmoid": surrogate.Sigmoid,
    "straight_through_estimator": surrogate.StraightThrough,
    "heaviside": Heaviside,
    "triangular": Tent,
    "spike_rate_escape": SpikeRateEscape,
    "SFS": SparseFastSigmoid,
}


def surrogate_of(module: Any, context: ConversionContext) -> surrogate.AbstractSurrogate:
    """The surrogate that a neuron's `spike_grad` computes: as the user named it, or by the factory that made it."""
    if module.surrogate_disable:
        return surrogate.NoGradient()
    function = module.spike_grad
    for each, named in context.surrogates.items():
        if each is function:
            return named
    if getattr(function, "__self__", None) is snntorch.LeakyParallel.ATan:
        return surrogate.ATan(2.0)
    name = getattr(function, "__qualname__", type(function).__name__).split(".")[0]
    if getattr(function, "__module__", None) == "snntorch.surrogate" and name in _SURROGATES:
        values = [float(cell.cell_contents) for cell in function.__closure__ or ()]
        return _SURROGATES[name](**dict(zip(function.__code__.co_freevars, values, strict=True)))
    recorded = recorded_surrogate(function)
    if recorded is not None:
        return recorded
    raise context.refuse(
        "spike_grad",
        function,
        allowed=", ".join(f"snntorch.surrogate.{each}()" for each in _SURROGATES),
        advice="Its gradient cannot be read from the function; choose one of these, or name what it computes: "
        "from_torch(..., surrogates={function: snnax.surrogate.ATan()})",
    )
