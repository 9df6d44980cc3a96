"""The code of docs/coming_from_snntorch.md runs, and its two columns compute the same."""

import re

import numpy as np
import pytest
from helpers.pages import DOCS, assert_the_network_by_hand_is_the_converted_one, run_page

from snnax import snn


pytestmark = pytest.mark.full


PAGE = DOCS / "coming_from_snntorch.md"


@pytest.fixture(scope="module")
def page() -> dict:
    return run_page(PAGE)


def test_the_code_runs_and_trains(page):
    assert float(page["value"]) > 0
    assert page["spikes"].shape == (8, 25, 5)
    assert page["spikes"].any()


def test_the_network_by_hand_is_the_converted_one(page):
    assert_the_network_by_hand_is_the_converted_one(page)


def test_loaded_weights_are_those_of_the_file(page):
    trained, loaded = page["trained"].state_dict(), page["loaded"]
    np.testing.assert_array_equal(loaded.parameters["fc1.weight"], trained["fc1.weight"].numpy())


def test_every_name_of_the_table_exists():
    text = PAGE.read_text()
    for name in set(re.findall(r"`snn\.([A-Za-z]+)", text)):
        assert hasattr(snn, name), name
