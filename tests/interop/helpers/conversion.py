"""Conversions for tests that compare them with the module themselves."""

import contextlib
from collections.abc import Iterator
from unittest import mock

from snnax_interop import EquivalenceReport
from snnax_interop.verify import on_example


@contextlib.contextmanager
def without_comparison() -> Iterator[None]:
    """Inside, `from_torch` does not compare its result with the module, which takes half of its time.

    For tests that compare more: on inputs that the conversion has not seen, with gradients.
    """
    with mock.patch.object(on_example, "compare", return_value=EquivalenceReport((), 0, ())):
        yield
