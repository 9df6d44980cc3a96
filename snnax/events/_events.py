"""Recordings as arrays of one length, with padding."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int


class Events(eqx.Module):
    """The events of one recording or of a batch, in the order of their times; made by `snnax.events.pack`.

    Where a recording has fewer events than there is room for, padding follows: its address is -1, its time that of the
    last event. Thus the first and the last time of a recording are the first and last entry, and the times of an
    event-driven layer never run backwards.

    **Raises:** `ValueError` for 64-bit NumPy data beyond int32 while `jax_enable_x64` is off, which JAX would cut.
    """

    data: Any
    """`(..., 2, events)`, signed integers: `t` and `address`. One array, as each costs a transfer of its own."""
    shape: tuple[int, ...] = eqx.field(static=True)
    """Of one frame: `(polarity, height, width)`, or `(polarity, width)` of a sensor without y."""

    def __check_init__(self):
        check_times("Events", self.data)

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


def check_times(name: str, data: Any) -> None:
    """**Raises:** `ValueError` for times or addresses of the host that JAX would cut to 32 bits and thereby change."""
    # Of arrays of NumPy only: within jit nothing is left to see of what was cut
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "iu" or not data.size:
        return
    allowed = np.iinfo(jax.dtypes.canonicalize_dtype(data.dtype))
    low, high = int(data.min()), int(data.max())
    if low < allowed.min or high > allowed.max:
        raise ValueError(
            f"{name}: found times or addresses from {low} to {high}; allowed without jax_enable_x64: {allowed.min} to "
            f'{allowed.max}; snnax.events.pack counts from the first event, origin="first", and in a larger unit, '
            "unit=1000"
        )


def cells(name: str, events: Events, steps: int) -> int:
    """How many cells there are per time step of a batch. **Raises:** `ValueError` when indices would not fit int32."""
    size = math.prod((*events.address.shape[:-1], *events.shape))
    # Without a time step, too: the places within one are numbers
    if size * max(steps, 1) >= 2**31:
        raise ValueError(
            f"{name}: {steps} time steps of {size} cells each are more than 2**31 - 1 cells; bin parts of the batch"
        )
    return size


def addresses(events: Events) -> Int[Array, "... events"]:
    """The addresses with at least 32 bits, which hold all numbers of cells."""
    address = jnp.asarray(events.address)
    return address if address.dtype.itemsize == 8 else address.astype(jnp.int32)


def place(events: Events) -> Int[Array, "... events"]:
    """The index of each event into the flattened cells of one time step of the batch; meaningless for padding."""
    batch = events.address.shape[:-1]
    first = jnp.arange(math.prod(batch), dtype=jnp.int32).reshape(*batch, 1) * math.prod(events.shape)
    return first + jnp.asarray(events.address, jnp.int32)


def index(events: Events, step: Int[Array, "... events"], steps: int, size: int) -> Int[Array, "... events"]:
    """The index of each event into the flattened cells of all time steps, and one beyond the end for what has none."""
    # Before the address is cut to int32, and so that none is in the cells of the next recording
    inside = events.valid & (addresses(events) < math.prod(events.shape)) & (step >= 0) & (step < steps)
    # Not -1: a negative index counts from the end, also where indices out of range are dropped
    return jnp.where(inside, step * size + place(events), steps * size)


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """In which to compute what is returned as `dtype`: sums and times are too much for 16 bits."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)
