"""Stateless nodes: functions of one or several inputs, and constants."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ...engine import AbstractFunction


class Flatten(AbstractFunction):
    """Any shape to one axis, in row-major order."""

    def __call__(self, x: Array) -> Array:
        return jnp.reshape(x, -1)


def flatten(x: Array | None = None) -> Any:
    """Flatten to one axis; without an argument the layer that does so: `snn.flatten` and `snn.flatten()` both work.

    >>> flatten(jnp.zeros((2, 3, 4))).shape, flatten()(jnp.zeros((2, 3, 4))).shape
    ((24,), (24,))
    """
    return Flatten() if x is None else Flatten()(x)


class Lambda(AbstractFunction):
    """A function as a node; several inputs come as separate arguments, in the order of the edges.

    >>> Lambda(jnp.maximum)(jnp.array([1.0, 4.0]), jnp.array([3.0, 2.0])).tolist()
    [3.0, 4.0]
    """

    function: Callable = eqx.field(static=True)

    def __call__(self, *xs: Any) -> Any:
        return self.function(*xs)


class Value(AbstractFunction):
    """A node without inputs: an array, possibly learnable, that is the same at every time step."""

    value: Array

    def __call__(self) -> Array:
        return self.value
