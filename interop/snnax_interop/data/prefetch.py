"""How the batches of one epoch are prepared: when they are asked for, or ahead of that by a thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax


# How long the end of an iterator waits for the batch that is being loaded; torch's loader gives its workers as long
_PATIENCE = 5.0


class OnDemand:
    """Loads and converts a batch when it is asked for."""

    def __init__(self, source: Iterator[Any], convert: Callable[[Any], Any]):
        self._batches: Iterator[Any] = map(convert, source)

    def get(self) -> Any:
        return next(self._batches)

    def stop(self) -> None:
        self._batches = iter(())


class Ahead:
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
