"""The definition of what a model computes: one scan of the whole model over time."""

from typing import Any

import jax

from ._contract import AbstractContainer
from ._sequence import as_sequence, input_sequences, step_keys
from ._step import step


def stepwise(model: AbstractContainer, states: Any, xs: Any, *, key: Any = None) -> tuple[Any, list[Any]]:
    """Run a model time step by time step.

    **Arguments:** `states` as from `model.init_states`; `xs` `(time, ...)` or `Repeat`, a tuple of them for a model of
    several inputs; `key` for layers that draw random numbers (one key per time step).

    **Returns:** the states after the last step and the output sequences `(time, ...)` of all nodes.
    """
    inputs, num_steps = input_sequences(xs, model.wiring.inputs)
    sequences = tuple(as_sequence(inputs[name]) for name in model.wiring.inputs)
    sequences = sequences[0] if len(sequences) == 1 else sequences

    def body(carry, inputs):
        x, step_key = inputs
        return step(model, carry, x, step_key)

    return jax.lax.scan(body, states, (sequences, step_keys(key, num_steps)), length=num_steps)
