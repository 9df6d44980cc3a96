"""How a membrane or a synapse forgets in one time step.

Frameworks store either the factor that is kept (`beta` of snnTorch) or the rate that is lost (`dt / tau` of Norse and
SpikingJelly). Both are kept as they were given: `1 - (1 - rate)` is another number than `rate` in floating point.
"""

import abc
import math
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ...domains import FRACTION, KEPT, NUMBER, Domain, check


Constraint = Literal["straight_through", "clip", "none"]


_INSIDE = Domain("between 0 and 1, both excluded", math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0))
_USE_TAU = (
    "for a time constant use `from_tau` of the layer (`snn.LIF.from_tau(shape, tau_mem, dt=dt)`), "
    "for a rate `snn.Rate`, and `snn.Factor(0.0)` to keep nothing"
)


class AbstractDecay(eqx.Module):
    """Exponential forgetting, seen as a factor `d` per time step."""

    @property
    @abc.abstractmethod
    def factor(self) -> Array:
        """What is kept per time step, `d`."""

    def leak(self, s: Array) -> Array:
        """`d * s`."""
        return self.factor.astype(s.dtype) * s

    def relax(self, s: Array, x: Array, rest: Array | float = 0.0) -> Array:
        """`d * s + (1 - d) * (rest + x)`: one step towards the input above rest."""
        factor = self.factor.astype(s.dtype)
        return factor * s + (1 - factor) * (rest + x)

    def advance(self, s: Array, slope: Array) -> Array:
        """`s + (1 - d) * slope`: one Euler step of `tau ds/dt = slope`, with `1 - d = dt / tau`."""
        return s + (1 - self.factor.astype(s.dtype)) * slope


class Factor(AbstractDecay):
    """A decay stored as the factor `d` that is kept per time step; scalar or per neuron.

    The value is limited to [0, 1] in the forward pass, so that learning does not leave it. `constraint` says what that
    does to its gradient: `"straight_through"` passes it, so that a decay beyond a bound can learn its way back;
    `"clip"` passes it only within [0, 1], bounds included, as `torch.clamp` does (`jnp.clip` halves it at a bound);
    `"none"` does not limit.
    """

    value: Array
    constraint: Constraint = eqx.field(static=True)

    def __init__(self, value: ArrayLike, *, constraint: Constraint = "straight_through"):
        """**Raises:** `ValueError` for a value outside of [0, 1], unless `constraint="none"`; 0 keeps nothing."""
        _check_constraint(constraint)
        if constraint != "none":
            check("a decay factor", value, FRACTION, _USE_TAU)
        self.value = floating(value)
        self.constraint = constraint

    @property
    def factor(self) -> Array:
        return _limited(self.value, self.constraint)


def _check_constraint(constraint: str) -> None:
    if constraint not in get_args(Constraint):
        raise ValueError(f"constraint must be 'straight_through', 'clip' or 'none', found {constraint!r}")


def _limited(value: Array, constraint: Constraint) -> Array:
    """A value within [0, 1]."""
    if constraint == "none":
        return value
    inside = (value >= 0) & (value <= 1)
    limited = jax.lax.stop_gradient(jnp.clip(value, 0, 1))
    if constraint == "straight_through":
        # Zero in value; carries the gradient.
        limited = limited + (value - jax.lax.stop_gradient(value))
    return jnp.where(inside, value, limited)


class _AbstractRate(AbstractDecay):
    """A decay by the rate `r = 1 - d` that is lost per time step."""

    rate: eqx.AbstractVar[Array]

    @property
    def factor(self) -> Array:
        return 1 - self.rate

    def leak(self, s):
        return s - self.rate.astype(s.dtype) * s

    def relax(self, s, x, rest=0.0):
        return s + self.rate.astype(s.dtype) * ((rest - s) + x)

    def advance(self, s, slope):
        return s + self.rate.astype(s.dtype) * slope


class Rate(_AbstractRate):
    """A decay stored as the rate `1 - d` that is lost per time step, `dt / tau` of an Euler step.

    Limited to [0, 1] as `snn.Factor`, with the same `constraint`; `"none"` is what Norse and SpikingJelly compute.
    """

    value: Array
    constraint: Constraint = eqx.field(static=True)

    def __init__(self, value: ArrayLike, *, constraint: Constraint = "straight_through"):
        """**Raises:** `ValueError` for a value outside of [0, 1], unless `constraint="none"`."""
        _check_constraint(constraint)
        if constraint != "none":
            check("a decay rate", value, FRACTION, "a rate is dt / tau with tau of at least one time step")
        self.value = floating(value)
        self.constraint = constraint

    @property
    def rate(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _limited(self.value, self.constraint)


class SigmoidRate(_AbstractRate):
    """A decay whose rate is `sigmoid(value)` of any number: always within (0, 1), so that learning it needs no bounds.

    The parametrisation of PLIF (Fang et al. 2021, doi:10.1109/ICCV48922.2021.00266).

    >>> print(SigmoidRate.from_rate(0.25).factor)
    0.75
    """

    value: Array

    def __init__(self, value: ArrayLike):
        """**Raises:** `ValueError` for NaN."""
        check("the logit of a rate", value, NUMBER)
        self.value = floating(value)

    @classmethod
    def from_rate(cls, rate: ArrayLike) -> "SigmoidRate":
        """The decay of a given rate.

        **Raises:** `ValueError` for a rate that does not lie within (0, 1).
        """
        check("a rate", rate, _INSIDE)
        return cls(jax.scipy.special.logit(floating(rate)))

    @property
    def rate(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        return jax.nn.sigmoid(self.value)


class Lossless(AbstractDecay):
    """No decay: all is kept."""

    @property
    def factor(self) -> Array:
        return jnp.ones(())

    def leak(self, s):
        return s


def floating(value: ArrayLike) -> Array:
    """A parameter as a floating point array; Python and integer values take JAX's default float."""
    value = jnp.asarray(value)
    dtype = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else jnp.result_type(float)
    # Not weakly typed, as Python values would be: an optimiser's step ends that, and the next call compiles again.
    return value.astype(dtype)


def parameter(name: str, value: ArrayLike, domain: Domain = NUMBER, advice: str = "") -> Array:
    """A parameter of any shape within its domain.

    **Raises:** `ValueError` for one that is outside, with its name and what it may be.
    """
    check(name, value, domain, advice)
    return floating(value)


def optional(name: str, value: ArrayLike | None, domain: Domain = NUMBER) -> Array | None:
    """A parameter that may be left out."""
    return None if value is None else parameter(name, value, domain)


def as_decay(value: "AbstractDecay | ArrayLike", domain: Domain = KEPT) -> AbstractDecay:
    """A decay from what constructors take: a factor, or a decay itself.

    **Raises:** `ValueError` for a factor outside of `domain`, (0, 1]: a time constant, most of the time, or a rate.
    """
    if isinstance(value, AbstractDecay):
        return value
    check("a decay factor", value, domain, _USE_TAU)
    return Factor(value)


def factor_from_tau(tau: float, dt: float) -> Factor:
    """`exp(-dt / tau)` of a time constant and a time step in seconds: exact for an exponential decay.

    **Raises:** `ValueError` unless both are positive.
    """
    check_times(tau, dt)
    return Factor(math.exp(-dt / tau))


def rate_from_tau(tau: float, dt: float) -> Rate:
    """`dt / tau` of a time constant and a time step in seconds: an Euler step, for what does not decay exponentially.

    **Raises:** `ValueError` unless both are positive and `tau` is at least `dt`: a longer Euler step overshoots.
    """
    check_times(tau, dt)
    if dt > tau:
        raise ValueError(f"a time constant is at least one time step, found tau={tau}, dt={dt}")
    return Rate(dt / tau)


def check_times(tau: float, dt: float) -> None:
    if not (tau > 0 and dt > 0):
        raise ValueError(f"tau and dt must be positive times in seconds, found tau={tau}, dt={dt}")
