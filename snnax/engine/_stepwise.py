"""The definition of what a model computes: one scan of the whole model over time."""

from typing import Any

import jax

from ._nodes import AbstractContainer
from ._sequence import as_sequence, input_sequences, step_keys, step_mask, zeroed
from ._step import step


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
    sequences = tuple(zeroed(mask, as_sequence(inputs[name])) for name in model.wiring.inputs)
    sequences = sequences[0] if len(sequences) == 1 else sequences

    def body(carry, inputs):
        x, step_key, counts = inputs
        return step(model, carry, x, step_key, counts)

    states, outs = jax.lax.scan(body, states, (sequences, step_keys(key, num_steps), mask), length=num_steps)
    return states, zeroed(mask, outs)
