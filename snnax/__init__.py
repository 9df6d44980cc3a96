"""Spiking neural networks in JAX."""

from . import engine as engine, snn as snn, surrogate as surrogate
from .engine import Repeat as Repeat


__version__ = "0.1.0"
