"""Weights both ways, by the module's own keys."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
import snntorch
import torch
from helpers.torch_networks import CASES
from torch import nn

from snnax_interop import from_torch, state_dict, to_jax


pytestmark = pytest.mark.full


class Net(nn.Module):
    """A frozen layer, an int64 buffer, a float64 decay, a shared layer, a module that is never called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(6, 8)
        self.frozen.requires_grad_(False)
        self.lif1 = snntorch.Leaky(beta=np.float64(0.7), threshold=1)
        self.shared = nn.Linear(8, 8)
        self.alias = self.shared
        self.lif2 = snntorch.Leaky(beta=0.8, learn_threshold=True)
        self.norm = nn.BatchNorm1d(8)
        self.unused = nn.Linear(2, 3)
        self.register_buffer("steps", torch.tensor(2**40 + 3))
        self.eval()

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        membranes = []
        for step in range(x.size(0)):
            spk, mem1 = self.lif1(self.frozen(x[step]) * 6, mem1)
            spk, mem2 = self.lif2(self.norm(self.alias(self.shared(spk))) * 3, mem2)
            membranes.append(mem2 + spk)
        return torch.stack(membranes)


X = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def module():
    return Net()


@pytest.fixture
def converted(module):
    return from_torch(module, (X,))


def loss(converted, x):
    return (converted(x) ** 2).sum()


@pytest.mark.parametrize("name", CASES)
def test_the_state_dict_is_the_modules_own(name):
    case = CASES[name]
    module = case.build()
    taken = state_dict(from_torch(module, case.step(), loop=case.loop))
    own = module.state_dict()
    assert list(taken) == list(own)
    for key, value in own.items():
        assert taken[key].dtype == value.dtype
        assert torch.equal(taken[key], value)
    case.build(seed=5).load_state_dict(taken, strict=True)


def test_exact_values_return_that_jax_cannot_hold(module, converted):
    taken = state_dict(converted)
    for key, value in module.state_dict().items():
        assert taken[key].dtype == value.dtype
        assert torch.equal(taken[key], value)
    assert taken["steps"].item() == 2**40 + 3
    assert taken["lif1.beta"].dtype == torch.float64
    assert taken["lif1.threshold"].dtype == torch.int64


def test_the_weights_are_copies_both_ways(module, converted):
    before = np.asarray(converted.parameters["shared.weight"]).copy()
    with torch.no_grad():
        module.shared.weight.zero_()
    np.testing.assert_array_equal(converted.parameters["shared.weight"], before)
    state_dict(converted)["shared.weight"].zero_()
    np.testing.assert_array_equal(converted.parameters["shared.weight"], before)


def test_the_trainable_leaves_are_the_trainable_parameters(module, converted):
    learned = {name for name, each in module.named_parameters() if each.requires_grad}
    assert set(converted.parameters) == learned
    leaves = jax.tree.leaves(eqx.filter(converted, eqx.is_inexact_array))
    assert len(leaves) == len(learned)
    assert sum(leaf.size for leaf in leaves) == sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_the_gradient_has_the_modules_keys_and_values(module, converted):
    gradients = state_dict(eqx.filter_grad(loss)(converted, to_jax(X)))
    (module(X) ** 2).sum().backward()
    assert list(gradients) == list(module.state_dict())
    moved = 0
    for key, value in module.state_dict(keep_vars=True).items():
        if not value.requires_grad:
            assert gradients[key] is None
        elif value.grad is None:
            assert not gradients[key].any()
        else:
            torch.testing.assert_close(gradients[key], value.grad, rtol=1e-4, atol=1e-4 * float(value.grad.abs().max()))
            moved += bool(value.grad.any())
    assert moved >= 5


def test_a_step_of_an_optimiser_moves_what_learns_and_nothing_else(module, converted):
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    state = optimizer.init(eqx.filter(converted, eqx.is_inexact_array))
    gradients = eqx.filter_grad(loss)(converted, to_jax(X))
    updates, _ = optimizer.update(gradients, state, eqx.filter(converted, eqx.is_inexact_array))
    trained = eqx.apply_updates(converted, updates)
    taken = state_dict(trained)
    for key, value in module.state_dict(keep_vars=True).items():
        assert torch.equal(taken[key], value) != value.requires_grad, key
    fresh = Net()
    fresh.load_state_dict(taken, strict=True)
    expected = fresh(X).detach().numpy()
    np.testing.assert_allclose(trained(to_jax(X)), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(expected, module(X).detach().numpy(), atol=1e-3)


def test_shared_layers_stay_one(module, converted):
    changed = eqx.tree_at(lambda each: each.parameters["shared.weight"], converted, replace_fn=lambda w: w * 1.5)
    taken = state_dict(changed)
    assert torch.equal(taken["shared.weight"], taken["alias.weight"])
    with torch.no_grad():
        module.shared.weight.mul_(1.5)
    np.testing.assert_allclose(changed(to_jax(X)), module(X).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_buffers_survive_saving_and_loading(module, converted, tmp_path):
    eqx.tree_serialise_leaves(tmp_path / "net.eqx", converted)
    other = Net()
    with torch.no_grad():
        other.frozen.weight.mul_(0.1)
        other.shared.weight.mul_(0.1)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "net.eqx", from_torch(other, (X,)))
    np.testing.assert_array_equal(loaded(to_jax(X)), converted(to_jax(X)))
