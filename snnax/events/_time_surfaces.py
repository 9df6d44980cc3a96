"""Time surfaces: how long ago each pixel had its last event."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ._events import Events, at_least_float32, cells, index, steps_of


def time_surfaces(
    events: Events, steps: int, window: int, tau: float, *, start: int | None = None, dtype: DTypeLike = jnp.float32
) -> Float[Array, "time ..."]:
    r"""$\exp(-(t_k - t_\text{last}) / \tau)$ per pixel at the end $t_k$ of each of `steps` windows of time.

    $t_\text{last}$ is the time of the latest event of the pixel in this window or an earlier one; 0 where there was
    none. Over the whole sensor, as `tonic.transforms.ToTimesurface(dt=window, tau=tau)` (Tonic 1.7), after Lagorce et
    al. 2017 (doi:10.1109/TPAMI.2016.2574707); Tonic makes as many as fit each recording.

    **Arguments:**

    - `events`: of a recording or a batch.
    - `steps`: the number of surfaces.
    - `window`, `tau`: in the unit of the times.
    - `start`: where the first window begins; None: at each recording's first event.
    - `dtype`: a float.

    **Returns:** `(time, *batch, *events.shape)`, from 0 to 1.

    **Raises:** `ValueError` for an option out of its range, or more than 2**31 - 1 pixels in all.

    **Example:**

    >>> from snnax.events import Events
    >>> events = Events(jnp.array([[0, 5, 15], [0, 0, 1]]), shape=(1, 2))
    >>> (100 * time_surfaces(events, steps=2, window=10, tau=5.0)).round().tolist()
    [[[37.0, 0.0]], [[5.0, 37.0]]]
    """
    name = "time_surfaces"
    steps = steps_of(name, steps)
    if window < 1 or not tau > 0:
        raise ValueError(f"{name}: window is {window} and tau {tau}; allowed: window of 1 or more, tau above 0")
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ValueError(f"{name}: dtype is {jnp.dtype(dtype)}; allowed: floats")
    size = cells(name, events, steps)
    t = jnp.asarray(events.t)
    since = t - (t[..., :1] if start is None else start)
    never = jnp.iinfo(t.dtype).min
    places = index(events, since // window, steps, size)
    latest = jnp.full(steps * size, never, t.dtype).at[places].max(since, mode="drop")
    wide = at_least_float32(dtype)

    def surface(before: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        latest, end = inputs
        latest = jnp.maximum(before, latest)
        # The difference of integers is exact; of float32 times it would be off by milliseconds after some hours
        age = jnp.where(latest == never, 0, end - latest)
        return latest, jnp.where(latest == never, 0, jnp.exp(age.astype(wide) / -tau)).astype(dtype)

    ends = jnp.arange(1, steps + 1, dtype=t.dtype) * window
    # A scan and not cummax, which takes ten times as long on a CPU
    _, surfaces = jax.lax.scan(surface, jnp.full(size, never, t.dtype), (latest.reshape(steps, size), ends))
    return surfaces.reshape(steps, *t.shape[:-1], *events.shape)
