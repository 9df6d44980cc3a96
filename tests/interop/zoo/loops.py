"""Short networks with several loops, loops in other places than forward's body, and loops outside of the module."""

import norse.torch as norse
import snntorch
import torch
import torch.nn.functional as F
from helpers.torch_networks import Case
from snntorch import utils
from torch import nn


class StaticLayers(nn.Module):
    """Static input, the bound from an attribute, an inner loop over layers."""

    def __init__(self, num_steps=6):
        super().__init__()
        self.num_steps = num_steps
        self.layers = nn.ModuleList([nn.Linear(6, 7), nn.Linear(7, 5)])
        self.lifs = nn.ModuleList([snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)])

    def forward(self, x):
        mems = [lif.reset_mem() for lif in self.lifs]
        rec = []
        for _step in range(self.num_steps):
            out = x
            for i, (fc, lif) in enumerate(zip(self.layers, self.lifs, strict=True)):
                out, mems[i] = lif(fc(out), mems[i])
            rec.append(out)
        return torch.stack(rec)


class EncoderDecoderLoops(nn.Module):
    """An encoder loop, then a decoder loop over the recorded spikes by `spikes[t]`."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(5, 7)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.dec = nn.Linear(7, 5)
        self.lif2 = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, out = [], []
        for t in range(x.size(0)):
            spk, mem1 = self.lif1(self.enc(x[t]), mem1)
            spikes.append(spk)
        for t in range(x.size(0)):
            spk, mem2 = self.lif2(self.dec(spikes[t]), mem2)
            out.append(mem2)
        return torch.stack(out)


class LoopOverList(nn.Module):
    """A second loop iterates the Python list of spikes of the first."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = nn.Linear(7, 4)
        self.lif2 = snntorch.Leaky(beta=0.7)

    def forward(self, x):
        mem = self.lif1.reset_mem()
        hidden = []
        for xt in x:
            spk, mem = self.lif1(self.fc1(xt), mem)
            hidden.append(spk)
        mem = self.lif2.reset_mem()
        count = 0
        for h in hidden:
            spk, mem = self.lif2(self.fc2(h), mem)
            count = count + spk
        return count, mem


class LoopOverStack(nn.Module):
    """A second loop over `torch.stack(list)`, with a Linear over the whole sequence between."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = nn.Linear(7, 4)
        self.lif2 = snntorch.Leaky(beta=0.7)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        s1, s2 = [], []
        for t in range(x.shape[0]):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            s1.append(spk)
        cur = self.fc2(torch.stack(s1))
        for t in range(cur.shape[0]):
            spk, mem2 = self.lif2(cur[t], mem2)
            s2.append(spk)
        return torch.stack(s2)


class Bidirectional(nn.Module):
    """A second loop over `reversed(list)`; both directions are joined."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.fwd = snntorch.Leaky(beta=0.9)
        self.bwd = snntorch.Leaky(beta=0.7)

    def forward(self, x):
        mem = self.fwd.reset_mem()
        first = []
        for t in range(x.size(0)):
            spk, mem = self.fwd(self.fc(x[t]), mem)
            first.append(spk)
        mem = self.bwd.reset_mem()
        second = []
        for s in reversed(first):
            spk, mem = self.bwd(s * 1.5, mem)
            second.append(spk)
        return torch.cat([torch.stack(first), torch.stack(second[::-1])], dim=-1)


class TwoLoopsOneInput(nn.Module):
    """Two loops over the same input with different neurons."""

    def __init__(self):
        super().__init__()
        self.fc_fast, self.fc_slow = nn.Linear(5, 4), nn.Linear(5, 4)
        self.fast = snntorch.Leaky(beta=0.5)
        self.slow = snntorch.Leaky(beta=0.95)

    def forward(self, x):
        mem = self.fast.reset_mem()
        a = []
        for t in range(x.size(1)):
            spk, mem = self.fast(self.fc_fast(x[:, t]), mem)
            a.append(spk)
        mem = self.slow.reset_mem()
        b = []
        for t in range(x.size(1)):
            spk, mem = self.slow(self.fc_slow(x[:, t]), mem)
            b.append(spk)
        return torch.stack(a, 1) - torch.stack(b, 1)


class WarmUpLoop(nn.Module):
    """A warm-up loop of fixed length on the first step, then a measuring loop with the same neuron."""

    def __init__(self, warmup=3):
        super().__init__()
        self.warmup = warmup
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        for _ in range(self.warmup):
            _, mem = self.lif(self.fc(x[0]), mem)
        out = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(spk)
        return torch.stack(out)


class LayerByLayer(nn.Module):
    """A block with its own loop over the whole sequence, used twice, one after the other."""

    class Layer(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.fc = nn.Linear(n_in, n_out)
            self.lif = snntorch.Leaky(beta=0.9)

        def forward(self, seq):
            mem = self.lif.reset_mem()
            out = []
            for t in range(seq.size(0)):
                spk, mem = self.lif(self.fc(seq[t]), mem)
                out.append(spk)
            return torch.stack(out)

    def __init__(self):
        super().__init__()
        self.layer1 = self.Layer(5, 8)
        self.layer2 = self.Layer(8, 4)

    def forward(self, x):
        return self.layer2(self.layer1(x)).sum(0)


class LoopInMethod(nn.Module):
    """The loop lies in a helper method; forward prepares and finishes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.head = nn.Linear(6, 3)

    def simulate(self, current):
        mem = self.lif.reset_mem()
        trace = []
        for i in current:
            _, mem = self.lif(i, mem)
            trace.append(mem)
        return torch.stack(trace)

    def forward(self, x):
        return self.head(self.simulate(torch.relu(self.stem(x)))).max(dim=0).values


class FoldedConv(nn.Module):
    """A convolution and a norm over folded time before the loop, both again after it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.lif = snntorch.Leaky(beta=0.8)
        self.conv2 = nn.Conv2d(2, 3, 4)

    def forward(self, x):
        T, B = x.shape[0], x.shape[1]
        h = self.bn(self.conv1(x.reshape(T * B, *x.shape[2:])))
        h = h.reshape(T, B, *h.shape[1:])
        mem = self.lif.reset_mem()
        spikes = []
        for t in range(T):
            spk, mem = self.lif(h[t], mem)
            spikes.append(spk)
        y = self.conv2(torch.stack(spikes).flatten(0, 1))
        return y.view(T, B, -1).mean(0)


class NestedLoops(nn.Module):
    """Frames in an outer loop, a few settling steps on each frame in an inner one."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem, rec = self.lif.reset_mem(), []
        for frame in x:
            count = 0
            for _ in range(3):
                spk, mem = self.lif(self.fc(frame), mem)
                count = count + spk
            rec.append(count / 3)
        return torch.stack(rec)


class NorseEncoderDecoder(nn.Module):
    """Norse: spikes in one loop, a leaky readout in another, the last voltage as the answer."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 3, bias=False)
        self.lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2)))
        self.li = norse.LICell()

    def forward(self, x):
        s, spikes = None, []
        for xt in x:
            z, s = self.lif(self.fc1(xt) * 4, s)
            spikes.append(z)
        s, v = None, None
        for z in spikes:
            v, s = self.li(self.fc2(z), s)
        return F.log_softmax(v, dim=1)


class KeptState(nn.Module):
    """Called once per step; the neurons keep their states from call to call."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif1 = snntorch.Leaky(beta=0.9, init_hidden=True)
        self.lif2 = snntorch.Leaky(beta=0.8, init_hidden=True, output=True)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


class PassedStates(nn.Module):
    """Called once per step with two membranes that the caller hands back."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)

    def forward(self, x, mem1=None, mem2=None):
        spk, mem1 = self.lif1(self.fc1(x), mem1)
        spk, mem2 = self.lif2(self.fc2(spk), mem2)
        return spk, mem1, mem2


class ResetAtEachCall(nn.Module):
    """Called once per step; hidden states are reset first, so that no call knows of another."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.lif = snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        utils.reset(self)
        return self.lif(self.fc(x))


class TwoInputsPerStep(nn.Module):
    """Called once per step with a frame and a cue, the membrane handed back behind them."""

    def __init__(self):
        super().__init__()
        self.fc, self.cue = nn.Linear(5, 6), nn.Linear(2, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, cue, mem=None):
        spk, mem = self.lif(self.fc(x) * torch.sigmoid(self.cue(cue)), mem)
        return spk, mem


CASES = {
    "inner loop over layers": Case(StaticLayers, (3, 6), (2, 6), gain=2.0),
    "encoder and decoder loops": Case(EncoderDecoderLoops, (6, 3, 5), (6, 2, 5), (8, 3, 5), gain=2.0),
    "loop over a list of spikes": Case(LoopOverList, (6, 3, 5), (6, 2, 5), (8, 3, 5), gain=2.0),
    "loop over stacked spikes": Case(LoopOverStack, (6, 3, 5), (6, 2, 5), (8, 3, 5), gain=2.0),
    "loop over reversed spikes": Case(Bidirectional, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "two loops over one input": Case(TwoLoopsOneInput, (3, 6, 5), (2, 6, 5), (3, 8, 5), gain=5.0),
    "warm-up loop": Case(WarmUpLoop, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "layer by layer": Case(LayerByLayer, (6, 3, 5), (6, 2, 5), (8, 3, 5), gain=2.0),
    "loop in a method": Case(LoopInMethod, (6, 3, 5), (6, 2, 5), (8, 3, 5)),
    "folded convolution": Case(FoldedConv, (5, 2, 1, 4, 4), (5, 3, 1, 4, 4), (7, 2, 1, 4, 4), gain=5.0),
    "nested loops": Case(NestedLoops, (4, 3, 5), (4, 2, 5), (6, 3, 5)),
    "norse, two loops": Case(NorseEncoderDecoder, (6, 3, 5), (6, 2, 5), (8, 3, 5), 8.0),
    "outside, kept states": Case(KeptState, (6, 3, 5), (6, 2, 5), (8, 3, 5), loop="outside", gain=2.0),
    "outside, passed states": Case(PassedStates, (6, 3, 5), (6, 2, 5), (8, 3, 5), loop="outside", gain=2.0),
    "outside, reset at each call": Case(ResetAtEachCall, (6, 3, 5), (6, 2, 5), (8, 3, 5), loop="outside", gain=2.0),
    "outside, two inputs": Case(
        TwoInputsPerStep,
        ((6, 3, 5), (6, 3, 2)),
        ((6, 2, 5), (6, 2, 2)),
        ((8, 3, 5), (8, 3, 2)),
        loop="outside",
        gain=3.0,
    ),
}
