"""The leaky integrator: a LIF neuron that never spikes, used as a readout."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from ..engine import AbstractLayer
from ._decay import AbstractDecay
from ._membrane import DecayConstants, InputScale, factors_from_tau, integrate, membrane_parameters, rest
from ._shape import Shape, as_shape, check_input, check_parameters, resolve_shape
from ._synapse import SynapseOrder, check_order, synapse_step


class LIState(eqx.Module):
    """Membrane potential `v` and synaptic current `i` (None without a synapse)."""

    v: Float[Array, "..."]
    i: Float[Array, "..."] | None = None


class LI(AbstractLayer):
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
        self.shape = as_shape(shape)
        self.decay_mem, self.decay_syn, self.v_leak = membrane_parameters(decay_constants, v_leak, input_scale)
        check_order(synapse_order)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any) -> "LI":
        """Integrators from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, factors_from_tau(tau_mem, tau_syn, dt), **options)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> LIState:
        """Membranes at rest and no synaptic current, for neurons of `shape`."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return LIState(*rest(shape, self.v_leak, self.decay_syn))

    def __call__(
        self, state: LIState, x: Float[Array, "..."], *, key: Any = None
    ) -> tuple[LIState, Float[Array, "..."]]:
        """One time step; the output is the new membrane potential in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        drive, i = synapse_step(self.synapse_order, self.decay_syn, state.i, drive)
        v = integrate(self.decay_mem, self.input_scale, self.v_leak, state.v, drive)
        return LIState(v, i), v.astype(x.dtype)
