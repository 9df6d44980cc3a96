"""What a forward returns beside tensors: strings, None, numbers and bools come back as they are."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snnax_interop import check_equivalence, from_torch


X = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0)) * 2

RESULTS = {
    "a string in a dict": lambda out: {"spikes": out, "kind": "rate"},
    "a string in a tuple": lambda out: ("rate", out),
    "a string that names an index": lambda out: ["index", out, "refs"],
    "None": lambda out: (out, None),
    "numbers": lambda out: {"out": out, "time": 0.5, "classes": 7},
    "bools": lambda out: [out, True, False],
    "bytes, a complex number and a dtype": lambda out: (out, b"rate", 1j, torch.float32),
    "all of them, nested": lambda out: {"a": {"b": [out, "rate", (None, 3, True)]}, "c": "end"},
}


class Net(nn.Module):
    def __init__(self, result):
        super().__init__()
        torch.manual_seed(0)
        self.result = result
        self.fc, self.lif = nn.Linear(5, 7), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.init_leaky(), 0
        for t in range(x.shape[1]):
            spikes, mem = self.lif(self.fc(x[:, t]), mem)
            out = out + spikes
        return self.result(out)


@pytest.mark.parametrize("name", RESULTS)
def test_what_is_no_tensor_comes_back_as_it_is(name):
    result = RESULTS[name]
    net = Net(result)
    converted = from_torch(net, (X,))
    report = check_equivalence(net, converted, (X,))
    report.raise_if_failed()
    assert [each.kind for each in report.comparisons].count("output") == 1
    expected = Net(lambda out: out)(X).detach().numpy()
    for run in (converted, eqx.filter_jit(converted)):
        found = run(jnp.asarray(X.numpy()))
        assert rest(found) == rest(result(jnp.asarray(expected)))
        (array,) = arrays(found)
        np.testing.assert_allclose(array, expected, rtol=1e-5)


def arrays(tree):
    """The arrays in a structure."""
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else None
    if items is not None:
        return [array for item in items for array in arrays(item)]
    return [tree] if isinstance(tree, jnp.ndarray) else []


def rest(tree):
    """A structure with the types of all that it holds, and a mark in the place of arrays."""
    if isinstance(tree, dict):
        return {key: rest(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(rest, tree))
    return (type(tree), "array" if isinstance(tree, jnp.ndarray) else tree)
