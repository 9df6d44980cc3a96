"""One time step of any neuron with a membrane: synapse, membrane, spike and reset, adaptation - in this order.

A neuron is data for these parts and one equation of its own, `charge`: how the membrane takes up its drive.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...engine import AbstractLinearLayer, linear_recurrence
from ..parts import (
    AbstractDecay,
    Adaptation,
    Firing,
    SynapseOrder,
    added,
    check_input,
    check_parameters,
    resolve_shape,
    synapse_sequence,
    synapse_step,
)


class NeuronState(eqx.Module):
    """Membrane potential `v`, synaptic current `i` and adaptation `a`; None for what a neuron does not have."""

    v: Float[Array, "..."]
    i: Float[Array, "..."] | None = None
    a: Float[Array, "..."] | None = None


class AbstractNeuron(AbstractLinearLayer):
    """A neuron of the library. `firing` is None where the output is the membrane itself."""

    decay_syn: eqx.AbstractVar[AbstractDecay | None]
    adaptation: eqx.AbstractVar[Adaptation | None]
    firing: eqx.AbstractVar[Firing | None]
    shape: eqx.AbstractVar[tuple[int, ...] | None]
    synapse_order: eqx.AbstractVar[SynapseOrder]
    # The membrane potential without input, where a neuron starts.
    v_rest: eqx.AbstractVar[Array | float]

    @property
    @abc.abstractmethod
    def membrane_factor(self) -> Array | None:
        """The `d` of a membrane that is linear between spikes, `charge(v, x) = d v + charge(0, x)`; else None."""

    @property
    def adds_drive(self) -> bool:
        """Whether `charge` is a sum with the drive as its last term."""
        return False

    @abc.abstractmethod
    def charge(self, v: Array, drive: Array) -> Array:
        """The membrane after it took up the drive of one time step, before spikes."""

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> NeuronState:
        """Membranes at rest, no synaptic current, no adaptation, for neurons of `shape`; in JAX's default float.

        **Raises:** `ValueError` when `shape` is not known or disagrees with that of the neuron or its parameters.
        """
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        dtype = jnp.result_type(float)
        return NeuronState(
            jnp.broadcast_to(jnp.asarray(self.v_rest, dtype), shape),
            None if self.decay_syn is None else jnp.zeros(shape, dtype),
            None if self.adaptation is None else jnp.zeros(shape, dtype),
        )

    def __call__(
        self, state: NeuronState, x: Float[Array, "..."], *, feedback: Array | None = None, key: Any = None
    ) -> tuple[NeuronState, Float[Array, "..."]]:
        """One time step. `feedback` is a second input, which is added after the first: floating point sums differ.

        **Returns:** the new state, in the dtype of the old one, and the output, in the dtype of `x`: spikes, or the
        membrane potential of a neuron that does not spike.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        inputs = [check_input(x, state.v)]
        last = []
        if feedback is not None:
            (last if self.adds_drive and self.decay_syn is None else inputs).append(feedback.astype(state.v.dtype))
        drive, i = synapse_step(self.synapse_order, self.decay_syn, state.i, *inputs)
        if self.firing is None:
            v = added(self.charge(state.v, drive), *last)
            return NeuronState(v, i), v.astype(x.dtype)
        i = None if i is None else self.firing.quantised(i)
        if self.adaptation is None:
            v, z, _ = self.firing.fire(state.v, lambda v: added(self.charge(v, drive), *last))
            return NeuronState(v, i), self.firing.output(z, x.dtype)
        assert state.a is not None
        drive = drive - self.adaptation.current(state.a)
        threshold = self.adaptation.threshold(self.firing.threshold, state.a)
        v, z, charged = self.firing.fire(state.v, lambda v: added(self.charge(v, drive), *last), threshold)
        a = self.adaptation.following(state.a, state.v, charged, jnp.asarray(self.v_rest, v.dtype))
        a = self.adaptation.jumped(a, jax.lax.stop_gradient(z) if self.adaptation.detach else z)
        return NeuronState(v, i, a), self.firing.output(z, x.dtype)

    @property
    def is_linear(self) -> bool:
        """Whether the state depends linearly on the input: a linear membrane that is never reset or quantised."""
        if self.firing is not None and (self.firing.reset != "none" or self.firing.quantise is not None):
            return False
        return self.adaptation is None and self.membrane_factor is not None

    def apply_parallel(
        self, state: NeuronState, xs: Float[Array, "time ..."]
    ) -> tuple[NeuronState, Float[Array, "time ..."]]:
        """All time steps at once: the states after each of them, and the outputs."""
        factor = self.membrane_factor
        assert factor is not None
        drive = jax.vmap(check_input, in_axes=(0, None))(xs, state.v)
        drive, i = synapse_sequence(self.synapse_order, self.decay_syn, state.i, drive)
        jumps = jax.vmap(self.charge, in_axes=(None, 0))(jnp.zeros_like(state.v), drive)
        v = linear_recurrence(factor.astype(state.v.dtype), jumps, state.v)
        firing = self.firing
        if firing is None:
            return NeuronState(v, i), v.astype(xs.dtype)
        z = jax.vmap(lambda v: firing.decide(v, firing.threshold.astype(v.dtype)))(v)
        return NeuronState(v, i), firing.output(z, xs.dtype)
