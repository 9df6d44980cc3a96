"""Sequences along the leading time axis, and inputs that are the same at every time step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


class Repeat(eqx.Module):
    """The same input at each of `num_steps` time steps.

    What depends on nothing else is computed once and not at every step.

    >>> Repeat(jnp.ones(3), num_steps=5).sequence().shape
    (5, 3)
    """

    value: Any
    num_steps: int = eqx.field(static=True)

    def sequence(self) -> Any:
        """The same as an array with a leading time axis."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.num_steps, *jnp.shape(x))), self.value)


def as_sequence(x: Any) -> Any:
    return x.sequence() if isinstance(x, Repeat) else x


def as_sequences(tree: Any) -> Any:
    """All values of a tree as sequences."""
    return jax.tree.map(as_sequence, tree, is_leaf=lambda x: isinstance(x, Repeat))


def input_sequences(xs: Any, names: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """The inputs of a model by name, and the number of time steps.

    **Raises:** `ValueError` when inputs are missing, have no time axis, or disagree about its length.
    """
    values = xs if len(names) != 1 else (xs,)
    if not isinstance(values, tuple | list) or len(values) != len(names):
        found = len(values) if isinstance(values, tuple | list) else type(values).__name__
        raise ValueError(f"expected a tuple of {len(names)} inputs {list(names)}, found {found}")
    lengths = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Repeat):
            lengths[name] = value.num_steps
        else:
            for leaf in jax.tree.leaves(value):
                if jnp.ndim(leaf) == 0:
                    raise ValueError(f"input '{name}' must be time-major (time, ...), found a scalar")
                lengths[name] = leaf.shape[0]
    if len(set(lengths.values())) != 1:
        raise ValueError(f"all inputs must have the same number of time steps, found {lengths}")
    return dict(zip(names, values, strict=True)), lengths[names[0]]


def step_keys(key: Array | None, num_steps: int) -> Array | None:
    """One key for every time step."""
    return None if key is None else jax.random.split(key, num_steps)
