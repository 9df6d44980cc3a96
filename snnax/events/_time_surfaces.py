"""Time surfaces: how long ago each pixel had its last event."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ._events import Events, at_least_float32, cells, index
from ._times import elapsed, steps_of, window_of


def time_surfaces(
    events: Events,
    steps: int,
    window: int,
    tau: float,
    *,
    start: int | Int[Array, ""] | None = None,
    dtype: DTypeLike = jnp.float32,
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
    window = window_of(name, events, window)
    if isinstance(tau, bool) or not isinstance(tau, int | float | np.number) or not tau > 0:
        raise ValueError(f"{name}: tau is {tau!r}; allowed: a number above 0, in the unit of the times")
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ValueError(f"{name}: dtype is {jnp.dtype(dtype)}; allowed: floats")
    size = cells(name, events, steps)
    since, before = elapsed(name, events, start)
    step = since // window
    places = index(events, jnp.where(before, -1, jnp.minimum(step, steps).astype(jnp.int32)), steps, size)
    # The time from the latest event of each pixel and window to the end of that, which is 1 to `window`
    never = jnp.array(jnp.iinfo(since.dtype).max, since.dtype)
    rest = jnp.full(steps * size, never, since.dtype).at[places].min(window - (since - step * window), mode="drop")
    wide = at_least_float32(dtype)

    def surface(latest: tuple[Array, Array], rest: Array) -> tuple[tuple[Array, Array], Array]:
        is_new = rest != never
        # Whole windows apart from the rest: their time in all, an integer, would wrap around after 2**32 units
        windows, rest = jnp.where(is_new, 0, latest[0] + 1), jnp.where(is_new, rest, latest[1])
        age = windows.astype(wide) * float(window) + rest.astype(wide)
        return (windows, rest), jnp.where(rest == never, 0, jnp.exp(age / -tau)).astype(dtype)

    latest = jnp.zeros(size, jnp.int32), jnp.full(size, never, since.dtype)
    # A scan and not cummax, which takes ten times as long on a CPU
    _, surfaces = jax.lax.scan(surface, latest, rest.reshape(steps, size))
    return surfaces.reshape(steps, *events.address.shape[:-1], *events.shape)
