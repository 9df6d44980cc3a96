"""The code of docs/coming_from_spikingjelly.md runs, its two columns compute the same, and its lists are complete."""

import re

import pytest
from helpers.pages import DOCS, assert_the_network_by_hand_is_the_converted_one, run_page

from snnax import snn
from snnax_interop.frameworks.spikingjelly import FRAMEWORK, _containers, _surrogates


pytestmark = pytest.mark.full


pytestmark = pytest.mark.full


PAGE = DOCS / "coming_from_spikingjelly.md"


@pytest.fixture(scope="module")
def page() -> dict:
    return run_page(PAGE)


def test_the_code_runs_and_trains(page):
    assert float(page["value"]) > 0
    assert page["spikes"].shape == (8, 25, 5)
    assert page["spikes"].any()


def test_the_network_by_hand_is_the_converted_one(page):
    assert_the_network_by_hand_is_the_converted_one(page)


def test_every_neuron_and_name_is_on_the_page():
    text = PAGE.read_text()
    named = {kind.__name__ for kind in [*FRAMEWORK.converters, *_containers._RECORDED] if ".neuron." in kind.__module__}
    assert {name for name in named if f"`{name}" not in text} == set()
    assert all(".surrogate" in kind.__module__ for kind in _surrogates.CONVERTERS)
    for name in set(re.findall(r"`snn\.([A-Za-z]+)", text)):
        assert hasattr(snn, name), name
