"""The random numbers of a process that are not torch's."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside, the global generators go on as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def advance() -> None:
    """Let what is drawn next be something else."""
    random.random()
    np.random.random()
