"""Leaky integrate-and-fire neurons whose threshold adapts."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import ArrayLike

from ..parts import (
    AbstractDecay,
    Adaptation,
    DecayConstants,
    EulerOptions,
    Firing,
    Integration,
    LeakyOptions,
    Reset,
    Shape,
    as_shape,
    decays_from_tau,
    factor_from_tau,
    fixed_delay,
    rate_from_tau,
    split_options,
)
from ._leaky import AbstractLeaky


class ALIF(AbstractLeaky):
    r"""LIF neurons with an adaptive threshold.

    $$ v_t = \beta v_{t-1} + i_t, \quad \theta_t = \theta + \kappa a_{t-1}, \quad z_t = H(v_t - \theta_t), \quad
       v_t \leftarrow v_t - \theta_t z_t, \quad a_t = \rho a_{t-1} + b z_t $$

    Bellec et al. 2018 (arXiv:1803.09574): there $b = 1 - \rho$, so that $a$ is a running mean of the spikes
    (`jump=None`); Bellec et al. 2020 (doi:10.1038/s41467-020-17236-y) have $b = 1$ (`jump=1.0`). Both subtract the
    baseline $\theta$ at a spike; this subtracts the threshold that was crossed, as sinabs does. Where a *current*
    adapts, see `snn.AdaptiveLIF`; Norse's `LSNN` reads its threshold after its decay, see `snn.LSNN`.

    >>> import jax.numpy as jnp
    >>> neuron = ALIF(1, 0.9, 0.5, scale=2.0, jump=1.0)
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([1.5]))
    >>> neuron(state, jnp.array([2.5]))[1].tolist()  # the threshold is 3 now, and 0.9 * 0.5 + 2.5 below it
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
        scale: ArrayLike = 1.8,
        jump: ArrayLike | None = None,
        key: Any = None,
        **options: Unpack[LeakyOptions],
    ):
        r"""**Arguments:** `decay_adapt`: $\rho$; `scale`: $\kappa$; `jump`: $b$, or None for $1 - \rho$; scalar or per
        neuron. All others as in `snn.LIF`; a reset cannot wait for a time step in which the threshold is another one.

        **Raises:** `ValueError` for an unknown option.
        """
        del key
        integration, firing = split_options(options)
        self.integration = Integration(decay_constants, **integration)
        self.adaptation = Adaptation(decay_adapt, jump=jump, scale=scale, acts_on="threshold")
        self.firing = Firing(threshold, reset, **fixed_delay("ALIF", firing, False))
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
    ) -> "ALIF":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), factor_from_tau(tau_adapt, dt), **options)


class LSNN(AbstractLeaky):
    r"""The adaptive neurons of long short-term memory spiking networks, as Norse writes them.

    $$ v_t = v_{t-1} + (1 - \beta)(v_\text{leak} - v_{t-1} + i_{t-1}), \quad \theta_t = \theta + \rho a_{t-1}, \quad
       z_t = H(v_t - \theta_t), $$
    $$ v_t \leftarrow (1 - z_t) v_t + z_t v_\text{reset}, \quad a_t = \rho a_{t-1} + b z_t, \quad
       i_t = \alpha i_{t-1} + x_t $$

    Bellec et al. 2018 (arXiv:1803.09574). Differs from `snn.ALIF` in that the synapse jumps last, so that an input
    needs one more step to reach the membrane, and in that the threshold is read after its decay. Norse 1.1 keeps
    $\theta + a$ as its state `b`, with $b$ = `beta`; its recurrent form detaches spikes in reset and jump
    (`detach_reset=True`), its feed-forward form does not.

    >>> import jax.numpy as jnp
    >>> neuron = LSNN.from_tau(1, tau_mem=10e-3, tau_adapt=0.1, tau_syn=5e-3, dt=1e-3)
    >>> state, _ = neuron(neuron.init_state(), jnp.array([20.0]))
    >>> neuron(state, jnp.array([0.0]))[1].tolist()
    [1.0]
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
        reset: Reset | ArrayLike = "zero",
        *,
        jump: ArrayLike = 1.8,
        key: Any = None,
        **options: Unpack[EulerOptions],
    ):
        """**Arguments:** `decay_constants`: `[membrane, synapse]`; `decay_adapt`, `jump`: of the threshold, scalar or
        per neuron; all others as in `snn.LIF`, but for `input_scale`, and `synapse_order="read-decay-jump"` by default.

        **Raises:** `ValueError` for one decay constant, or an unknown option.
        """
        del key
        given, firing = split_options(options)
        given.setdefault("synapse_order", "read-decay-jump")
        integration = Integration(decay_constants, input_scale="one_minus_decay", **given)
        self.integration = integration.with_synapse("LSNN", "snn.ALIF")
        self.firing = Firing(threshold, reset, **fixed_delay("LSNN", firing, False))
        self.adaptation = Adaptation(
            decay_adapt, jump=jump, acts_on="threshold", reads="after", detach=self.firing.detach_reset
        )
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_adapt: float, tau_syn: float, *, dt: float, **options: Any
    ) -> "LSNN":
        """Neurons from time constants in seconds, with the rates `dt / tau` of an Euler step, as in Norse."""
        mem, syn, adapt = (rate_from_tau(tau, dt) for tau in (tau_mem, tau_syn, tau_adapt))
        return cls(shape, [mem, syn], adapt, **options)
