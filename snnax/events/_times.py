"""Times and options as whole numbers that fit: what is checked before binning, and the times since a start.

Times are subtracted as unsigned numbers of their width, which is exact for any two of them, the later minus the
earlier; a signed difference wraps around from half of that range on.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt

from ._events import Events, check_times


LARGEST = 2**31 - 1


def whole(name: str, what: str, value: Any, low: int, high: int, unless: str = "", do: str = "") -> int:
    """`value` as an int. **Raises:** `ValueError` for what is none, or not in `low` to `high`; `unless`: other values
    that are allowed; `do`: advice.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_whole and low <= value <= high:
        return int(value)
    if not is_whole and not do and isinstance(value, float | np.floating) and value.is_integer():
        do = f"write {int(value)}"
    allowed = f"an int that is known to the compiler, from {low} to {high}"
    raise ValueError(f"{name}: {what} is {value!r}; allowed: {allowed}{unless}{f'; {do}' if do else ''}")


def steps_of(name: str, steps: Any) -> int:
    """**Raises:** `ValueError` when `steps` is no number of time steps."""
    return whole(name, "steps", steps, 0, LARGEST)


def window_of(name: str, events: Events, window: Any, unless: str = "") -> int:
    """**Raises:** `ValueError` when `window` is no time that has the type of the times."""
    bits, largest = _limits(name, events)[1:]
    fix = "times of a larger unit, as by pack(unit=1000), or of 64 bits, under jax_enable_x64" if bits == 32 else ""
    is_large = isinstance(window, int | np.integer) and window > largest
    return whole(name, "window", window, 1, largest, unless, f"times are int{bits}: use {fix}" if is_large else "")


def elapsed(
    name: str, events: Events, start: int | Int[Array, ""] | None = None
) -> tuple[UInt[Array, "... events"], Bool[Array, "... events"]]:
    """The time of each event since `start`, by default since the first event; and whether it is before that, where the
    time means nothing.

    **Raises:** `ValueError` for a `start` and for times that their type does not hold.
    """
    t, bits, largest = _limits(name, events)
    if start is None:
        first = t[..., :1]
    elif isinstance(start, jax.Array) and jnp.issubdtype(start.dtype, jnp.signedinteger):
        first = start.astype(t.dtype)
    else:
        first = jnp.asarray(whole(name, "start", start, -largest - 1, largest, ", or None"), t.dtype)
    unsigned = jnp.dtype(f"uint{bits}")
    return t.astype(unsigned) - first.astype(unsigned), t < first


def _limits(name: str, events: Events) -> tuple[Int[Array, "... events"], int, int]:
    """The times with 32 or 64 bits, how many these are, and the largest time."""
    check_times(name, events.data)
    t = jnp.asarray(events.t)
    if not jnp.issubdtype(t.dtype, jnp.signedinteger):
        raise ValueError(f"{name}: the times and addresses of the events are {t.dtype}; allowed: signed integers")
    t = t if t.dtype.itemsize == 8 else t.astype(jnp.int32)
    return t, 8 * t.dtype.itemsize, int(jnp.iinfo(t.dtype).max)
