"""The leaky integrator: a LIF neuron that never spikes, used as a readout."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ..parts import (
    AbstractDecay,
    DecayConstants,
    InputScale,
    Shape,
    SynapseOrder,
    as_shape,
    check_order,
    check_scale,
    decays_from_tau,
    optional,
    split_decays,
)
from ._leaky import AbstractLeaky


class LI(AbstractLeaky):
    r"""Leaky integrators, with or without an exponential synapse; the output is the membrane potential.

    $$ i_t = \alpha i_{t-1} + x_t, \quad v_t = \beta v_{t-1} + i_t $$

    Units and options as in `snn.LIF`.

    >>> import jax.numpy as jnp
    >>> li = LI(2, 0.5)
    >>> state, v = li(li.init_state(), jnp.array([1.0, 2.0]))
    >>> li(state, jnp.zeros(2))[1].tolist()
    [0.5, 1.0]
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay | None
    v_leak: Array | None
    firing: None
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)
    synapse_order: SynapseOrder = eqx.field(static=True)
    input_scale: InputScale = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        *,
        v_leak: ArrayLike | None = None,
        synapse_order: SynapseOrder = "decay-jump-read",
        input_scale: InputScale = "unit",
        key: Any = None,
    ):
        """Arguments and errors as for the same names of `snn.LIF`."""
        del key
        self.decay_mem, self.decay_syn = split_decays(decay_constants)
        check_order(synapse_order)
        check_scale(input_scale)
        self.v_leak = optional(v_leak)
        self.firing = self.adaptation = None
        self.shape = as_shape(shape)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any) -> "LI":
        """Integrators from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), **options)


class CubaLI(AbstractLeaky):
    r"""Current-based leaky integrators: `snn.LI` with a synapse that cannot be left out, as in NIR.

    $$ i_t = \alpha i_{t-1} + x_t, \quad v_t = \beta v_{t-1} + i_t $$

    The input weight and the resistance of NIR's `CubaLI` (Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9) are
    factors of the layer before it.

    >>> import jax.numpy as jnp
    >>> li = CubaLI(1, [0.5, 0.25])
    >>> state, _ = li(li.init_state(), jnp.array([1.0]))
    >>> li(state, jnp.zeros(1))[1].tolist()
    [0.75]
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay
    v_leak: Array | None
    firing: None
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)
    synapse_order: SynapseOrder = eqx.field(static=True)
    input_scale: InputScale = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        *,
        v_leak: ArrayLike | None = None,
        synapse_order: SynapseOrder = "decay-jump-read",
        input_scale: InputScale = "unit",
        key: Any = None,
    ):
        """Arguments as for the same names of `snn.LIF`; `decay_constants` are `[membrane, synapse]`.

        **Raises:** `ValueError` for one decay constant, or an unknown option.
        """
        del key
        self.decay_mem, decay_syn = split_decays(decay_constants)
        if decay_syn is None:
            raise ValueError("CubaLI needs the decay constants [membrane, synapse], found one; snn.LI takes one")
        self.decay_syn = decay_syn
        check_order(synapse_order)
        check_scale(input_scale)
        self.v_leak = optional(v_leak)
        self.firing = self.adaptation = None
        self.shape = as_shape(shape)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, tau_syn: float, *, dt: float, **options: Any) -> "CubaLI":
        """Integrators from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), **options)
