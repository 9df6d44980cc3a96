"""`check_equivalence` finds what differs, and does not call a run equal that shows nothing."""

import equinox as eqx
import jax.numpy as jnp
import pytest
import snntorch
import torch
from helpers.torch_networks import CASES
from snntorch import surrogate
from torch import nn

from snnax_interop import EquivalenceError, check_equivalence, from_torch


class Net(nn.Module):
    def __init__(self, scale=6.0, **options):
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.fc1 = nn.Linear(6, 8)
        self.lif1 = snntorch.Leaky(**{"beta": 0.9, "learn_beta": True, **options})
        self.fc2 = nn.Linear(8, 4)
        self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.5)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for step in range(x.size(0)):
            spk, mem1 = self.lif1(self.fc1(x[step]) * self.scale, mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            spikes.append(spk)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


def inputs(seed=0, shape=(9, 3, 6)):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)),)


@pytest.fixture
def module():
    return Net()


def with_parameter(converted, key, value):
    return eqx.tree_at(lambda each: each.parameters[key], converted, value)


def test_a_faithful_conversion_is_ok_and_says_what_was_compared(module):
    report = check_equivalence(module, from_torch(module, inputs()), inputs(1))
    report.raise_if_failed()
    assert report.ok
    assert report.spikes > 0
    assert not report.silent
    kinds = {each.kind for each in report.comparisons}
    assert kinds == {"spikes", "output", "final state", "gradient", "input gradient"}
    assert {each.name for each in report.comparisons if each.kind == "gradient"} == {
        name for name, _ in module.named_parameters()
    }
    assert "ok" in str(report)


@pytest.mark.parametrize("key", ["fc1.weight", "fc1.bias", "fc2.weight", "lif1.beta"])
def test_a_changed_parameter_is_found(module, key):
    converted = from_torch(module, inputs())
    changed = with_parameter(converted, key, converted.parameters[key] * 1.01)
    report = check_equivalence(module, changed, inputs(1))
    assert not report.ok
    assert "FAILED" in str(report)
    assert "DIFFERENT" in str(report)
    with pytest.raises(EquivalenceError, match="FAILED") as caught:
        report.raise_if_failed()
    assert caught.value.report is report


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"threshold": 1.1}, "spikes"),
        ({"reset_mechanism": "zero"}, "final state"),
        ({"reset_delay": False}, "final state"),
        ({"spike_grad": surrogate.fast_sigmoid()}, "gradient"),
    ],
)
def test_another_neuron_with_the_same_weights_is_found(module, options, kind):
    other = Net(**options)
    weights = {key: value for key, value in module.state_dict().items() if key.startswith("fc") or "beta" in key}
    other.load_state_dict(weights, strict=False)
    report = check_equivalence(module, from_torch(other, inputs()), inputs(1))
    assert not report.ok
    assert kind in {each.kind for each in report.failed}
    if kind == "gradient":
        assert {each.kind for each in report.failed} <= {"gradient", "input gradient"}


def test_the_first_time_step_with_other_spikes_is_named(module):
    converted = from_torch(module, inputs())
    changed = with_parameter(converted, "fc1.bias", converted.parameters["fc1.bias"] + 0.2)
    shown = str(check_equivalence(module, changed, inputs(1)))
    assert "spikes 'lif1' differs" in shown
    assert "first at time step" in shown


def test_a_silent_run_proves_nothing():
    silent = Net(scale=0.0)
    with torch.no_grad():
        silent.fc2.bias.fill_(-1.0)
    with pytest.warns(UserWarning, match="comparison of the conversion .* shows nothing: no neuron spikes"):
        converted = from_torch(silent, inputs())
    assert "vacuous: no neuron spikes" in str(converted.report)
    with pytest.warns(UserWarning, match="check_equivalence shows nothing: no neuron spikes"):
        report = check_equivalence(silent, converted, inputs(1))
    assert not report.ok
    assert not report.failed
    assert set(report.silent) == {"lif1", "lif2"}
    with pytest.raises(EquivalenceError, match="vacuous: no neuron spikes"):
        report.raise_if_failed()


def test_a_silent_layer_is_named_while_the_others_spike(module):
    with torch.no_grad():
        module.fc2.bias.fill_(-5.0)
    report = check_equivalence(module, from_torch(module, inputs()), inputs(1))
    assert report.ok
    assert report.silent == ("lif2",)
    assert "silent in this run" in str(report)


def test_a_run_without_gradients_proves_nothing():
    flat = Net(spike_grad=surrogate.heaviside(), learn_beta=False)
    for neuron in (flat.lif1, flat.lif2):
        neuron.spike_grad = neuron._surrogate_bypass
        neuron.surrogate_disable = True

    class SpikesOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = flat

        def forward(self, x):
            return self.net(x)[0] * 1.0

    module = SpikesOnly()
    converted = from_torch(module, inputs())
    with pytest.warns(UserWarning, match="check_equivalence shows nothing: all gradients are zero"):
        report = check_equivalence(module, converted, inputs(1))
    assert report.spikes > 0
    with pytest.raises(EquivalenceError, match="vacuous: all gradients are zero"):
        report.raise_if_failed()
    assert check_equivalence(module, converted, inputs(1), gradients=False).ok


def test_a_network_without_a_batch_of_its_own_shape_is_compared_too():
    case = CASES["static input, global bound"]
    module = case.build()
    converted = from_torch(module, case.step())
    assert check_equivalence(module, converted, case.inputs((1, 20), seed=8)).ok


class Followed(Net):
    """A network, and what is done to its result."""

    def __init__(self, follow):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.follow = follow

    def forward(self, x):
        return self.follow(self, super().forward(x)[1])


def _only_for_several(net, x):
    if x.shape[1] == 1:
        raise ValueError("one sample")
    return x


@pytest.mark.parametrize(
    ("follow", "what"),
    [
        (lambda net, x: x * 2 if x.shape[1] == 1 else x, "returns outputs of other values"),
        (lambda net, x: [x, x.sum(0)], ""),
        (
            lambda net, x: {"a": x, "b": x.squeeze() + 1},
            "returns outputs['b'] of shape (9, 4), and (9, 3, 4) for several",
        ),
        (_only_for_several, "raises ValueError: one sample"),
        (lambda net, x: net.norm(x[-1]), ""),
    ],
    ids=["branch", "same", "shape", "error", "batch statistics"],
)  # fmt: skip
def test_what_torch_does_otherwise_on_one_sample_alone_is_said(follow, what):
    module = Followed(follow)
    converted = from_torch(module, inputs())
    report = check_equivalence(module, converted, inputs(1))
    assert report.ok
    assert report.alone == what
    said = f"on one sample alone, forward {what.split(', and')[0]}"
    assert (said in converted.report.verification) == bool(what)


def test_the_default_dtype_and_float_are_torchs_own_again_afterwards(module):
    plain = torch.Tensor.float
    check_equivalence(module, from_torch(module, inputs()), inputs(1))
    assert torch.Tensor.float is plain
    assert torch.get_default_dtype() == torch.float32
    assert torch.ones(1).float().dtype == torch.float32
    assert jnp.ones(1).dtype == jnp.float32
