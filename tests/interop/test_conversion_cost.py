"""What a conversion costs, in exact numbers: runs of the module, and the size of the program, whatever the length."""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest
import snntorch
import torch
from jax.extend.core import jaxprs_in_params
from torch import nn

from snnax_interop import Converted, from_torch


pytestmark = pytest.mark.full


# On two of the ten steps, twice in a row, since the first axis could have been a large batch. Then as given, twice in a
# row, on the first steps, there with another batch size, beyond the example, in float64, there on one sample alone, and
# for gradients. Without being recorded, on one to nine steps.
RUNS = 2 + 8 + 9


class Hundred(nn.Module):
    """A convolution and 49 Linear layers, each with a Leaky behind it."""

    forward_calls = 0

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.layers = nn.ModuleList([nn.Linear(12, 12) for _ in range(49)])
        self.neurons = nn.ModuleList([snntorch.Leaky(beta=0.9, threshold=0.3) for _ in range(50)])
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(4)

    def forward(self, x):
        type(self).forward_calls += 1
        membranes = [None] * len(self.neurons)
        outputs = []
        for xt in x:
            h = self.conv(xt).flatten(1)
            for number, neuron in enumerate(self.neurons):
                h = self.layers[number - 1](h) if number else h
                h, membranes[number] = neuron(h, membranes[number])
            outputs.append(h)
        return torch.stack(outputs)


@functools.cache
def hundred() -> tuple[Converted, int]:
    """The conversion, and how often the module ran for it."""
    torch.manual_seed(0)
    module = Hundred()
    before = Hundred.forward_calls
    return from_torch(module, 3 * torch.rand(10, 2, 1, 6)), Hundred.forward_calls - before


def primitives(jaxpr) -> collections.Counter:
    """How often each primitive occurs, also inside of others."""
    found = collections.Counter(equation.primitive.name for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            found += primitives(inner)
    return found


@functools.cache
def program(steps: int) -> collections.Counter:
    return primitives(jax.make_jaxpr(hundred()[0])(jnp.zeros((steps, 2, 1, 6))).jaxpr)


def test_the_network_has_a_hundred_modules():
    assert len([each for each in Hundred().modules() if not list(each.children())]) == 100


def test_a_conversion_runs_the_module_so_many_times():
    assert hundred()[1] == RUNS


def test_the_program_has_one_loop_over_time_per_spiking_layer():
    """Without feedback between layers each of them runs over the whole sequence by itself."""
    assert program(10)["scan"] == 50
    assert program(10)["while"] == 0


@pytest.mark.parametrize("steps", [5, 50])
def test_the_program_is_the_same_at_any_length(steps):
    assert program(steps) == program(10)


class Feedback(nn.Module):
    """Two layers in a loop: the second one's spikes reach the first one."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.back = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9, threshold=0.5), snntorch.Leaky(beta=0.9, threshold=0.3)

    def forward(self, x):
        mem1, mem2, spk, out = None, None, torch.zeros(x.shape[1], 4), []
        for xt in x:
            spk, mem1 = self.lif1(self.fc1(xt) + self.back(spk), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


def test_layers_with_feedback_share_one_loop():
    torch.manual_seed(0)
    converted = from_torch(Feedback(), 3 * torch.rand(10, 2, 4))
    five, fifty = (primitives(jax.make_jaxpr(converted)(jnp.zeros((steps, 2, 4))).jaxpr) for steps in (5, 50))
    assert five["scan"] == 1
    assert five == fifty
