"""A large example is recorded on a few of its samples; what a user sees of it keeps its own sizes."""

import pytest
import snntorch
import torch
from torch import nn

from snnax_interop import from_torch
from snnax_interop.trace.example import FEW_SAMPLES, batch_candidates, few_samples


SAMPLES = 12


# The batch sizes that the networks below have run with: what a forward writes on its module is undone.
BATCHES: list[int] = []


class Spiking(nn.Module):
    """A layer over time, for one batch size only if `batch` says so."""

    def __init__(self, axis: int = 0, batch: int | None = None):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.neuron = snntorch.Leaky(beta=0.9, threshold=0.3)
        self.axis, self.batch = axis, batch
        with torch.no_grad():
            self.fc.weight.mul_(4)

    def forward(self, x, static=None):
        xs = x if self.axis == 0 else x.transpose(0, 1)
        BATCHES.append(xs.shape[1])
        mem, out = torch.zeros(xs.shape[1], 3), []
        for xt in xs:
            h = self.fc(xt.reshape(self.batch or len(xt), 4))
            spk, mem = self.neuron(h if static is None else h + static, mem)
            out.append(spk)
        return torch.stack(out)


class OneStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.neuron = snntorch.Leaky(beta=0.9, threshold=0.3, init_hidden=True)
        with torch.no_grad():
            self.fc.weight.mul_(4)

    def forward(self, x):
        BATCHES.append(len(x))
        return self.neuron(self.fc(x))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    BATCHES.clear()


# With one more for another batch size; three times as many are compared.
FEW = 3 * FEW_SAMPLES


def recorded(steps: int = 1) -> int:
    """The largest number of samples but all of them, which run once to see that few are like all."""
    assert BATCHES.count(SAMPLES) == steps
    return max(each for each in BATCHES if each != SAMPLES)


def test_time_first():
    spec = from_torch(Spiking(), 3 * torch.rand(5, SAMPLES, 4)).plan.inputs[0]
    assert (spec.shape, spec.batch_axis, recorded()) == ((5, SAMPLES, 4), 1, FEW)


def test_batch_first():
    spec = from_torch(Spiking(axis=1), 3 * torch.rand(SAMPLES, 5, 4)).plan.inputs[0]
    assert (spec.shape, spec.batch_axis, recorded()) == ((SAMPLES, 5, 4), 0, FEW)


def test_time_as_long_as_the_batch():
    spec = from_torch(Spiking(axis=1), 3 * torch.rand(SAMPLES, SAMPLES, 4)).plan.inputs[0]
    assert (spec.shape, spec.batch_axis) == ((SAMPLES, SAMPLES, 4), 0)


def test_a_call_for_each_time_step():
    spec = from_torch(OneStep(), 3 * torch.rand(SAMPLES, 4), loop="outside").plan.inputs[0]
    assert (spec.shape, spec.batch_axis, recorded(3)) == ((3, SAMPLES, 4), 1, FEW)


def test_an_input_without_time():
    specs = from_torch(Spiking(), (3 * torch.rand(5, SAMPLES, 4), torch.rand(SAMPLES, 3))).plan.inputs
    assert [(spec.shape, spec.batch_axis) for spec in specs] == [((5, SAMPLES, 4), 1), ((SAMPLES, 3), 0)]
    assert recorded() == FEW


def test_a_batch_size_in_the_code_takes_all_samples():
    spec = from_torch(Spiking(batch=SAMPLES), 3 * torch.rand(5, SAMPLES, 4)).plan.inputs[0]
    assert (spec.shape, spec.batch_axis) == ((5, SAMPLES, 4), None)


def test_the_active_samples_are_taken():
    x = torch.zeros(5, SAMPLES, 4)
    x[:, [3, 7]] = 2.0
    assert torch.equal(few_samples((x,), (1,))[0], x[:, [3, 7]])


def test_all_samples_are_compared_where_few_are_silent():
    """The large sample drives no spike, and the small ones do."""
    module = Spiking()
    with torch.no_grad():
        module.fc.weight.copy_(module.fc.weight.abs())
    x = torch.rand(5, SAMPLES, 4)
    x[:, :FEW_SAMPLES] = -50.0
    converted = from_torch(module, x)
    assert recorded() == 3 * SAMPLES
    assert "silent" not in str(converted.report)


def test_few_samples_are_all_recorded():
    assert list(batch_candidates((torch.zeros(5, 8, 4),))) == []
    assert list(batch_candidates((torch.zeros(5, 9, 4),))) == [(1,)]
