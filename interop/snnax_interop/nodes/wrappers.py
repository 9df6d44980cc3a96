"""Single time steps of a layer, for neurons whose state does not simply stay with them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax import snn


class ResetEveryStep(snn.AbstractLayer):
    """A layer with state that starts from its beginning at every time step.

    torch code does this when it resets states in a forward that is called once per time step.
    """

    layer: Any

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> Any:
        return self.layer.init_state(shape, key=key)

    def __call__(self, state: Any, x: Any, *, key: Any = None) -> tuple[Any, Any]:
        fresh = self.layer.init_state(x.shape)
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), fresh, state)
        return self.layer(fresh, x, key=key)


def with_field(state: Any, field: str, value: Any) -> Any:
    """A state with another value in a field, which may be one of the neuron inside of a recurrent layer."""
    if field in vars(state):
        return dataclasses.replace(state, **{field: value})
    return dataclasses.replace(state, neuron=with_field(state.neuron, field, value))


class StepFunction(snn.AbstractFunction):
    """One time step of a layer as a function `(input, *state) -> (output, *state)`.

    torch code does more with a state than to hand it on: it scales it, adds to it, or steps one neuron several times.
    """

    layer: Any
    fields: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, x: Array, *state: Array) -> tuple[Array, ...]:
        before = self.layer.init_state(x.shape)
        for field, value in zip(self.fields, state, strict=True):
            before = with_field(before, field, jnp.broadcast_to(value, getattr(before, field).shape))
        after, out = self.layer(before, x)
        return out, *(getattr(after, field) for field in self.fields)


class FirstState(snn.AbstractFunction):
    """A field of the state that a layer starts with."""

    layer: Any
    field: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self) -> Array:
        return getattr(self.layer.init_state(self.shape), self.field)


class ChannelsSecond(snn.AbstractLayer):
    """A layer whose channels are the second axis of its input, behind time that torch folds with the batch."""

    layer: Any

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> Any:
        return self.layer.init_state(None if shape is None else (shape[1], shape[0], *shape[2:]), key=key)

    def __call__(self, state: Any, x: Array, *, key: Any = None) -> tuple[Any, Array]:
        state, out = self.layer(state, jnp.swapaxes(x, 0, 1), key=key)
        return state, jnp.swapaxes(out, 0, 1)
