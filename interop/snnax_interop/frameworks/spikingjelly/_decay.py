"""The decay of a time constant that is given in time steps."""

from jaxtyping import Array

from snnax import snn


class TimeConstant(snn.AbstractDecay):
    """The decay `1 - 1 / tau` of an Euler step; it divides by `tau`, as SpikingJelly does, so that it rounds alike."""

    tau: Array

    @property
    def factor(self) -> Array:
        return 1 - 1 / self.tau

    def leak(self, s: Array) -> Array:
        return s - s / self.tau.astype(s.dtype)

    def relax(self, s: Array, x: Array, rest: Array | float = 0.0) -> Array:
        return s + (x - (s - rest)) / self.tau.astype(s.dtype)

    def advance(self, s: Array, slope: Array) -> Array:
        return s + slope / self.tau.astype(s.dtype)
