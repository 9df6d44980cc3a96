"""Every option of `snntorch.Leaky`, forward and backward against the class itself in float64."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from helpers.compare import assert_same
from helpers.conversion import without_comparison
from helpers.side_by_side import SideBySide
from snntorch import surrogate
from torch import nn

from snnax_interop import UnsupportedModuleError, UnsupportedOptionError, from_torch, to_jax
from snnax_interop.frameworks.snntorch import FRAMEWORK


pytestmark = pytest.mark.full


NEURONS = 6


class Net(nn.Module):
    """A layer, the neuron under test, and a readout, on `(time, batch, 4)`; spikes and membranes come out."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        torch.manual_seed(3)
        self.fc = nn.Linear(4, NEURONS)
        self.lif = neuron
        self.readout = nn.Linear(NEURONS, 3)

    in_steps = True

    def start(self, x):
        return self.lif.reset_mem()

    def step(self, x, mem):
        spk, mem = self.lif(self.fc(x), mem)
        return (self.readout(spk), mem), mem

    def finish(self, outs, mem):
        return outs

    def forward(self, x):
        mem = self.lif.reset_mem()
        outs, mems = [], []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            outs.append(self.readout(spk))
            mems.append(mem)
        return torch.stack(outs), torch.stack(mems)


def inputs(seed: int) -> tuple[torch.Tensor]:
    return (torch.rand((9, 3, 4), generator=torch.Generator().manual_seed(seed)) * 8 - 2,)


def assert_converts(options: Mapping[str, dict[str, Any]], inert: tuple[str, ...] = ()) -> None:
    """Neurons with these options, each in a network of its own; those named in `inert` have no gradient of beta."""
    nets = {name: Net(snntorch.Leaky(**{"beta": 0.8, **given})) for name, given in options.items()}
    module = SideBySide(nets)
    with without_comparison():
        converted = from_torch(module, inputs(0))
    assert_same(module, converted, inputs(1), inert=tuple(f"nets.{name}.lif.beta" for name in inert))


def combined(**values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Options in all combinations, by what they are."""
    rows = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    return {" ".join(map(str, row.values())).replace(".", ","): row for row in rows}  # no dots in names of modules


def vector(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, NEURONS)


def refuse(neuron: nn.Module, match: str, error: type = UnsupportedOptionError, net: type = Net) -> None:
    with pytest.raises(error, match=match) as caught:
        from_torch(net(neuron), inputs(0))
    assert caught.value.path == "lif"


def test_every_constructor_option_is_dealt_with():
    assert set(FRAMEWORK.converters[snntorch.Leaky].options) == set(inspect.signature(snntorch.Leaky).parameters)


RESETS = ("subtract", "zero", "none")
DELAYS = (True, False)


def test_resets_of_a_constant_neuron():
    assert_converts(combined(reset_mechanism=RESETS, reset_delay=DELAYS, threshold=[1.1]))


def test_resets_of_a_learned_neuron():
    learned = {"beta": vector(0.3, 0.95), "threshold": vector(0.5, 1.5), "learn_beta": True, "learn_threshold": True}
    options = combined(reset_mechanism=RESETS, reset_delay=DELAYS)
    assert_converts({name: {**given, **learned} for name, given in options.items()})


BETAS = {
    "vector": vector(0.2, 0.9),
    "one-element vector": torch.tensor([0.7]),
    "zero-dimensional tensor": torch.tensor(0.7),
    "integer": 1,
    "NumPy number": np.float64(0.7),
    "zero": 0.0,
    "one": 1.0,
    "negative": -0.5,
    "above one": 1.3,
    "everything": torch.tensor([-0.5, 0.0, 0.4, 0.9, 1.0, 1.7]),
}
INERT_BETAS = ("negative", "above one")


def test_constant_decays():
    assert_converts({name: {"beta": beta} for name, beta in BETAS.items()})


def test_learned_decays_and_their_gradients_at_and_beyond_the_bounds():
    learned = {name: beta for name, beta in BETAS.items() if name not in ("integer", "NumPy number")}
    assert_converts({name: {"beta": beta, "learn_beta": True} for name, beta in learned.items()}, inert=INERT_BETAS)


def test_the_gradient_of_a_decay_is_whole_at_its_bounds_and_none_beyond():
    module = Net(snntorch.Leaky(beta=BETAS["everything"], learn_beta=True))
    sum(out.sum() for out in module(*inputs(1))).backward()
    assert (module.lif.beta.grad != 0).tolist() == [False, True, True, True, True, False]


THRESHOLDS = {
    "vector": vector(0.4, 2.0),
    "integer": 1,
    "large": 20000,
    "zero": 0.0,
    "negative": -0.3,
    "signed vector": vector(-0.4, 1.5),
}


@pytest.mark.parametrize("reset_mechanism", ["subtract", "zero"])
def test_thresholds(reset_mechanism):
    reached = {name: threshold for name, threshold in THRESHOLDS.items() if name != "large"}
    assert_converts(
        {
            name: {"threshold": threshold, "learn_threshold": name != "integer", "reset_mechanism": reset_mechanism}
            for name, threshold in reached.items()
        }
    )


def test_a_threshold_that_nothing_reaches_gives_the_bare_membrane():
    module = Net(snntorch.Leaky(beta=0.8, threshold=THRESHOLDS["large"]))
    with pytest.warns(UserWarning, match="no neuron spikes"):
        converted = from_torch(module, inputs(0))
    with torch.no_grad():
        _, membrane = module(*inputs(1))
    np.testing.assert_allclose(converted(*map(to_jax, inputs(1)))[1], membrane, rtol=1e-5, atol=1e-5)


SURROGATES = {
    "default": None,
    "atan": surrogate.atan(3.0),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=7),
    "sigmoid": surrogate.sigmoid(slope=4),
    "straight_through_estimator": surrogate.straight_through_estimator(),
    "triangular": surrogate.triangular(threshold=0.6),
    "heaviside": surrogate.heaviside(),
    "spike_rate_escape": surrogate.spike_rate_escape(beta=2, slope=3),
    "SFS": surrogate.SFS(slope=2, B=0.1),
}


@pytest.mark.parametrize("reset_delay", [True, False], ids=["delayed", "at once"])
def test_surrogates(reset_delay):
    options = {"learn_threshold": True, "reset_delay": reset_delay}
    assert_converts({name: {"spike_grad": spike_grad, **options} for name, spike_grad in SURROGATES.items()})


def test_a_disabled_surrogate():
    assert_converts(combined(surrogate_disable=[True], reset_mechanism=["subtract", "zero"], learn_beta=[True]))


FACTORS = {
    "number": {"graded_spikes_factor": 0.5},
    "learned number": {"graded_spikes_factor": 2.0, "learn_graded_spikes_factor": True},
    "learned one": {"graded_spikes_factor": 1.0, "learn_graded_spikes_factor": True},
    "vector": {"graded_spikes_factor": vector(0.5, 2.0)},
    "learned vector": {"graded_spikes_factor": vector(-1.0, 2.0), "learn_graded_spikes_factor": True},
}


@pytest.mark.parametrize("reset_mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("reset_delay", [True, False], ids=["delayed", "at once"])
def test_graded_spikes(reset_delay, reset_mechanism):
    options = {"reset_delay": reset_delay, "reset_mechanism": reset_mechanism}
    assert_converts({name: {**options, **factor} for name, factor in FACTORS.items()})


def test_a_factor_of_zero_silences_a_neuron_with_delayed_reset():
    factor = torch.tensor([0.0, 1.0, 1.0, 0.5, 1.0, 1.0])
    assert_converts({"zero": {"graded_spikes_factor": factor, "learn_graded_spikes_factor": True}})


def test_inhibition():
    assert_converts(
        combined(inhibition=[True], reset_delay=DELAYS, reset_mechanism=RESETS, learn_threshold=[True])
        | {"the factor is ignored": {"inhibition": True, "graded_spikes_factor": 0.5}}
    )


@pytest.mark.parametrize("output", [True, False])
def test_hidden_states_with_and_without_the_membrane_as_output(output):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, NEURONS)
            self.lif = snntorch.Leaky(beta=0.8, init_hidden=True, output=output)

        def forward(self, x):
            self.lif.reset_mem()
            outs = [self.lif(self.fc(x[t])) for t in range(x.shape[0])]
            return torch.stack([out[1] if output else out for out in outs])

    torch.manual_seed(3)
    module = Hidden()
    assert_same(module, from_torch(module, inputs(0)), inputs(1))


@pytest.mark.parametrize(
    "options",
    [{"reset_mechanism": "subtract"}, {"reset_mechanism": "zero"}, {"reset_mechanism": "none"}, {"reset_delay": False}],
    ids=["subtract", "zero", "none", "at once"],
)
def test_membranes_exactly_on_the_threshold_do_not_spike_in_float32(options):
    """Halves and quarters are exact: rounding has no say, and `>` differs from `>=`."""

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))
            self.lif = snntorch.Leaky(beta=0.5, threshold=1.0, **options)

        def forward(self, x):
            mem = self.lif.reset_mem()
            spikes, mems = [], []
            for t in range(x.shape[0]):
                spk, mem = self.lif(x[t] * self.gain, mem)
                spikes.append(spk)
                mems.append(mem)
            return torch.stack(spikes), torch.stack(mems)

    generator = torch.Generator().manual_seed(2)
    x = torch.randint(-2, 7, (8, 5, 40), generator=generator) / 4
    module = Bare()
    converted = from_torch(module, (x,))
    with torch.no_grad():
        spikes, membranes = module(x)
    assert (membranes == 1).any() and spikes.any()
    found = converted(to_jax(x))
    assert jnp.array_equal(found[0], spikes.numpy())
    assert jnp.array_equal(found[1], membranes.numpy())


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("state_quant", {"state_quant": torch.relu}),
        ("spike_grad", {"spike_grad": surrogate.SSO()}),
        ("spike_grad", {"spike_grad": torch.sigmoid}),
        ("spike_grad", {"spike_grad": lambda x: (x > 0).float()}),
        ("graded_spikes_factor", {"graded_spikes_factor": 0.0, "reset_delay": False}),
        ("graded_spikes_factor", {"graded_spikes_factor": vector(0.0, 1.0), "reset_delay": False}),
        ("inhibition", {"inhibition": True, "graded_spikes_factor": 0.5, "reset_delay": False}),
        ("beta", {"beta": float("nan")}),
        ("threshold", {"threshold": float("inf")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_without_an_exact_counterpart_are_refused(option, options):
    refuse(
        snntorch.Leaky(**{"beta": 0.8, **options}), rf"at 'lif': Leaky\({option}=.*has no exact counterpart\. Allowed: "
    )


@pytest.mark.parametrize("value", [torch.full((NEURONS,), 0.8, dtype=torch.float64), np.full(NEURONS, 0.8)], ids=type)
def test_float64_vectors_in_a_float32_network_are_refused(value):
    class Alone(nn.Module):
        """The next layer would raise in torch itself."""

        def __init__(self, neuron):
            super().__init__()
            self.fc = nn.Linear(4, NEURONS)
            self.lif = neuron

        def forward(self, x):
            mem = self.lif.reset_mem()
            for t in range(x.shape[0]):
                _, mem = self.lif(self.fc(x[t]), mem)
            return mem

    refuse(snntorch.Leaky(beta=value), r"Leaky\(beta='a float64 tensor'\).*float32 in a float32 network", net=Alone)


@pytest.mark.parametrize("shape", [(1, NEURONS), (1, 1)])
def test_parameters_with_a_batch_axis_of_length_one_are_those_of_each_neuron(shape):
    options = {"beta": torch.full(shape, 0.7), "learn_beta": True, "threshold": torch.ones(shape)}
    module = Net(snntorch.Leaky(**options))
    converted = from_torch(module, inputs(0))
    assert converted.plan.inputs[0].batch_axis == 1
    assert_same(module, converted, inputs(1))


def test_a_decay_for_each_sample_ties_the_network_to_that_batch():
    module = Net(snntorch.Leaky(beta=torch.linspace(0.2, 0.9, 3).reshape(3, 1)))
    converted = from_torch(module, inputs(0))
    assert "converted for exactly this batch" in str(converted.report)
    assert_same(module, converted, inputs(1))
    with pytest.raises(ValueError, match=r"input 'x' must have shape \(time, 3, 4\), found \(9, 2, 4\)"):
        converted(to_jax(inputs(1)[0][:, :2]))


def test_a_broken_surrogate_of_snntorch_raises_what_snntorch_raises():
    with pytest.raises(TypeError, match="argument"):
        from_torch(Net(snntorch.Leaky(beta=0.8, spike_grad=surrogate.LSO())), inputs(0))


@pytest.mark.parametrize("other", ["zero", "none"])
def test_a_reset_mechanism_that_was_changed_after_building_is_refused(other):
    neuron = snntorch.Leaky(beta=0.8)
    neuron.reset_mechanism = other
    refuse(neuron, rf"reset_mechanism='{other}'.*Allowed: the mechanism it was built with, 'subtract'")


def test_a_reset_mechanism_that_came_with_a_checkpoint_is_refused():
    neuron = snntorch.Leaky(beta=0.8)
    neuron.load_state_dict(snntorch.Leaky(beta=0.8, reset_mechanism="zero").state_dict())
    refuse(neuron, r"reset_mechanism='zero'.*Allowed: the mechanism it was built with, 'subtract'")


def test_inhibition_of_images_is_refused_or_fails_in_snntorch():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snntorch.Leaky(beta=0.8, inhibition=True)

        def forward(self, x):
            mem = self.lif.reset_mem()
            for t in range(x.shape[0]):
                spk, mem = self.lif(x[t], mem)
            return spk

    with pytest.raises((UnsupportedOptionError, IndexError), match=r"inhibition|shape mismatch"):
        from_torch(Images(), (torch.rand(4, 2, 3, 5, 5) * 3,))


def test_a_subclass_is_not_its_parent():
    class Own(snntorch.Leaky):
        pass

    refuse(Own(beta=0.8), "Own is a subclass of the neuron Leaky", UnsupportedModuleError)
