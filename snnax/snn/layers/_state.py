"""States of layers that hold other layers: the first one, and how the state of the inner layer is read."""

from typing import Any

import equinox as eqx
import jax

from ... import engine
from ...engine import AbstractContainer, AbstractLayer


class AbstractOuterState(eqx.Module):
    """The state of a layer around a neuron: the state variables of the neuron are read as those of the layer."""

    neuron: eqx.AbstractVar[Any]

    # Of any type: shapes are inferred with structs in the place of arrays.
    @property
    def v(self) -> Any:
        """The membrane potential of the neuron."""
        return self.neuron.v

    @property
    def i(self) -> Any:
        """The synaptic current of the neuron."""
        return self.neuron.i

    @property
    def a(self) -> Any:
        """The adaptation of the neuron."""
        return self.neuron.a


def initial_state(node: Any, shape: tuple[int, ...], key: Any) -> Any:
    """The first state of a layer, of a container, or None of a function, for an input of `shape`."""
    if isinstance(node, AbstractLayer):
        return node.init_state(shape, key=key)
    if isinstance(node, AbstractContainer):
        return engine.init_states(node, key, jax.ShapeDtypeStruct(shape, jax.numpy.result_type(float)))
    return None
