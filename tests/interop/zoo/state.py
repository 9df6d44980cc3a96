"""Short networks for the ways in which people hold and start the state of their neurons."""

import norse.torch as norse
import snntorch
import torch
from helpers.torch_networks import Case
from snntorch import utils
from torch import nn


class HandPassed(nn.Module):
    """Membranes passed by hand, set to None at first."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem1, mem2 = None, None
        out = []
        for t in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out), (mem1, mem2)


class HiddenWithOutput(nn.Module):
    """`init_hidden` in a Sequential whose last neuron returns its membrane too."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(5, 7),
            snntorch.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(7, 3),
            snntorch.Leaky(beta=0.8, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.net)
        spk_rec, mem_rec = [], []
        for step in range(x.size(0)):
            spk, mem = self.net(x[step])
            spk_rec.append(spk)
            mem_rec.append(mem)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class ImplicitReset(nn.Module):
    """`reset_mem()` without using its result; the neurons are called with the current only."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.lif = snntorch.Leaky(beta=0.9)
        self.out = nn.Linear(7, 2)

    def forward(self, x):
        self.lif.reset_mem()
        potentials = []
        for xt in x:
            spk, mem = self.lif(self.fc(xt))
            potentials.append(self.out(spk) + mem[:, :2])
        return torch.stack(potentials)


class ListOfMembranes(nn.Module):
    """A Python list of membranes over a ModuleList, replaced at every step."""

    def __init__(self):
        super().__init__()
        self.fcs = nn.ModuleList([nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)])
        self.lifs = nn.ModuleList([snntorch.Leaky(beta=b) for b in (0.9, 0.8, 0.7)])

    def forward(self, x):
        mems = [None] * len(self.lifs)
        out = []
        for t in range(x.size(1)):
            s, new = x[:, t], []
            for fc, lif, mem in zip(self.fcs, self.lifs, mems, strict=True):
                s, mem = lif(fc(s), mem)
                new.append(mem)
            mems = new
            out.append(s)
        return torch.stack(out, dim=1), mems


class DictOfMembranes(nn.Module):
    """Membranes in a dict by layer name; the dict is returned."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lifs = nn.ModuleDict({"hidden": snntorch.Leaky(beta=0.9), "out": snntorch.Leaky(beta=0.8)})

    def forward(self, x):
        mem = {name: lif.reset_mem() for name, lif in self.lifs.items()}
        count = 0
        for t in range(x.size(0)):
            spk, mem["hidden"] = self.lifs["hidden"](self.fc1(x[t]), mem["hidden"])
            spk, mem["out"] = self.lifs["out"](self.fc2(spk), mem["out"])
            count = count + spk
        return count, mem


class StatesOnSelf(nn.Module):
    """Membrane and spikes stored on the module by a `reset` method, updated by a `step` method."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.back = nn.Linear(6, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.mem = self.spk = None

    def reset(self, batch):
        self.mem = torch.zeros(batch, 6)
        self.spk = torch.zeros(batch, 6)

    def step(self, xt):
        self.spk, self.mem = self.lif(self.fc(xt) - self.back(self.spk), self.mem)

    def forward(self, x):
        self.reset(x.size(1))
        out = []
        for t in range(x.size(0)):
            self.step(x[t])
            out.append(self.mem)
        return torch.stack(out)


class ZerosOnDevice(nn.Module):
    """`torch.zeros(..., device=x.device)` with the dtype of the weights."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = torch.zeros(x.size(0), self.fc.out_features, device=x.device, dtype=self.fc.weight.dtype)
        rec = []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            rec.append(spk)
        return torch.stack(rec, 1)


class ZerosLike(nn.Module):
    """`zeros_like` of a first current, `new_zeros` for the counter."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = torch.zeros_like(self.fc(x[0]))
        count = x.new_zeros(x.size(1), 6)
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            count += spk
        return count


class StartsAtHalf(nn.Module):
    """All membranes start at 0.5."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = torch.full((x.size(1), 6), 0.5)
        rec = []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            rec.append(spk)
        return torch.stack(rec), mem


class LearntStart(nn.Module):
    """The initial membrane is a parameter, expanded to the batch."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.mem0 = nn.Parameter(torch.linspace(0, 1, 6))

    def forward(self, x):
        mem = self.mem0.unsqueeze(0).expand(x.size(1), -1)
        rec = []
        for t in range(x.size(0)):
            _spk, mem = self.lif(self.fc(x[t]), mem)
            rec.append(mem)
        return torch.stack(rec)


class StartFromInput(nn.Module):
    """The initial membrane is computed from the first step by a layer."""

    def __init__(self):
        super().__init__()
        self.init = nn.Linear(5, 6)
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = torch.sigmoid(self.init(x[0]))
        rec = []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec.append(spk)
        return torch.stack(rec), mem


class StartFromArgument(nn.Module):
    """The caller gives the initial membrane as a second input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, mem):
        rec = []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            rec.append(spk)
        return torch.stack(rec), mem


class NorseNone(nn.Module):
    """Norse cells with `s = None`."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.l1 = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.3)))
        self.l2 = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        s1 = s2 = None
        count = 0
        for t in range(x.shape[0]):
            z, s1 = self.l1(self.fc1(x[t]), s1)
            z, s2 = self.l2(self.fc2(z), s2)
            count = count + z
        return count, s2.v


class NorseMadeByHand(nn.Module):
    """Norse states made by hand, with a voltage that is not zero."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.cell = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.4)))

    def forward(self, x):
        batch = x.shape[0]
        state = norse.LIFFeedForwardState(v=torch.full((batch, 6), 0.2), i=torch.zeros(batch, 6))
        spikes = []
        for t in range(x.shape[1]):
            z, state = self.cell(self.fc(x[:, t]), state)
            spikes.append(z)
        return torch.stack(spikes, 1), state


class NorseSequentialLoop(nn.Module):
    """`SequentialState` inside of a loop; its list of states starts as None."""

    def __init__(self):
        super().__init__()
        self.net = norse.SequentialState(
            nn.Linear(5, 7),
            norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2))),
            nn.Linear(7, 3),
            norse.LICell(),
        )

    def forward(self, x):
        state, voltages = None, []
        for xt in x:
            v, state = self.net(xt, state)
            voltages.append(v)
        return torch.stack(voltages).amax(0)


class NorseTwoNets(nn.Module):
    """Two `SequentialState`s, features and classifier, each with its states."""

    def __init__(self):
        super().__init__()
        p = norse.LIFParameters(v_th=torch.as_tensor(0.15))
        self.features = norse.SequentialState(nn.Conv2d(1, 2, 3), norse.LIFCell(p=p), nn.Flatten())
        self.classifier = norse.SequentialState(nn.Linear(18, 4), norse.LIFCell(p=p))

    def forward(self, x):
        sf, sc, out = None, None, []
        for t in range(x.shape[0]):
            z, sf = self.features(x[t], sf)
            z, sc = self.classifier(z, sc)
            out.append(z)
        return torch.stack(out).mean(0), sc


class RecordedMembranes(nn.Module):
    """Membranes and spikes of all layers recorded per step, in a dict of lists."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 7), nn.Linear(7, 3)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.8, reset_mechanism="zero")

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        rec = {"spk1": [], "mem1": [], "mem2": []}
        for t in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            _spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            rec["spk1"].append(spk1)
            rec["mem1"].append(mem1)
            rec["mem2"].append(mem2)
        return {key: torch.stack(value) for key, value in rec.items()}


class TupleOfStates(nn.Module):
    """All states in one tuple that a cell takes and returns."""

    class Cell(nn.Module):
        def __init__(self, n_in, n):
            super().__init__()
            self.fc, self.rec = nn.Linear(n_in, n), nn.Linear(n, n, bias=False)
            self.lif = snntorch.Leaky(beta=0.8)

        def init_state(self, batch):
            return torch.zeros(batch, self.rec.in_features), torch.zeros(batch, self.rec.in_features)

        def forward(self, x, state):
            spk, mem = state
            spk, mem = self.lif(self.fc(x) + self.rec(spk), mem)
            return spk, (spk, mem)

    def __init__(self):
        super().__init__()
        self.cell = self.Cell(5, 6)

    def forward(self, x):
        state = self.cell.init_state(x.size(0))
        out = []
        for t in range(x.size(1)):
            spk, state = self.cell(x[:, t], state)
            out.append(spk)
        return torch.stack(out, 1), state


class HiddenMembraneRead(nn.Module):
    """Hidden states, with the membrane read from the module after the loop: `self.lif.mem`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        self.lif.reset_mem()
        count = 0
        for xt in x:
            count = count + self.lif(self.fc(xt))
        return count, self.lif.mem


LONG = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
BATCH = ((3, 6, 5), (2, 6, 5), (3, 8, 5))

CASES = {
    "membranes by hand": Case(HandPassed, *LONG, gain=2.0),
    "hidden with output": Case(HiddenWithOutput, *LONG, gain=2.0),
    "implicit reset": Case(ImplicitReset, *LONG),
    "list of membranes": Case(ListOfMembranes, *BATCH, gain=3.0),
    "dict of membranes": Case(DictOfMembranes, *LONG, gain=2.0),
    "states stored on self": Case(StatesOnSelf, *LONG),
    "zeros on the device": Case(ZerosOnDevice, *BATCH),
    "zeros like": Case(ZerosLike, *LONG),
    "starts at a half": Case(StartsAtHalf, *LONG),
    "learnt start": Case(LearntStart, *LONG),
    "start from the input": Case(StartFromInput, *LONG),
    "start from an argument": Case(
        StartFromArgument, ((6, 3, 5), (3, 6)), ((6, 2, 5), (2, 6)), ((8, 3, 5), (3, 6)), scale=2.0
    ),
    "norse None": Case(NorseNone, *LONG, scale=12.0),
    "norse states by hand": Case(NorseMadeByHand, *BATCH, scale=12.0),
    "norse SequentialState in a loop": Case(NorseSequentialLoop, *LONG, scale=12.0),
    "norse, two SequentialStates": Case(NorseTwoNets, (5, 2, 1, 5, 5), (5, 3, 1, 5, 5), (7, 2, 1, 5, 5), scale=20.0),
    "recorded membranes": Case(RecordedMembranes, *LONG, gain=2.0),
    "tuple of states": Case(TupleOfStates, *BATCH),
    "membrane read after the loop": Case(HiddenMembraneRead, *LONG),
}
