"""Short networks with tensor functions in, before and after the loop."""

import math

import norse.torch as norse
import snntorch
import torch
import torch.nn.functional as F
from helpers.torch_networks import Case
from torch import nn


class Indexing(nn.Module):
    """Columns of the input by index, slices and a list of indices."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 5), nn.Linear(3, 5), nn.Linear(2, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            frame = x[t]
            cur = self.a(frame[:, :2]) + self.b(frame[..., 2:]) + self.c(frame[:, [0, 3]])
            spk, mem = self.lif(cur * frame[:, 1].unsqueeze(1), mem)
            out.append(spk)
        return torch.stack(out), mem[:, -1]


class Reshapes(nn.Module):
    """`view`, `reshape`, `flatten` and `unflatten` around a convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.fc = nn.Linear(8, 4)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        B, T, N = x.shape
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for t in range(T):
            spk, mem1 = self.lif1(self.conv(x[:, t].view(B, 1, 4, N // 4)), mem1)
            pooled = spk.reshape(B, 8, -1).mean(-1)
            spk, mem2 = self.lif2(self.fc(pooled), mem2)
            out.append(spk.unflatten(1, (2, 2)))
        return torch.stack(out, 1).flatten(2)


class AxisOrder(nn.Module):
    """`permute`, `transpose` and `movedim` before the loop, `transpose` in it and after it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        x = x.permute(2, 0, 1, 3)
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk.transpose(1, 2))
        return torch.stack(out).transpose(0, 1), mem.movedim(-1, 1)


class Broadcast(nn.Module):
    """`unsqueeze`, `expand` and `repeat`: every input drives two populations with gains of their own."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)
        self.gain = nn.Parameter(torch.tensor([0.8, 1.6]))
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), 0
        for xt in x:
            cur = self.fc(xt).unsqueeze(1).expand(-1, 2, -1) * self.gain.view(1, 2, 1)
            spk, mem = self.lif(cur + xt[:, :4].repeat(1, 2).view(-1, 2, 4), mem)
            out = out + spk
        return out


class Chunks(nn.Module):
    """`chunk` and `split`: a current and a gate from one Linear, spikes in groups."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 12)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            cur, gate = self.fc(x[:, t]).chunk(2, dim=-1)
            spk, mem = self.lif(cur * torch.sigmoid(gate), mem)
            a, b = torch.split(spk, [2, 4], dim=1)
            out.append(torch.cat((b, a), dim=1))
        return torch.stack(out, 1)


class Masks(nn.Module):
    """Comparisons to masks of floats, and `where`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, refractory, out = torch.zeros(x.size(1), 6), torch.zeros(x.size(1), 6), []
        for xt in x:
            free = (refractory <= 0).float()
            spk, mem = self.lif(self.fc(xt) * free, mem)
            refractory = torch.where(spk > 0, torch.full_like(spk, 2.0), refractory - 1)
            out.append(spk)
        return torch.stack(out), mem


class Clamps(nn.Module):
    """`clamp`, `abs`, `sqrt` and `exp` on currents; a gain in log space."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.log_gain = nn.Parameter(torch.full((6,), math.log(1.5)))
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = None, []
        for xt in x:
            cur = torch.clamp(self.fc(xt), min=-1.0, max=1.5) * torch.exp(self.log_gain)
            _spk, mem = self.lif(cur + torch.sqrt(xt.abs().mean(1, keepdim=True)), mem)
            out.append(mem)
        return torch.stack(out).clamp_min(0)


class Readouts(nn.Module):
    """Many readouts: softmax, log_softmax, maximum and argmax over classes and over time."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spikes, mems = None, [], []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            spikes.append(spk)
            mems.append(mem)
        spikes, mems = torch.stack(spikes), torch.stack(mems)
        log_p = F.log_softmax(mems.max(0).values, dim=-1)
        p = torch.softmax(spikes.sum(0), dim=-1)
        return log_p, p, spikes.sum(0).argmax(dim=1), mems.mean(dim=(0, 2))


class SoftmaxPerStep(nn.Module):
    """Probabilities per step, summed over time, as in SNN benchmarks on speech."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, u, out = self.lif.reset_mem(), torch.zeros(x.size(0), 3), torch.zeros(x.size(0), 3)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc1(x[:, t]), mem)
            u = 0.8 * u + 0.2 * self.fc2(spk)
            out = out + F.softmax(u, dim=1)
        return out


class InPlace(nn.Module):
    """`mul_` and `add_` on a trace, `+=` on a counter."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        trace, count = torch.zeros(x.size(1), 6), torch.zeros(x.size(1), 6)
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            trace.mul_(0.8).add_(spk, alpha=0.2)
            count += spk * 0.5
        return trace, count


class Detached(nn.Module):
    """Feedback of detached spikes; a rate under `no_grad` that is only reported."""

    def __init__(self):
        super().__init__()
        self.fc, self.rec = nn.Linear(5, 6), nn.Linear(6, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spk, out = self.lif.reset_mem(), torch.zeros(x.size(1), 6), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt) + self.rec(spk.detach()), mem)
            out.append(spk)
        out = torch.stack(out)
        with torch.no_grad():
            rate = out.mean(dim=(0, 2))
        return out, rate


class FunctionalLayers(nn.Module):
    """Weights as bare parameters, layers by `F.conv2d`, `F.avg_pool2d` and `F.linear`."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(2, 1, 3, 3) * 0.5)
        self.weight, self.bias = nn.Parameter(torch.randn(4, 8) * 0.5), nn.Parameter(torch.rand(4))
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem1 = mem2 = None
        out = 0
        for xt in x:
            spk, mem1 = self.lif1(F.avg_pool2d(F.conv2d(xt, self.kernel, padding=1), 2), mem1)
            spk, mem2 = self.lif2(F.linear(torch.flatten(spk, 1), self.weight, self.bias), mem2)
            out = out + spk
        return out


class Einsum(nn.Module):
    """Grouped weights by `einsum`; another one mixes the recorded spikes over time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4, 3))
        self.readout = nn.Parameter(torch.randn(2, 4))
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            spk, mem = self.lif(torch.einsum("bgi,goi->bgo", x[:, t], self.weight), mem)
            out.append(spk)
        return torch.einsum("btgo,go->bt", torch.stack(out, 1), self.readout)


class MatMul(nn.Module):
    """Weights by `@`, `torch.matmul` and `torch.addmm`."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 6) * 0.6)
        self.v = nn.Parameter(torch.randn(6, 6) * 0.3)
        self.b = nn.Parameter(torch.rand(3))
        self.o = nn.Parameter(torch.randn(6, 3))
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem, spk, out = self.lif.reset_mem(), torch.zeros(x.size(1), 6), []
        for xt in x:
            spk, mem = self.lif(xt @ self.w + torch.matmul(spk, self.v), mem)
            out.append(torch.addmm(self.b, spk, self.o))
        return torch.stack(out)


class LatencyCode(nn.Module):
    """Latency coding by hand: a static input above a falling line gives a current at step t."""

    def __init__(self, num_steps=6):
        super().__init__()
        self.num_steps = num_steps
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(self.num_steps):
            level = 3.0 * (1 - t / self.num_steps)
            spk, mem = self.lif(self.fc((x >= level).float() + 0.5 * x), mem)
            out.append(spk)
        return torch.stack(out)


class StepTimes(nn.Module):
    """First spike times: steps on a time axis made by `arange`, weighted with the recorded spikes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            out.append(spk)
        out = torch.stack(out)
        steps = torch.arange(out.size(0), dtype=out.dtype).view(-1, 1, 1)
        return (out * steps).sum(0) / out.sum(0).clamp(min=1)


class TimeSoftmax(nn.Module):
    """Attention over time after the loop: a score per step, a softmax over steps, a weighted sum."""

    def __init__(self):
        super().__init__()
        self.fc, self.score = nn.Linear(5, 6), nn.Linear(6, 1, bias=False)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            out.append(spk)
        out = torch.stack(out, dim=1)
        weights = torch.softmax(self.score(out), dim=1)
        return (weights * out).sum(dim=1)


class CumulativeSum(nn.Module):
    """Running counts by `cumsum` over the recorded spikes, divided by the number of steps so far."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            out.append(spk)
        counts = torch.cumsum(torch.stack(out), dim=0)
        return counts / torch.arange(1, len(out) + 1).view(-1, 1, 1)


class SumOfMembranes(nn.Module):
    """Norse: the maximum voltage over time, and the mean of the last three."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 3)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2)))
        self.li = norse.LICell()

    def forward(self, x):
        s = so = None
        vs = []
        for t in range(x.shape[0]):
            z, s = self.lif(F.relu(self.fc1(x[t])), s)
            v, so = self.li(self.fc2(z), so)
            vs += [v]
        vs = torch.stack(vs)
        m, _ = torch.max(vs, 0)
        return m, vs[-3:].mean(0)


class SortedOutputs(nn.Module):
    """The two strongest classes by `sort`, the spread by `std`, the norm of the counts."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, total = self.lif.reset_mem(), 0
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            total = total + spk
        best = mem.sort(dim=1, descending=True).values[:, :2]
        return best, mem.std(dim=1), torch.linalg.vector_norm(total + mem, dim=1)


class SplitInput(nn.Module):
    """`torch.split` of time into single steps, spikes written into a list of fixed length."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        out = [None] * x.size(1)
        for t, xt in enumerate(torch.split(x, 1, dim=1)):
            out[t], mem = self.lif(self.fc(xt.squeeze(1)), mem)
        return torch.stack(out, dim=-1)


class Winners(nn.Module):
    """One neuron at a time spikes, of those near a prototype that have not spiked before."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.prototypes = nn.Parameter(torch.rand(6, 5))
        self.lif = snntorch.Leaky(beta=0.9, threshold=0.5)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]) - torch.cdist(x[t], self.prototypes) / 10, mem)
            chosen = torch.zeros_like(spk).scatter_(1, mem.argmax(1, keepdim=True), 1.0)
            out.append(spk * chosen + mem * (~chosen.bool() & torch.greater(mem, 0) ^ (spk > 0)))
        record = torch.stack(out)
        return record.cummax(0).values, record.logcumsumexp(0), record.diff(dim=0).signbit().sum(0)


class Squeezes(nn.Module):
    """Axes taken out where they are of length one, which the batch is not."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.out = nn.Linear(6, 1)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in torch.split(x, 1, dim=1):
            spk, mem = self.lif(self.fc(xt.squeeze()), mem)
            out.append(torch.squeeze(input=self.out(spk)))
        return torch.stack(out, dim=1).squeeze(0), mem.squeeze(axis=(0, 1))


LONG = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
BATCH = ((3, 6, 5), (2, 6, 5), (3, 8, 5))
IMAGES = ((5, 2, 1, 4, 4), (5, 3, 1, 4, 4), (7, 2, 1, 4, 4))

CASES = {
    "indexing": Case(Indexing, *LONG, scale=2.0),
    "reshapes": Case(Reshapes, (2, 5, 16), (3, 5, 16), (2, 7, 16), gain=8.0),
    "order of axes": Case(AxisOrder, (2, 3, 6, 4), (4, 3, 6, 4), (2, 3, 8, 4)),
    "broadcast": Case(Broadcast, *LONG, scale=1.0),
    "chunks": Case(Chunks, *BATCH, gain=2.0),
    "masks": Case(Masks, *LONG),
    "clamps": Case(Clamps, *LONG),
    "readouts": Case(Readouts, *LONG),
    "softmax per step": Case(SoftmaxPerStep, *BATCH),
    "in place": Case(InPlace, *LONG),
    "detached": Case(Detached, *LONG),
    "functional layers": Case(FunctionalLayers, *IMAGES),
    "einsum": Case(Einsum, (3, 6, 2, 3), (2, 6, 2, 3), (3, 8, 2, 3)),
    "matmul": Case(MatMul, *LONG),
    "latency code": Case(LatencyCode, (3, 5), (2, 5)),
    "spike times": Case(StepTimes, *LONG),
    "softmax over time": Case(TimeSoftmax, *BATCH),
    "cumulative sum": Case(CumulativeSum, *LONG),
    "norse voltages": Case(SumOfMembranes, *LONG, scale=15.0),
    "strongest classes": Case(SortedOutputs, *LONG),
    "split input": Case(SplitInput, *BATCH),
    "one winner": Case(Winners, *LONG),
    "squeezes without an axis": Case(Squeezes, *BATCH),
}
