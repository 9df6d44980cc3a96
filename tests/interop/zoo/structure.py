"""Short networks for the ways in which people put networks together, and for wrappers around them."""

from collections import OrderedDict, namedtuple

import norse.torch as norse
import snntorch
import torch
import torch.nn.functional as F
from helpers.torch_networks import Case
from snntorch import utils
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


Result = namedtuple("Result", ["logits", "rate"])


class Skip(nn.Module):
    """A skip connection around a layer, and one from the input to the output."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for xt in x:
            spk1, mem1 = self.lif1(self.fc1(xt), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1) + spk1, mem2)
            out.append(spk2 + xt)
        return torch.stack(out)


class Branches(nn.Module):
    """Branches with different time constants, joined by `cat`."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(5, 4) for _ in range(3)])
        self.lifs = nn.ModuleList([snntorch.Leaky(beta=b) for b in (0.5, 0.8, 0.95)])
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        for lif in self.lifs:
            lif.reset_mem()
        logits = 0
        for t in range(x.size(1)):
            spikes = [lif(fc(x[:, t]))[0] for fc, lif in zip(self.branches, self.lifs, strict=True)]
            logits = logits + self.head(torch.cat(spikes, -1))
        return logits


class LinearTwice(nn.Module):
    """One Linear used at two places."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for xt in x:
            spk, mem1 = self.lif1(self.fc(xt), mem1)
            spk, mem2 = self.lif2(self.fc(spk), mem2)
            out.append(spk)
        return torch.stack(out)


class TiedAutoencoder(nn.Module):
    """An autoencoder with tied weights: `F.linear(x, self.fc.weight.t())`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.zeros(6))
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            out.append(F.linear(spk, self.fc.weight.t(), self.bias))
        return torch.stack(out)


class SharedParameter(nn.Module):
    """Two Linear modules share one weight: `self.fc2.weight = self.fc1.weight`."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.fc2.weight = self.fc1.weight
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spk = self.lif.reset_mem(), torch.zeros(x.size(1), 6)
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc1(x[t]) + self.fc2(spk), mem)
        return spk, mem


class DictOfLayers(nn.Module):
    """A ModuleDict of layers, walked in order, with names of the layers as keys of the outputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            OrderedDict(fc1=nn.Linear(5, 6), lif1=snntorch.Leaky(0.9), fc2=nn.Linear(6, 4), lif2=snntorch.Leaky(0.8))
        )

    def forward(self, x):
        mems, rec = {}, {name: [] for name in self.layers if name.startswith("lif")}
        for xt in x:
            for name, layer in self.layers.items():
                if isinstance(layer, snntorch.Leaky):
                    xt, mems[name] = layer(xt, mems.get(name))
                    rec[name].append(xt)
                else:
                    xt = layer(xt)
        return {name: torch.stack(spikes).sum(0) for name, spikes in rec.items()}


class NestedBlocks(nn.Module):
    """Blocks in blocks that return tuples of spikes and membranes."""

    class Unit(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.fc, self.lif = nn.Linear(a, b), snntorch.Leaky(beta=0.85)

        def forward(self, x, mem):
            return self.lif(self.fc(x), mem)

    class Stage(nn.Module):
        def __init__(self, unit, a, b):
            super().__init__()
            self.first, self.second = unit(a, b), unit(b, b)

        def forward(self, x, mems):
            h, m1 = self.first(x, mems[0])
            y, m2 = self.second(h, mems[1])
            return y + h, (m1, m2)

    def __init__(self):
        super().__init__()
        self.stage1, self.stage2 = self.Stage(self.Unit, 5, 6), self.Stage(self.Unit, 6, 4)

    def forward(self, x):
        m1, m2, out = (None, None), (None, None), []
        for t in range(x.size(0)):
            y, m1 = self.stage1(x[t], m1)
            y, m2 = self.stage2(y, m2)
            out.append(y)
        return torch.stack(out), m2


class SharedNeuron(nn.Module):
    """One neuron module at two places, with a membrane for each."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 4)
        self.lif = snntorch.Leaky(beta=0.9, learn_beta=True)

    def forward(self, x):
        mem1, mem2 = torch.zeros(x.size(1), 7), torch.zeros(x.size(1), 4)
        out = []
        for t in range(x.size(0)):
            spk, mem1 = self.lif(self.fc1(x[t]), mem1)
            spk, mem2 = self.lif(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


class Flags(nn.Module):
    """Branches on flags of the constructor and on `self.training`; an early return."""

    def __init__(self, recurrent=True, norm=False, return_membrane=True):
        super().__init__()
        self.recurrent, self.return_membrane = recurrent, return_membrane
        self.fc = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6) if norm else nn.Identity()
        if recurrent:
            self.rec = nn.Linear(6, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spk, rec = None, x.new_zeros(x.size(0), 6), []
        for t in range(x.size(1)):
            cur = self.norm(self.fc(x[:, t]))
            if self.recurrent:
                cur = cur + self.rec(spk)
            spk, mem = self.lif(cur, mem)
            rec.append(spk)
        rates = torch.stack(rec, 1).mean(1)
        if not self.training:
            rates = rates * 2
        if self.return_membrane:
            return rates, mem
        return rates


class Autoencoder(nn.Module):
    """An encoder and a decoder, each a block with its own reset; the reconstruction is the mean membrane."""

    class Half(nn.Module):
        def __init__(self, sizes):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(*sizes), snntorch.Leaky(beta=0.9, init_hidden=True, output=True))

        def forward(self, x):
            return self.net(x)

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = self.Half((6, 4)), self.Half((4, 6))

    def forward(self, x):
        utils.reset(self.encoder.net)
        utils.reset(self.decoder.net)
        out = []
        for _ in range(6):
            code, _ = self.encoder(x)
            _, mem = self.decoder(code)
            out.append(mem)
        return torch.stack(out).mean(0)


class SpikeGating(nn.Module):
    """Gating by spikes: the spikes of one population let the currents of another through, weighted by a softmax."""

    def __init__(self):
        super().__init__()
        self.gate, self.value, self.score = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(5, 6)
        self.lif_gate, self.lif = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem_gate, mem, out = None, None, []
        for xt in x:
            open_, mem_gate = self.lif_gate(self.gate(xt), mem_gate)
            weights = torch.softmax(self.score(xt), dim=-1)
            spk, mem = self.lif(open_ * self.value(xt) * (1 + weights), mem)
            out.append(spk)
        return torch.stack(out)


class TwoInputs(nn.Module):
    """A sequence and a static context."""

    def __init__(self):
        super().__init__()
        self.fc, self.context = nn.Linear(5, 6), nn.Linear(3, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, y):
        mem, out = self.lif.reset_mem(), []
        bias = self.context(y)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]) + bias, mem)
            out.append(spk)
        return torch.stack(out, 1)


class TwoHeads(nn.Module):
    """Two heads with their own neurons on one trunk; nested outputs."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.policy, self.value = nn.Linear(8, 3), nn.Linear(8, 1)
        self.lif_p, self.lif_v = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9, reset_mechanism="none")

    def forward(self, x):
        mem_p, mem_v = self.lif_p.reset_mem(), self.lif_v.reset_mem()
        actions, values = [], []
        for xt in x:
            h = self.trunk(xt)
            spk, mem_p = self.lif_p(self.policy(h), mem_p)
            _, mem_v = self.lif_v(self.value(h), mem_v)
            actions.append(spk)
            values.append(mem_v.squeeze(-1))
        return {"policy": (torch.stack(actions), mem_p), "value": {"all": torch.stack(values), "last": values[-1]}}


class NamedResult(nn.Module):
    """A namedtuple as the result, the head after the loop."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spikes = self.lif.reset_mem(), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            spikes.append(spk)
        rate = torch.stack(spikes).mean(0)
        return Result(logits=self.head(rate), rate=rate)


class Options(nn.Module):
    """Keyword options of forward with defaults, and `**kwargs`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, reduce="mean", scale=1.5, return_all=False, **kwargs):
        mem, out = self.lif.reset_mem(), []
        for xt in x * kwargs.get("gain", 1.0):
            spk, mem = self.lif(scale * self.fc(xt), mem)
            out.append(spk)
        out = torch.stack(out)
        if return_all:
            return out
        return out.mean(0) if reduce == "mean" else out.sum(0)


class TopDown(nn.Module):
    """The second layer's last spikes come back to the first: feedback over two layers."""

    def __init__(self):
        super().__init__()
        self.up1, self.up2, self.down = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 6)
        self.l1 = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2)))
        self.l2 = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        s1 = s2 = None
        z2, out = x.new_zeros(x.size(1), 4), []
        for xt in x:
            z1, s1 = self.l1(self.up1(xt) + self.down(z2), s1)
            z2, s2 = self.l2(self.up2(z1), s2)
            out.append(z2)
        return torch.stack(out)


class Small(nn.Module):
    """A small network for wrappers; `layer` makes its layers."""

    def __init__(self, layer=nn.Linear, threshold=1.0):
        super().__init__()
        self.fc1, self.fc2 = layer(5, 7), layer(7, 3)
        self.lif1, self.lif2 = snntorch.Leaky(0.9, threshold), snntorch.Leaky(0.8, threshold)

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


class LightningLike(nn.Module):
    """What a Lightning module looks like: the network inside, a loss, steps of training, an optimiser."""

    def __init__(self, lr=1e-3):
        super().__init__()
        self.hparams = {"lr": lr}
        self.net = Small()
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x).sum(0)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def _data_parallel():
    return nn.DataParallel(Small())


def _weight_norm():
    return Small(lambda n_in, n_out: weight_norm(nn.Linear(n_in, n_out)))


def _spectral_norm():
    return Small(lambda n_in, n_out: spectral_norm(nn.Linear(n_in, n_out)), threshold=0.3)


def _frozen():
    net = Small()
    net.fc1.requires_grad_(False)
    net.fc2.bias.requires_grad = False
    return net


def _without_recurrence():
    return Flags(recurrent=False, norm=True, return_membrane=False)


LONG = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
WIDE = ((6, 3, 6), (6, 2, 6), (8, 3, 6))
BATCH = ((3, 6, 5), (2, 6, 5), (3, 8, 5))

CASES = {
    "skip": Case(Skip, *WIDE, gain=2.0),
    "branches": Case(Branches, *BATCH, gain=4.0),
    "one Linear twice": Case(LinearTwice, *WIDE, gain=2.0),
    "tied weights": Case(TiedAutoencoder, *WIDE, gain=2.0),
    "shared parameter": Case(SharedParameter, *WIDE),
    "ModuleDict": Case(DictOfLayers, *LONG, gain=2.0),
    "blocks in blocks": Case(NestedBlocks, *LONG, gain=3.0),
    "shared neuron": Case(SharedNeuron, *LONG, gain=2.0, uses=(("lif", 2),)),
    "flags": Case(Flags, *BATCH),
    "flags, other branch": Case(_without_recurrence, *BATCH),
    "flags, training": Case(Flags, *BATCH, training=True),
    "autoencoder": Case(Autoencoder, (3, 6), (2, 6), gain=2.0),
    "gating by spikes": Case(SpikeGating, *LONG, gain=4.0),
    "sequence and context": Case(TwoInputs, ((3, 6, 5), (3, 3)), ((2, 6, 5), (2, 3)), ((3, 8, 5), (3, 3))),
    "two heads": Case(TwoHeads, *LONG, gain=4.0),
    "namedtuple": Case(NamedResult, *LONG),
    "options": Case(Options, *LONG),
    "top-down": Case(TopDown, *LONG, scale=15.0),
    "Lightning-like": Case(LightningLike, *LONG, gain=2.0),
    "DataParallel": Case(_data_parallel, *LONG, gain=2.0),
    "weight norm": Case(_weight_norm, *LONG, scale=6.0),
    "spectral norm": Case(_spectral_norm, *LONG, scale=3.0),
    "frozen parameters": Case(_frozen, *LONG, gain=2.0),
    "float64 module": Case(TopDown, *LONG, scale=15.0, double=True),
}
