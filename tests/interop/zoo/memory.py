"""Short networks with memory beside the neurons: readouts, traces, delays, feedback, buffers, recurrent cells."""

import snntorch
import torch
import torch.nn.functional as F
from helpers.torch_networks import Case
from torch import nn


class TotalFromNone(nn.Module):
    """`total = spk if total is None else total + spk`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, total = self.lif.reset_mem(), None
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            total = spk if total is None else total + spk
        return total / len(x)


class HandWrittenReadout(nn.Module):
    """A leaky readout by hand, with a learnt decay, that starts as None."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.lif = snntorch.Leaky(beta=0.9)
        self.out = nn.Linear(7, 3)
        self.decay = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        mem, u, us = self.lif.reset_mem(), None, []
        alpha = torch.sigmoid(self.decay)
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            cur = self.out(spk)
            u = cur if u is None else alpha * u + (1 - alpha) * cur
            us.append(u)
        return torch.stack(us)


class HandWrittenSynapse(nn.Module):
    """A synaptic current by hand in front of the neuron: two states that start at zero."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        syn = torch.zeros(x.size(0), 6)
        mem = torch.zeros(x.size(0), 6)
        rec = []
        for t in range(x.size(1)):
            syn = 0.7 * syn + self.fc(x[:, t])
            spk, mem = self.lif(syn, mem)
            rec.append(spk)
        return torch.stack(rec, dim=1), syn


class TwoStepsLate(nn.Module):
    """A value that comes two steps late: `prev2, prev1 = prev1, spk`."""

    def __init__(self):
        super().__init__()
        self.fc, self.rec = nn.Linear(5, 6), nn.Linear(6, 6)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem = self.lif.reset_mem()
        prev2 = prev1 = torch.zeros(x.size(1), 6)
        out = []
        for xt in x:
            spk, mem = self.lif(self.fc(xt) + self.rec(prev2), mem)
            prev2, prev1 = prev1, spk
            out.append(spk)
        return torch.stack(out)


class AdaptiveThreshold(nn.Module):
    """Adaptation by hand: a trace of the own spikes is taken from the current."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.rho, self.kappa = 0.9, 0.5

    def forward(self, x):
        mem, a = self.lif.reset_mem(), torch.zeros(x.size(1), 6)
        spikes, thresholds = [], []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]) - self.kappa * a, mem)
            a = self.rho * a + (1 - self.rho) * spk
            spikes.append(spk)
            thresholds.append(1.0 + self.kappa * a)
        return torch.stack(spikes), torch.stack(thresholds)


class MovingTrace(nn.Module):
    """Exponential moving traces with a decay per neuron, from a buffer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.register_buffer("tau", torch.linspace(0.5, 0.95, 6))

    def forward(self, x):
        mem = self.lif.reset_mem()
        trace = torch.zeros(x.size(0), 6)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            trace = trace * self.tau + spk
        return trace


class ClampedMembrane(nn.Module):
    """The membrane is clamped from below between the steps."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, rec = torch.zeros(x.size(1), 6), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]), mem)
            mem = mem.clamp(min=-0.5)
            rec.append(spk)
        return torch.stack(rec), mem


class OwnReset(nn.Module):
    """No reset in the neuron: the membrane is reset by hand after the spike, with a refractory trace."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9, reset_mechanism="none")

    def forward(self, x):
        mem, refractory, rec = self.lif.reset_mem(), 0.0, []
        for xt in x:
            spk, mem = self.lif(self.fc(xt) * (1 - 0.5 * refractory), mem)
            mem = mem * (1 - spk.detach())
            refractory = spk
            rec.append(spk)
        return torch.stack(rec)


class DelayBuffer(nn.Module):
    """A buffer of the last three spikes, as a tensor that is shifted by `cat` at every step."""

    def __init__(self):
        super().__init__()
        self.fc, self.mix = nn.Linear(5, 4), nn.Linear(12, 4)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem = self.lif.reset_mem()
        buffer = torch.zeros(x.size(0), 3, 4)
        out = []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]) + self.mix(buffer.flatten(1)), mem)
            buffer = torch.cat([buffer[:, 1:], spk.unsqueeze(1)], dim=1)
            out.append(spk)
        return torch.stack(out, 1)


class FilledTimeFirst(nn.Module):
    """Outputs preallocated and written by `[t]`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        T, B, _ = x.shape
        mem = self.lif.reset_mem()
        spk_rec, mem_rec = torch.zeros(T, B, 6), torch.zeros(T, B, 6)
        for t in range(T):
            spk_rec[t], mem = self.lif(self.fc(x[t]), mem)
            mem_rec[t] = mem
        return spk_rec, mem_rec


class FilledBatchFirst(nn.Module):
    """Outputs preallocated and written by `[:, t]`, summed afterwards."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        rec = x.new_empty(x.size(0), x.size(1), 6)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            rec[:, t] = spk
        return rec.sum(1)


class FilledTimeLast(nn.Module):
    """Outputs preallocated and written by `[..., t]`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem = self.lif.reset_mem()
        rec = torch.zeros(x.size(0), 6, x.size(-1))
        for t in range(x.size(-1)):
            spk, mem = self.lif(self.fc(x[..., t]), mem)
            rec[..., t] = spk
        return rec


class GruBeside(nn.Module):
    """A GRUCell beside a spiking layer; both feed one head."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRUCell(5, 4)
        self.fc = nn.Linear(5, 4)
        self.lif = snntorch.Leaky(beta=0.9)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        mem, h, out = self.lif.reset_mem(), torch.zeros(x.size(1), 4), []
        for xt in x:
            h = self.gru(xt, h)
            spk, mem = self.lif(self.fc(xt), mem)
            out.append(self.head(torch.cat([h, spk], dim=1)))
        return torch.stack(out)


class LstmBehind(nn.Module):
    """An LSTMCell reads the spikes, step by step; its states start as zeros."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.cell = nn.LSTMCell(6, 4)

    def forward(self, x):
        mem = self.lif.reset_mem()
        h, c = torch.zeros(x.size(0), 4), torch.zeros(x.size(0), 4)
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            h, c = self.cell(spk, (h, c))
        return h, c


class LateralInhibition(nn.Module):
    """Lateral inhibition: every neuron gets the sum of the others' last spikes, with a minus."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.register_buffer("others", torch.ones(6, 6) - torch.eye(6))

    def forward(self, x):
        mem, spk, out = self.lif.reset_mem(), torch.zeros(x.size(1), 6), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[t]) - 0.3 * spk @ self.others, mem)
            out.append(spk)
        return torch.stack(out)


class Population(nn.Module):
    """Excitatory and inhibitory populations that drive each other, with positive weights by `abs`."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(5, 6)
        self.w_ei, self.w_ie = nn.Parameter(torch.randn(3, 6) * 0.5), nn.Parameter(torch.randn(6, 3) * 0.5)
        self.exc, self.inh = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.7, threshold=0.5)

    def forward(self, x):
        mem_e, mem_i = self.exc.reset_mem(), self.inh.reset_mem()
        spk_i, out = torch.zeros(x.size(1), 3), []
        for t in range(x.size(0)):
            spk_e, mem_e = self.exc(self.inp(x[t]) - F.linear(spk_i, self.w_ie.abs()), mem_e)
            spk_i, mem_i = self.inh(F.linear(spk_e, self.w_ei.abs()), mem_i)
            out.append(spk_e)
        return torch.stack(out), spk_i


LONG = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
BATCH = ((3, 6, 5), (2, 6, 5), (3, 8, 5))

CASES = {
    "total from None": Case(TotalFromNone, *LONG),
    "leaky readout by hand": Case(HandWrittenReadout, *LONG),
    "synapse by hand": Case(HandWrittenSynapse, *BATCH),
    "two steps late": Case(TwoStepsLate, *LONG),
    "adaptive threshold": Case(AdaptiveThreshold, *LONG),
    "moving trace": Case(MovingTrace, *BATCH),
    "clamped membrane": Case(ClampedMembrane, *LONG),
    "own reset": Case(OwnReset, *LONG),
    "delay buffer": Case(DelayBuffer, *BATCH),
    "filled, time first": Case(FilledTimeFirst, *LONG),
    "filled, batch first": Case(FilledBatchFirst, *BATCH),
    "filled, time last": Case(FilledTimeLast, (3, 5, 6), (2, 5, 6), (3, 5, 8)),
    "GRUCell beside": Case(GruBeside, *LONG),
    "LSTMCell behind": Case(LstmBehind, *BATCH),
    "lateral inhibition": Case(LateralInhibition, *LONG, gain=2.0),
    "two populations": Case(Population, *LONG, gain=2.0),
}
