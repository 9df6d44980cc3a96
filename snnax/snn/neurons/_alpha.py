"""The neuron with a dual-exponential response."""

import math
from typing import Any, Literal, Unpack

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...domains import POSITIVE, check
from ...engine import AbstractLayer
from ..parts import (
    AbstractDecay,
    Firing,
    FiringOptions,
    Shape,
    as_decay,
    as_shape,
    check_input,
    check_parameters,
    factor_from_tau,
    fixed_delay,
    output_dtype,
    resolve_shape,
)


class AlphaState(eqx.Module):
    """Membrane potential `v`, rising (`i_exc`) and falling (`i_inh`) part of its response."""

    v: Float[Array, "..."]
    i_exc: Float[Array, "..."]
    i_inh: Float[Array, "..."]


class Alpha(AbstractLayer):
    r"""Neurons whose membrane answers a spike with a difference of two exponentials, normalised by $\tau$.

    $$ e_t = \alpha e_{t-1} + x_t, \quad h_t = \beta h_{t-1} - x_t, \quad v_t = \tau (e_t + h_t), \quad
       \tau = \frac{\ln \alpha}{\ln \beta - \ln \alpha} + 1, \quad z_t = H(v_t - \theta) $$

    The alpha function of Rall 1967 as snnTorch's `Alpha` discretises it, $\alpha > \beta$. The membrane does not depend
    on its own past, so a reset acts on the currents, one time step after the spike: `"zero"` sets all three to zero;
    `"subtract"` is what snnTorch 1.0 computes under that name: $e$ loses $\theta$, $h$ is set to zero and $v$ gains
    the old $h$.

    >>> neuron = Alpha(1, 0.9, 0.8)
    >>> state, _ = neuron(neuron.init_state(), jnp.array([1.0]))
    >>> float(state.v[0])  # the response begins at zero
    0.0
    """

    decay_exc: AbstractDecay
    decay_inh: AbstractDecay
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_exc: ArrayLike | AbstractDecay,
        decay_inh: ArrayLike | AbstractDecay,
        threshold: ArrayLike = 1.0,
        reset: Literal["zero", "subtract", "none"] = "zero",
        *,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        r"""**Arguments:** `decay_exc`: $\alpha$; `decay_inh`: $\beta$; scalar or per neuron. All others as in
        `snn.LIF`; `reset_delay` is always True.

        **Raises:** `ValueError` for decays given as numbers unless `0 < decay_inh < decay_exc`, or for an unknown
        option.
        """
        del key
        if isinstance(decay_exc, int | float) and isinstance(decay_inh, int | float):
            _check_decays(decay_exc, decay_inh)
        if reset not in ("zero", "subtract", "none"):
            raise ValueError(f"reset must be 'zero', 'subtract' or 'none', found {reset!r}")
        self.decay_exc, self.decay_inh = as_decay(decay_exc), as_decay(decay_inh)
        check("threshold", threshold, POSITIVE, "neurons at rest must not spike")
        self.firing = Firing(threshold, reset, **fixed_delay("Alpha", firing, True))
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(cls, shape: Shape, tau_exc: float, tau_inh: float, *, dt: float, **options: Any) -> "Alpha":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`.

        **Raises:** `ValueError` unless `0 < tau_inh < tau_exc`.
        """
        exc, inh = factor_from_tau(tau_exc, dt), factor_from_tau(tau_inh, dt)
        _check_decays(math.exp(-dt / tau_exc), math.exp(-dt / tau_inh))
        return cls(shape, exc, inh, **options)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> AlphaState:
        """All zero, for neurons of `shape`; in JAX's default float."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return AlphaState(*jnp.zeros((3, *shape), jnp.result_type(float)))

    def __call__(
        self, state: AlphaState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[AlphaState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        threshold = self.firing.threshold.astype(state.v.dtype)
        alpha, beta = (jnp.log(decay.factor.astype(state.v.dtype)) for decay in (self.decay_exc, self.decay_inh))
        i_exc = self.decay_exc.leak(state.i_exc) + drive
        i_inh = self.decay_inh.leak(state.i_inh) - drive
        v = (alpha / (beta - alpha) + 1) * (i_exc + i_inh)
        pending = self.firing.pending(state.v, threshold)
        if pending is not None and self.firing.reset == "zero":
            v, i_exc, i_inh = (1 - pending) * v, (1 - pending) * i_exc, (1 - pending) * i_inh
        elif pending is not None:
            v, i_exc, i_inh = v + state.i_inh * pending, i_exc - threshold * pending, (1 - pending) * i_inh
        v, i_exc, i_inh = map(self.firing.quantised, (v, i_exc, i_inh))
        return AlphaState(v, i_exc, i_inh), self.firing.output(self.firing.decide(v, threshold), output_dtype(x))


def _check_decays(decay_exc: float, decay_inh: float) -> None:
    # Equal decays have no dual exponential between them, only its limit: tau is infinite.
    if not 0 < decay_inh < decay_exc:
        raise ValueError(f"Alpha needs 0 < decay_inh < decay_exc, found decay_inh={decay_inh}, decay_exc={decay_exc}")
