"""Sequences along the leading time axis, and inputs that are the same at every time step."""

from typing import Any, NamedTuple

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


def time_slice(x: Any, start: int, stop: int) -> Any:
    """Some time steps of an input."""
    if isinstance(x, Repeat):
        return Repeat(x.value, stop - start)
    return jax.tree.map(lambda x: x[start:stop], x)


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
    """One key for every time step, from one key or from as many as there are steps.

    **Raises:** `ValueError` when there is another number of keys than time steps, `TypeError` for no key.
    """
    if key is None:
        return None
    if not isinstance(key, jax.Array):
        raise TypeError(f"a key is an array as from jax.random.key(0), found {key!r}")
    if key.ndim == (0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1):
        return jax.random.split(key, num_steps)
    if key.shape[0] != num_steps:
        raise ValueError(f"expected one key, or one for each of {num_steps} time steps, found {key.shape[0]}")
    return key


def step_mask(mask: Any, num_steps: int) -> Array | None:
    """Which time steps count, one Boolean each; None where all do.

    **Raises:** `ValueError` for a mask of another shape, `TypeError` for one that is not Boolean.
    """
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"a mask is Boolean, True where a time step counts; found {mask.dtype}")
    if mask.shape != (num_steps,):
        raise ValueError(f"a mask has one value for each of {num_steps} time steps, found the shape {mask.shape}")
    return mask


def keep(counts: Array | None, new: Any, old: Any) -> Any:
    """The new state where the time step counts, else the old one."""
    return new if counts is None else jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, old)


def varying_as(tree: Any, others: Any) -> Any:
    """A tree that differs over the mesh axes of a `jax.shard_map` over which it or any of the others does.

    What a loop carries has to: it starts the same on all devices, and its first step makes it that of one. Parameters
    do for speed: their gradient is summed over the devices once, and not in every step.
    """
    arrays = [leaf for leaf in jax.tree.leaves((tree, others)) if isinstance(leaf, jax.Array)]
    axes: frozenset[Any] = frozenset().union(*map(_varying, arrays))
    if not axes:
        return tree

    def cast(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        missing = axes - _varying(x)
        return jax.lax.pcast(x, tuple(missing), to="varying") if missing else x

    return jax.tree.map(cast, tree)


def _varying(x: Any) -> frozenset[Any]:
    # Named `vma` by some releases of JAX.
    found = jax.typeof(x)
    return found.vma if hasattr(found, "vma") else found.manual_axis_type.varying


class Carry(NamedTuple):
    """States, and those before the last time step that counted; None where all steps count.

    A step that does not count is the last one that did, computed again: see `repeated`.
    """

    states: Any
    earlier: Any = None

    @staticmethod
    def first(states: Any, mask: Array | None) -> "Carry":
        """Before all time steps."""
        return Carry(states, None if mask is None else states)

    def start(self, counts: Array | None) -> Any:
        """The states that a time step begins with."""
        return keep(counts, self.states, self.earlier)

    def after(self, counts: Array | None, new: Any) -> "Carry":
        """After a time step that gave the states `new`."""
        new = varying_as(new, self.states)
        return Carry(keep(counts, new, self.states), None if counts is None else self.start(counts))


def last_counting(mask: Array) -> Array:
    """For every time step the last one up to it that counts, or the first that does; 0 where none does."""
    steps = jnp.arange(mask.shape[0])
    last = jax.lax.cummax(jnp.where(mask, steps, -1))
    return jnp.where(last < 0, jnp.argmax(mask) if mask.shape[0] else 0, last)


def repeated(mask: Array | None, inputs: Any, keys: Array | None) -> tuple[Any, Array | None]:
    """Inputs and keys in which a time step that does not count has those of one that does.

    Steps that do not count are computed, and their results dropped. Zeros would do for the results; but where a network
    divides by its input, say, their gradient is `0 * inf`. On what another step computed it is as finite as there.
    """
    if mask is None or mask.shape[0] == 0:
        return inputs, keys
    steps = last_counting(mask)
    # Without any such step there is nothing to repeat, and the inputs may be anything.
    fill = lambda x: jnp.where(mask.any(), x[steps], jnp.ones((), x.dtype))  # noqa: E731
    fill_all = lambda x: x if isinstance(x, Repeat) else jax.tree.map(fill, x)  # noqa: E731
    inputs = jax.tree.map(fill_all, inputs, is_leaf=_is_repeat)
    return inputs, None if keys is None else keys[steps]


def _is_repeat(x: Any) -> bool:
    return isinstance(x, Repeat)


def zeroed(mask: Array | None, sequences: Any) -> Any:
    """Sequences with zeros at the time steps that do not count."""
    if mask is None:
        return sequences
    wide = lambda x: mask.reshape(-1, *(1,) * (x.ndim - 1))  # noqa: E731
    return jax.tree.map(lambda x: jnp.where(wide(x), x, jnp.zeros((), x.dtype)), sequences)


def scan_layer(layer: Any, state: Any, xs: Any, keys: Any = None, mask: Array | None = None) -> tuple[Any, Any]:
    """A layer over a sequence, step by step: what an `AbstractSequenceLayer` does where it knows nothing better."""

    def body(carry, inputs):
        x, key, counts = inputs
        new, out = layer(carry.start(counts), x, key=key)
        return carry.after(counts, new), out

    carry, outs = jax.lax.scan(body, Carry.first(state, mask), (xs, keys, mask))
    return carry.states, outs
