"""The leaky integrate-and-fire neuron with an adaptation current."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ..parts import (
    AbstractDecay,
    Adaptation,
    DecayConstants,
    Firing,
    FiringOptions,
    InputScale,
    Reset,
    Shape,
    SynapseOrder,
    as_shape,
    check_order,
    check_scale,
    decays_from_tau,
    factor_from_tau,
    optional,
    split_decays,
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

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay | None
    v_leak: Array | None
    adaptation: Adaptation
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)
    synapse_order: SynapseOrder = eqx.field(static=True)
    input_scale: InputScale = eqx.field(static=True)

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
        v_leak: ArrayLike | None = None,
        synapse_order: SynapseOrder = "decay-jump-read",
        input_scale: InputScale = "unit",
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:** `decay_adapt`, `coupling`, `jump`: of the adaptation current, scalar or per neuron; all others
        as in `snn.LIF`.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        self.decay_mem, self.decay_syn = split_decays(decay_constants)
        check_order(synapse_order)
        check_scale(input_scale)
        self.adaptation = Adaptation(decay_adapt, coupling=coupling, jump=jump, acts_on="current")
        self.v_leak = optional(v_leak)
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

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
