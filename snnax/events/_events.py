"""Recordings as arrays of one length, with padding."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int


class Events(eqx.Module):
    """The events of one recording or of a batch, in the order of their times; made by `snnax.events.pack`.

    Where a recording has fewer events than there is room for, padding follows: its address is -1, its time that of the
    last event. Thus the first and the last time of a recording are the first and last entry, and the times of an
    event-driven layer never run backwards.
    """

    data: Any
    """`(..., 2, events)`, integers: `t` and `address`. One array, as each costs a transfer of its own."""
    shape: tuple[int, ...] = eqx.field(static=True)
    """Of one frame: `(polarity, height, width)`, or `(polarity, width)` of a sensor without y."""

    @property
    def t(self) -> Any:
        """Times `(..., events)`, in the unit of the recording; microseconds in most data sets."""
        return self.data[..., 0, :]

    @property
    def address(self) -> Any:
        """Where in `shape`, as an index into the flattened array, row by row; -1 for padding. `(..., events)`."""
        return self.data[..., 1, :]

    @property
    def valid(self) -> Bool[Array, "... events"]:
        """False for padding."""
        return jnp.asarray(self.address) >= 0

    @property
    def count(self) -> Int[Array, "..."]:
        """How many events each recording has."""
        return jnp.sum(self.valid, axis=-1)

    def coordinates(self) -> tuple[Int[Array, "... events"], ...]:
        """Polarity, y (if the sensor has one) and x of every event; -1 for padding."""
        address = jnp.asarray(self.address)
        along = jnp.unravel_index(jnp.maximum(address, 0), self.shape)
        return tuple(jnp.where(address >= 0, index, -1) for index in along)


def steps_of(name: str, steps: int) -> int:
    """**Raises:** `ValueError` when `steps` is no number of time steps."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(
            f"{name}: steps is {steps!r}; allowed: 0 or more time steps, an int that is known to the compiler"
        )
    return steps


def cells(name: str, events: Events, steps: int) -> int:
    """How many cells there are per time step of a batch. **Raises:** `ValueError` when indices would not fit int32."""
    size = math.prod((*events.address.shape[:-1], *events.shape))
    if size * steps >= 2**31:
        raise ValueError(
            f"{name}: {steps} time steps of {size} cells each are more than 2**31 - 1 cells; bin parts of the batch"
        )
    return size


def place(events: Events) -> Int[Array, "... events"]:
    """The index of each event into the flattened cells of one time step of the batch; meaningless for padding."""
    batch = events.address.shape[:-1]
    first = jnp.arange(math.prod(batch), dtype=jnp.int32).reshape(*batch, 1) * math.prod(events.shape)
    return first + jnp.asarray(events.address, jnp.int32)


def index(events: Events, step: Int[Array, "... events"], steps: int, size: int) -> Int[Array, "... events"]:
    """The index of each event into the flattened cells of all time steps, and one beyond the end for what has none."""
    inside = events.valid & (step >= 0) & (step < steps)
    # Not -1: a negative index counts from the end, also where indices out of range are dropped
    return jnp.where(inside, step * size + place(events), steps * size)


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """In which to compute what is returned as `dtype`: sums and times are too much for 16 bits."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)
