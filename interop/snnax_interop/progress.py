"""What a conversion is doing, on stderr, where a person waits for it."""

import contextlib
import contextvars
import importlib.util
import sys
import threading
from collections.abc import Iterator
from typing import Any


# Shorter conversions show nothing.
DELAY = 2.0

_BAR: contextvars.ContextVar[Any] = contextvars.ContextVar("bar", default=None)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Inside, the passes that `step` names are shown once `DELAY` seconds have gone, if stderr is a terminal."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        yield
        return
    from tqdm import tqdm

    what = "converting: {desc} (pass {n}, {elapsed})"
    with tqdm(delay=DELAY, leave=False, bar_format=what, file=sys.stderr) as bar:
        # The pass that is under way by then is shown in its midst.
        timer = threading.Timer(DELAY, bar.refresh)
        timer.daemon = True
        timer.start()
        token = _BAR.set(bar)
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            _BAR.reset(token)


def step(name: str) -> None:
    """The conversion goes on with the pass of this name."""
    bar = _BAR.get()
    if bar is not None:
        bar.set_description_str(name, refresh=False)
        bar.update()
