"""Membranes that decay exponentially between spikes."""

from jaxtyping import Array

from ._neuron import AbstractNeuron


class AbstractLeaky(AbstractNeuron):
    """A neuron whose membrane is a leaky integrator and nothing else: what `snn.Integration` computes."""

    @property
    def v_rest(self) -> Array | float:
        return self.integration.v_rest

    @property
    def membrane_factor(self) -> Array:
        return self.decay_mem.factor

    @property
    def adds_drive(self) -> bool:
        return self.input_scale == "unit"

    def charge(self, v, drive):
        return self.integration.charge(v, drive)
