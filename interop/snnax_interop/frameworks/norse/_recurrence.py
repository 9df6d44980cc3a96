"""The recurrent weights of a layer, and what their gradient leaves out."""

from typing import Any

import equinox as eqx
import torch
from jaxtyping import Array

from snnax import snn

from ...converters.context import ConversionContext
from ...ops import OPS


class Recurrence(snn.AbstractFunction):
    """A matrix from the spikes of all neurons to their inputs.

    Without `autapses` its diagonal, which Norse sets to zero once, has no gradient.
    """

    weight: Array
    autapses: bool = eqx.field(static=True)

    def __call__(self, z: Array) -> Array:
        weight = self.weight if self.autapses else OPS["off_diagonal_gradient"](self.weight)
        return z @ weight.astype(z.dtype).T


def recurrence(module: Any, context: ConversionContext) -> Recurrence:
    """The connection of a recurrent layer; weights that are no parameters are constants."""
    weight: torch.Tensor = module.recurrent_weights
    registered = "recurrent_weights" in module._parameters
    array = context.parameter("recurrent_weights") if registered else context.constant("recurrent_weights", weight)
    return Recurrence(array, not weight._backward_hooks)
