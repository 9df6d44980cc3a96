"""The leaky integrate-and-fire neuron with an adaptation current."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import ArrayLike

from ..parts import (
    AbstractDecay,
    Adaptation,
    DecayConstants,
    Firing,
    Integration,
    LeakyOptions,
    Reset,
    Shape,
    as_shape,
    decays_from_tau,
    factor_from_tau,
    split_options,
)
from ._leaky import AbstractLeaky


class AdaptiveLIF(AbstractLeaky):
    r"""LIF neurons with an adaptation current.

    $$ v_t = \beta v_{t-1} + (i_t - a_{t-1}), \quad
       a_t = \rho a_{t-1} + (1 - \rho) c (v_{t-1} - v_\text{leak}) + b z_t $$

    The drive $i_t - a_{t-1}$ is scaled as `input_scale` says. After Gerstner et al. 2014, Neuronal Dynamics, ch. 6
    (doi:10.1017/CBO9781107447615); $a$ works against the input for $b, c > 0$. The `AdaptiveLIF` of the original snnax
    adds its current with the other sign. Where the *threshold* adapts, see `snn.ALIF`.

    >>> import jax.numpy as jnp
    >>> neuron = AdaptiveLIF(1, 0.9, 0.99, jump=0.5)
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([1.5]))
    >>> neuron(state, jnp.array([1.0]))[1].tolist()  # 0.9 * 0.5 + 1.0 - 0.5 stays below threshold
    [0.0]
    """

    integration: Integration
    adaptation: Adaptation
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        decay_adapt: ArrayLike | AbstractDecay,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        coupling: ArrayLike = 0.0,
        jump: ArrayLike = 0.1,
        key: Any = None,
        **options: Unpack[LeakyOptions],
    ):
        """**Arguments:** `decay_adapt`, `coupling`, `jump`: of the adaptation current, scalar or per neuron; all others
        as in `snn.LIF`.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        integration, firing = split_options(options)
        self.integration = Integration(decay_constants, **integration)
        self.adaptation = Adaptation(decay_adapt, coupling=coupling, jump=jump, acts_on="current")
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls,
        shape: Shape,
        tau_mem: float,
        tau_adapt: float,
        tau_syn: float | None = None,
        *,
        dt: float,
        **options: Any,
    ) -> "AdaptiveLIF":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), factor_from_tau(tau_adapt, dt), **options)
