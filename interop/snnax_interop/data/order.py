"""In which order a `DataLoader` takes its samples, as one integer."""

import zlib
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler


# Of samplers of one's own nothing is known but the class: their attributes may count what they have drawn. The rank is
# none of the options, so that the state of one process serves all.
_OPTIONS = {
    BatchSampler: ("batch_size", "drop_last"),
    DistributedSampler: ("num_replicas", "shuffle", "seed", "drop_last"),
    RandomSampler: ("replacement", "num_samples"),
    SequentialSampler: (),
    SubsetRandomSampler: ("indices",),
    WeightedRandomSampler: ("weights", "num_samples", "replacement"),
}


def order_of(loader: DataLoader) -> int:
    """Equal for loaders whose samplers are alike: the classes, and the options of those that are torch's."""
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return zlib.crc32(repr(_described(sampler)).encode()) & 0x7FFFFFFF  # fits an int32 of JAX


def _described(sampler: Any) -> list[Any]:
    kind = type(sampler)
    if kind in (list, tuple, range):
        return [kind.__qualname__, zlib.crc32(repr(sampler).encode())]
    options = [_plain(getattr(sampler, name)) for name in _OPTIONS.get(kind, ())]
    inner = _described(sampler.sampler) if hasattr(sampler, "sampler") else None
    return [f"{kind.__module__}.{kind.__qualname__}", options, inner]


def _plain(value: Any) -> Any:
    """Numbers as they are, many of them as the checksum of their bytes."""
    if isinstance(value, bool | int | float | str | None):
        return value
    values = np.ascontiguousarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    return values.shape, zlib.crc32(values.data)
