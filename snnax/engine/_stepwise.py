"""The definition of what a model computes: one scan of the whole model over time."""

from typing import Any

import jax

from ._nodes import AbstractContainer
from ._sequence import Carry, as_sequence, input_sequences, repeated, step_keys, step_mask, varying_as, zeroed
from ._step import advance_container


def stepwise(
    model: AbstractContainer, states: Any, xs: Any, *, key: Any = None, mask: Any = None
) -> tuple[Any, list[Any]]:
    """Run a model time step by time step.

    **Arguments:**

    - `states`: as from `model.init_states`.
    - `xs`: `(time, ...)` or `Repeat`, a tuple of them for a model of several inputs.
    - `key`: for layers that draw random numbers, split into one key per time step; or those keys.
    - `mask`: `(time,)` Booleans, False for steps that do not count, such as the padding of a shorter sequence: they
      leave all states as they are, their outputs are zero, and their inputs are not looked at.

    **Returns:** the states after the last step and the output sequences `(time, ...)` of all nodes.
    """
    inputs, num_steps = input_sequences(xs, model.wiring.inputs)
    mask = step_mask(mask, num_steps)
    sequences, keys = repeated(mask, tuple(map(as_sequence, inputs.values())), step_keys(key, num_steps))

    def body(carry, inputs):
        xs, step_key, counts = inputs
        return advance_container(model, carry, xs, step_key, counts)

    model, states = varying_as((model, states), (sequences, keys, mask))
    carry, outs = jax.lax.scan(body, Carry.first(states, mask), (sequences, keys, mask), length=num_steps)
    return carry.states, zeroed(mask, outs)
