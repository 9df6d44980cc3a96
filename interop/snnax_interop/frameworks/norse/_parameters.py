"""What Norse keeps in the named tuple `p` of a neuron: constants, or parameters that are registered elsewhere."""

import dataclasses
from typing import Any

import equinox as eqx
import torch
from jaxtyping import Array

from snnax import snn, surrogate

from ...converters.context import ConversionContext, neuron_shape
from ._surrogates import METHODS


class InverseTimeConstant(snn.AbstractDecay):
    """The Euler step of a learnable inverse time constant: the rate `dt * tau_inv`."""

    tau_inv: Array
    dt: float = eqx.field(static=True)

    @property
    def factor(self) -> Array:
        return self._rate.factor

    @property
    def _rate(self) -> snn.Rate:
        return snn.Rate(self.dt * self.tau_inv, constraint="none")

    def leak(self, s):
        return self._rate.leak(s)

    def relax(self, s, x, rest=0.0):
        return self._rate.relax(s, x, rest)

    def advance(self, s, slope):
        return self._rate.advance(s, slope)


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The fields of `p`, or of the tuple `inner` within it, as arrays of a native neuron."""

    module: Any
    context: ConversionContext
    inner: str = ""

    def within(self, name: str) -> "Parameters":
        return dataclasses.replace(self, inner=name)

    def option(self, name: str) -> Any:
        """A field as it is."""
        return getattr(getattr(self.module.p, self.inner) if self.inner else self.module.p, name)

    def value(self, name: str) -> Array:
        """A field as an array: the registered parameter or buffer that it is, or a constant.

        **Raises:** `UnsupportedOptionError` for values that Norse would broadcast over the batch, that are not finite,
        or that were computed from parameters before.
        """
        tensor = self._tensor(name)
        shape = neuron_shape(tensor, self.context.x_shape)
        key = self.context.weights.by_identity.get(id(tensor))
        if tensor.grad_fn is not None:
            raise self._refuse(
                name, "a tensor that was computed from others and carries gradients", "constants and parameters",
                "Compute it in forward, or pass the parameter itself",
            )  # fmt: skip
        if shape is None or tensor.ndim > len(self.context.x_shape):
            raise self._refuse(
                name, f"a tensor of shape {tuple(tensor.shape)}", f"shapes that broadcast to {self.context.x_shape}",
                "One value per neuron, without a batch axis",
            )  # fmt: skip
        if not bool(torch.isfinite(tensor).all()):
            raise self._refuse(name, tensor.tolist(), "finite numbers", "Repair it")
        if key is not None:
            return self.context.weights.parameter(key, shape)
        if isinstance(tensor, torch.nn.Parameter):
            self.context.weights.caveats[self.context.path] = (
                f"{self._full(name)} is a Parameter that no module has registered; torch neither trains nor saves it "
                "with the network, so it is a constant"
            )
        return self.context.constant(self._full(name), tensor)

    def rate(self, name: str) -> snn.Rate | InverseTimeConstant:
        """The decay of an inverse time constant."""
        tensor = self._tensor(name)
        if id(tensor) in self.context.weights.by_identity:
            return InverseTimeConstant(self.value(name), float(self.module.dt))
        self.value(name)
        # The product is formed as Norse forms it, dt first, in the dtype of the parameter.
        return snn.Rate(self.context.constant(f"p.rate_{name}", (self.module.dt * tensor).detach()), constraint="none")

    def rest(self, name: str = "v_leak") -> Array | None:
        """A resting potential; None where it is 0 for good."""
        return None if is_fixed_zero(self.option(name)) else self.value(name)

    def surrogate(self) -> surrogate.AbstractSurrogate:
        """The surrogate of `method` and `alpha`."""
        method = self.option("method")
        if method not in METHODS:
            raise self._refuse("method", method, ", ".join(METHODS), "Choose one of these methods")
        return METHODS[method](float(self.option("alpha")))

    def _tensor(self, name: str) -> torch.Tensor:
        """A field as a tensor; Python numbers keep all their digits, and integers are numbers too."""
        value = self.option(name)
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
        return tensor if tensor.is_floating_point() else tensor.double()

    def _full(self, name: str) -> str:
        return ".".join(filter(None, ("p", self.inner, name)))

    def _refuse(self, name: str, found: Any, allowed: str, advice: str) -> Exception:
        return self.context.refuse(self._full(name), found, allowed=allowed, advice=advice)


def is_fixed(value: Any) -> bool:
    """Whether a field of `p` is no parameter."""
    return not isinstance(value, torch.nn.Parameter)


def is_fixed_zero(value: Any) -> bool:
    return is_fixed(value) and not bool(torch.as_tensor(value).any())
