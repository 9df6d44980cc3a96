"""Conversions for tests that compare them with the module themselves."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jaxtyping

from snnax_interop import EquivalenceReport
from snnax_interop.verify import on_example


@contextlib.contextmanager
def without_comparison() -> Iterator[None]:
    """Inside, `from_torch` does not compare its result with the module, which takes half of its time.

    For tests that compare more: on inputs that the conversion has not seen, with gradients.
    """
    with mock.patch.object(on_example, "check_equivalence", return_value=EquivalenceReport((), 0, ())):
        yield


@contextlib.contextmanager
def one_of_many() -> Iterator[None]:
    """`without_comparison`, and without checks of annotations, which take ten times as long as the conversion itself.

    For the options of a class of which one is converted with all checks.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with without_comparison():
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
