"""Progress of a conversion: shown on a terminal, and only where it takes long."""

import contextlib
import io
import time

import pytest

from snnax_interop import progress
from tests.terminal import Terminal


streams = pytest.mark.parametrize("stream", [Terminal, io.StringIO])


@streams
def test_a_quick_conversion_shows_nothing(stream):
    with contextlib.redirect_stderr(stream()) as stderr, progress.shown():
        progress.step("trace")
        progress.step("verify")
    assert stderr.getvalue().strip() == ""


@streams
def test_a_terminal_is_shown_what_takes_long(stream, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.2)
    with contextlib.redirect_stderr(stream()) as stderr, progress.shown():
        progress.step("trace")
        time.sleep(0.3)
        progress.step("verify")
        shown = stderr.getvalue()
    assert ("converting: verify" in shown) == stderr.isatty()
    assert "trace" not in shown


@streams
def test_steps_outside_of_a_conversion_are_not_shown(stream):
    with contextlib.redirect_stderr(stream()) as stderr:
        progress.step("trace")
    assert stderr.getvalue() == ""
