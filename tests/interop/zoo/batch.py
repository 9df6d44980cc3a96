"""Short networks in which the samples of a batch meet: what becomes of one depends on the others."""

import norse.torch as norse
import snntorch
import torch
import torch.nn.functional as F
from helpers.torch_networks import Case
from torch import nn


class BatchNormalisedByHand(nn.Module):
    """An input that is scaled by its largest value, and standardised over batch and time."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        x = x / x.abs().max()
        x = (x - x.mean(dim=(0, 1))) / (x.std(dim=(0, 1), unbiased=False) + 0.1)
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk)
        return torch.stack(out)


class Regularised(nn.Module):
    """Rates of the whole batch beside the outputs: as a mean, by the number of samples, and step by step."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out, rates, cost = self.lif.reset_mem(), [], [], 0.0
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk)
            rates.append(mem.mean())
            cost = cost + (spk.sum(0) / x.size(1) - 0.2).square().sum()
        spikes = torch.stack(out)
        every = spikes.sum() * (1 / (x.size(0) * x.size(1)))
        return {"spikes": spikes, "rates": rates, "cost": cost, "of neurons": spikes.mean(dim=(0, 1)), "all": every}


class Competing(nn.Module):
    """Samples inhibit each other within a step, and by their spikes of the step before."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spk, out = self.lif.reset_mem(), torch.zeros(x.size(1), 5), []
        for t in range(x.size(0)):
            cur = self.fc(x[t])
            cur = cur * cur.softmax(0) - cur.flip(0) * 0.1 + cur.sort(dim=0)[0]
            spk, mem = self.lif(cur - 0.3 * spk.mean(0, keepdim=True), mem)
            out.append(spk)
        return torch.stack(out), mem.amax(0)


class FunctionsAlongTheBatch(nn.Module):
    """Samples are moved, picked, pooled and attended to as if they were a sequence."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        first = torch.zeros(x.size(1), dtype=torch.int64)
        for t in range(x.size(0)):
            cur = self.fc(x[t])
            cur = torch.roll(cur, 1) + cur.gather(0, first[:, None].expand(-1, 5)) - cur.index_select(0, first)
            cur = cur + F.max_pool1d(cur.T[None], 3, 1, 1)[0].T + F.scaled_dot_product_attention(cur, cur, cur)
            spk, mem = self.lif(cur, mem)
            out.append(spk)
        return torch.stack(out)


class Contrasted(nn.Module):
    """How alike the samples of a batch are: a matrix of both, and what follows from it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, total = self.lif.reset_mem(), 0.0
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            total = total + spk + 0.1 * mem
        code = total / x.size(0)
        alike = code @ code.T
        return code, alike, (alike / x.size(1)).square().mean(), alike.softmax(1) @ code


class FoldedWithTime(nn.Module):
    """Time and batch as one axis: centred over it before the loop, and returned like that."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        flat = x.reshape(-1, x.size(2))
        x = (flat - flat.mean(0)).reshape(x.shape) + 0.5 * x
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk)
        return torch.cat(out, 0), torch.stack(out).view(-1, 5) * 2


class WrongViews(nn.Module):
    """Views that tear samples apart: the axes of a sequence are named in another order than they have."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        T, B, N = x.shape
        x = x + x.reshape(B, T, N).transpose(0, 1) + x.transpose(0, 1).flatten(0, 1).view(T, B, N)
        mem, out = self.lif.reset_mem(), []
        for t in range(T):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk)
        twice = torch.cat([mem, spk], 0)
        return (
            torch.stack(out).view(B, T, 5).sum(1),
            twice.view(2, B, 5),
            twice.view(B, 2, 5),
            mem.repeat(3, 1).view(B, -1),
        )


class MeetingBetweenLoops(nn.Module):
    """The second loop is driven by the first one's voltages without their mean over the batch."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 3)
        self.lif, self.li = norse.LIFCell(), norse.LIFCell()

    def forward(self, x):
        state, hidden = None, []
        for xt in x:
            spk, state = self.lif(self.fc1(xt), state)
            hidden.append(spk + state.v)
        hidden = torch.stack(hidden)
        hidden = hidden - hidden.mean(1, keepdim=True) * 0.5
        state, out = None, []
        for ht in hidden:
            spk, state = self.li(self.fc2(ht), state)
            out.append(spk)
        return torch.stack(out), hidden.var(1, unbiased=False)


class LayersAlongTheBatch(nn.Module):
    """Layers that are laid along the batch, which people do by mistake and train like that."""

    def __init__(self):
        super().__init__()
        self.weights, self.gru = nn.Softmax(0), nn.GRU(5, 5)
        self.attention = nn.MultiheadAttention(4, 2)
        self.fc, self.lif = nn.Linear(4, 5), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            xt = x[t] + self.attention(x[t], x[t], x[t], need_weights=False)[0]
            cur = self.fc(xt)
            spk, mem = self.lif(cur + self.weights(cur) + self.gru(cur)[0], mem)
            out.append(spk)
        return torch.stack(out)


class NumberedSamples(nn.Module):
    """Samples by their number in the batch: each has its own offset, and one of its time steps is picked."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, lengths):
        number = torch.arange(x.size(1))
        x = x + 0.2 * number[:, None]
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            first = x[t][torch.arange(x.size(1)), 0] * torch.tensor(1 / x.size(1))
            spk, mem = self.lif(self.fc(x[t]) + first[:, None], mem)
            out.append(mem)
        return torch.stack(out)[lengths, number], spk


class MeetingInOneStep(nn.Module):
    """One call is one time step; the batch is centred in it."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 5), snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        cur = self.fc(x)
        return self.lif(cur - 0.5 * cur.mean(0)), cur.mean()


LONG = ((6, 3, 4), (6, 2, 4), (8, 3, 4))

CASES = {
    "normalised over the batch": Case(BatchNormalisedByHand, *LONG, gain=4.0),
    "regularised over the batch": Case(Regularised, *LONG),
    "competing samples": Case(Competing, *LONG),
    "functions along the batch": Case(FunctionsAlongTheBatch, *LONG),
    "contrasted samples": Case(Contrasted, *LONG),
    "batch folded with time": Case(FoldedWithTime, *LONG),
    "views in the wrong order": Case(WrongViews, *LONG),
    "batch mean between loops": Case(MeetingBetweenLoops, *LONG, scale=15.0),
    "layers along the batch": Case(LayersAlongTheBatch, *LONG),
    "numbered samples": Case(NumberedSamples, ((6, 3, 4), (3,)), ((6, 2, 4), (2,)), ((8, 3, 4), (3,)), integers=(0, 5)),
    "batch mean in one step": Case(MeetingInOneStep, *LONG, loop="outside"),
}
