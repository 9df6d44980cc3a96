"""The code of docs/coming_from_norse.md runs, and its two columns compute the same."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.pages import DOCS, run_page

from snnax import encoding, snn, surrogate
from snnax_interop import from_torch, to_jax


pytestmark = pytest.mark.full


PAGE = DOCS / "coming_from_norse.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> dict:
    return run_page(PAGE, folder=tmp_path_factory.mktemp("norse"))


def test_the_code_runs_and_trains(page):
    assert float(page["value"]) > 0
    assert page["voltages"].shape == (8, 25, 5)
    assert page["voltages"].any()


def test_the_network_by_hand_is_the_converted_one(page):
    torch.manual_seed(0)
    net, x = page["Net"](), page["x"]
    converted = from_torch(net, (x,))
    model = page["model"]
    weights = [net.fc1.weight, net.lif2.input_weights, net.lif2.recurrent_weights, net.out.input_weights]

    def matrices(m):
        return [m.layers[0].weight, m.layers[2].weight, m.layers[3].connection.weight, m.layers[4].weight]

    model = eqx.tree_at(matrices, model, [jnp.asarray(each.detach().numpy()) for each in weights])
    model = eqx.tree_at(lambda m: m.layers[0].bias, model, jnp.asarray(net.fc1.bias.detach().numpy()))
    samples = jnp.swapaxes(to_jax(x), 0, 1)
    _, outs = jax.vmap(lambda sample: model(model.init_states(), sample))(samples)
    assert all(bool(outs[layer].any()) for layer in (1, 3))
    # Sums of products are contracted otherwise in the two programs.
    np.testing.assert_allclose(outs[-1], jnp.swapaxes(converted(to_jax(x)), 0, 1), rtol=1e-5, atol=1e-5)


def test_the_rebuilt_network_is_the_trained_one(page):
    with torch.no_grad():
        torch.testing.assert_close(page["rebuilt"](page["x"]), page["net"](page["x"]), rtol=0, atol=0)


def test_every_name_of_the_tables_exists():
    text = PAGE.read_text()
    for library, namespace in ((snn, "snn"), (surrogate, "surrogate"), (encoding, "snnax.encoding")):
        found = set(re.findall(rf"[` (]{re.escape(namespace)}\.([A-Za-z_]+)", text))
        assert found
        for name in found:
            assert hasattr(library, name), name
