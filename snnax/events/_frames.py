"""Frames: how many events each pixel has in each time step."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Shaped

from ._events import Events, at_least_float32, cells, index, steps_of


def frames_by_time(
    events: Events,
    steps: int,
    window: int | None = None,
    *,
    start: int | None = None,
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
    - `dtype`: integer counts stop at the largest of their type and never wrap; bool says whether there was an event.
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
    _check_window(name, "window", window, overlap)
    if start is not None and window is None:
        raise ValueError(f"{name}: start needs a window; without one, each recording's own duration is divided")
    t = jnp.asarray(events.t)
    since = t - (t[..., :1] if start is None else start)
    if window is None:
        # Of padding, too: its time is that of the last event. Shorter than a unit per step: one unit each
        window_of_each = jnp.maximum(since[..., -1:] // max(steps, 1), 1)
        return _accumulate(name, events, steps, dtype, jnp.minimum(since // window_of_each, steps - 1))
    return _in_windows(name, events, steps, dtype, since, window, overlap)


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
    _check_window(name, "count", count, overlap)
    rank = jnp.broadcast_to(jnp.arange(events.address.shape[-1], dtype=jnp.int32), events.address.shape)
    if count is None:
        count_of_each = jnp.maximum(events.count[..., None] // max(steps, 1), 1)
        return _accumulate(name, events, steps, dtype, jnp.minimum(rank // count_of_each, steps - 1))
    return _in_windows(name, events, steps, dtype, rank, count, overlap)


def _check_window(name: str, what: str, window: int | None, overlap: int) -> None:
    if window is not None and window < 1:
        raise ValueError(f"{name}: {what} is {window}; allowed: 1 or more, or None")
    if overlap and (window is None or not 0 < overlap < window):
        raise ValueError(f"{name}: overlap is {overlap} and {what} {window}; allowed: 0 or more and less than {what}")


def _in_windows(
    name: str,
    events: Events,
    steps: int,
    dtype: DTypeLike,
    since: Int[Array, "... events"],
    window: int,
    overlap: int,
) -> Shaped[Array, "time ..."]:
    """Events counted in windows that share `overlap` with the next; `since`: the start of the first."""
    stride = window - overlap
    latest = since // stride
    if not overlap:
        return _accumulate(name, events, steps, dtype, latest)
    return _accumulate(name, events, steps, dtype, latest, since - latest * stride, window=window, stride=stride)


def _accumulate(
    name: str,
    events: Events,
    steps: int,
    dtype: DTypeLike,
    latest: Int[Array, "... events"],
    begun: Int[Array, "... events"] | None = None,
    *,
    window: int = 1,
    stride: int = 1,
) -> Shaped[Array, "time ..."]:
    """Events counted in the time step `latest`, and in those before it whose windows have not ended.

    `begun`: how long ago the window of `latest` began, for windows that begin `stride` apart and last `window`.
    """
    dtype = jnp.dtype(dtype)
    floating = jnp.issubdtype(dtype, jnp.floating)
    if not (floating or jnp.issubdtype(dtype, jnp.integer) or dtype.kind == "b"):
        raise ValueError(f"{name}: dtype is {dtype}; allowed: integers, floats, bool")
    size = cells(name, events, steps)
    # In a type that neither wraps around nor, as a narrow float does, stops counting where 1 is less than its spacing
    counting = at_least_float32(dtype) if floating else _wide_enough(dtype, most=events.address.shape[-1])

    def count(earlier: Array | int, counts: Array) -> Array:
        step = latest - earlier
        if begun is not None:
            step = jnp.where(begun + earlier * stride < window, step, -1)
        places = index(events, step, steps, size)
        if counting.kind == "b":
            return counts.at[places].set(True, mode="drop")
        return counts.at[places].add(jnp.ones((), counting), mode="drop")

    counts = jnp.zeros(steps * size, counting)
    windows = -(-window // stride)
    counts = count(0, counts) if windows == 1 else jax.lax.fori_loop(0, windows, count, counts)
    if counting != dtype and not floating:
        counts = jnp.minimum(counts, jnp.iinfo(dtype).max)
    return counts.astype(dtype).reshape(steps, *events.address.shape[:-1], *events.shape)


def _wide_enough(dtype: jnp.dtype, most: int) -> jnp.dtype:
    """The integer type that counts to `most`: `dtype`, if it can."""
    if dtype.kind == "b" or most <= jnp.iinfo(dtype).max:
        return dtype
    return jnp.dtype(jnp.int16 if most <= jnp.iinfo(jnp.int16).max else jnp.int32)
