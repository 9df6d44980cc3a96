"""Data whose values are drawn at random as they are loaded. Worker processes import this module."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


def noise() -> list[float]:
    """One number of each global generator."""
    return [torch.rand(()).item(), np.random.rand(), random.random()]


class Noisy(Dataset):
    """Sample `index` is the index and noise. `loaded` lists what was loaded in this process."""

    def __init__(self, size: int = 12):
        self.size = size
        self.scale = 1.0
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded.append(index)
        return torch.tensor([self.scale * index, *noise()])


class NoisyAtOnce(Noisy):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self[index] for index in indices]


class NoisyStream(IterableDataset):
    """As `Noisy`, in order, divided over the workers."""

    def __init__(self, size: int = 12):
        self.size = size
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(start, self.size, step):
            yield torch.tensor([float(index), *noise()])


class NoisyBatches:
    """Batches that come from no `DataLoader`."""

    def __init__(self, size: int = 4):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[torch.Tensor]:
        offset = noise()[0]  # drawn once, and needed in every batch
        for index in range(self.size):
            yield torch.tensor([[float(index), offset, *noise()]])


class Subclass(DataLoader):
    """May do anything, as far as its class tells."""


def double_scale(worker: int) -> None:
    get_worker_info().dataset.scale *= 2


def drawn(batches) -> list[list[list[float]]]:
    """The values of all batches that remain."""
    return [np.asarray(batch).tolist() for batch in batches]
