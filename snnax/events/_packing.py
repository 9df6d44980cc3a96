"""Structured arrays of events to arrays of one length, in NumPy: this part runs where data are loaded."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ._events import Events
from ._times import LARGEST, whole


_ALIGNMENT = 64  # bytes; from this alignment on JAX shares memory of the host instead of copying it


def pack(
    recordings: Sequence[np.ndarray],
    sensor_size: tuple[int, int, int],
    capacity: int | None = None,
    *,
    origin: Literal["first"] | int = 0,
    unit: int = 1,
    sort: bool = False,
) -> Events:
    """A batch of recordings as an int32 array `(batch, 2, events)` of NumPy, aligned so that JAX takes it uncopied.

    **Arguments:**

    - `recordings`: structured arrays with the fields `t` and `x`, and `y` and `p` where the sensor has them, in any
        order and of any integer type or bool. Other fields are ignored. A recording may be empty.
    - `sensor_size`: `(width, height, polarities)`, as Tonic's data sets have it.
    - `capacity`: the room for each recording. By default that of the longest, rounded up by at most a quarter, so that
        compiled functions see few different sizes.
    - `origin`: what is subtracted from all times: a number, or the `"first"` time of each recording.
    - `unit`: of the packed times, in that of the recordings, rounded down: 1000 makes milliseconds of microseconds.
        int32 holds 35 minutes of microseconds, and 24 days of milliseconds. Frames of windows that are a multiple of
        it are those of the exact times.
    - `sort`: sort the events by time (those of equal times keep their order) instead of refusing unsorted ones.

    **Returns:** `Events` of shape `(polarities, height, width)`, or `(polarities, width)` if recordings have no `y`.
    As in Tonic, the polarity of a sensor of one polarity is 0 whatever constant its recording holds.

    **Raises:** `ValueError` with the recording's number: for events off the sensor; unsorted times; times that are
    negative or, in `unit`, beyond int32 after subtracting `origin`; more events than `capacity`; two polarities
    where the sensor has one; recordings with and without y in one batch; options out of range. `TypeError` for what is
    no structured array of integers.

    **Example:**

    >>> import numpy as np
    >>> recording = np.array([(3, 1, 20, 0), (0, 0, 45, 1)], dtype=[("x", int), ("y", int), ("t", int), ("p", bool)])
    >>> events = pack([recording], sensor_size=(4, 2, 2), capacity=3)
    >>> events.t.tolist(), events.address.tolist(), events.shape
    ([[20, 45, 45]], [[7, 8, -1]], (2, 2, 4))
    """
    width, height, polarities = _check_sensor(sensor_size)
    if capacity is not None:
        capacity = whole("pack", "capacity", capacity, 1, LARGEST, ", or None")
    unit = whole("pack", "unit", unit, 1, LARGEST)
    if origin != "first":
        origin = whole("pack", "origin", origin, -(2**63), 2**64 - 1, ', or "first"')
    for number, recording in enumerate(recordings):
        _check_fields(number, recording, height)
    flat = {"y" not in (recording.dtype.names or ()) for recording in recordings}
    if len(flat) > 1:
        raise ValueError("some recordings of the batch have a field y and some have none; pack them apart")
    longest = max(map(len, recordings), default=0)
    room = _room(longest) if capacity is None else capacity
    data = _aligned((len(recordings), 2, room))
    for number, recording in enumerate(recordings):
        count = len(recording)
        if count > room:
            raise ValueError(
                f"recording {number} has {count} events, and capacity is {room}; give more room, or None for as much "
                "as each batch needs"
            )
        times = _column(recording, "t")
        if count and np.any(times[1:] < times[:-1]):
            recording, times = _sorted(number, recording, times, sort)
        t, address = data[number]
        t[:count] = _packed_times(number, times, origin, unit)
        t[count:] = t[count - 1] if count else 0
        address[:count] = _addresses(number, recording, width, height, polarities)
        address[count:] = -1
    shape = (polarities, width) if flat == {True} else (polarities, height, width)
    return Events(data, shape)


def _check_sensor(sensor_size: Any) -> tuple[int, int, int]:
    sizes = tuple(sensor_size) if isinstance(sensor_size, Sequence) else ()
    if len(sizes) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(
            f"sensor_size is {sensor_size!r}; allowed: (width, height, polarities), three positive integers; where the "
            "recordings of a data set differ in size, give the largest"
        )
    width, height, polarities = map(int, sizes)
    if width * height * polarities > LARGEST:
        raise ValueError(
            f"sensor_size is {sensor_size!r}; allowed: up to {LARGEST} pixels in all, as addresses are int32"
        )
    return width, height, polarities


def _check_fields(number: int, recording: Any, height: int) -> None:
    if not isinstance(recording, np.ndarray) or recording.dtype.names is None or recording.ndim != 1:
        found = (
            f"{recording.dtype} {recording.shape}" if isinstance(recording, np.ndarray) else type(recording).__name__
        )
        raise TypeError(
            f"recording {number} is {found}; allowed: a structured array (events,) with the fields t, x, y, p; "
            "numpy.lib.recfunctions.unstructured_to_structured makes one from columns"
        )
    missing = [name for name in ("t", "x") if name not in recording.dtype.names]
    if missing or ("y" not in recording.dtype.names and height != 1):
        raise ValueError(
            f"recording {number} has the fields {recording.dtype.names}; needed: t and x, and y for a sensor of height "
            f"{height}; numpy.lib.recfunctions.rename_fields renames them"
        )
    for name in ("t", "x", "y", "p"):
        if name in recording.dtype.names and recording.dtype[name].kind not in "iub":
            raise TypeError(
                f"recording {number} has {name} of {recording.dtype[name]}; allowed: integers; bring times in seconds "
                "to whole microseconds, (1e6 * t).astype(int)"
            )


def _column(recording: np.ndarray, name: str) -> np.ndarray:
    """A field by itself: all that follows takes a third of the time where the values lie side by side."""
    return np.ascontiguousarray(recording[name], recording.dtype[name].newbyteorder("="))


def _sorted(number: int, recording: np.ndarray, times: np.ndarray, sort: bool) -> tuple[np.ndarray, np.ndarray]:
    if not sort:
        first = int(np.argmax(times[1:] < times[:-1])) + 1
        raise ValueError(
            f"recording {number} is not sorted by time: event {first} is at {times[first]}, the one before at "
            f"{times[first - 1]}; pass sort=True, or look for a clock that wrapped around"
        )
    order = np.argsort(times, kind="stable")
    return recording[order], times[order]


def _packed_times(number: int, times: np.ndarray, origin: Literal["first"] | int, unit: int) -> np.ndarray:
    """Sorted times since `origin` in `unit`s. **Raises:** `ValueError` where int32 does not hold them."""
    if not len(times):
        return times
    # Python numbers, which no type limits
    first, last = int(times[0]), int(times[-1])
    base = first if origin == "first" else origin
    if first < base or (last - base) // unit > LARGEST:
        needed = -(-(last - first + 1) // 2**31)
        raise ValueError(
            f"recording {number} has times from {first - base} to {last - base}; allowed: 0 to {unit * 2**31 - 1}; "
            + ('pass origin="first" to count from the first event' if needed <= unit else "")
            + (f'pass origin="first" and a unit of {needed} or more, such as unit=1000' if needed > unit else "")
        )
    if base == 0 and unit == 1:
        return times
    # Exact for all 64-bit times, whether they have a sign or not: what wraps around twice is right again
    since = times.astype(np.int64 if times.dtype.kind == "i" else np.uint64).view(np.uint64) - np.uint64(base % 2**64)
    return since // np.uint64(unit)


def _addresses(number: int, recording: np.ndarray, width: int, height: int, polarities: int) -> np.ndarray:
    """`(p * height + y) * width + x`, after a check that each is on the sensor."""
    fields = recording.dtype.names or ()
    address = np.zeros(len(recording), np.int32)
    for name, size in (("p", polarities), ("y", height), ("x", width)):
        address *= size
        if name not in fields or not len(recording):
            continue
        values = _column(recording, name)
        if name == "p" and size == 1:
            if values.min() != values.max():
                raise ValueError(
                    f"recording {number} has both polarities {values.min()} and {values.max()}; sensor_size says that "
                    "it has 1"
                )
            continue
        # Read as unsigned, negative numbers are the largest: one pass instead of two
        if values.view(f"u{values.itemsize}").max() >= size:
            low, high = values.min(), values.max()
            raise ValueError(
                f"recording {number} has {name} from {low} to {high}; allowed on this sensor: 0 to {size - 1}"
                + (" (map -1 to 0)" if name == "p" and low == -1 else "; check sensor_size")
            )
        address += values.astype(np.int32)
    return address


def _room(count: int) -> int:
    """`count` rounded up to three significant bits, and to at least 256: four sizes per doubling."""
    step = max(256, 1 << max(0, count.bit_length() - 3))
    return max(step, -(-count // step) * step)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    raw = np.empty(count * 4 + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count * 4].view(np.int32).reshape(shape)
