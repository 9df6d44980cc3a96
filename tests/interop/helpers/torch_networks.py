"""Networks as people write them: every idiom that the bridge takes, with inputs that make them spike."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import norse.torch as norse
import snntorch
import torch
import torch.nn.functional as F
from snntorch import surrogate, utils
from torch import nn


NUM_STEPS = 6


class StaticLoop(nn.Module):
    """The snnTorch quickstart: static input at every step, membranes passed by hand, bound from a global."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(20, 16)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = nn.Linear(16, 5)
        self.lif2 = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(NUM_STEPS):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class TimeFirst(nn.Module):
    """`x[step]` with the bound from `x.size(0)`, learnable vector decays and thresholds, last membrane returned."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(12, 10)
        self.lif1 = snntorch.Leaky(
            beta=torch.linspace(0.5, 0.95, 10),
            learn_beta=True,
            threshold=torch.linspace(0.5, 1.5, 10),
            learn_threshold=True,
        )
        self.fc2 = nn.Linear(10, 4, bias=False)
        self.out = snntorch.Leaky(beta=0.7, reset_mechanism="none", learn_beta=True)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.out.reset_mem()
        spikes = []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.out(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes), mem2


class BatchFirst(nn.Module):
    """`x[:, t]` of `(batch, time, features)`, the bound from `x.shape[1]`, spike counts added up, outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 12)
        self.lif1 = snntorch.Leaky(beta=0.85, reset_mechanism="zero")
        self.fc2 = nn.Linear(12, 3)
        self.lif2 = snntorch.Leaky(beta=0.85, reset_mechanism="zero", reset_delay=False)

    def forward(self, x):
        mem1 = mem2 = None
        count = 0
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            count = count + spk2
        return {"count": count, "membrane": mem2}


class Convolutional(nn.Module):
    """Frames `(time, batch, channels, height, width)`, functional pooling, `view` of the batch size, hidden states."""

    def __init__(self):
        super().__init__()
        grad = surrogate.fast_sigmoid(slope=10)
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.lif1 = snntorch.Leaky(beta=0.8, spike_grad=grad, init_hidden=True)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2)
        self.lif2 = snntorch.Leaky(beta=0.8, spike_grad=grad, init_hidden=True)
        self.fc = nn.Linear(6, 5)
        self.lif3 = snntorch.Leaky(beta=0.8, spike_grad=grad, init_hidden=True, output=True)

    def forward(self, frames):
        utils.reset(self)
        spikes = []
        for frame in frames:
            x = self.lif1(F.max_pool2d(self.conv1(frame), 2))
            x = self.lif2(F.avg_pool2d(self.conv2(x), 2))
            spk, _ = self.lif3(self.fc(x.view(frame.size(0), -1)))
            spikes.append(spk)
        return torch.stack(spikes, dim=1)


class Blocks(nn.Module):
    """Nested blocks that return tuples, a ModuleList with a Python list of membranes, a residual connection."""

    class Block(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.linear = nn.Linear(size, size)
            self.neuron = snntorch.Leaky(beta=0.9, threshold=0.7)

        def forward(self, x, mem):
            spk, mem = self.neuron(self.linear(x), mem)
            return spk + x, mem

    def __init__(self, num_steps=7):
        super().__init__()
        self.num_steps = num_steps
        self.embed = nn.Sequential(nn.Linear(6, 9), nn.ReLU())
        self.blocks = nn.ModuleList([self.Block(9) for _ in range(3)])
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        x = self.embed(x)
        mems = [block.neuron.init_leaky() for block in self.blocks]
        record = []
        for _ in range(self.num_steps):
            out = x
            for index, block in enumerate(self.blocks):
                out, mems[index] = block(out, mems[index])
            record.append(self.head(out))
        return torch.stack(record).mean(0)


class Recurrent(nn.Module):
    """Feedback by hand: the spikes of the last step come back through a layer; a leak of the rates by hand."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(7, 8)
        self.rec = nn.Linear(8, 8)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.6)

    def forward(self, x):
        mem = self.lif.reset_mem()
        spk = torch.zeros(x.shape[0], 8)
        rate = torch.zeros(x.shape[0], 8)
        rates = []
        for xt in torch.unbind(x, dim=1):
            spk, mem = self.lif(self.inp(xt) + self.rec(spk), mem)
            rate = 0.9 * rate + 0.1 * spk
            rates.append(rate)
        return torch.stack(rates, 1), (spk, mem)


class ImplicitState(nn.Module):
    """Membranes kept by the modules without `init_hidden`; two branches concatenated; per-step lists returned."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 6)
        self.b = nn.Linear(5, 4)
        self.lif_a = snntorch.Leaky(beta=0.9)
        self.lif_b = snntorch.Leaky(beta=0.5, spike_grad=surrogate.sigmoid(slope=5))
        self.readout = nn.Linear(10, 3)

    def forward(self, x):
        self.lif_a.reset_mem()
        self.lif_b.reset_mem()
        outs = []
        for t in range(x.size(1)):
            spk_a, _ = self.lif_a(self.a(x[:, t, :]))
            spk_b, mem_b = self.lif_b(torch.tanh(self.b(x[:, t, :])) * 2)
            outs.append(self.readout(torch.cat([spk_a, spk_b], dim=1)))
        return outs, mem_b


class Signal(nn.Module):
    """One-dimensional convolutions over channels, time last, graded spikes, everything after the loop in torch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding="same")
        self.pool = nn.MaxPool1d(2)
        self.lif = snntorch.Leaky(
            beta=torch.tensor([0.9, 0.8, 0.7, 0.6]).reshape(4, 1),
            graded_spikes_factor=0.5,
            learn_graded_spikes_factor=True,
        )
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        mem = self.lif.reset_mem()
        record = []
        for t in range(x.shape[-1]):
            spk, mem = self.lif(self.pool(self.conv(x[..., t])), mem)
            record.append(spk)
        spikes = torch.stack(record)
        total = spikes.sum(dim=0) / len(record)
        return F.log_softmax(self.fc(self.flatten(total)), dim=1), spikes[-1]


class Competition(nn.Module):
    """Winner-take-all layer behind a subtracting one; integer inputs cast inside; a functional linear layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 9) * 0.6)
        self.bias = nn.Parameter(torch.rand(6))
        self.lif1 = snntorch.Leaky(beta=0.7, reset_delay=False)
        self.fc = nn.Linear(6, 6)
        self.register_buffer("gain", torch.tensor(1.5))
        self.lif2 = snntorch.Leaky(beta=0.9, inhibition=True, spike_grad=surrogate.straight_through_estimator())

    def forward(self, x):
        x = x.permute(1, 0, 2)
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, membranes = [], []
        for t in range(x.size(0)):
            cur = F.linear(x[t], self.weight, self.bias) * self.gain
            spk, mem1 = self.lif1(cur, mem1)
            spk, mem2 = self.lif2(F.relu(self.fc(spk)), mem2)
            spikes += [spk]
            membranes += [mem2]
        return torch.stack(spikes), torch.stack(membranes)


class NorseCells(nn.Module):
    """Norse cells in a loop with states that start as None, outputs stacked, the maximum over time as the answer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.lif1 = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2), alpha=torch.as_tensor(50.0)))
        self.fc = nn.Linear(27, 8)
        self.lif2 = norse.LIFCell(
            p=norse.LIFParameters(v_th=torch.as_tensor(0.1), method="tanh", alpha=torch.as_tensor(2.0))
        )
        self.out = nn.Linear(8, 4, bias=False)
        self.readout = norse.LICell(p=norse.LIParameters(v_leak=torch.as_tensor(0.1)))

    def forward(self, x):
        s1 = s2 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z, s1 = self.lif1(self.conv(x[ts]) * 5, s1)
            z = F.max_pool2d(z, 2, stride=1)
            z, s2 = self.lif2(10 * self.fc(z.flatten(1)), s2)
            v, so = self.readout(self.out(z), so)
            voltages.append(v)
        return torch.stack(voltages).max(0)[0], so


class FilledByIndex(nn.Module):
    """A tensor made before the loop, filled step by step by index; another one added to in place."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        mem = torch.zeros(x.shape[0], 8)
        outs = torch.empty(x.shape[0], x.shape[1], 4)
        total = torch.zeros(x.shape[0], 8)
        for t in range(x.shape[1]):
            spk, mem = self.lif1(self.fc1(x[:, t]), mem)
            outs[:, t, :] = self.fc2(spk)
            total += spk
        return outs, total


class FoldedTime(nn.Module):
    """A convolution over time and batch folded together before the loop; a Linear over the whole sequence after it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.lif = snntorch.Leaky(beta=0.8)
        self.fc = nn.Linear(12, 3)
        self.eval()

    def forward(self, x):
        steps, batch = x.shape[:2]
        current = self.norm(self.conv(x.flatten(0, 1))).view(steps, batch, -1)
        mem, spikes = self.lif.reset_mem(), []
        for t in range(steps):
            spk, mem = self.lif(current[t] * 3, mem)
            spikes.append(spk)
        return self.fc(torch.stack(spikes)), torch.stack(spikes[-3:]).mean(0)


class OnSelf(nn.Module):
    """States on the module itself, a helper method, a list comprehension, gradients stopped in two ways."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.lif_a = snntorch.Leaky(beta=0.9)
        self.lif_b = snntorch.Leaky(beta=0.9, threshold=1.2)

    def step(self, x):
        first, self.mem_a = self.lif_a(self.fc(x), self.mem_a)
        with torch.no_grad():
            quiet = self.fc(x * 0.7)
        second, self.mem_b = self.lif_b(quiet, self.mem_b)
        return first + second.detach() * first

    def forward(self, x):
        self.mem_a, self.mem_b = self.lif_a.init_leaky(), self.lif_b.init_leaky()
        return torch.stack([self.step(x[t]) for t in range(x.size(0))])


def _sequential():
    """`nn.Sequential` with hidden states; the loop is the caller's."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        snntorch.Leaky(beta=0.9, init_hidden=True),
        nn.Flatten(),
        nn.Linear(36, 5),
        snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
    )


class OneStep(nn.Module):
    """One call per step, functional layers, states inside the neurons."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 9)
        self.lif1 = snntorch.Leaky(beta=0.95, init_hidden=True)
        self.fc2 = nn.Linear(9, 3)
        self.lif2 = snntorch.Leaky(beta=0.95, init_hidden=True)

    def forward(self, x):
        x = self.lif1(self.fc1(x.view(-1, 10)))
        return self.lif2(self.fc2(x))


class StateArguments(nn.Module):
    """One call per step, states passed in and out by the caller."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 7)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x, mem=None):
        spk, mem = self.lif(self.fc(x), mem)
        return spk, mem


class Forgetful(nn.Module):
    """One call per step that starts its state anew each time, as in snnTorch's tutorial 6."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 7)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem = self.lif.init_leaky()
        spk, mem = self.lif(self.fc(x), mem)
        return spk, mem


def _sequential_state():
    """Norse's container, called once per step with the state that it returned."""
    return norse.SequentialState(
        nn.Linear(8, 10),
        norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1))),
        nn.Linear(10, 3),
        norse.LICell(),
    )


Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with example inputs, inputs of another batch size, and of another length where that is free.

    Inputs are uniform up to `scale`; `gain` multiplies the weights of the layers, so that no neuron is silent on them.
    A network of several inputs has a tuple of shapes; `integers` gives the number of values of each input that holds
    integers, and 0 for the others. Parameters named in `inert` have a gradient of zero; `uses` counts the calls per
    time step of neurons that are called more than once. With `double`, module and inputs are float64.
    """

    make: Callable[[], nn.Module]
    example: Shape | tuple[Shape, ...]
    other_batch: Shape | tuple[Shape, ...]
    other_length: Shape | tuple[Shape, ...] | None = None
    scale: float = 3.0
    loop: str = "inside"
    gain: float = 1.0
    integers: tuple[int, ...] = (0,)
    inert: tuple[str, ...] = ()
    uses: tuple[tuple[str, int], ...] = ()
    training: bool = False
    double: bool = False

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        module = self.make()
        with torch.no_grad():
            for child in module.modules():
                if isinstance(child, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    child.weight *= self.gain
        return (module.double() if self.double else module).train(self.training)

    @property
    def other(self) -> Any:
        """The example's shape with the size of another batch, and of another length where that is free."""

        def changed(example: Shape, batch: Shape, length: Shape) -> Shape:
            sizes = zip(example, batch, length, strict=True)
            return tuple(
                other_batch if other_batch != size else other_length for size, other_batch, other_length in sizes
            )

        shapes = (self.example, self.other_batch, self.other_length or self.other_batch)
        if isinstance(self.example[0], tuple):
            return tuple(map(changed, *shapes))
        return changed(*shapes)

    def inputs(self, shape: Any, seed: int = 1) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        dtype = torch.float64 if self.double else torch.float32
        shapes = shape if isinstance(shape[0], tuple) else (shape,)
        return tuple(
            torch.randint(0, values, each, generator=generator)
            if values
            else torch.rand(each, generator=generator, dtype=dtype) * self.scale
            for each, values in itertools.zip_longest(shapes, self.integers, fillvalue=0)
        )

    def step(self) -> tuple[torch.Tensor, ...]:
        """The example as `from_torch` takes it: one time step of it where the loop is outside."""
        inputs = self.inputs(self.example)
        return tuple(x[0] for x in inputs) if self.loop == "outside" else inputs


CASES = {
    "static input, global bound": Case(StaticLoop, (4, 20), (7, 20)),
    "time first": Case(TimeFirst, (5, 3, 12), (5, 6, 12), (9, 2, 12), gain=4.0),
    "batch first": Case(BatchFirst, (3, 6, 8), (5, 6, 8), (2, 11, 8)),
    "convolutional frames": Case(Convolutional, (4, 2, 2, 10, 10), (4, 5, 2, 10, 10), (7, 1, 2, 10, 10), 2.0, gain=4.0),
    "nested blocks": Case(Blocks, (4, 6), (1, 6), gain=3.0),
    "feedback by hand": Case(Recurrent, (3, 8, 7), (6, 8, 7), (2, 5, 7)),
    "implicit state": Case(ImplicitState, (4, 6, 5), (2, 6, 5), (3, 4, 5), 4.0),
    "time last": Case(Signal, (3, 3, 8, 6), (5, 3, 8, 6), (2, 3, 8, 9), 4.0),
    "winner take all": Case(Competition, (4, 7, 9), (2, 7, 9), (3, 5, 9), 1.0),
    "norse cells": Case(NorseCells, (6, 2, 1, 6, 6), (6, 4, 1, 6, 6), (9, 3, 1, 6, 6), 4.0),
    "filled by index": Case(FilledByIndex, (3, 7, 6), (5, 7, 6), (2, 9, 6), 4.0),
    "folded time": Case(FoldedTime, (7, 3, 1, 5, 4), (7, 5, 1, 5, 4), (9, 2, 1, 5, 4), 4.0, gain=5.0),
    "states on self": Case(OnSelf, (7, 3, 6), (7, 5, 6), (9, 2, 6), 4.0),
    "sequential, loop outside": Case(
        _sequential, (5, 3, 1, 8, 8), (5, 6, 1, 8, 8), (8, 2, 1, 8, 8), 4.0, "outside", gain=5.0
    ),
    "one step per call": Case(OneStep, (5, 4, 10), (5, 2, 10), (9, 3, 10), 2.0, "outside", gain=6.0),
    "state arguments": Case(StateArguments, (5, 4, 6), (5, 2, 6), (9, 3, 6), 3.0, "outside", gain=2.0),
    "state reset at every call": Case(Forgetful, (5, 4, 6), (5, 2, 6), (9, 3, 6), 5.0, "outside"),
    "norse SequentialState": Case(_sequential_state, (6, 3, 8), (6, 5, 8), (11, 2, 8), 20.0, "outside"),
}
