"""The leaky integrator: a LIF neuron that never spikes, used as a readout."""

from typing import Any, Unpack

import equinox as eqx

from ..parts import DecayConstants, Integration, IntegrationOptions, Shape, as_shape, decays_from_tau
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

    integration: Integration
    firing: None
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        *,
        key: Any = None,
        **integration: Unpack[IntegrationOptions],
    ):
        """Arguments and errors as for the same names of `snn.LIF`."""
        del key
        self.integration = Integration(decay_constants, **integration)
        self.firing = self.adaptation = None
        self.shape = as_shape(shape)

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

    integration: Integration
    firing: None
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        *,
        key: Any = None,
        **integration: Unpack[IntegrationOptions],
    ):
        """Arguments as for the same names of `snn.LIF`; `decay_constants` are `[membrane, synapse]`.

        **Raises:** `ValueError` for one decay constant, or an unknown option.
        """
        del key
        self.integration = Integration(decay_constants, **integration).with_synapse("CubaLI", "snn.LI")
        self.firing = self.adaptation = None
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, tau_syn: float, *, dt: float, **options: Any) -> "CubaLI":
        """Integrators from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, decays_from_tau(tau_mem, tau_syn, dt), **options)
