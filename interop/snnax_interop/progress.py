"""What a conversion or an epoch is doing, on stderr: bars on a terminal, where a person waits; elsewhere lines."""

import contextlib
import contextvars
import sys
import time
from collections.abc import Iterator
from typing import Any

from ._optional import require


tqdm = require("tqdm", "interop").tqdm

# Shorter conversions show nothing.
DELAY = 2.0

_BAR: contextvars.ContextVar[Any] = contextvars.ContextVar("bar", default=None)


class EpochLine:
    """One line at the end of an epoch, in the place of a bar that a file would hold hundreds of copies of."""

    def __init__(self, epoch: int, total: int | None, initial: int):
        self.name, self.total, self.done = f"epoch {epoch + 1}", total, initial
        self._start = time.perf_counter()

    def update(self) -> None:
        self.done += 1

    def close(self) -> None:
        of = "" if self.total is None else f"/{self.total}"
        seconds = time.perf_counter() - self._start
        sys.stderr.write(f"{self.name}: {self.done}{of} batches in {seconds:.1f} s\n")


def epoch_progress(epoch: int, total: int | None, initial: int) -> Any:
    """What counts the batches of an epoch, from 0, by `update()`, until `close()`."""
    return tqdm(total=total, initial=initial) if sys.stderr.isatty() else EpochLine(epoch, total, initial)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Inside, the passes that `step` names are shown once `DELAY` seconds have gone, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    what = "converting: {desc} (pass {n}, {elapsed})"
    with tqdm(delay=DELAY, leave=False, bar_format=what, file=sys.stderr, mininterval=0, miniters=1) as bar:
        token = _BAR.set(bar)
        try:
            yield
        finally:
            _BAR.reset(token)


def step(name: str) -> None:
    """The conversion goes on with the pass of this name."""
    bar = _BAR.get()
    if bar is not None:
        bar.set_description_str(name, refresh=False)
        bar.update()
