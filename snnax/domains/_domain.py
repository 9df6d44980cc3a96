"""What values a parameter may have: checked where it is given, so that a mistake is named and not computed with."""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.core import Tracer


@dataclasses.dataclass(frozen=True)
class Domain:
    """An interval of real numbers, and what to say about those outside of it."""

    text: str
    low: float = -math.inf
    high: float = math.inf
    includes_low: bool = True

    def __contains__(self, values: Any) -> bool:
        above = values >= self.low if self.includes_low else values > self.low
        return bool(np.all(above & (values <= self.high)))


NUMBER = Domain("a number")
POSITIVE = Domain("above 0", 0.0, includes_low=False)
NOT_NEGATIVE = Domain("0 or more", 0.0)
FRACTION = Domain("from 0 to 1", 0.0, 1.0)
KEPT = Domain("above 0 and at most 1", 0.0, 1.0, includes_low=False)

_as_given = contextvars.ContextVar("parameters_as_given", default=False)


@contextlib.contextmanager
def parameters_as_given() -> Iterator[None]:
    """Parameters are not checked within: those of a trained network are what they are."""
    token = _as_given.set(True)
    try:
        yield
    finally:
        _as_given.reset(token)


def check(name: str, value: Any, domain: Domain, advice: str = "") -> None:
    """**Raises:** `ValueError` for a value, or one of an array, outside of its domain; NaN is outside of all.

    What is traced has no values yet, and is not checked.
    """
    if value is None or _as_given.get() or isinstance(value, Tracer):
        return
    try:
        values = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return  # no number: what follows says so better
    if values in domain:
        return
    flat = values.reshape(-1)
    found = next(each for each in flat if each not in domain)
    among = f" among {flat.size} values" if flat.size > 1 else ""
    raise ValueError(f"{name} must be {domain.text}, found {found:g}{among}{'; ' if advice else ''}{advice}")
