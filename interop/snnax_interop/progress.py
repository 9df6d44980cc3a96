"""What a conversion is doing, on stderr, where a person waits for it."""

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


# Shorter conversions show nothing.
DELAY = 2.0

_BAR: contextvars.ContextVar[Any] = contextvars.ContextVar("bar", default=None)


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
