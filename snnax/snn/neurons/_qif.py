"""The neuron with a quadratic spike initiation."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ..parts import (
    AbstractDecay,
    Adaptation,
    DecayConstants,
    Firing,
    FiringOptions,
    Integration,
    Reset,
    Shape,
    SynapseOrder,
    as_shape,
    decays_from_tau,
    parameter,
    rate_from_tau,
)
from ._neuron import AbstractNeuron


class QIF(AbstractNeuron):
    r"""Quadratic integrate-and-fire neurons, with or without an exponential synapse and an adaptation current.

    $$ v_t = v_{t-1} + (1 - \beta) \left(g (v_{t-1} - v_\text{rest})(v_{t-1} - v_c) + i_t - a_{t-1}\right) $$

    Ermentrout & Kopell 1986 (doi:10.1137/0146017); Latham et al. 2000 (doi:10.1152/jn.2000.83.2.808). Dimensionless,
    with the names and defaults of SpikingJelly's `QIFNode` (there $g$ = `a0`), which spikes at threshold; above the
    critical potential $v_c$ a membrane runs to a spike by itself. With `decay_adapt` the neuron adapts,
    $a_t = \rho a_{t-1} + (1 - \rho) c (v_t - v_\text{rest}) + b z_t$, which is SpikingJelly's `IzhikevichNode`: not the
    Izhikevich model in mV, see `snn.Izhikevich`.

    >>> import jax.numpy as jnp
    >>> from snnax import snn
    >>> neuron = QIF(2, snn.Rate(0.5))
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([0.1, 3.0]))
    >>> spikes.tolist()
    [0.0, 1.0]
    """

    integration: Integration
    v_rest: Array
    v_critical: Array
    gain: Array
    adaptation: Adaptation | None
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = -0.1,
        *,
        v_rest: ArrayLike = 0.0,
        v_critical: ArrayLike = 0.8,
        gain: ArrayLike = 1.0,
        decay_adapt: ArrayLike | AbstractDecay | None = None,
        coupling: ArrayLike = 0.0,
        jump: ArrayLike = 0.0,
        synapse_order: SynapseOrder = "decay-jump-read",
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:** `v_rest`, `v_critical`: the roots of the parabola; `gain`: its curvature; `decay_adapt`,
        `coupling`, `jump`: of the adaptation current, none by default; scalar or per neuron. All others as in
        `snn.LIF`.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        self.integration = Integration(decay_constants, synapse_order=synapse_order, input_scale="one_minus_decay")
        self.v_rest, self.v_critical = parameter("v_rest", v_rest), parameter("v_critical", v_critical)
        self.gain = parameter("gain", gain)
        self.adaptation = None
        if decay_adapt is not None:
            self.adaptation = Adaptation(decay_adapt, coupling=coupling, jump=jump, acts_on="current", reads="after")
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any
    ) -> "QIF":
        """Neurons from time constants in seconds, with the rate `dt / tau_mem` of an Euler step."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt, rate_from_tau), **options)

    @property
    def membrane_factor(self) -> None:
        return None

    def charge(self, v, drive):
        rest, critical, gain = (each.astype(v.dtype) for each in (self.v_rest, self.v_critical, self.gain))
        return self.decay_mem.advance(v, drive + gain * (v - rest) * (v - critical))
