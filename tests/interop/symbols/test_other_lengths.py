"""Lengths that forward treats in another way than the example are refused, whether they are shorter or longer."""

import jax.numpy as jnp
import pytest
import snntorch
import torch
from torch import nn

from snnax_interop import from_torch


class Net(nn.Module):
    """A readout of all time steps that `finish` makes something of."""

    def __init__(self, finish):
        super().__init__()
        self.fc, self.lif, self.finish = nn.Linear(4, 3), snntorch.Leaky(beta=0.8, threshold=0.3), finish

    def forward(self, x):
        mem, record = self.lif.init_leaky(), []
        for step in x:
            _, mem = self.lif(self.fc(step), mem)
            record.append(mem)
        return self.finish(torch.stack(record), len(x))


def converted(finish, length=5):
    torch.manual_seed(0)
    net = Net(finish)
    return net, from_torch(net, 2 * torch.rand(length, 3, 4))


def refuses(found, length):
    with pytest.raises(ValueError, match=r"time steps; allowed: \d+ and more|must have shape \(5, batch"):
        found(jnp.zeros((length, 2, 4)))


def computes(net, found, length):
    x = 2 * torch.rand(length, 2, 4, generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        expected = net(x)
    result = found(x.numpy())
    assert result.shape == tuple(expected.shape)
    assert torch.allclose(torch.from_numpy(result.__array__().copy()), expected, atol=1e-5)


# What forward makes of its record, and from which length on it does the same.
SHORTEST = {
    "a divisor with a limit": (lambda record, T: record.sum(0) / min(T, 4), 4),
    "another branch for few steps": (lambda record, T: record if T >= 3 else record * 2, 3),
    "one length alone": (lambda record, T: record * 2 if T == 2 else record, 3),
    "axes of length one": (lambda record, T: record.squeeze(), 2),
    "a window": (lambda record, T: nn.functional.avg_pool1d(record.movedim(0, -1), 3), 3),
}


@pytest.mark.parametrize("finish", SHORTEST)
def test_shorter_lengths_that_do_something_else_are_refused(finish):
    function, shortest = SHORTEST[finish]
    net, found = converted(function)
    assert found.program.shortest == shortest
    assert f"for {shortest} time steps and more: with fewer, forward does something else" in str(found.report)
    refuses(found, shortest - 1)
    for length in (shortest, 9):
        computes(net, found, length)


@pytest.mark.parametrize(
    "finish",
    [
        lambda record, T: record * 2 if T % 3 == 0 else record,
        lambda record, T: record * 2 if T % 4 == 0 else record,
        lambda record, T: record.sum(0) / min(T, 7),
        lambda record, T: record.sum(0) / max(T, 10),
        lambda record, T: record[:, 0] if T > 10 else record[:, 1],
    ],
)
def test_where_longer_ones_do_something_else_there_is_one_length(finish):
    net, found = converted(finish)
    computes(net, found, 5)
    for length in (4, 6, 12):
        refuses(found, length)


@pytest.mark.parametrize(
    "finish",
    [
        lambda record, T: record[-3:],
        lambda record, T: record[1:4].sum(0),
        lambda record, T: record.mean(0),
        lambda record, T: record.cumsum(0)[-1] / T,
        lambda record, T: record[::2],
    ],
)
def test_lengths_that_slices_cut_short_are_computed(finish):
    net, found = converted(finish)
    assert found.program.shortest == 1
    for length in (1, 2, 4, 11):
        computes(net, found, length)


def test_a_long_example_finds_its_shortest_length_in_its_first_steps():
    net, found = converted(SHORTEST["another branch for few steps"][0], length=20)
    refuses(found, 2)
    computes(net, found, 3)
