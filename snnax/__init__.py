"""Spiking neural networks in JAX."""

import importlib as _importlib
import pathlib as _pathlib
import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

from . import engine as engine, snn as snn, surrogate as surrogate
from ._overlay import warn_of_another_project as _warn_of_another_project
from .engine import Repeat as Repeat


if _TYPE_CHECKING:
    from . import (
        encoding as encoding,
        events as events,
        initialisation as initialisation,
        losses as losses,
        metrics as metrics,
        plot as plot,
        serialisation as serialisation,
    )

__version__ = "0.1.0"

# Imported when they are first asked for, as `import snnax.losses` does; `plot` needs matplotlib.
_LAZY = ("encoding", "events", "initialisation", "losses", "metrics", "plot", "serialisation")

_warn_of_another_project(_pathlib.Path(__file__).parent)


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=_sys.modules[__name__])


def __dir__() -> list[str]:
    public = {name for name in globals() if not name.startswith("_")}
    return sorted({*public, *_LAZY, "__version__"})
