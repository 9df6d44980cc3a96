"""Spiking neural networks in JAX."""

import pathlib as _pathlib

from . import engine as engine, snn as snn, surrogate as surrogate
from ._overlay import warn_of_another_project as _warn_of_another_project
from .engine import Repeat as Repeat


__version__ = "0.1.0"

_warn_of_another_project(_pathlib.Path(__file__).parent)
