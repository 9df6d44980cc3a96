"""Membranes that decay exponentially between spikes."""

import equinox as eqx
from jaxtyping import Array

from ..parts import AbstractDecay, InputScale, integrate
from ._neuron import AbstractNeuron


class AbstractLeaky(AbstractNeuron):
    """A neuron whose membrane is a leaky integrator: `v = d v + x`, or `d v + (1 - d) (v_leak + x)`."""

    decay_mem: eqx.AbstractVar[AbstractDecay]
    v_leak: eqx.AbstractVar[Array | None]
    input_scale: eqx.AbstractVar[InputScale]

    @property
    def v_rest(self) -> Array | float:
        return 0.0 if self.v_leak is None else self.v_leak

    @property
    def membrane_factor(self) -> Array:
        return self.decay_mem.factor

    @property
    def adds_drive(self) -> bool:
        return self.input_scale == "unit"

    def charge(self, v, drive):
        return integrate(self.decay_mem, self.input_scale, self.v_leak, v, drive)
