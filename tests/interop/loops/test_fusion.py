"""Loops that are one become one model; loops that must follow each other stay several."""

import pytest
import snntorch
import torch
from helpers.conversion import without_comparison
from torch import nn
from zoo import joined, loops

from snnax import snn
from snnax_interop import check_equivalence, from_torch


pytestmark = pytest.mark.full


def models(case):
    module = case.build()
    with without_comparison():  # the zoo compares them
        converted = from_torch(module, case.step())
    return [loop.model for loop in converted.plan.loops], converted


# What the second loop reads has no gradient to the first, or depends on all of its steps, or on the place in time.
TWO = ("filled without gradient", "centred between loops", "weighed between loops")


@pytest.mark.full
@pytest.mark.parametrize("name", TWO)
def test_what_acts_across_time_keeps_loops_apart(name):
    assert len(models(joined.CASES[name])[0]) == 2


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in joined.CASES if name not in TWO])
def test_one_loop_is_one_model(name):
    found, converted = models(joined.CASES[name])
    assert len(found) == 1
    assert converted.model.wiring == found[0].wiring


def test_layers_that_run_one_after_the_other_are_a_sequential():
    (model,), _ = models(joined.CASES["a loop for each layer"])
    assert isinstance(model, snn.Sequential)
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "LIF"] * 3


def test_a_first_step_before_its_loop_leaves_one_sum():
    (model,), converted = models(joined.CASES["first step before the loop"])
    assert [name for name, _ in model.wiring.sources] == ["fc1", "lif1", "fc2", "lif2", "add"]
    assert converted.num_steps(torch.zeros(1, 6).numpy()) == (6,)


def test_an_encoder_and_a_decoder_loop_are_one_chain():
    case = next(each for each in loops.CASES.values() if each.make is loops.LoopOverList)
    found, _ = models(case)
    assert len(found) == 1


class Backwards(nn.Module):
    """The second loop starts with the last step of the first; with `last`, from its membrane."""

    def __init__(self, last):
        super().__init__()
        self.last = last
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 7)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem1, spikes, out = self.lif1.reset_mem(), [], []
        for xt in x:
            spk, mem1 = self.lif1(self.fc1(xt), mem1)
            spikes.append(spk)
        mem2 = mem1 if self.last else self.lif2.reset_mem()
        for spk in spikes if self.last else spikes[::-1]:
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


@pytest.mark.parametrize("last", [False, True])
def test_loops_that_read_later_steps_stay_two(last):
    torch.manual_seed(0)
    module = Backwards(last)
    converted = from_torch(module, 3 * torch.rand(6, 2, 5))
    assert len(converted.model) == 2
    check_equivalence(module, converted, (3 * torch.rand(9, 3, 5),)).raise_if_failed()


class SameLength(nn.Module):
    """A loop over the input, and one of a number of steps that is its length on the example only."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem, total = self.lif1.reset_mem(), 0
        for xt in x:
            spk, mem = self.lif1(self.fc(xt), mem)
            total = total + spk
        mem, out = self.lif2.reset_mem(), 0
        for _ in range(6):
            spk, mem = self.lif2(self.fc(x[0]), mem)
            out = out + spk
        return total, out


def test_loops_of_equal_length_on_the_example_only_stay_two():
    torch.manual_seed(0)
    module = SameLength()
    converted = from_torch(module, 3 * torch.rand(6, 2, 5))
    assert converted.num_steps(torch.zeros(9, 2, 5).numpy()) == (9, 6)
    check_equivalence(module, converted, (3 * torch.rand(9, 2, 5),)).raise_if_failed()
