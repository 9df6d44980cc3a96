"""The code of docs/coming_from_spikingjelly.md runs, its two columns compute the same, and its lists are complete."""

import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn
from snnax_interop import from_torch, to_jax
from snnax_interop.frameworks.spikingjelly import LEAVES, _containers, _surrogates


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "coming_from_spikingjelly.md"


@pytest.fixture(scope="module")
def page() -> dict:
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_the_code_runs_and_trains(page):
    assert float(page["value"]) > 0
    assert page["spikes"].shape == (8, 25, 5)
    assert page["spikes"].any()


def test_the_network_by_hand_is_the_converted_one(page):
    net, x = page["Net"](), page["x"]
    converted = from_torch(net, (x,))
    theirs, ours = converted.model, page["model"]
    for index in (0, 2):
        ours = eqx.tree_at(lambda m, index=index: m.layers[index], ours, theirs.layers[index])
    samples = jnp.swapaxes(to_jax(x), 0, 1)

    def run(model):
        return jax.vmap(lambda sample: model(model.init_states(), sample)[1][-1])(samples)

    assert isinstance(theirs, snn.Sequential)
    np.testing.assert_array_equal(run(ours), jnp.swapaxes(converted(to_jax(x)), 0, 1))
    assert run(ours).any()


def test_every_neuron_and_name_is_on_the_page():
    text = PAGE.read_text()
    named = {kind.__name__ for kind in [*LEAVES, *_containers._RECORDED] if ".neuron." in kind.__module__}
    assert {name for name in named if f"`{name}" not in text} == set()
    assert all(".surrogate" in kind.__module__ for kind in _surrogates.LEAVES)
    for name in set(re.findall(r"`snn\.([A-Za-z]+)", text)):
        assert hasattr(snn, name), name
