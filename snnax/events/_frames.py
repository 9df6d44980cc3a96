"""Frames: how many events each pixel has in each time step."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, Shaped, UInt

from ._events import Events, at_least_float32, cells, index
from ._times import LARGEST, elapsed, steps_of, whole, window_of


def frames_by_time(
    events: Events,
    steps: int,
    window: int | None = None,
    *,
    start: int | Int[Array, ""] | None = None,
    overlap: int = 0,
    dtype: DTypeLike = jnp.float32,
) -> Shaped[Array, "time ..."]:
    r"""Events counted per pixel over `steps` windows of time.

    Step $k$ counts the events from `start + k * (window - overlap)` on, for the time `window`; its end excluded. As
    `tonic.transforms.ToFrame(time_window=window)` (Tonic 1.7), which makes as many frames as fit a recording, drops the
    last one if the recording ends before it does, and so has another number of them for every recording. `window=None`
    is `ToFrame(n_time_bins=steps)`, except that the last frame also has the events of the remainder, which Tonic loses.

    **Arguments:**

    - `events`: of a recording or a batch.
    - `steps`: the number of frames. Where recordings are longer, this crops them: events after the last window belong
        to no frame.
    - `window`: in the unit of the times; None divides each recording's own duration.
    - `start`: where the first window begins; None: at each recording's first event.
    - `overlap`: the time that successive windows share, less than `window`.
    - `dtype`: counts stop at the largest of their type, neither wrapping nor infinite; bool says whether there was an
        event.
        Frames of int16 or bool, cast to float within the model, take less memory and time.

    **Returns:** `(time, *batch, *events.shape)`.

    **Raises:** `ValueError` for an option out of its range, or more than 2**31 - 1 pixels in all.

    **Example:**

    >>> from snnax.events import Events
    >>> events = Events(jnp.array([[10, 11, 25, 25], [0, 0, 2, -1]]), shape=(1, 3))
    >>> frames_by_time(events, steps=2, window=10, dtype=jnp.int16).tolist()
    [[[2, 0, 0]], [[0, 0, 1]]]
    """
    name = "frames_by_time"
    steps = steps_of(name, steps)
    if window is None:
        _check_overlap(name, "window", None, overlap)
        if start is not None:
            raise ValueError(f"{name}: start needs a window; without one, each recording's own duration is divided")
        since, before = elapsed(name, events)
        # Of padding, too: its time is that of the last event. Shorter than a unit per step: one unit each
        window_of_each = jnp.maximum(since[..., -1:] // max(steps, 1), 1)
        return _accumulate(name, events, steps, dtype, _step(since // window_of_each, before, max(steps - 1, 0)))
    window = window_of(name, events, window, unless=", or None")
    overlap = _check_overlap(name, "window", window, overlap)
    return _in_windows(name, events, steps, dtype, *elapsed(name, events, start), window, overlap)


def frames_by_count(
    events: Events, steps: int, count: int | None = None, *, overlap: int = 0, dtype: DTypeLike = jnp.float32
) -> Shaped[Array, "time ..."]:
    """Events counted per pixel over `steps` groups of `count` successive events.

    As `tonic.transforms.ToFrame(event_count=count)` (Tonic 1.7) but for the number of frames, and that the last frame
    of a recording may have fewer events. `count=None` is `ToFrame(n_event_bins=steps)`, except that the last frame also
    has the events of the remainder, which Tonic loses.

    **Arguments:** as of `frames_by_time`; `count` and `overlap` are numbers of events.

    **Returns:** `(time, *batch, *events.shape)`.

    **Raises:** as `frames_by_time`.

    **Example:**

    >>> from snnax.events import Events
    >>> events = Events(jnp.array([[10, 11, 25, 26], [0, 0, 2, 1]]), shape=(1, 3))
    >>> frames_by_count(events, steps=2, count=3, dtype=jnp.int16).tolist()
    [[[2, 0, 1]], [[0, 1, 0]]]
    """
    name = "frames_by_count"
    steps = steps_of(name, steps)
    rank = jnp.broadcast_to(jnp.arange(events.address.shape[-1], dtype=jnp.uint32), events.address.shape)
    never = jnp.zeros(rank.shape, bool)
    if count is None:
        _check_overlap(name, "count", None, overlap)
        count_of_each = jnp.maximum(events.count[..., None] // max(steps, 1), 1).astype(rank.dtype)
        return _accumulate(name, events, steps, dtype, _step(rank // count_of_each, never, max(steps - 1, 0)))
    count = whole(name, "count", count, 1, LARGEST, ", or None")
    overlap = _check_overlap(name, "count", count, overlap)
    return _in_windows(name, events, steps, dtype, rank, never, count, overlap)


def _check_overlap(name: str, what: str, window: int | None, overlap: int) -> int:
    if window is None:
        return whole(name, "overlap", overlap, 0, 0, do=f"give {what}, too, which is None")
    return whole(name, "overlap", overlap, 0, window - 1, do=f"overlap is less than {what}, which is {window}")


def _step(step: UInt[Array, "... events"], before: Bool[Array, "... events"], most: int) -> Int[Array, "... events"]:
    """-1 for what is before the start, and up to `most`: the steps that are not asked for are all one."""
    return jnp.where(before, -1, jnp.minimum(step, most).astype(jnp.int32))


def _in_windows(
    name: str,
    events: Events,
    steps: int,
    dtype: DTypeLike,
    since: UInt[Array, "... events"],
    before: Bool[Array, "... events"],
    window: int,
    overlap: int,
) -> Shaped[Array, "time ..."]:
    """Events counted in windows that share `overlap` with the next; `since`: the start of the first."""
    stride = window - overlap
    latest = since // stride
    if not overlap:
        return _accumulate(name, events, steps, dtype, _step(latest, before, steps))
    shown = jnp.minimum(latest, max(steps - 1, 0))
    # In how many windows the event is: from the latest back, those that begin less than a window before it; without
    # those after the last one that is asked for
    within = (window - 1 - (since - latest * stride)) // stride + 1
    missed = latest - shown
    within = jnp.where(within > missed, jnp.minimum(within - missed, steps), 0).astype(jnp.int32)
    most = min(-(-window // stride), steps)
    return _accumulate(name, events, steps, dtype, _step(shown, before, steps), within, most)


def _accumulate(
    name: str,
    events: Events,
    steps: int,
    dtype: DTypeLike,
    latest: Int[Array, "... events"],
    within: Int[Array, "... events"] | None = None,
    most: int = 1,
) -> Shaped[Array, "time ..."]:
    """Events counted in the time step `latest`, and in those before it: in `within` of them, of which none is more
    than `most`.
    """
    dtype = jnp.dtype(dtype)
    floating = jnp.issubdtype(dtype, jnp.floating)
    if not (floating or jnp.issubdtype(dtype, jnp.integer) or dtype.kind == "b"):
        raise ValueError(f"{name}: dtype is {dtype}; allowed: integers, floats, bool")
    size = cells(name, events, steps)
    counting = _counting(dtype, events.address.shape[-1])

    def count(earlier: Array | int, counts: Array) -> Array:
        step = latest - earlier
        if within is not None:
            step = jnp.where(earlier < within, step, -1)
        places = index(events, step, steps, size)
        if counting.kind == "b":
            return counts.at[places].set(True, mode="drop")
        return counts.at[places].add(jnp.ones((), counting), mode="drop")

    counts = jnp.zeros(steps * size, counting)
    counts = count(0, counts) if within is None else jax.lax.fori_loop(0, most, count, counts)
    if counting != dtype:
        largest = float(jnp.finfo(dtype).max) if floating else jnp.iinfo(dtype).max
        # A Python number, which takes the type of the counts; any count fits bfloat16 and float32
        counts = jnp.minimum(counts, int(largest)) if int(largest) < 2**31 else counts
    return counts.astype(dtype).reshape(steps, *events.address.shape[:-1], *events.shape)


def _counting(dtype: jnp.dtype, most: int) -> jnp.dtype:
    """The type to count up to `most` in: it neither wraps around nor, as a float does, stops where 1 is less than its
    spacing; `dtype`, if it can.
    """
    if dtype.kind == "b":
        return dtype
    if jnp.issubdtype(dtype, jnp.floating):
        wide = at_least_float32(dtype)
        return wide if most <= 2 ** (jnp.finfo(wide).nmant + 1) else jnp.dtype(jnp.int32)
    if most <= jnp.iinfo(dtype).max:
        return dtype
    return jnp.dtype(jnp.int16 if most <= jnp.iinfo(jnp.int16).max else jnp.int32)
