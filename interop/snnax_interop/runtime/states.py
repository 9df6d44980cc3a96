"""States of neurons to go on from: by module path, one array for each field, batch included."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .plan import ExecutionPlan


States = Mapping[str, Mapping[str, Any]]


def checked_states(states: States, plan: ExecutionPlan, dtype: str) -> dict[str, dict[str, Array]]:
    """States to begin with, as floating point arrays.

    **Raises:** `ValueError` for neurons and fields that the network does not have, or whose state is handed on by
    `forward` in its own way.
    """
    known = {}
    for loop in plan.loops:
        for neuron in loop.neurons.values():
            known.setdefault(neuron.name, neuron)
    found = {}
    for name, fields in states.items():
        if name not in known:
            raise ValueError(f"the network has no neuron '{name}'. Allowed: {', '.join(known)}")
        wanted = [field for field, _, _ in known[name].fields]
        if sorted(fields) != sorted(wanted):
            raise ValueError(f"the state of '{name}' has the fields {', '.join(wanted)}, found {', '.join(fields)}")
        if any(own is None for _, own, _ in known[name].fields):
            raise ValueError(
                f"the state of '{name}' does not stay with it: forward changes it between steps, or steps it several "
                "times. Leave it out"
            )
        found[name] = {field: jnp.asarray(fields[field], dtype) for field in wanted}
    return found
