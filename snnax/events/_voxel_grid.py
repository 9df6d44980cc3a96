"""Voxel grids: signed events, shared between the two time bins that are next to them."""

import math

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ._events import Events, addresses, at_least_float32, cells, index
from ._times import elapsed, steps_of


def voxel_grid(events: Events, steps: int, *, dtype: DTypeLike = jnp.float32) -> Float[Array, "time ..."]:
    r"""The sum of polarities (+1, -1) per pixel and time bin, by linear interpolation in time.

    An event at $\tau = \mathrm{steps}\,(t - t_\text{first}) / (t_\text{last} - t_\text{first})$ gives $1 - (\tau -
    \lfloor\tau\rfloor)$ of its polarity to bin $\lfloor\tau\rfloor$ and the rest to the next; what falls on the bin
    after the last is lost. From Zhu et al. 2019 (doi:10.1109/CVPR.2019.00108), with the bins of
    `tonic.transforms.ToVoxelGrid(n_time_bins=steps)` (Tonic 1.7). A recording whose events are all at one time, for
    which Tonic divides by zero, is in bin 0.

    **Arguments:**

    - `events`: of a sensor with two polarities.
    - `steps`: the number of bins.
    - `dtype`: a float; sums stop at the largest of it.

    **Returns:** `(time, *batch, 1, *events.shape[1:])`.

    **Raises:** `ValueError` for another sensor or number of steps, or more than 2**31 - 1 pixels in all.

    **Example:**

    >>> from snnax.events import Events
    >>> events = Events(jnp.array([[0, 3, 8], [2, 1, 0]]), shape=(2, 2))
    >>> voxel_grid(events, steps=4).squeeze().tolist()
    [[1.0, 0.0], [0.0, -0.5], [0.0, -0.5], [0.0, 0.0]]
    """
    name = "voxel_grid"
    steps = steps_of(name, steps)
    if len(events.shape) < 2 or events.shape[0] != 2:
        raise ValueError(f"{name}: events are of shape {events.shape}; allowed: two polarities, (2, height, width)")
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ValueError(f"{name}: dtype is {jnp.dtype(dtype)}; allowed: floats, as events are shared between bins")
    wide = at_least_float32(dtype)
    pixels = events.shape[1:]
    since, _ = elapsed(name, events)
    address = addresses(events)
    positive = address >= math.prod(pixels)
    address = jnp.where(positive, address - math.prod(pixels), address)
    unsigned = Events(jnp.stack([address, address], axis=-2), pixels)  # its times are not used
    size = cells(name, unsigned, steps)
    # Continuous in the position, so that rounding it does not matter; an integer product could overflow
    position = steps * since.astype(wide) / jnp.maximum(since[..., -1:], 1).astype(wide)
    step = jnp.floor(position).astype(jnp.int32)
    share = position - step.astype(wide)
    grid = jnp.zeros(steps * size, wide)
    for each, part in ((step, 1 - share), (step + 1, share)):
        signed = jnp.where(positive, part, -part)
        grid = grid.at[index(unsigned, each, steps, size)].add(signed, mode="drop")
    if dtype != wide:
        largest = float(jnp.finfo(dtype).max)
        grid = jnp.clip(grid, -largest, largest)
    return grid.astype(dtype).reshape(steps, *address.shape[:-1], 1, *pixels)
