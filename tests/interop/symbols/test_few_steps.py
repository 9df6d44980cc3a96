"""A long example is recorded once; what changes with length and batch shows itself on its first steps."""

import pytest
import snntorch
import torch
from helpers.compare import assert_same
from torch import nn

from snnax_interop import from_torch
from snnax_interop.convert import programs
from snnax_interop.symbols.few_steps import FEW_STEPS


STEPS, BATCH = 24, 3

# The lengths that a network has run with: what a forward writes on its module is undone.
LENGTHS: list[int] = []


class Spiking(nn.Module):
    """A layer over time; what follows changes something about it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.neuron = snntorch.Leaky(beta=0.9, threshold=0.3)
        with torch.no_grad():
            self.fc.weight.mul_(4)

    def steps(self, x):
        return len(x)

    def current(self, x, t):
        return self.fc(x[t])

    def finish(self, spikes):
        return torch.stack(spikes)

    def forward(self, x):
        LENGTHS.append(len(x))
        mem, spikes = torch.zeros(x.shape[1], 3), []
        for t in range(self.steps(x)):
            spk, mem = self.neuron(self.current(x, t), mem)
            spikes.append(spk)
        return self.finish(spikes)


class Before(Spiking):
    """What the loop reads is made of the input."""

    def forward(self, x):
        return super().forward(torch.relu(x) + 0.1)


class Mean(Spiking):
    def finish(self, spikes):
        return torch.stack(spikes).sum(0) / len(spikes)


class Last(Spiking):
    def finish(self, spikes):
        return torch.stack(spikes[-4:]), spikes[0]


class Faded(Spiking):
    def current(self, x, t):
        return self.fc(x[t]) * 0.9**t + 1 / len(x)


class Ten(Spiking):
    """Reads further back than the first steps reach."""

    def finish(self, spikes):
        return torch.stack(spikes[-10:])


class Bounded(Spiking):
    """No more steps than shortly behind the example."""

    def steps(self, x):
        return min(len(x), STEPS + 6)


class EveryOther(Spiking):
    """Half of the steps, rounded up: that it is not down shows at odd lengths only."""

    def finish(self, spikes):
        return torch.stack(spikes[::2])


class Late(Spiking):
    """Something happens behind the first steps."""

    def current(self, x, t):
        return self.fc(x[t]) * (0.5 if t > FEW_STEPS + 2 else 1.0)


class Limited(Spiking):
    """Raises an error where the input is longer than its table."""

    def __init__(self):
        super().__init__()
        self.gains = nn.Parameter(torch.linspace(0.5, 2, STEPS))

    def current(self, x, t):
        if len(x) > STEPS:
            raise ValueError("too long")
        return self.fc(x[t])


class Threes(Spiking):
    """Runs lengths that are a multiple of three; its neuron needs four steps of the loop to spike."""

    def forward(self, x):
        return super().forward(0.2 * x.unflatten(0, (-1, 3)).sum(1))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    LENGTHS.clear()


def example(steps: int = STEPS) -> torch.Tensor:
    return 3 * torch.rand(steps, BATCH, 4)


@pytest.mark.parametrize("kind", [Spiking, Before, Mean, Last, Faded])
def test_the_first_steps_show_what_all_do(kind):
    module = kind()
    program = next(iter(programs(module, example()).values()))
    assert program.example == (BATCH, FEW_STEPS)
    # As given, twice; the first steps, once more with another batch; beyond the example; and, without being recorded,
    # the first steps, all shorter lengths, and three longer ones.
    recorded = [FEW_STEPS, FEW_STEPS, STEPS, STEPS, 2 * STEPS + 1]
    assert sorted(LENGTHS) == sorted([*recorded, *range(1, FEW_STEPS + 4)])


@pytest.mark.parametrize("kind", [Spiking, Before, Mean, Last, Faded, Limited])
@pytest.mark.parametrize("steps", [5, 2 * STEPS + 3])
def test_it_computes_the_same_at_other_lengths(kind, steps):
    if kind is Limited and steps > STEPS:
        steps = STEPS - 1
    module = kind()
    inert = ("gains",) if kind is Limited else ()
    assert_same(module, from_torch(module, example()), (example(steps),), inert=inert)


def test_a_limit_behind_the_example_is_seen():
    """As on a short example: converted for this length, and said so."""
    module = Bounded()
    converted = from_torch(module, example())
    assert "converted for exactly this length" in str(converted.report)
    assert_same(module, converted, (example(),))


@pytest.mark.parametrize("kind", [Ten, EveryOther, Late])
def test_all_steps_are_recorded_where_the_first_do_not_show_it(kind):
    module = kind()
    converted = from_torch(module, example())
    assert_same(module, converted, (example(STEPS + 7),))


def test_a_network_that_runs_few_lengths_is_compared_on_one_of_them():
    module = Threes()
    with torch.no_grad():
        module.fc.weight.abs_()
        module.fc.bias.zero_()
        x = torch.full((STEPS, BATCH, 4), 0.03)
        spikes = module(x)
    assert spikes[:3].sum() == 0 < spikes[3:].sum()
    converted = from_torch(module, x)
    assert_same(module, converted, (x,))


def test_numbers_that_change_at_later_steps_only_are_of_this_length():
    module = Late()
    converted = from_torch(module, example(FEW_STEPS))
    assert "converted for exactly this length" in str(converted.report)


def test_a_short_example_is_recorded_as_it_is():
    program = next(iter(programs(Spiking(), example(9)).values()))
    assert program.example == (BATCH, 9)
