"""More idioms, found in models of all kinds."""

import snntorch
import torch
from helpers.torch_networks import Case
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9, threshold=0.5)


class SilenceAfterwards(Base):
    """The stimulus, and then some steps without an input: only these are recorded."""

    def forward(self, x):
        mem, record = self.lif.init_leaky(), []
        for t in range(x.shape[0]):
            _, mem = self.lif(self.fc(x[t]), mem)
        for _ in range(4):
            spk, mem = self.lif(torch.zeros_like(mem) + 0.4, mem)
            record.append(spk + mem)
        return torch.stack(record)


class GrowingTensor(Base):
    """The record is a tensor that each step makes longer."""

    def forward(self, x):
        mem, record = self.lif.init_leaky(), torch.empty(0, x.shape[1], 6)
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            record = torch.cat([record, spk.unsqueeze(0)], dim=0)
        return record


class LeakFromNumber(Base):
    """A readout whose membrane starts as the number 0 and leaks by a parameter."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.rand(6))

    def forward(self, x):
        mem, v, total = self.lif.init_leaky(), 0, 0
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            v = self.beta * v + spk
            total = v + total
        return v, total


class StartsFromBuffer(Base):
    """Membranes start at a buffer, which a conversion holds as what it is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("start", torch.rand(6))

    def forward(self, x):
        mem, record = self.start.expand(x.shape[1], 6) * 0.9, []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            record.append(spk)
        return torch.stack(record)


class LastValidStep(Base):
    """Membranes at the last step that counts of each sample."""

    def forward(self, x, lengths):
        mem, record = self.lif.init_leaky(), []
        for t in range(x.shape[0]):
            _, mem = self.lif(self.fc(x[t]), mem)
            record.append(mem)
        place = lengths.view(1, -1, 1).expand(1, -1, mem.shape[1])
        return torch.stack(record).gather(0, place).squeeze(0)


_SHAPES = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
CASES = {
    "silence afterwards": Case(SilenceAfterwards, *_SHAPES),
    "growing tensor": Case(GrowingTensor, *_SHAPES),
    "leak from a number": Case(LeakFromNumber, *_SHAPES),
    "starts from a buffer": Case(StartsFromBuffer, *_SHAPES),
    "last valid step": Case(LastValidStep, ((6, 3, 5), (3,)), ((6, 2, 5), (2,)), ((8, 3, 5), (3,)), integers=(0, 5)),
}
