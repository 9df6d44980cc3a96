"""The code of a page of the documentation, and what the pages for those who come from a framework have in common."""

import pathlib
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from snnax import snn
from snnax_interop import from_torch, to_jax


DOCS = pathlib.Path(__file__).parents[3] / "docs"


def run_page(page: pathlib.Path, **names: Any) -> dict[str, Any]:
    """The names that all code of a page leaves, run in order; `names` are there before."""
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, str(page), "exec"), names)
    return names


def assert_the_network_by_hand_is_the_converted_one(page: dict[str, Any]) -> None:
    """With the weights of the layers 0 and 2, both compute the same."""
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
