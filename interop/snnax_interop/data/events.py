"""A `collate_fn` for recordings of events, as Tonic's data sets return them: packed, not made into frames.

Eight bytes per event travel to the device, where `snnax.events` makes frames of them within `jit`. Nothing here needs
Tonic: any data set of structured arrays will do.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import default_collate

from snnax.events import Events, pack


_INT32 = np.iinfo(np.int32)


class PackEvents:
    """Collates samples that have recordings anywhere in their tuples, lists and dicts.

    Each recording becomes part of an `Events` with a torch tensor `(batch, 2, events)`, which `JaxLoader` and `to_jax`
    turn into one with a JAX array, without a copy. Labels that are Python or NumPy integers become int32, which JAX
    takes as it is, or int64 if int32 does not hold them. All else goes to torch's `default_collate`.

    What is expected of a recording, and what is refused, is said at `snnax.events.pack`.

    **Example:**

    >>> import numpy as np
    >>> from torch.utils.data import DataLoader
    >>> from snnax.events import frames_by_time
    >>> from snnax_interop import JaxLoader, PackEvents
    >>> fields = [("x", int), ("y", int), ("t", int), ("p", int)]
    >>> dataset = [(np.array([(1, 0, 100, 1), (0, 1, 2300, 0)], fields), 7), (np.array([(1, 1, 50, 1)], fields), 3)]
    >>> for events, labels in JaxLoader(DataLoader(dataset, batch_size=2, collate_fn=PackEvents((2, 2, 2)))):
    ...     print(events.count, labels, frames_by_time(events, steps=3, window=1000).shape)
    [2 1] [7 3] (3, 2, 2, 2, 2)
    """

    def __init__(
        self,
        sensor_size: tuple[int, int, int],
        capacity: int | None = None,
        *,
        origin: Literal["first"] | int = 0,
        unit: int = 1,
        sort: bool = False,
    ):
        """**Arguments:** as of `snnax.events.pack`. `sensor_size`: `(width, height, polarities)`, as that of Tonic's
        data sets, `tonic.datasets.NMNIST.sensor_size`. `capacity`: None grows with the longest recording of a batch, in
        few sizes; a number keeps one size, so that nothing is compiled twice, and refuses longer recordings.

        **Raises:** `ValueError` for an option out of its range. When called: what `pack` raises, with
        the number of the recording in the batch, and `TypeError` for samples without a recording.
        """
        pack([], sensor_size, capacity, origin=origin, unit=unit)
        self.sensor_size = sensor_size
        self.capacity = capacity
        self.origin: Literal["first"] | int = origin
        self.unit = unit
        self.sort = sort

    def __call__(self, samples: Sequence[Any]) -> Any:
        if not _has_events(samples[0]):
            raise TypeError(
                f"found samples of {_described(samples[0])}; allowed: samples with a structured array of events, as "
                "Tonic's data sets return them; leave out transforms that make frames, or use another collate_fn"
            )
        return self._collate(samples)

    def __repr__(self) -> str:
        options = f"origin={self.origin!r}, unit={self.unit}, sort={self.sort}"
        return f"PackEvents({self.sensor_size}, {self.capacity}, {options})"

    def _collate(self, samples: Sequence[Any]) -> Any:
        first = samples[0]
        if _is_recording(first):
            options = {"origin": self.origin, "unit": self.unit, "sort": self.sort}
            events = pack(samples, self.sensor_size, self.capacity, **options)
            return Events(torch.from_numpy(events.data), events.shape)
        if isinstance(first, Mapping):
            return {name: self._collate([sample[name] for sample in samples]) for name in first}
        if isinstance(first, tuple | list):
            parts = [self._collate(part) for part in zip(*samples, strict=True)]
            return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
        if isinstance(first, int | np.integer) and not isinstance(first, bool):
            fits = all(_INT32.min <= sample <= _INT32.max for sample in samples)
            return torch.tensor([int(sample) for sample in samples], dtype=torch.int32 if fits else torch.int64)
        return default_collate(list(samples))


def _is_recording(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.names is not None


def _has_events(sample: Any) -> bool:
    if isinstance(sample, Mapping):
        return any(map(_has_events, sample.values()))
    return any(map(_has_events, sample)) if isinstance(sample, tuple | list) else _is_recording(sample)


def _described(sample: Any) -> str:
    if isinstance(sample, np.ndarray | torch.Tensor):
        return f"{type(sample).__name__} of {sample.dtype} {tuple(sample.shape)}"
    if isinstance(sample, tuple | list):
        return f"({', '.join(map(_described, sample))})"
    return type(sample).__name__
