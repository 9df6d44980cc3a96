"""`JaxLoader`: the batches of a torch `DataLoader` as JAX arrays, prepared by a thread while the caller computes.

A thread and not a process: loading hides behind a step that runs on an accelerator even if the loader holds the GIL,
since compiled JAX code does not. Where the step itself keeps all cores busy there is nothing to hide behind.

The thread holds no reference to the iterator that the caller sees. So the end of that iterator - exhausted, closed,
left by `break` or an exception, collected - ends the thread.
"""

import operator
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import jax
from jaxtyping import PyTree
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..progress import epoch_progress
from ..transfer.tensor import Copy, check_copy
from ..transfer.trees import TransferStatistics, to_jax
from .epochs import epochs_of
from .order import order_of
from .position import Position, from_state, to_state
from .prefetch import Ahead, OnDemand
from .shapes import SeenShapes
from .workers import warn_of_fork


class JaxLoader:
    """The batches of `loader` as JAX arrays; every `iter()` is a fresh epoch.

    Batches keep their structure, shapes, order and values, NaN included; see `to_jax` for what becomes of dtypes. Each
    new shape makes compiled code compile once more. For a smaller last batch choose `DataLoader(drop_last=True)`, or
    pad it; for sequences of different length there is `PadSequences`. Shapes that keep changing are warned of, once.

    For worker processes choose `DataLoader(..., **worker_options(num_workers))`. A worker made by fork hangs as soon as
    it calls JAX, as in a transform or `collate_fn`.

    With a `seed`, every batch depends on the seed, the number of its epoch and its number in there only, and
    `state_dict` says where to continue. A map-style `DataLoader` continues at once, with any number of workers: it
    draws the indices of the delivered batches again and loads none of them. An iterable-style one, and any other
    iterable, loads them again and drops them.

    **Example:**

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from snnax_interop.data import JaxLoader
    >>> dataset = TensorDataset(torch.rand(100, 2), torch.arange(100))
    >>> for x, y in JaxLoader(DataLoader(dataset, batch_size=50)):
    ...     print(x.shape, y.dtype)
    (50, 2) int32
    (50, 2) int32

    Stop in the middle of an epoch, and continue there in another process:

    >>> batches = JaxLoader(DataLoader(dataset, batch_size=25, shuffle=True), seed=0)
    >>> for x, y in batches:
    ...     state = batches.state_dict()  # a few integers, for a JSON file or a checkpoint
    ...     break
    >>> batches = JaxLoader(DataLoader(dataset, batch_size=25, shuffle=True), seed=0)
    >>> batches.load_state_dict(state)
    >>> while batches.epoch < 2:
    ...     print(batches.epoch, len(list(batches)))
    0 3
    1 4
    """

    def __init__(
        self,
        loader: Iterable[Any] | Dataset[Any],
        prefetch: int = 2,
        sharding: PyTree[jax.sharding.Sharding | None] = None,
        *,
        copy: Copy = "if_needed",
        seed: int | None = None,
        progress: bool = False,
    ):
        """**Arguments:**

        - `loader`: a `DataLoader`, or any other iterable of batches that can be iterated anew. A `Dataset` stands for
            `DataLoader(dataset, batch_size=None)`: every sample is a batch, as from a dataset that makes its batches.
        - `prefetch`: how many batches the thread prepares ahead; the one in its hands and the caller's come on top.
            `0`: no thread, a batch is loaded when it is asked for.
        - `sharding`: where each batch goes, as in `to_jax`; by default JAX's default device. On CPU, parts along the
            leading axis share memory. Over several processes, a batch of `loader` is the share of this process.
        - `copy`: as in `to_jax`. `"always"` for a loader that writes its next batch into the memory of an earlier one
            (torch's does not), or to keep many batches of worker processes, each of which holds a file descriptor.
        - `seed`: from 0; what all orders and random transforms follow from. By default they are drawn as without a
            `JaxLoader`. It reaches the samplers' `generator` and the global generators of torch, NumPy and Python,
            which every batch seeds where it is loaded. Without workers that is in this process, so draw numbers of
            your own from generators of your own. It does not reach a `numpy.random.Generator` that a dataset keeps:
            draw its seed from `torch.randint` in `__getitem__` or `__iter__`.
        - `progress`: show a bar for each epoch on a terminal; elsewhere on stderr, a line at its end.

        Samplers, iterable-style datasets and other iterables that have a `set_epoch`, such as `DistributedSampler`, are
        told the number of each epoch, with or without a seed.

        **Raises:** `TypeError` for what is no iterable, and for a map-style dataset without length. `ValueError` for a
        negative `prefetch` or `seed`, another `copy`, and a seed that would not reach workers which stay for several
        epochs (`persistent_workers` of an iterable-style dataset). While
        iterating: whatever `loader` raises, `TransferError` from `to_jax`, `ValueError` when a batch does not divide
        over `sharding`, and for a second epoch of what can be iterated once. Warns of workers made by fork.
        """
        if prefetch < 0:
            raise ValueError(
                f"prefetch is {prefetch}; allowed: 0 (no thread) or the number of batches to prepare ahead"
            )
        if seed is not None and seed < 0:
            raise ValueError(f"seed is {seed}; allowed: 0 and more, or None")
        check_copy(copy)
        self.loader = _loader_of(loader)
        warn_of_fork(self.loader, stacklevel=2)
        self.prefetch = prefetch
        self.sharding = sharding
        self.copy: Copy = copy
        self.seed = None if seed is None else operator.index(seed)  # a state goes into a JSON file
        self.progress = progress
        self.statistics = TransferStatistics()
        """What was shared and what was copied, over all epochs."""
        self._shapes = SeenShapes()
        self._position = Position()
        self._epochs = epochs_of(self.loader, seed)
        self._latest: weakref.ref[BatchIterator] | None = None

    @property
    def epoch(self) -> int:
        """The number of the epoch that is under way, or else of the next one. Set it to begin another one next."""
        return self._position.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; allowed: 0 and more")
        self._position = Position(epoch)

    def __iter__(self) -> "BatchIterator":
        latest = None if self._latest is None else self._latest()
        if latest is not None and self._epochs.has_one_iterator:
            latest.close()  # the loader resets its iterator, which must not happen under a running thread
        position = self._position.following()
        if isinstance(self.loader, Iterator) and (position.epoch > 0 or self._latest is not None):
            raise ValueError(
                f"found a {type(self.loader).__name__}, which can be iterated once; allowed: a DataLoader, a Dataset, "
                "or an iterable that makes an iterator for every epoch, such as a class with __iter__"
            )
        convert = partial(to_jax, copy=self.copy, sharding=self.sharding, statistics=self.statistics)
        # Here and not in the thread: only the main thread may watch over worker processes
        source = self._epochs.batches(position.epoch, position.batch)
        producer = Ahead(source, convert, self.prefetch) if self.prefetch else OnDemand(source, convert)
        bar = epoch_progress(position.epoch, _length(self.loader), position.batch) if self.progress else None
        batches = BatchIterator(producer, position, bar, self._shapes)
        position.begun = True
        self._position = position
        self._latest = weakref.ref(batches)
        return batches

    def __len__(self) -> int:
        """The number of batches of a whole epoch. **Raises:** `TypeError` when `loader` has no length."""
        return len(self.loader)  # pyright: ignore[reportArgumentType]

    def state_dict(self) -> dict[str, int | None]:
        """Where the caller stands: the epoch, how many of its batches were received, and what the loader is like.

        Batches that are prepared ahead do not count. With the last batch in hand, the rest of the epoch is empty; when
        the loop has ended, the next epoch begins.

        **Returns:** integers and `None`, for a JSON file, or a leaf-by-leaf checkpoint of `snnax.serialisation`.

        **Raises:** `ValueError` without a seed, from which alone the same order can be drawn again.
        """
        return to_state(self._position, self._identity())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `iter()` continue where `state` was taken: the batches that remained then, and no others.

        **Raises:** `ValueError` without a seed; for a state of a loader with another seed, length, batch size, number
        of samples, or order (`shuffle`, the sampler's class, or the options of torch's samplers) or, of an
        iterable-style dataset, number of workers; for anything that `state_dict` does not return.
        """
        self._position = from_state(state, self._identity())

    def _identity(self) -> dict[str, int | None]:
        """What a loader must have in common with the one that saved a state."""
        if self.seed is None:
            raise ValueError(
                "found no seed; allowed: JaxLoader(..., seed=0) or another one, from which the same order and random "
                "transforms can be drawn again"
            )
        identity: dict[str, int | None] = {"seed": self.seed, "length": None, "batch_size": None}
        if not isinstance(self.loader, DataLoader):
            return identity | {"length": _length(self.loader)}
        identity["batch_size"] = self.loader.batch_size
        if isinstance(self.loader.dataset, IterableDataset):
            # Its length is a promise, which torch checks against the batches as soon as it is asked for
            return identity | {"num_workers": self.loader.num_workers}
        samples = _length(self.loader.dataset)
        return identity | {"length": _length(self.loader), "samples": samples, "order": order_of(self.loader)}

    def __repr__(self) -> str:
        length = _length(self.loader)
        source = type(self.loader).__name__ + ("" if length is None else f" of {length} batches")
        names = ("prefetch", "sharding", "copy", "seed", "progress")
        return f"JaxLoader({source}, {', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __getstate__(self) -> dict[str, Any]:
        """For `copy` and `pickle`: a loader with the same next epoch, without the iterators and workers of this one."""
        return vars(self) | {"_epochs": None, "_latest": None, "_position": self._position.following()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _epochs=epochs_of(state["loader"], state["seed"]))


class BatchIterator(Iterator[Any]):
    """One epoch of a `JaxLoader`. Whatever ends it also ends its thread and lets go of the loader's iterator."""

    def __init__(self, producer: Ahead | OnDemand, position: Position, bar: Any, shapes: SeenShapes):
        self._producer = producer
        self._position = position
        self._bar = bar
        self._shapes = shapes
        self._end = weakref.finalize(self, _end, producer, bar)

    def __next__(self) -> Any:
        try:
            batch = self._producer.get()
        except BaseException as error:
            if isinstance(error, StopIteration) and self._end.alive:
                self._position.finish()
            self.close()
            raise
        self._position.batch += 1
        if self._bar is not None:
            self._bar.update()
        self._shapes.note(batch, stacklevel=2)
        return batch

    def close(self) -> None:
        """End the epoch. A batch that is being loaded is waited for, but not longer than 5 seconds."""
        self._end()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _end(producer: Ahead | OnDemand, bar: Any) -> None:
    producer.stop()
    if bar is not None:
        bar.close()


def _loader_of(source: Any) -> Any:
    """An iterable of batches as it is, a dataset as one."""
    if isinstance(source, Dataset):
        if not isinstance(source, IterableDataset) and not hasattr(source, "__len__"):
            raise TypeError(
                f"found a {type(source).__name__}, a map-style dataset without length; allowed: datasets with __len__, "
                "an IterableDataset, or a DataLoader with a sampler"
            )
        return DataLoader(source, batch_size=None)
    if not isinstance(source, Iterable):
        raise TypeError(
            f"found a {type(source).__name__}; allowed: a DataLoader, a Dataset, or an iterable of batches (__iter__)"
        )
    return source


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
