"""Networks of one time loop that is written as several, or that keeps its values in tensors: one native model each."""

import snntorch
import torch
from helpers.torch_networks import Case
from torch import nn


class Base(nn.Module):
    """Two layers of neurons."""

    def __init__(self, num_steps=6):
        super().__init__()
        self.num_steps = num_steps
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 4)
        self.lif1 = snntorch.Leaky(beta=0.8, threshold=0.5)
        self.lif2 = snntorch.Leaky(beta=0.7, threshold=0.3)


class FirstStepBefore(Base):
    """The first step stands before the loop, and its output begins the sum."""

    def forward(self, x):
        current = self.fc1(x)
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk, mem1 = self.lif1(current, mem1)
        total, mem2 = self.lif2(self.fc2(spk), mem2)
        for _ in range(1, self.num_steps):
            spk, mem1 = self.lif1(current, mem1)
            out, mem2 = self.lif2(self.fc2(spk), mem2)
            total = total + out
        return total / self.num_steps


class SumFromNone(Base):
    """A sum in place that begins with the first output: that tensor is written over."""

    def forward(self, x):
        mem1, mem2, total = self.lif1.reset_mem(), self.lif2.reset_mem(), None
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            out, mem2 = self.lif2(self.fc2(spk), mem2)
            if total is None:
                total = out
            else:
                total += out
        return total, mem2


class TwoSums(Base):
    """Two sums that begin with their first terms, and a residual sum that every step has."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        for t in range(x.shape[0]):
            current = self.fc1(x[t])
            spk, mem1 = self.lif1(current + 0.5 * x[t].mean(-1, keepdim=True), mem1)
            out, mem2 = self.lif2(self.fc2(spk), mem2)
            if t == 0:
                spikes, membranes = out, mem1
            else:
                spikes, membranes = out + spikes, membranes + mem1
        return spikes, membranes


class LoopPerLayer(nn.Module):
    """Each layer runs over the whole list before the next one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.neurons = nn.ModuleList([snntorch.Leaky(beta=0.8, threshold=0.2) for _ in range(3)])

    def forward(self, x):
        sequence = list(x.unbind(1))
        for layer, neuron in zip(self.layers, self.neurons, strict=True):
            mem, found = neuron.reset_mem(), []
            for xt in sequence:
                spk, mem = neuron(layer(xt), mem)
                found.append(spk)
            sequence = found
        return torch.stack(sequence, 1)


class StackBetween(Base):
    """The spikes are stacked, returned, and read by index and by iteration."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record = []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            record.append(spk)
        record = torch.stack(record, dim=1)
        currents = [self.fc2(record[:, t]) for t in range(x.shape[0])]
        outs = []
        for current in torch.stack(currents):
            out, mem2 = self.lif2(current, mem2)
            outs.append(out)
        return torch.stack(outs), record


class LayersBetween(Base):
    """A layer and arithmetic on the whole sequence between two loops, which also goes out; time is the second axis."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record, outs = [], []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            record.append(spk)
        currents = torch.tanh(self.fc2(torch.stack(record, 1)) * 0.9 + 0.1) * 2
        for t in range(x.shape[0]):
            out, mem2 = self.lif2(currents[:, t], mem2)
            outs.append(out)
        return torch.stack(outs), currents


class CentredBetween(Base):
    """The mean over time goes into every step of the second loop, which therefore waits for the first."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record, outs = [], []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            record.append(spk)
        spikes = torch.stack(record)
        for current in self.fc2(spikes - spikes.mean(0)):
            out, mem2 = self.lif2(current, mem2)
            outs.append(out)
        return torch.stack(outs)


class WeighedBetween(Base):
    """Every step has a weight of its own, made along the axis of time."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record, outs = [], []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            record.append(spk)
        weights = torch.linspace(0.2, 1, x.shape[0]).view(-1, 1, 1)
        for current in self.fc2(torch.stack(record) * weights):
            out, mem2 = self.lif2(current, mem2)
            outs.append(out)
        return torch.stack(outs)


class TensorBetween(Base):
    """The spikes are written into a tensor that the next loop reads."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record = torch.zeros(x.shape[0], x.shape[1], 8)
        outs = torch.zeros(x.shape[1], x.shape[0], 4)
        for t in range(x.shape[0]):
            record[t], mem1 = self.lif1(self.fc1(x[t]), mem1)
        for t, spk in enumerate(record):
            outs[:, t], mem2 = self.lif2(self.fc2(spk), mem2)
        return outs


class OneStepLate(Base):
    """The second loop reads what the first made a step before."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record, outs = [torch.zeros(x.shape[1], 8)], []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            record.append(spk)
        for t in range(x.shape[0]):
            out, mem2 = self.lif2(self.fc2(record[t]), mem2)
            outs.append(out)
        return torch.stack(outs)


class MembraneTensor(Base):
    """All membranes in one tensor, read one step back: the neuron is written by hand."""

    def forward(self, x):
        steps, batch = x.shape[:2]
        v, z = torch.zeros(steps, batch, 8), torch.zeros(steps, batch, 8)
        record, mem2 = [], self.lif2.reset_mem()
        for t in range(1, steps):
            v[t] = 0.9 * v[t - 1] - 0.5 * z[t - 1] + self.fc1(x[t])
            fired = torch.sigmoid(4 * (v[t] - 1))
            z[t] = fired
            spk, mem2 = self.lif2(self.fc2(fired), mem2)
            record.append(spk)
        return torch.stack(record), v[-1], z.mean(0)


class StatesInTensor(Base):
    """States are kept in a tensor with one entry more than there are steps."""

    def forward(self, x):
        mem = torch.zeros(x.shape[0] + 1, x.shape[1], 8)
        spikes = torch.zeros(x.shape[0], x.shape[1], 8)
        for t in range(x.shape[0]):
            spikes[t], mem[t + 1] = self.lif1(self.fc1(x[t]), mem[t])
        return spikes, mem


class FilledWithoutGradient(Base):
    """What is written under `no_grad` has no gradient, also where the next loop reads it; the membranes have."""

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        record, outs, total = torch.zeros(x.shape[0], x.shape[1], 8), [], 0
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            total = total + mem1
            with torch.no_grad():
                record[t] = spk
        for t in range(x.shape[0]):
            out, mem2 = self.lif2(self.fc2(record[t]), mem2)
            outs.append(out)
        return torch.stack(outs), total


class FilledBackwards(Base):
    """Outputs are written from the end; inputs are read from the end as well."""

    def forward(self, x):
        steps, mem = x.shape[0], self.lif1.reset_mem()
        out, other = torch.zeros(steps, x.shape[1], 8), torch.zeros(x.shape[1], steps + 1, 8)
        for t in reversed(range(steps)):
            spk, mem = self.lif1(self.fc1(x[t]), mem)
            out[t] = spk
            other[:, t] = mem
        return out, other


class ReversedInput(Base):
    def forward(self, x):
        mem, record = self.lif1.reset_mem(), []
        for xt in reversed(x):
            spk, mem = self.lif1(self.fc1(xt), mem)
            record.insert(0, spk)
        return torch.stack(record)


class RepeatedSteps(Base):
    """Every frame is shown three times."""

    def forward(self, x):
        mem, record = self.lif1.reset_mem(), []
        for xt in x:
            for _ in range(3):
                spk, mem = self.lif1(self.fc1(xt), mem)
            record.append(spk)
        return torch.stack(record)


class MaskOfLengths(Base):
    """Integers beside the inputs say how many steps count."""

    def forward(self, x, lengths):
        mem, record = self.lif1.reset_mem(), []
        for t in range(x.shape[0]):
            spk, mem = self.lif1(self.fc1(x[t]), mem)
            record.append(spk)
        counts = (torch.arange(x.shape[0]).unsqueeze(1) < lengths.unsqueeze(0)).float().unsqueeze(-1)
        return (torch.stack(record) * counts).sum(0)


_STATIC = ((3, 6), (5, 6))
_TIME = ((6, 3, 6), (6, 2, 6), (9, 3, 6))
_NO_SECOND = ("fc2.weight", "fc2.bias")
CASES = {
    "first step before the loop": Case(FirstStepBefore, *_STATIC),
    "sum from none, in place": Case(SumFromNone, *_TIME),
    "two sums from their first terms": Case(TwoSums, *_TIME, scale=1.0),
    "a loop for each layer": Case(LoopPerLayer, (3, 6, 6), (2, 6, 6), (3, 9, 6)),
    "stacks between loops": Case(StackBetween, *_TIME),
    "layers between loops": Case(LayersBetween, *_TIME),
    "centred between loops": Case(CentredBetween, *_TIME, gain=2.0),
    "weighed between loops": Case(WeighedBetween, *_TIME, gain=2.0),
    "a tensor between loops": Case(TensorBetween, *_TIME),
    "loops one step apart": Case(OneStepLate, *_TIME),
    "membranes in a tensor": Case(MembraneTensor, *_TIME),
    "states in a tensor": Case(StatesInTensor, *_TIME, inert=_NO_SECOND),
    "filled without gradient": Case(FilledWithoutGradient, *_TIME),
    "filled backwards": Case(FilledBackwards, *_TIME, inert=_NO_SECOND),
    "reversed input": Case(ReversedInput, *_TIME, inert=_NO_SECOND),
    "every frame three times": Case(RepeatedSteps, *_TIME, inert=_NO_SECOND),
    "integers count steps": Case(
        MaskOfLengths,
        ((6, 3, 6), (3,)),
        ((6, 2, 6), (2,)),
        ((9, 3, 6), (3,)),
        integers=(0, 7),
        inert=_NO_SECOND,
    ),
}
