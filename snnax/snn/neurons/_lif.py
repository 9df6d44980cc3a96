"""The leaky integrate-and-fire neuron, with the conventions of the frameworks as options."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import ArrayLike

from ..parts import (
    DecayConstants,
    Firing,
    Integration,
    LeakyOptions,
    Reset,
    Shape,
    as_shape,
    decays_from_tau,
    split_options,
)
from ._leaky import AbstractLeaky


class LIF(AbstractLeaky):
    r"""Leaky integrate-and-fire neurons, with or without an exponential synapse.

    With the decay factors $\beta$ (membrane) and $\alpha$ (synapse), input $x$ and $i = x$ where there is no synapse:

    $$ i_t = \alpha i_{t-1} + x_t, \quad v_t = \beta v_{t-1} + i_t, \quad z_t = H(v_t - \theta),
       \quad v_t \leftarrow v_t - \theta z_t $$

    Membrane potentials are dimensionless, decays are factors per time step. The input of a time step can cause a spike
    in the same time step. This is discrete exponential decay as in snnTorch; what other frameworks do differently under
    the same name is an option: when the synapse is read (`synapse_order`), whether the input is scaled by
    $1 - \beta$ (`input_scale="one_minus_decay"`: $v_t = \beta v_{t-1} + (1 - \beta)(v_\text{leak} + i_t)$, as in
    Norse), and everything that `snn.Firing` says of threshold and reset. With `reset="none"` it is the reset-free leaky
    neuron of snnTorch (`StateLeaky`, `LinearLeaky`), which `snnax.engine.parallel` computes without a loop over time.

    >>> import jax.numpy as jnp
    >>> lif = LIF(3, [0.9, 0.8])
    >>> state, spikes = lif(lif.init_state((3,)), jnp.array([0.5, 1.0, 2.0]))
    >>> spikes.tolist()
    [0.0, 0.0, 1.0]
    """

    integration: Integration
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        key: Any = None,
        **options: Unpack[LeakyOptions],
    ):
        """**Arguments:**

        - `shape`: of the neurons, without batch and time; `None` takes it from the input.
        - `decay_constants`: `[membrane]` or `[membrane, synapse]`, or one value; each a factor per time step (scalar
          or per neuron) or a `snn.Factor`, `snn.Rate` or `snn.SigmoidRate`.
        - `key`: ignored; nothing is drawn. Accepted as by every layer.
        - all others: `v_leak`, where the membrane also starts, `synapse_order` and `input_scale` see
          `snn.Integration`; `threshold`, `reset` and the rest see `snn.Firing`.

        **Raises:** `ValueError` for options that are unknown or do not go together.
        """
        del key
        integration, firing = split_options(options)
        self.integration = Integration(decay_constants, **integration)
        self.firing = Firing(threshold, reset, **firing)
        self.adaptation = None
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any
    ) -> "LIF":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`; `options` as in the constructor.

        >>> print(round(float(LIF.from_tau(3, tau_mem=20e-3, dt=1e-3).decay_mem.factor), 4))
        0.9512
        """
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), **options)
