"""Neurons with an exponential spike initiation, without and with an adaptation current."""

from typing import Any, Unpack

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ...domains import POSITIVE
from ..parts import (
    AbstractDecay,
    Adaptation,
    DecayConstants,
    EulerOptions,
    Firing,
    Integration,
    Reset,
    Shape,
    as_shape,
    decays_from_tau,
    optional,
    parameter,
    rate_from_tau,
    split_options,
)
from ._neuron import AbstractNeuron


class _AbstractExponential(AbstractNeuron):
    delta_T: eqx.AbstractVar[Array]
    theta_rh: eqx.AbstractVar[Array | None]

    @property
    def v_rest(self) -> Array | float:
        return self.integration.v_rest

    @property
    def membrane_factor(self) -> None:
        return None

    def charge(self, v, drive):
        assert self.firing is not None
        delta = self.delta_T.astype(v.dtype)
        theta = (self.firing.threshold if self.theta_rh is None else self.theta_rh).astype(v.dtype)
        return self.integration.charge(v, delta * jnp.exp((v - theta) / delta) + drive)


class EIF(_AbstractExponential):
    r"""Exponential integrate-and-fire neurons, with or without an exponential synapse.

    $$ v_t = v_{t-1} + (1 - \beta) \left(v_\text{leak} - v_{t-1}
       + \Delta_T e^{(v_{t-1} - \theta_\text{rh}) / \Delta_T} + i_t\right) $$

    Fourcaud-Trocmé et al. 2003 (doi:10.1523/JNEUROSCI.23-37-11628.2003). Membrane potentials are dimensionless,
    $1 - \beta = \Delta t / \tau$ of a forward Euler step, so decays are best given as `snn.Rate(dt / tau)`.
    $\theta_\text{rh}$ is where the upswing begins: by default the spike threshold, as in Norse's `LIFEx`;
    SpikingJelly's `EIFNode` has it apart. There is no bound on the exponential: a membrane far above
    $\theta_\text{rh}$ (some 90 $\Delta_T$ in float32) overflows, as it does there.

    >>> from snnax import snn
    >>> neuron = EIF(2, snn.Rate(0.1), delta_T=0.5)
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([1.0, 20.0]))
    >>> spikes.tolist()
    [0.0, 1.0]
    """

    integration: Integration
    delta_T: Array
    theta_rh: Array | None
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "zero",
        *,
        delta_T: ArrayLike = 0.5,
        theta_rh: ArrayLike | None = None,
        key: Any = None,
        **options: Unpack[EulerOptions],
    ):
        """**Arguments:** `delta_T`: sharpness of the spike initiation; `theta_rh`: where it begins (None: at
        `threshold`); all others as in `snn.LIF`, but for `input_scale`.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        integration, firing = split_options(options)
        self.integration = Integration(decay_constants, input_scale="one_minus_decay", **integration)
        self.delta_T = parameter("delta_T", delta_T, POSITIVE)
        self.theta_rh = optional("theta_rh", theta_rh)
        self.firing = Firing(threshold, reset, **firing)
        self.adaptation = None
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any
    ) -> "EIF":
        """Neurons from time constants in seconds, with the rate `dt / tau_mem` of an Euler step."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt, rate_from_tau), **options)


class AdEx(_AbstractExponential):
    r"""Adaptive exponential integrate-and-fire neurons: `snn.EIF` with an adaptation current.

    $$ v_t = v_{t-1} + (1 - \beta) \left(v_\text{leak} - v_{t-1}
       + \Delta_T e^{(v_{t-1} - \theta_\text{rh}) / \Delta_T} + i_t - a_{t-1}\right), \quad
       a_t = \rho a_{t-1} + (1 - \rho) c (v_{t-1} - v_\text{leak}) + b z_t $$

    Brette & Gerstner 2005 (doi:10.1152/jn.00686.2005), dimensionless; $c$ is the coupling to the membrane below
    threshold, $b$ the jump at each spike. Norse's `LIFAdEx` is this with `synapse_order="jump-read-decay"` and
    `detach_reset=False`. For $\Delta_T \to 0$ it becomes `snn.AdaptiveLIF`.

    >>> from snnax import snn
    >>> neuron = AdEx(1, snn.Rate(0.1), snn.Rate(0.01), jump=0.5)
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([20.0]))
    >>> spikes.tolist(), state.a.tolist()
    ([1.0], [0.5])
    """

    integration: Integration
    delta_T: Array
    theta_rh: Array | None
    adaptation: Adaptation
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        decay_adapt: ArrayLike | AbstractDecay,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "zero",
        *,
        coupling: ArrayLike = 0.0,
        jump: ArrayLike = 0.02,
        delta_T: ArrayLike = 0.5,
        theta_rh: ArrayLike | None = None,
        key: Any = None,
        **options: Unpack[EulerOptions],
    ):
        """**Arguments:** `decay_adapt`, `coupling`, `jump`: of the adaptation current, scalar or per neuron; all others
        as in `snn.EIF`.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        integration, firing = split_options(options)
        self.integration = Integration(decay_constants, input_scale="one_minus_decay", **integration)
        self.adaptation = Adaptation(decay_adapt, coupling=coupling, jump=jump, acts_on="current")
        self.delta_T = parameter("delta_T", delta_T, POSITIVE)
        self.theta_rh = optional("theta_rh", theta_rh)
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
    ) -> "AdEx":
        """Neurons from time constants in seconds, with the rates `dt / tau` of an Euler step."""
        decays = decays_from_tau(tau_mem, tau_syn, dt, rate_from_tau)
        return cls(shape, decays, rate_from_tau(tau_adapt, dt), **options)
