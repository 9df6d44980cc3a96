"""A small network with a loop over time whose parts subclasses exchange, and an input of it."""

import snntorch
import torch
from torch import nn


def sequence(time: int = 5, batch: int = 3) -> torch.Tensor:
    return torch.rand((time, batch, 4), generator=torch.Generator().manual_seed(1)) * 6


class Net(nn.Module):
    """A layer and a neuron over time; subclasses change one thing."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lif = snntorch.Leaky(beta=0.9)
        self.extra = self.make_extra()

    def make_extra(self):
        return None

    def start(self, x):
        return self.lif.reset_mem()

    def current(self, x, t, mem):
        return self.fc(x[t])

    def finish(self, spikes, x):
        return torch.stack(spikes)

    def forward(self, x):
        mem = self.start(x)
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.current(x, t, mem), mem)
            spikes.append(spk)
        return self.finish(spikes, x)
