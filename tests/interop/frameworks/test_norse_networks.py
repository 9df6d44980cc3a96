"""How networks are written with Norse: containers, lifted layers, encoders, functions of one step."""

import norse.torch as norse
import pytest
import torch
from norse.torch.functional import lif, lif_adex, lsnn
from norse.torch.functional.decode import sum_decode
from norse.torch.functional.leaky_integrator import LIState, li_feed_forward_step
from norse.torch.module import conv
from norse.torch.module.exp_filter import ExpFilter
from norse.torch.module.regularization import RegularizationCell
from norse.torch.module.spikes_to_times_decoder import SpikesToTimesDecoder
from torch import nn

from snnax import snn
from snnax_interop import RecordingError, check_equivalence, from_torch


pytestmark = pytest.mark.full


class Loop(nn.Module):
    """A loop around a module of one step, with the largest output over time, and a softmax."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        state, outs = None, []
        for xt in x:
            out, state = self.step(xt, state)
            outs.append(out)
        return torch.log_softmax(torch.stack(outs).max(0).values, -1)


class Composite(nn.Module):
    """Two cells side by side that share a tuple of states."""

    def __init__(self):
        super().__init__()
        self.lif = norse.LIFCell()
        self.lsnn = norse.LSNNRecurrentCell(5, 6)
        self.out = nn.Linear(11, 5)

    def forward(self, x, state=None):
        first, second = (None, None) if state is None else state
        z1, first = self.lif(x, first)
        z2, second = self.lsnn(x, second)
        return self.out(torch.cat([z1, z2], -1)), (first, second)


class Functions(nn.Module):
    """Functions of one step with weights of its own, no module of Norse at all."""

    def __init__(self, hidden=8):
        super().__init__()
        self.input_weights = nn.Parameter(torch.randn(hidden, 5))
        self.recurrent_weights = nn.Parameter(torch.randn(hidden, hidden) * 0.3)
        self.out = nn.Linear(hidden, 3)
        self.v_th = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        steps, batch = x.shape[:2]
        hidden = torch.zeros(batch, 8)
        s1 = lif.LIFState(z=hidden, v=hidden, i=hidden)
        so = LIState(v=torch.zeros(batch, 3), i=torch.zeros(batch, 3))
        p = lif.LIFParameters(v_th=self.v_th, method="tanh", alpha=torch.tensor(0.1))
        voltages = torch.zeros(steps, batch, 3)
        for t in range(steps):
            z, s1 = lif.lif_step(x[t], s1, self.input_weights, self.recurrent_weights, p)
            vo, so = li_feed_forward_step(self.out(z), so)
            voltages[t] = vo
        return voltages, s1


class OtherFunctions(nn.Module):
    """Adaptive neurons step by step, with states that start at None."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        zeros = torch.zeros(x.shape[1], 6)
        s1 = lif_adex.LIFAdExFeedForwardState(zeros, zeros, zeros)
        s2, outs = None, []
        for xt in x:
            z, s1 = lif_adex.lif_adex_feed_forward_step(self.fc(xt), s1)
            s2 = lsnn.LSNNFeedForwardState(zeros, zeros, zeros + 1) if s2 is None else s2
            z, s2 = lsnn.lsnn_feed_forward_step(20 * z, s2)
            outs.append(self.out(z))
        return torch.stack(outs)


class Kept(nn.Module):
    """The state stays with the module between calls, as for truncated backpropagation."""

    def __init__(self):
        super().__init__()
        self.fc, self.cell = nn.Linear(5, 6), norse.LIFCell()
        self.state = None

    def forward(self, x):
        self.state = None
        outs = []
        for xt in x:
            z, self.state = self.cell(self.fc(xt), self.state)
            outs.append(z)
        return torch.stack(outs)


class Model(nn.Module):
    """An encoder, a network and a decoder."""

    def __init__(self, encoder, decoder=None):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.snn = norse.SequentialState(nn.Linear(5, 6), norse.LIF(), nn.Linear(6, 3), norse.LI())

    def forward(self, x):
        voltages, _ = self.snn(self.encoder(x))
        return voltages if self.decoder is None else self.decoder(voltages)


class Own(norse.LIFCell):
    """A cell of the user's with a step that does more; its state is explicit, so it is recorded."""

    def forward(self, x, state=None):
        z, state = super().forward(2 * x, state)
        return 0.5 * z, state


class Custom(norse.module.snn.SNNCell):
    """A neuron of the user's own on Norse's base class."""

    def __init__(self):
        super().__init__(self.step, lambda x: torch.zeros_like(x), p=None, dt=0.1)

    @staticmethod
    def step(x, v, p, dt):
        v = v + dt * (x - v)
        z = norse.functional.threshold.threshold(v - 0.5, "super", 100.0)
        return z, v * (1 - z)


class Convolutional(nn.Module):
    """Convolutions on every step of the sequence, as backbones have them."""

    def __init__(self):
        super().__init__()
        self.net = norse.SequentialState(
            norse.Lift(nn.Conv2d(1, 4, 3)), norse.LIF(), norse.Lift(nn.BatchNorm2d(4)), norse.Lift(nn.MaxPool2d(2)),
            norse.Lift(nn.Flatten()), nn.Linear(36, 3), norse.LI(),
        )  # fmt: skip
        self.net.eval()

    def forward(self, x):
        return self.net(x)[0]


SEQUENCE = (6, 2, 5)
NETWORKS = {
    "SequentialState over a sequence": (
        lambda: norse.SequentialState(nn.Linear(5, 6), norse.LIFRecurrent(6, 6), nn.Linear(6, 3), norse.LI()),
        SEQUENCE,
    ),
    "SequentialState with a GRU": (
        lambda: norse.SequentialState(nn.Linear(5, 6), norse.LIF(), nn.GRU(6, 4), nn.Linear(4, 3), norse.LI()),
        SEQUENCE,
    ),
    "SequentialState with all outputs": (
        lambda: norse.SequentialState(nn.Linear(5, 6), norse.LIF(), nn.Linear(6, 3), norse.LI(), return_hidden=True),
        SEQUENCE,
    ),
    "SequentialState in a loop": (
        lambda: Loop(norse.SequentialState(nn.Linear(5, 6), norse.LIFCell(), nn.Linear(6, 3), norse.LICell())),
        SEQUENCE,
    ),
    "SequentialState nested": (
        lambda: Loop(
            norse.SequentialState(
                nn.Linear(5, 6),
                norse.SequentialState(norse.LIFCell(), nn.Linear(6, 6)),
                norse.LIFRecurrentCell(6, 4),
                norse.LILinearCell(4, 3),
            )
        ),
        SEQUENCE,
    ),
    "composite state": (lambda: Loop(Composite()), SEQUENCE),
    "composite state in SequentialState": (
        lambda: Loop(norse.SequentialState(Composite(), norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(0.1))))),
        SEQUENCE,
    ),
    "functions": (Functions, SEQUENCE),
    "adaptive functions": (OtherFunctions, SEQUENCE),
    "state on self": (Kept, SEQUENCE),
    "encoder": (lambda: Model(norse.ConstantCurrentLIFEncoder(9)), (2, 5)),
    "encoder and decoder": (
        lambda: Model(norse.ConstantCurrentLIFEncoder(9), lambda v: torch.log_softmax(v.max(0).values, -1)),
        (2, 5),
    ),
    "latency encoder": (lambda: Model(norse.SpikeLatencyLIFEncoder(9)), (2, 5)),
    "sum decoder": (lambda: Model(nn.Identity(), sum_decode), SEQUENCE),
    "RecurrentSequential": (lambda: Loop(norse.RecurrentSequential(nn.Linear(5, 5), norse.LIFCell())), SEQUENCE),
    "lifted convolutions": (Convolutional, (4, 2, 1, 8, 8)),
    "subclass of a cell": (lambda: Loop(norse.SequentialState(nn.Linear(5, 6), Own())), SEQUENCE),
    "neuron of the user's": (lambda: Loop(norse.SequentialState(nn.Linear(5, 6), Custom())), SEQUENCE),
    "one parameter tuple for two cells": (
        lambda: Loop(norse.SequentialState(nn.Linear(5, 6), norse.LIFCell(P), nn.Linear(6, 6), norse.LIFCell(P))),
        SEQUENCE,
    ),
    "lifted convolution over time": (
        lambda: norse.SequentialState(conv.LConv2d(1, 3, 3), norse.LIF()), (4, 2, 1, 6, 6),
    ),
}  # fmt: skip
P = norse.LIFParameters(v_th=torch.tensor(0.3))


def inputs(shape, seed):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 40,)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    module = make()
    converted = from_torch(module, inputs(shape, 0))
    other = (shape[0] + 3, 3, *shape[2:]) if len(shape) > 2 else (3, *shape[1:])
    report = check_equivalence(module, converted, inputs(other, 1))
    report.raise_if_failed()
    assert report.spikes > 0


def test_a_chain_over_a_sequence_reads_like_a_model_written_by_hand():
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(5, 6), norse.LIF(), nn.Linear(6, 3), norse.LI())
    model = from_torch(Silent(net), inputs(SEQUENCE, 0)).model
    assert isinstance(model, snn.Sequential)
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "LIF", "Linear", "LI"]


class Silent(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)[0]


class Regularised(nn.Module):
    """It adds to a state that stays with the module."""

    def __init__(self):
        super().__init__()
        self.cell, self.regularisation = norse.LIFCell(), RegularizationCell()

    def forward(self, x):
        state, outs = None, []
        for xt in x:
            z, state = self.cell(xt, state)
            z, _ = self.regularisation(z, state)
            outs.append(z)
        return torch.stack(outs)


REFUSED = {
    "random encoder": (lambda: Model(norse.PoissonEncoder(9)), (2, 5), "draws random numbers"),
    "times of spikes": (
        lambda: nn.Sequential(norse.Lift(norse.LIFCell()), First(), SpikesToTimesDecoder()), SEQUENCE,
        "ToSpikeTimes computes with a constant of shape",
    ),
    "compiled by TorchScript": (lambda: nn.Sequential(nn.Linear(5, 6), ExpFilter(6, 3)), SEQUENCE, "computed outside"),
    "a count that stays": (Regularised, SEQUENCE, r"changed by the first: self\.regularisation\.state"),
    "sparse inputs": (lambda: Sparse(), SEQUENCE, "to_sparse makes a sparse tensor"),
}  # fmt: skip


class First(nn.Module):
    def forward(self, x):
        return x[0]


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif = norse.LIF()

    def forward(self, x):
        return self.lif(x.to_sparse())[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused(name):
    make, shape, match = REFUSED[name]
    with pytest.raises(RecordingError, match=match):
        from_torch(make(), inputs(shape, 0))
