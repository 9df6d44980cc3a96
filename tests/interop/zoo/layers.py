"""Short networks with layers of torch.nn beside spiking ones."""

import norse.torch as norse
import snntorch
import torch
from helpers.torch_networks import Case
from snntorch import utils
from torch import nn


class Tokens(nn.Module):
    """An embedding of integer tokens, read step by step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.fc = nn.Linear(6, 4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, tokens):
        mem, out = self.lif.reset_mem(), []
        for t in range(tokens.size(1)):
            spk, mem = self.lif(self.fc(self.embed(tokens[:, t])), mem)
            out.append(spk)
        return torch.stack(out, 1)


class TokensAtOnce(nn.Module):
    """All tokens are embedded before the loop; a learnt position per step is added."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.position = nn.Parameter(torch.randn(6, 6) * 0.3)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.5)
        self.head = nn.Linear(6, 2)

    def forward(self, tokens):
        x = self.embed(tokens) + self.position[: tokens.size(1)]
        mem, total = self.lif.reset_mem(), 0
        for t in range(x.size(1)):
            spk, mem = self.lif(x[:, t], mem)
            total = total + spk
        return self.head(total / x.size(1))


class Conv1dNet(nn.Module):
    """Conv1d with stride and max pooling over channels of a signal."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.MaxPool1d(2)
        self.bn = nn.BatchNorm1d(4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            spk, mem = self.lif(self.pool(self.bn(self.conv(xt))), mem)
            out.append(spk)
        return torch.stack(out).flatten(2)


class ConvBlocks(nn.Module):
    """Conv, BatchNorm, Leaky and pooling in a Sequential, adaptive pooling, Dropout, as on DVS Gesture."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            snntorch.Leaky(beta=0.8, init_hidden=True),
            nn.AvgPool2d(2),
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            snntorch.Leaky(beta=0.8, init_hidden=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(4, 3),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    def forward(self, data):
        spk_rec = []
        utils.reset(self.net)
        for step in range(data.size(0)):
            spk_out, _mem_out = self.net(data[step])
            spk_rec.append(spk_out)
        return torch.stack(spk_rec)


class Conv3dNet(nn.Module):
    """Conv3d over the clip before the loop, which then runs over its time axis."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, (3, 3, 3), padding=(1, 0, 0))
        self.lif = snntorch.Leaky(beta=0.8)
        self.fc = nn.Linear(8, 3)

    def forward(self, clip):
        h = self.conv(clip)
        mem, total = self.lif.reset_mem(), 0
        for t in range(h.size(2)):
            spk, mem = self.lif(h[:, :, t], mem)
            total = total + self.fc(spk.flatten(1))
        return total


class Volumes(nn.Module):
    """Conv3d and MaxPool3d of a volume per step."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv3d(1, 2, 2), nn.MaxPool3d(2)
        self.lif = snntorch.Leaky(beta=0.8)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.pool(self.conv(x[:, t])), mem)
            out.append(spk)
        return torch.stack(out, 1)


class UpAndDown(nn.Module):
    """A small U-Net: strided convolution down, ConvTranspose2d up, a skip by `cat`."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 3, 2, stride=2), nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.out = nn.Conv2d(3, 1, 1)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem1 = mem2 = None
        frames = []
        for xt in x:
            spk, mem1 = self.lif1(self.down(xt), mem1)
            spk, mem2 = self.lif2(self.up(spk), mem2)
            frames.append(self.out(torch.cat([spk, xt], dim=1)))
        return torch.stack(frames)


class Upsampled(nn.Module):
    """Upsample, PixelShuffle and padding around spiking layers."""

    def __init__(self):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv, self.shuffle = nn.Conv2d(1, 4, 3), nn.PixelShuffle(2)
        self.pad = nn.ZeroPad2d(1)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.7, threshold=0.5)

    def forward(self, x):
        mem1 = mem2 = None
        frames = []
        for xt in x:
            spk, mem1 = self.lif1(self.pad(self.conv(self.up(xt))), mem1)
            spk, mem2 = self.lif2(self.shuffle(spk), mem2)
            frames.append(spk)
        return torch.stack(frames).sum(0)


class Norms(nn.Module):
    """LayerNorm on currents, GroupNorm on frames."""

    def __init__(self):
        super().__init__()
        self.conv, self.group = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.fc, self.layer = nn.Linear(16, 5), nn.LayerNorm(5)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.8), snntorch.Leaky(beta=0.9, threshold=0.8)

    def forward(self, x):
        mem1 = mem2 = None
        out = []
        for xt in x:
            spk, mem1 = self.lif1(self.group(self.conv(xt)), mem1)
            spk, mem2 = self.lif2(self.layer(self.fc(spk.flatten(1))), mem2)
            out.append(spk)
        return torch.stack(out)


class NormInTime(nn.Module):
    """BatchNorm1d in evaluation mode on `(batch * time, features)`, between two loops."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        self.bn = nn.BatchNorm1d(4)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.8), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        B, T, _ = x.shape
        mem, spikes = self.lif1.reset_mem(), []
        for t in range(T):
            spk, mem = self.lif1(self.fc1(x[:, t]), mem)
            spikes.append(spk)
        h = torch.stack(spikes, dim=1).reshape(B * T, -1)
        h = self.bn(self.fc2(h)).reshape(B, T, -1)
        mem, out = self.lif2.reset_mem(), []
        for t in range(T):
            spk, mem = self.lif2(h[:, t], mem)
            out.append(spk)
        return torch.stack(out, dim=1)


class Activations(nn.Module):
    """GELU, Tanh, Softplus, LeakyReLU and PReLU in front of neurons."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 6), nn.LeakyReLU(0.1))
        self.gate = nn.Sequential(nn.Linear(5, 6), nn.Softplus(), nn.Tanh())
        self.act = nn.PReLU()
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            _spk, mem = self.lif(self.act(self.stem(xt)) * self.gate(xt), mem)
            out.append(mem)
        return torch.stack(out)


class BilinearPair(nn.Module):
    """nn.Bilinear of two sequences."""

    def __init__(self):
        super().__init__()
        self.pair = nn.Bilinear(4, 3, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, y):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(0)):
            spk, mem = self.lif(self.pair(x[t], y[t]), mem)
            out.append(spk)
        return torch.stack(out)


class RnnCellInFront(nn.Module):
    """An RNNCell without a given start drives the neurons."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNNCell(5, 6)
        self.fc = nn.Linear(6, 4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, h, out = self.lif.reset_mem(), None, []
        for xt in x:
            h = self.rnn(xt, h)
            spk, mem = self.lif(self.fc(h), mem)
            out.append(spk)
        return torch.stack(out)


class LstmAfterLoop(nn.Module):
    """An LSTM over the spike sequence after the loop; its last output is classified."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.lstm = nn.LSTM(6, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            out.append(spk)
        h, _ = self.lstm(torch.stack(out, dim=1))
        return self.head(h[:, -1])


class GruBeforeLoop(nn.Module):
    """A bidirectional GRU over the input before the loop."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 3, bidirectional=True)
        self.fc = nn.Linear(6, 4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        h, _ = self.gru(x)
        mem, out = self.lif.reset_mem(), []
        for t in range(h.size(0)):
            spk, mem = self.lif(self.fc(h[t]), mem)
            out.append(spk)
        return torch.stack(out)


class AttentionAfterLoop(nn.Module):
    """MultiheadAttention over the spike sequence after the loop, with a LayerNorm around it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 8)
        self.lif = snntorch.Leaky(beta=0.9)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(x.size(1)):
            spk, mem = self.lif(self.fc(x[:, t]), mem)
            out.append(spk)
        s = torch.stack(out, dim=1)
        a, _ = self.attention(s, s, s, need_weights=False)
        return self.norm(s + a).mean(1)


class ConvInTime(nn.Module):
    """Conv1d over time after the loop: spikes smoothed by a learnt kernel."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)
        self.smooth = nn.Conv1d(6, 3, 3, padding=1)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt), mem)
            out.append(spk)
        return self.smooth(torch.stack(out, dim=-1))


class DilatedStem(nn.Module):
    """Dilated, grouped Conv1d over time before the loop: `(batch, channels, time)`."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, 4, 3, padding=2, dilation=2, groups=2), nn.ReLU())
        self.fc = nn.Linear(4, 5)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        h = self.stem(x)
        mem, out = self.lif.reset_mem(), []
        for t in range(h.shape[-1]):
            spk, mem = self.lif(self.fc(h[:, :, t]), mem)
            out.append(spk)
        return torch.stack(out, -1)


class ResidualConv(nn.Module):
    """Two residual blocks of convolutions, norms and neurons, as in spiking ResNets."""

    class Block(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)
            self.lif = snntorch.Leaky(beta=0.8, init_hidden=True)

        def forward(self, x):
            return self.lif(self.bn(self.conv(x))) + x

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3)
        self.blocks = nn.Sequential(self.Block(3), self.Block(3))
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    def forward(self, x, num_steps=5):
        utils.reset(self)
        h = self.stem(x)
        return sum(self.head(self.blocks(h)) for _ in range(num_steps)) / num_steps


class NorseConvNet(nn.Module):
    """Norse's MNIST network: two convolutions with pooling, LIF cells, a leaky readout."""

    def __init__(self, alpha=100.0):
        super().__init__()
        p = norse.LIFParameters(method="super", alpha=torch.as_tensor(alpha), v_th=torch.as_tensor(0.3))
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3, 1), nn.Conv2d(2, 3, 2, 1)
        self.fc1 = nn.Linear(12, 5)
        self.lif0, self.lif1, self.lif2 = norse.LIFCell(p=p), norse.LIFCell(p=p), norse.LIFCell(p=p)
        self.out = norse.LICell()

    def forward(self, x):
        s0 = s1 = s2 = so = None
        voltages = torch.zeros(x.shape[0], x.shape[1], 5, device=x.device, dtype=x.dtype)
        for ts in range(x.shape[0]):
            z = self.conv1(x[ts])
            z, s0 = self.lif0(z, s0)
            z = nn.functional.max_pool2d(z, 2, 1)
            z = 10 * self.conv2(z)
            z, s1 = self.lif1(z, s1)
            z = z.view(x.shape[1], -1)
            z = 10 * self.fc1(z)
            z, s2 = self.lif2(z, s2)
            v, so = self.out(nn.functional.relu(z), so)
            voltages[ts, :, :] = v
        return voltages


LONG = ((6, 3, 5), (6, 2, 5), (8, 3, 5))
BATCH = ((3, 6, 5), (2, 6, 5), (3, 8, 5))
IMAGES = ((5, 2, 1, 4, 4), (5, 3, 1, 4, 4), (7, 2, 1, 4, 4))
LARGER = ((5, 2, 1, 6, 6), (5, 3, 1, 6, 6), (7, 2, 1, 6, 6))

CASES = {
    "tokens": Case(Tokens, (3, 6), (2, 6), (3, 8), integers=(10,), gain=2.0),
    "tokens at once": Case(TokensAtOnce, (3, 6), (2, 6), (3, 5), integers=(10,)),
    "Conv1d": Case(Conv1dNet, (6, 2, 2, 8), (6, 3, 2, 8), (8, 2, 2, 8), gain=3.0),
    "convolutional blocks": Case(ConvBlocks, (5, 2, 2, 6, 6), (5, 3, 2, 6, 6), (7, 2, 2, 6, 6), gain=5.0),
    "Conv3d over time": Case(Conv3dNet, (2, 1, 6, 4, 4), (3, 1, 6, 4, 4), (2, 1, 8, 4, 4), gain=3.0),
    "Conv3d per step": Case(Volumes, (2, 5, 1, 4, 4, 4), (3, 5, 1, 4, 4, 4), (2, 7, 1, 4, 4, 4), gain=2.0),
    "ConvTranspose2d": Case(UpAndDown, *IMAGES, gain=3.0),
    "Upsample and PixelShuffle": Case(Upsampled, *IMAGES, gain=3.0),
    "LayerNorm and GroupNorm": Case(Norms, *IMAGES),
    "norm between loops": Case(NormInTime, *BATCH, gain=3.0),
    "activations": Case(Activations, *LONG, gain=4.0),
    "Bilinear": Case(BilinearPair, ((6, 3, 4), (6, 3, 3)), ((6, 2, 4), (6, 2, 3)), ((8, 3, 4), (8, 3, 3))),
    "RNNCell in front": Case(RnnCellInFront, *LONG, gain=4.0),
    "LSTM after the loop": Case(LstmAfterLoop, *BATCH),
    "GRU before the loop": Case(GruBeforeLoop, *LONG, gain=4.0),
    "attention after the loop": Case(AttentionAfterLoop, *BATCH),
    "Conv1d over recorded time": Case(ConvInTime, *LONG),
    "Conv1d stem over time": Case(DilatedStem, (3, 4, 6), (2, 4, 6), (3, 4, 8), gain=3.0),
    "residual convolutions": Case(ResidualConv, (2, 1, 6, 6), (3, 1, 6, 6), gain=3.0),
    "norse convolutions": Case(NorseConvNet, *LARGER, scale=40.0),
}
