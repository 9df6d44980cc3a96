"""Recordings of event cameras and cochleas: packed on the host, binned on the device. `snnax.events`.

Events cross to the device as they are, eight bytes each, and become frames, voxel grids or time surfaces there, within
`jit`. All functions take events of one recording, `(events,)`, or of a batch, `(batch, events)`, and return time first:
`(time, ...)` or `(time, batch, ...)`.

Of a batch that is spread over devices, bin each recording, `jax.vmap(lambda events: ..., out_axes=1)(events)`, or bin
within `jax.shard_map`: both stay on their devices. A batch in one call, which takes a fifth of the time on one device,
would be put together on every device.
"""

from ._events import Events as Events
from ._frames import frames_by_count as frames_by_count, frames_by_time as frames_by_time
from ._packing import pack as pack
from ._time_surfaces import time_surfaces as time_surfaces
from ._voxel_grid import voxel_grid as voxel_grid
