"""First states of any node, for layers that hold other layers."""

from typing import Any

import jax

from ... import engine
from ...engine import AbstractContainer, AbstractLayer


def initial_state(node: Any, shape: tuple[int, ...], key: Any) -> Any:
    """The first state of a layer, of a container, or None of a function, for an input of `shape`."""
    if isinstance(node, AbstractLayer):
        return node.init_state(shape, key=key)
    if isinstance(node, AbstractContainer):
        return engine.init_states(node, key, jax.ShapeDtypeStruct(shape, jax.numpy.result_type(float)))
    return None
