"""The spike function and the relaxations that stand in for it in the backward pass.

A surrogate is written down once, as a smooth function of the distance to threshold; its derivative comes from autodiff.
The slope is evaluated in the forward pass, so reverse mode keeps one array per spike call and not the intermediates
of the relaxation.
"""

import abc
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..domains import POSITIVE, check


class AbstractSurrogate(eqx.Module):
    """A spike function: exactly 0 or 1 forward, the derivative of `relaxation` backward.

    A new surrogate is a subclass with one method:

    >>> class Cubic(AbstractSurrogate):
    ...     def relaxation(self, x):
    ...         return x**3
    >>> float(jax.grad(Cubic())(jnp.float32(2.0)))
    12.0

    Fields may be arrays, to anneal a slope without compiling again; their gradient is zero, as spikes do not depend on
    them.
    """

    @abc.abstractmethod
    def relaxation(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The smooth function, elementwise, whose derivative is the surrogate gradient."""

    def __call__(self, x: Float[Array, "..."], *, at_threshold: bool = False) -> Float[Array, "..."]:
        """Spikes of a membrane at distance `x` above threshold.

        **Arguments:** `x`: membrane potential minus threshold, any shape. `at_threshold`: whether `x == 0` spikes
        (`>=`, as in SpikingJelly) or not (`>`, as in snnTorch and Norse).

        **Returns:** 0 or 1, in the shape and dtype of `x`. NaN gives 0.
        """
        return _spike(self, at_threshold, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _spike(surrogate, at_threshold, x):
    return (x >= 0 if at_threshold else x > 0).astype(x.dtype)


@_spike.defjvp
def _spike_jvp(at_threshold, primals, tangents):
    (surrogate, x), (_, dx) = primals, tangents
    _, slope = jax.jvp(surrogate.relaxation, (x,), (jnp.ones_like(x),))
    return _spike(surrogate, at_threshold, x), slope * dx


def with_derivative(function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Callable:
    """An elementwise function with its derivative as a formula, where autodiff would round badly.

    The quotient rule subtracts two terms that are nearly equal far from threshold: slopes below zero, and NaN.
    """
    found = jax.custom_jvp(function)
    found.defjvps(lambda dx, _, x: derivative(x) * dx)
    return found


def _fast_sigmoid(x, slope):
    scale = lambda x: 1 + slope * jnp.abs(x)  # noqa: E731
    return with_derivative(lambda x: x / scale(x), lambda x: 1 / scale(x) ** 2)(x)


class SuperSpike(AbstractSurrogate):
    """Derivative `1 / (1 + slope |x|)^2` (Zenke & Ganguli 2018, doi:10.1162/neco_a_01086).

    **Raises:** `ValueError` for a slope that is not positive, as all of them do for what says how steep or wide they
    are.
    """

    slope: float = eqx.field(static=True, default=10.0)

    def __check_init__(self):
        check("slope", self.slope, POSITIVE)

    def relaxation(self, x):
        return _fast_sigmoid(x, self.slope)


class FastSigmoid(AbstractSurrogate):
    """Derivative `1 / (1 + slope |x|)^2`: `SuperSpike` under snnTorch's name and with its default slope of 25."""

    slope: float = eqx.field(static=True, default=25.0)

    def __check_init__(self):
        check("slope", self.slope, POSITIVE)

    def relaxation(self, x):
        return _fast_sigmoid(x, self.slope)


class ATan(AbstractSurrogate):
    """Derivative `alpha/2 / (1 + (pi/2 alpha x)^2)` (Fang et al. 2021, arXiv:2007.05785), default of snnTorch."""

    alpha: float = eqx.field(static=True, default=2.0)

    def __check_init__(self):
        check("alpha", self.alpha, POSITIVE)

    def relaxation(self, x):
        return jnp.arctan((jnp.pi / 2 * self.alpha) * x) / jnp.pi


class Sigmoid(AbstractSurrogate):
    """Derivative `slope s (1 - s)` with `s = sigmoid(slope x)`.

    snnTorch's float32 formula overflows to NaN for `x` below about -88 / slope; this one stays finite.
    """

    slope: float = eqx.field(static=True, default=25.0)

    def __check_init__(self):
        check("slope", self.slope, POSITIVE)

    def relaxation(self, x):
        return jax.nn.sigmoid(self.slope * x)


class Triangular(AbstractSurrogate):
    """Derivative `height max(0, 1 - |x| / width)` (Esser et al. 2016, doi:10.1073/pnas.1604850113)."""

    width: float = eqx.field(static=True, default=1.0)
    height: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        check("width", self.width, POSITIVE)
        check("height", self.height, POSITIVE)

    def relaxation(self, x):
        inside = jnp.clip(x, -self.width, self.width)
        return self.height * (inside - inside * jnp.abs(inside) / (2 * self.width))


class StraightThrough(AbstractSurrogate):
    """Derivative 1 everywhere (Bengio et al. 2013, arXiv:1308.3432)."""

    def relaxation(self, x):
        return x


class NoGradient(AbstractSurrogate):
    """Derivative 0 everywhere: the true derivative of the spike function, for inference or gradient-free training."""

    def relaxation(self, x):
        return jnp.zeros_like(x)


class Relaxed(AbstractSurrogate):
    """The derivative of any smooth elementwise function that is given.

    >>> float(jax.grad(Relaxed(jnp.tanh))(jnp.float32(0.0)))
    1.0
    """

    function: Callable = eqx.field(static=True)

    def relaxation(self, x):
        return self.function(x)


class Derivative(AbstractSurrogate):
    """The derivative itself, as any elementwise function that is given.

    >>> float(jax.grad(Derivative(lambda x: jnp.exp(-jnp.abs(x))))(jnp.float32(0.0)))
    1.0
    """

    function: Callable = eqx.field(static=True)

    def relaxation(self, x):
        # Only its derivative is ever looked at.
        return with_derivative(lambda x: jnp.zeros_like(x), self.function)(x)
