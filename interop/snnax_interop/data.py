"""`JaxLoader`: the batches of a torch `DataLoader` as JAX arrays, prepared by a thread while the caller computes.

A thread and not a process: loading hides behind a step that runs on an accelerator even if the loader holds the GIL,
since compiled JAX code does not. Where the step itself keeps all cores busy there is nothing to hide behind.

The thread holds no reference to the iterator that the caller sees. So the end of that iterator - exhausted, closed,
left by `break` or an exception, collected - ends the thread.
"""

import multiprocessing
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import jax
from jaxtyping import PyTree
from torch.utils.data import DataLoader

from ._optional import require
from ._tensor import Copy, check_copy
from .transfer import TransferStatistics, to_jax


# How long the end of an iterator waits for the batch that is being loaded; torch's loader gives its workers as long
_PATIENCE = 5.0


class JaxLoader:
    """The batches of `loader` as JAX arrays; every `iter()` is a fresh epoch.

    Batches keep their structure, shapes and order; see `to_jax` for what becomes of dtypes. A smaller last batch makes
    compiled code compile once more: choose `DataLoader(drop_last=True)`, or pad.

    For worker processes choose `DataLoader(multiprocessing_context="forkserver", persistent_workers=True)`. A worker
    made by fork hangs as soon as it calls JAX, as in a transform or `collate_fn`.

    **Example:**

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from snnax_interop.data import JaxLoader
    >>> dataset = TensorDataset(torch.rand(100, 2), torch.arange(100))
    >>> for x, y in JaxLoader(DataLoader(dataset, batch_size=50)):
    ...     print(x.shape, y.dtype)
    (50, 2) int32
    (50, 2) int32
    """

    def __init__(
        self,
        loader: Iterable[Any],
        prefetch: int = 2,
        sharding: PyTree[jax.sharding.Sharding | None] = None,
        *,
        copy: Copy = "if_needed",
        progress: bool = False,
    ):
        """**Arguments:**

        - `loader`: a `DataLoader`, or any other iterable of batches that can be iterated anew.
        - `prefetch`: how many batches the thread prepares ahead; the one in its hands and the caller's come on top.
            `0`: no thread, a batch is loaded when it is asked for.
        - `sharding`: where each batch goes, as in `to_jax`; by default JAX's default device. On CPU, parts along the
            leading axis share memory. Over several processes, a batch of `loader` is the share of this process.
        - `copy`: as in `to_jax`. `"always"` for a loader that writes its next batch into the memory of an earlier one
            (torch's does not), or to keep many batches of worker processes, each of which holds a file descriptor.
        - `progress`: show a bar (needs tqdm).

        **Raises:** `ValueError` for a negative `prefetch` or another `copy`; `MissingDependencyError` without tqdm.
        While iterating: whatever `loader` raises, `TransferError` from `to_jax`, and `ValueError` when a batch does not
        divide over `sharding`. Warns of workers made by fork.
        """
        if prefetch < 0:
            raise ValueError(
                f"prefetch is {prefetch}; allowed: 0 (no thread) or the number of batches to prepare ahead"
            )
        check_copy(copy)
        _warn_of_fork(loader)
        self.loader = loader
        self.prefetch = prefetch
        self.sharding = sharding
        self.copy: Copy = copy
        self.progress = progress
        self.statistics = TransferStatistics()
        """What was shared and what was copied, over all epochs."""
        self._bar = require("tqdm", "interop").tqdm if progress else None
        self._latest: Callable[[], BatchIterator | None] = lambda: None

    def __iter__(self) -> "BatchIterator":
        latest = self._latest()
        if latest is not None and isinstance(self.loader, DataLoader) and self.loader.persistent_workers:
            latest.close()  # such a loader has one iterator and resets it, which must not happen under a running thread
        convert = partial(to_jax, copy=self.copy, sharding=self.sharding, statistics=self.statistics)
        # Here and not in the thread: only the main thread may watch over worker processes
        source = iter(self.loader)
        producer = _Ahead(source, convert, self.prefetch) if self.prefetch else _OnDemand(source, convert)
        bar = self._bar(total=_length(self.loader)) if self._bar is not None else None
        batches = BatchIterator(producer, bar)
        self._latest = weakref.ref(batches)
        return batches

    def __len__(self) -> int:
        """The number of batches. **Raises:** `TypeError` when `loader` has no length."""
        return len(self.loader)  # pyright: ignore[reportArgumentType]

    def __repr__(self) -> str:
        length = _length(self.loader)
        source = type(self.loader).__name__ + ("" if length is None else f" of {length} batches")
        options = f"prefetch={self.prefetch}, sharding={self.sharding}, copy={self.copy!r}, progress={self.progress}"
        return f"JaxLoader({source}, {options})"


class BatchIterator(Iterator[Any]):
    """One epoch of a `JaxLoader`. Whatever ends it also ends its thread and lets go of the loader's iterator."""

    def __init__(self, producer: "_Ahead | _OnDemand", bar: Any):
        self._producer = producer
        self._bar = bar
        self._end = weakref.finalize(self, _end, producer, bar)

    def __next__(self) -> Any:
        try:
            batch = self._producer.get()
        except BaseException:
            self.close()
            raise
        if self._bar is not None:
            self._bar.update()
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


class _OnDemand:
    """Loads and converts a batch when it is asked for."""

    def __init__(self, source: Iterator[Any], convert: Callable[[Any], Any]):
        self._batches: Iterator[Any] = map(convert, source)

    def get(self) -> Any:
        return next(self._batches)

    def stop(self) -> None:
        self._batches = iter(())


class _Ahead:
    """Loads and converts up to `depth` batches ahead, in a thread of its own.

    A condition on a deque and not a `queue.Queue`: the garbage collector may end the iterator, and so call `stop`, in a
    thread that is just now inside. A condition's lock is reentrant; a queue's is not.
    """

    def __init__(self, source: Iterator[Any], convert: Callable[[Any], Any], depth: int):
        self._source = source
        self._convert = convert
        self._depth = depth
        self._batches: deque[Any] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._exhausted = False
        self._stopped = False
        # Both settings belong to a thread; this one has to convert as the caller would
        x64: bool = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
        device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
        self._thread = threading.Thread(target=self._run, args=(x64, device), name="JaxLoader", daemon=True)
        self._thread.start()

    def get(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._exhausted or self._stopped)
            if self._batches:
                self._changed.notify_all()
                return self._batches.popleft()
            error, self._error = self._error, None
        if error is None:
            raise StopIteration
        try:
            raise error
        finally:
            del error  # it refers to this frame

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._error = None
            self._batches.clear()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self, x64: bool, device: Any) -> None:
        error = None
        try:
            with jax.enable_x64(x64), jax.default_device(device):
                for batch in map(self._convert, self._source):
                    if not self._put(batch):
                        break
                    del batch  # the next one may take long; do not keep this one alive meanwhile
        except BaseException as caught:  # whatever it is, the caller is waiting for it
            error = caught
        self._source = iter(())  # an error's traceback keeps `self`, and would keep worker processes alive
        with self._changed:
            self._error = None if self._stopped else error
            self._exhausted = True
            self._changed.notify_all()
        del error

    def _put(self, batch: Any) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._batches) < self._depth or self._stopped)
            if not self._stopped:
                self._batches.append(batch)
                self._changed.notify_all()
            return not self._stopped


def _end(producer: _Ahead | _OnDemand, bar: Any) -> None:
    producer.stop()
    if bar is not None:
        bar.close()


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


def _warn_of_fork(loader: Any) -> None:
    if not isinstance(loader, DataLoader) or loader.num_workers == 0:
        return
    # Asking the multiprocessing module outright would fix the start method for good; the first of all is the default
    chosen = loader.multiprocessing_context or multiprocessing
    method = chosen.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method == "fork":
        warnings.warn(
            "the DataLoader starts its workers by fork, but JAX runs threads, which fork does not copy: a worker that "
            'calls JAX hangs. Pass DataLoader(multiprocessing_context="forkserver", persistent_workers=True)',
            UserWarning,
            stacklevel=3,
        )
