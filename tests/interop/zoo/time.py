"""Short networks for the ways in which people walk through time in one loop."""

import snntorch
import torch
from helpers.torch_networks import Case
from snntorch import utils
from torch import nn


STEPS = 6


class LiteralBound(nn.Module):
    """Static input, a literal bound, spikes added up."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.init_leaky()
        total = 0
        for _ in range(5):
            spk, mem = self.lif(self.fc(x), mem)
            total += spk
        return total


class ForIn(nn.Module):
    """`for xt in x`, one hidden layer and a readout that never spikes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 8)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        mem = self.lif1.reset_mem()
        out = []
        for xt in x:
            spk, mem = self.lif1(self.fc1(xt), mem)
            out.append(self.fc2(spk))
        return torch.stack(out, dim=0)


class Unbound(nn.Module):
    """`torch.unbind` over the last axis, with `enumerate` and a bias per step from the step's number."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem = self.lif.reset_mem()
        out = []
        for t, xt in enumerate(torch.unbind(x, dim=-1)):
            spk, mem = self.lif(self.fc(xt) + 0.1 * t, mem)
            out.append(spk)
        return torch.stack(out, dim=-1)


class TimeThird(nn.Module):
    """Frames `(batch, channels, time, height, width)`, read as `x[:, :, t]`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.lif = snntorch.Leaky(beta=0.8)
        self.fc = nn.Linear(27, 4)

    def forward(self, x):
        mem = self.lif.reset_mem()
        logits = 0
        for t in range(x.size(2)):
            spk, mem = self.lif(self.conv(x[:, :, t]), mem)
            logits = logits + self.fc(spk.flatten(1))
        return logits / x.size(2)


class ZippedSequences(nn.Module):
    """Two sequences walked together by `zip`."""

    def __init__(self):
        super().__init__()
        self.fc_a = nn.Linear(4, 6)
        self.fc_b = nn.Linear(3, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, y):
        mem = self.lif.reset_mem()
        spikes = []
        for xt, yt in zip(x, y, strict=True):
            spk, mem = self.lif(self.fc_a(xt) + self.fc_b(yt), mem)
            spikes.append(spk)
        return torch.stack(spikes)


class WhileCounter(nn.Module):
    """A while loop with a counter."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.85)

    def forward(self, x):
        mem = self.lif.reset_mem()
        t, rec = 0, []
        while t < x.shape[1]:
            _spk, mem = self.lif(self.fc(x[:, t, :]), mem)
            rec.append(mem)
            t += 1
        return torch.stack(rec, 1)


class Comprehension(nn.Module):
    """Hidden states and a list comprehension over `x`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 7), snntorch.Leaky(beta=0.9, init_hidden=True))
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        utils.reset(self.net)
        return self.head(torch.stack([self.net(xt) for xt in x]).mean(0))


class Normalised(nn.Module):
    """Work done once before: the input is centred over time, its mean gives a bias for all steps."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.context = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mean = x.mean(dim=1)
        bias = torch.tanh(self.context(mean))
        x = x - mean.unsqueeze(1) * 0.5
        mem = self.lif.reset_mem()
        out = []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]) + bias, mem)
            out.append(spk)
        return torch.stack(out, dim=1)


class Discounted(nn.Module):
    """Spikes weighted by `0.9 ** (T - t)`, and the last membrane."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        T = x.shape[0]
        mem = self.lif.reset_mem()
        score = torch.zeros(x.shape[1], 6)
        for t in range(T):
            spk, mem = self.lif(self.fc(x[t]), mem)
            score = score + 0.9 ** (T - t) * spk
        return score, mem


class FirstSpikesCountMore(nn.Module):
    """Spikes weighted by `1 / (t + 1)`, the input ramped up by `(t + 1) / T`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        T = x.shape[0]
        mem, score = self.lif.reset_mem(), 0.0
        for t in range(T):
            spk, mem = self.lif(self.fc(x[t]) * ((t + 1) / T), mem)
            score += spk / (t + 1)
        return score


class CountAfterWarmUp(nn.Module):
    """`if t >= warmup: total += spk`."""

    def __init__(self, warmup=2):
        super().__init__()
        self.warmup = warmup
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        total = torch.zeros(x.size(0), 6)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            if t >= self.warmup:
                total += spk
        return total / (x.size(1) - self.warmup)


class RecordAfterWarmUp(nn.Module):
    """`if t >= warmup: rec.append(spk)`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            if t >= 2:
                rec.append(spk)
        return torch.stack(rec)


class FirstStep(nn.Module):
    """`if t == 0:` starts the membrane from the first input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        spikes = []
        for t in range(x.size(0)):
            cur = self.fc(x[t])
            if t == 0:
                mem = 0.5 * cur
            spk, mem = self.lif(cur, mem)
            spikes.append(spk)
        return torch.stack(spikes)


class LastStep(nn.Module):
    """`if t == T - 1:` the head runs once."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        T = x.size(0)
        mem = self.lif.reset_mem()
        for t in range(T):
            spk, mem = self.lif(self.fc(x[t]), mem)
            if t == T - 1:
                out = self.head(spk + mem)
        return out


class EverySecondStep(nn.Module):
    """The second layer is updated at even steps only: `if t % 2 == 0`."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.lif2 = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = []
        for t in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            if t % 2 == 0:
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                rec.append(spk2)
        return torch.stack(rec), mem1


class ReadBackwards(nn.Module):
    """Time runs backwards: `x[T - 1 - t]`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        T = x.shape[0]
        mem, rec = self.lif.reset_mem(), []
        for t in range(T):
            spk, mem = self.lif(self.fc(x[T - 1 - t]), mem)
            rec.append(spk)
        return torch.stack(rec)


class SlicedStep(nn.Module):
    """Each step is a slice of length one: `x[:, t:t+1].squeeze(1)`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(x.shape[1]):
            spk, mem = self.lif(self.fc(x[:, t : t + 1].squeeze(1)), mem)
            rec.append(spk.unsqueeze(1))
        return torch.cat(rec, dim=1)


class FrameDifference(nn.Module):
    """The change from frame to frame, `x[t] - x[t - 1]`, from step 1 on."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(1, x.shape[0]):
            spk, mem = self.lif(self.fc(x[t] - x[t - 1]), mem)
            rec.append(spk)
        return torch.stack(rec)


class SlidingWindow(nn.Module):
    """The mean of a window of three steps as the input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(x.shape[0] - 2):
            spk, mem = self.lif(self.fc(x[t : t + 3].mean(0)), mem)
            rec.append(spk)
        return torch.stack(rec)


class Subsampled(nn.Module):
    """Every second step: `range(0, T, 2)`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(0, x.shape[0], 2):
            _spk, mem = self.lif(self.fc(x[t]), mem)
            rec.append(mem)
        return rec[-1], torch.stack(rec)


class StepWeights(nn.Module):
    """A learnt weight per step of a fixed length: `self.w[t]`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.w = nn.Parameter(torch.linspace(0.5, 1.5, STEPS))

    def forward(self, x):
        mem, out = self.lif.reset_mem(), 0
        for t in range(STEPS):
            spk, mem = self.lif(self.fc(x), mem)
            out = out + self.w[t] * spk
        return out


class StepNorms(nn.Module):
    """Batch norm through time: a norm per step, `self.bn[t](...)`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.bn = nn.ModuleList([nn.BatchNorm1d(6) for _ in range(4)])
        self.lif = snntorch.Leaky(beta=0.9, threshold=0.8)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), 0
        for t in range(4):
            spk, mem = self.lif(self.bn[t](self.fc(x)), mem)
            out = out + spk * (t + 1)
        return out


class TruncatedGradient(nn.Module):
    """Truncated backpropagation: the membrane is detached at odd steps."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for t in range(x.shape[0]):
            if t % 2:
                mem = mem.detach()
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec.append(spk)
        return torch.stack(rec)


CASES = {
    "static input, literal bound": Case(LiteralBound, (3, 6), (5, 6)),
    "for in": Case(ForIn, (6, 3, 5), (6, 2, 5), (8, 4, 5)),
    "unbind, enumerate": Case(Unbound, (3, 5, 6), (2, 5, 6), (3, 5, 8)),
    "time third": Case(TimeThird, (3, 1, 6, 5, 5), (2, 1, 6, 5, 5), (3, 1, 8, 5, 5), gain=2.0),
    "zipped sequences": Case(ZippedSequences, ((6, 3, 4), (6, 3, 3)), ((6, 2, 4), (6, 2, 3)), ((9, 3, 4), (9, 3, 3))),
    "while counter": Case(WhileCounter, (3, 6, 5), (2, 6, 5), (3, 9, 5)),
    "list comprehension": Case(Comprehension, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "normalised before": Case(Normalised, (3, 6, 5), (2, 6, 5), (3, 8, 5)),
    "discounted": Case(Discounted, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "weighted by step": Case(FirstSpikesCountMore, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "count after warm-up": Case(CountAfterWarmUp, (3, 6, 5), (2, 6, 5), (3, 8, 5)),
    "record after warm-up": Case(RecordAfterWarmUp, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "first step": Case(FirstStep, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "last step": Case(LastStep, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "every second step": Case(EverySecondStep, (7, 3, 5), (7, 2, 5), (9, 3, 5), gain=2.0),
    "read backwards": Case(ReadBackwards, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "slices of one step": Case(SlicedStep, (3, 6, 5), (2, 6, 5), (3, 8, 5)),
    "frame differences": Case(FrameDifference, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "sliding windows": Case(SlidingWindow, (7, 3, 5), (7, 2, 5), (9, 3, 5)),
    "subsampled time": Case(Subsampled, (8, 3, 5), (8, 2, 5), (12, 3, 5)),
    "weights per step": Case(StepWeights, (3, 5), (2, 5)),
    "norms per step": Case(StepNorms, (3, 5), (2, 5), gain=2.0),
    "truncated gradient": Case(TruncatedGradient, (7, 3, 5), (7, 2, 5), (9, 3, 5)),
}
