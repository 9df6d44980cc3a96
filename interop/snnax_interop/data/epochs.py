"""The epochs of a loader: as they come, or drawn from a seed so that any of them can be made again from any batch on.

From a seed, a map-style `DataLoader` is built anew around the same dataset, workers and options: every batch seeds the
random generators by its own number, in whichever process loads it. So a batch depends on seed, epoch and number alone,
also in workers that stay for several epochs, and the batches before it need not be loaded. An iterable-style dataset
has to be read from the start, and torch seeds its workers only when they start.
"""

import copy
import itertools
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)
from torch.utils.data.distributed import DistributedSampler

from .workers import WorkerBatches


# They draw from their `generator` or from their own seed and epoch
_SELF_CONTAINED = (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
# What a stream of random numbers is for, the second part of its key behind the epoch
_ORDER, _INDICES, _SAMPLES = range(3)
# Loaders whose threads load in this process share its generators, such as one for training and one for validation
_GENERATORS = threading.RLock()


class Epochs:
    """The epochs of `loader` as they come."""

    def __init__(self, loader: Iterable[Any]):
        self.loader = loader

    @property
    def has_one_iterator(self) -> bool:
        """Whether a new epoch resets the iterator of the one before."""
        return isinstance(self.loader, DataLoader) and self.loader.persistent_workers

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches of one epoch. `first` is 0: without a seed there is no way to skip the same batches again."""
        del first
        _set_epoch(self.loader, epoch)
        return self._iterator()

    def _iterator(self) -> Iterator[Any]:
        source = iter(self.loader)
        return WorkerBatches(source) if isinstance(self.loader, DataLoader) and self.loader.num_workers else source


class ReplayedEpochs(Epochs):
    """Epochs that are loaded from their start, under seeds, whatever `loader` is."""

    def __init__(self, loader: Iterable[Any], seed: int):
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            raise ValueError(
                "found a seed with persistent_workers=True around an iterable-style dataset or a subclass of "
                "DataLoader; allowed: persistent_workers=False, since torch seeds such workers only when they start"
            )
        super().__init__(loader)
        self.seed = seed
        # Of torch's own loader, only workers draw while an epoch is under way
        self.draws_here = type(loader) is not DataLoader or loader.num_workers == 0

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches of one epoch without the first ones, which are loaded and dropped."""
        generator = getattr(self.loader, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(_torch_seed(self.seed, epoch, _ORDER))
        with _seeded(self.seed, epoch, _ORDER):
            source = super().batches(epoch, 0)
        return _Skipped(_Seeded(source, self.seed, epoch, _SAMPLES) if self.draws_here else source, first)


class IndexedEpochs(Epochs):
    """Epochs of a map-style `DataLoader`, of which only the indices are drawn again."""

    def __init__(self, loader: DataLoader, seed: int):
        self._order = _Order(loader, seed)
        self._original = loader
        self._generator = torch.Generator()  # for torch's seeds of workers, which `worker_init_fn` may use
        super().__init__(
            DataLoader(
                _SeededBatches(loader, seed),
                batch_size=None,
                sampler=self._order,
                num_workers=loader.num_workers,
                collate_fn=_as_it_is,
                pin_memory=loader.pin_memory,
                timeout=loader.timeout,
                worker_init_fn=loader.worker_init_fn,
                multiprocessing_context=loader.multiprocessing_context,
                generator=self._generator,
                prefetch_factor=loader.prefetch_factor,
                persistent_workers=loader.persistent_workers,
                in_order=loader.in_order,
            )
        )
        self.seed = seed

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches of one epoch from number `first` on."""
        _set_epoch(self._original, epoch)
        self._generator.manual_seed(_torch_seed(self.seed, epoch, _ORDER))
        self._order.epoch, self._order.first = epoch, first
        return self._iterator()


def epochs_of(loader: Iterable[Any], seed: int | None) -> Epochs:
    """The epochs of a loader, in the way that fits it. **Raises:** `ValueError` where no seed reaches."""
    if seed is None:
        return Epochs(loader)
    # A subclass may do anything between its options and its batches
    if type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset):
        return IndexedEpochs(loader, seed)
    return ReplayedEpochs(loader, seed)


@contextmanager
def _seeded(seed: int, *key: int) -> Iterator[None]:
    """The global generators of torch, NumPy and Python seeded, as torch does in its workers, and held."""
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(8)
    # A worker has one thread; and if it was forked, it may have been while another thread held the lock
    with _GENERATORS if get_worker_info() is None else nullcontext():
        torch.default_generator.manual_seed(_as_int(words[:2]))  # torch.manual_seed also seeds accelerators
        np.random.seed(words[2:6])
        random.seed(_as_int(words[6:]))
        yield


def _torch_seed(seed: int, *key: int) -> int:
    """A seed for a generator of torch."""
    return _as_int(np.random.SeedSequence(seed, spawn_key=key).generate_state(2))


def _as_int(words: np.ndarray) -> int:
    return int(words[0]) << 31 | int(words[1]) >> 1


class _SeededBatches(Dataset):
    """Loads one batch of another dataset per item. Everything else is that of the other dataset.

    It is what a `worker_init_fn` finds in `torch.utils.data.get_worker_info().dataset`, to read and to set.
    """

    def __init__(self, loader: DataLoader, seed: int):
        options = {"_dataset": loader.dataset, "_collate": loader.collate_fn, "_seed": seed}
        vars(self).update(options, _batched=loader.batch_sampler is not None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # copy and pickle ask before there is another dataset
        return getattr(vars(self)["_dataset"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    def __getitem__(self, task: tuple[int, int, Any]) -> Any:
        epoch, number, index = task
        with _seeded(self._seed, epoch, _SAMPLES, number):
            return self._collate(self._load(index))

    def _load(self, index: Any) -> Any:
        if not self._batched:
            return self._dataset[index]
        all_at_once = getattr(self._dataset, "__getitems__", None)
        return all_at_once(index) if all_at_once else [self._dataset[each] for each in index]


class _Order(Sampler):
    """For every batch of `epoch` from number `first` on: the epoch, the number, and the indices of the samples."""

    def __init__(self, loader: DataLoader, seed: int):
        self._sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        self._seed = seed
        self.epoch = 0
        self.first = 0

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        # Torch asks for two iterators in the first epoch and uses the second: each draws from a generator of its own
        generator = torch.Generator().manual_seed(_torch_seed(self._seed, self.epoch, _ORDER))
        sampler, self_contained = _reseeded(self._sampler, generator)
        if self_contained:
            indices = iter(sampler)
        else:
            with _seeded(self._seed, self.epoch, _ORDER):
                indices = _Seeded(iter(sampler), self._seed, self.epoch, _INDICES)
        tasks = zip(itertools.repeat(self.epoch), itertools.count(), indices)
        return itertools.islice(tasks, self.first, None)


class _Seeded(Iterator[Any]):
    """Seeds the global generators before each item. No generator function: that would keep the latest item alive."""

    def __init__(self, source: Iterator[Any], seed: int, *key: int):
        self._source = source
        self._seed = seed
        self._key = key
        self._numbers = itertools.count()

    def __next__(self) -> Any:
        with _seeded(self._seed, *self._key, next(self._numbers)):
            return next(self._source)


class _Skipped(Iterator[Any]):
    """`source` without its first items."""

    def __init__(self, source: Iterator[Any], first: int):
        self._source = source
        self._first = first

    def __next__(self) -> Any:
        for number in range(self._first):
            try:
                next(self._source)
            except StopIteration:
                raise ValueError(
                    f"found an epoch of {number} batches, of which {self._first} were delivered before; allowed: the "
                    "data that the state was saved with"
                ) from None
        self._first = 0
        return next(self._source)


def _reseeded(sampler: Any, generator: torch.Generator) -> tuple[Any, bool]:
    """The sampler drawing from `generator`, as does one inside it; and whether that is all they draw from."""
    if not isinstance(sampler, Sampler):
        return sampler, isinstance(sampler, Sequence)
    sampler = copy.copy(sampler)
    self_contained = type(sampler) in _SELF_CONTAINED
    if isinstance(getattr(sampler, "generator", generator), torch.Generator | None) and hasattr(sampler, "generator"):
        sampler.generator = generator
    if hasattr(sampler, "sampler"):
        sampler.sampler, inner = _reseeded(sampler.sampler, generator)
        self_contained = self_contained and inner
    return sampler, self_contained


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tell the number of the epoch to whatever draws by it, such as a `DistributedSampler`."""
    owners = [loader]
    if isinstance(loader, DataLoader):
        owners += [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
        owners += [loader.dataset] if isinstance(loader.dataset, IterableDataset) else []
    for owner in {id(owner): owner for owner in owners}.values():
        if hasattr(owner, "set_epoch"):
            owner.set_epoch(epoch)


def _as_it_is(batch: Any) -> Any:
    return batch
