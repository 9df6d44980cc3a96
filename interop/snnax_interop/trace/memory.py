"""Where tensors lie in memory."""

import dataclasses
import math
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Region:
    """Where a tensor's elements lie: between two offsets of its memory, and between two places along axes of it."""

    first: int
    last: int
    box: tuple[tuple[int, int], ...] | None

    def overlaps(self, other: "Region") -> bool:
        """Whether the two may share an element."""
        if self.last < other.first or other.last < self.first:
            return False
        if self.box is None or other.box is None:
            return True
        pairs = zip(self.box, other.box, strict=True)
        return all(low <= other_high and other_low <= high for (low, high), (other_low, other_high) in pairs)


def strides(tensor: torch.Tensor) -> list[int]:
    """The strides that matter: those of axes that are longer than one."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    """How a tensor goes through its memory; with its place, which elements it shows."""
    return (tensor.dtype, tuple(tensor.shape), strides(tensor))


def region_of(tensor: torch.Tensor, frame: torch.Tensor) -> Region:
    """Where a tensor lies; its box is one along the axes of `frame`, where that fills its memory without gaps."""
    spans = [(stride, size - 1) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
    first = int(tensor.storage_offset())
    last = first + sum(stride * count for stride, count in spans)
    if tensor.element_size() != frame.element_size():
        return Region(0, 1 << 62, None)
    axes = sorted((stride, size) for size, stride in zip(frame.shape, frame.stride(), strict=True) if size > 1)
    dense = all(stride == math.prod(size for _, size in axes[:place]) for place, (stride, _) in enumerate(axes))
    start = first - int(frame.storage_offset())
    if not dense or start < 0 or last - int(frame.storage_offset()) >= frame.numel():
        return Region(first, last, None)
    box = []
    for stride, size in reversed(axes):
        low, start = divmod(start, stride)
        reach = [(step // stride, count) for step, count in spans if stride <= step < stride * size]
        high = low + sum(step * count for step, count in reach)
        if high >= size or any(step % stride for step, _ in spans if stride <= step < stride * size):
            return Region(first, last, None)
        box.append((low, high))
    return Region(first, last, tuple(box))
