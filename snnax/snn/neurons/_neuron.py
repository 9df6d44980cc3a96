"""One time step of any neuron with a membrane: synapse, membrane, spike and reset, adaptation - in this order.

A neuron is data for these parts and at most one equation of its own, `charge`: how the membrane takes up its drive.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ...domains import POSITIVE, check
from ...engine import AbstractLinearLayer, linear_recurrence
from ..parts import (
    AbstractDecay,
    Adaptation,
    Firing,
    InputScale,
    Integration,
    SynapseOrder,
    added,
    check_input,
    check_parameters,
    output_dtype,
    owned,
    resolve_shape,
)


class NeuronState(eqx.Module):
    """Membrane potential `v`, synaptic current `i` and adaptation `a`; None for what a neuron does not have."""

    v: Float[Array, "..."]
    i: Float[Array, "..."] | None = None
    a: Float[Array, "..."] | None = None


class AbstractNeuron(AbstractLinearLayer):
    """A neuron of the library. `firing` is None where the output is the membrane itself."""

    integration: eqx.AbstractVar[Integration]
    adaptation: eqx.AbstractVar[Adaptation | None]
    firing: eqx.AbstractVar[Firing | None]
    shape: eqx.AbstractVar[tuple[int, ...] | None]
    # The membrane potential without input, where a neuron starts.
    v_rest: eqx.AbstractVar[Array | float]

    def __check_init__(self):
        if self.firing is not None:
            above_rest = self.firing.threshold - self.v_rest
            check("threshold - resting potential", above_rest, POSITIVE, "neurons at rest must not spike")

    @property
    def decay_mem(self) -> AbstractDecay:
        """The decay of the membrane."""
        return self.integration.decay_mem

    @property
    def decay_syn(self) -> AbstractDecay | None:
        """The decay of the synaptic current; None without a synapse."""
        return self.integration.decay_syn

    # Of any type: trees of the same structure have something else in the place of arrays.
    @property
    def v_leak(self) -> Any:
        """The resting potential of a membrane that decays to one; None where it decays to 0."""
        return self.integration.v_leak

    @property
    def synapse_order(self) -> SynapseOrder:
        """When the synaptic current jumps, decays and is read."""
        return self.integration.synapse_order

    @property
    def input_scale(self) -> InputScale:
        """Whether the drive of the membrane is scaled by `1 - decay`."""
        return self.integration.input_scale

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
            owned(self.v_rest, shape),
            None if self.decay_syn is None else jnp.zeros(shape, dtype),
            None if self.adaptation is None else jnp.zeros(shape, dtype),
        )

    def __call__(
        self, state: NeuronState, x: Shaped[Array, "..."], *, feedback: Array | None = None, key: Any = None
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
        drive, i = self.integration.drive(state.i, *inputs)
        if self.firing is None:
            v = added(self.charge(state.v, drive), *last)
            return NeuronState(v, i), v.astype(output_dtype(x))
        i = None if i is None else self.firing.quantised(i)
        if self.adaptation is None:
            v, z, _ = self.firing.fire(state.v, lambda v: added(self.charge(v, drive), *last))
            return NeuronState(v, i), self.firing.output(z, output_dtype(x))
        assert state.a is not None
        drive = drive - self.adaptation.current(state.a)
        threshold = self.adaptation.threshold(self.firing.threshold, state.a)
        v, z, charged = self.firing.fire(state.v, lambda v: added(self.charge(v, drive), *last), threshold)
        a = self.adaptation.following(state.a, state.v, charged, jnp.asarray(self.v_rest, v.dtype))
        a = self.adaptation.jumped(a, jax.lax.stop_gradient(z) if self.adaptation.detach else z)
        return NeuronState(v, i, a), self.firing.output(z, output_dtype(x))

    @property
    def is_linear(self) -> bool:
        """Whether the state depends linearly on the input: a linear membrane that is never reset or quantised."""
        if self.firing is not None and (self.firing.reset != "none" or self.firing.quantise is not None):
            return False
        return self.adaptation is None and self.membrane_factor is not None

    def apply_parallel(
        self, state: NeuronState, xs: Shaped[Array, "time ..."]
    ) -> tuple[NeuronState, Float[Array, "time ..."]]:
        """All time steps at once: the states after each of them, and the outputs."""
        factor = self.membrane_factor
        assert factor is not None
        drive = jax.vmap(check_input, in_axes=(0, None))(xs, state.v)
        drive, i = self.integration.drive_sequence(state.i, drive)
        jumps = jax.vmap(self.charge, in_axes=(None, 0))(jnp.zeros_like(state.v), drive)
        v = linear_recurrence(factor.astype(state.v.dtype), jumps, state.v)
        firing = self.firing
        if firing is None:
            return NeuronState(v, i), v.astype(output_dtype(xs))
        z = jax.vmap(lambda v: firing.decide(v, firing.threshold.astype(v.dtype)))(v)
        return NeuronState(v, i), firing.output(z, output_dtype(xs))
