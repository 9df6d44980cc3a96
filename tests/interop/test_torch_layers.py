"""Every layer of torch.nn that is taken whole, in a network with neurons behind it, with options off their defaults."""

from collections.abc import Callable
from typing import Any

import pytest
import snntorch
import torch
from test_convert import assert_same
from torch import nn

from snnax_interop import UnsupportedOptionError, from_torch
from snnax_interop.frameworks.pytorch import LEAVES


BATCH, STEPS = 2, 5
VECTOR, SIGNAL, IMAGE, VOLUME = (6,), (4, 9), (4, 6, 8), (4, 5, 4, 6)
SPACE = {1: SIGNAL, 2: IMAGE, 3: VOLUME}

# Class, constructor arguments and options, shape of one sample.
ROWS: list[tuple[type, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    (nn.Linear, (6, 5), {}, VECTOR),
    (nn.Linear, (9, 5), {"bias": False}, SIGNAL),
    (nn.Embedding, (7, 5), {"padding_idx": 2}, (3,)),
    (nn.LayerNorm, ([6, 8],), {"eps": 1e-3}, IMAGE),
    (nn.LayerNorm, (6,), {"bias": False}, VECTOR),
    (nn.LayerNorm, (6,), {"elementwise_affine": False}, VECTOR),
    (nn.GroupNorm, (2, 4), {"eps": 1e-3}, IMAGE),
    (nn.GroupNorm, (3, 6), {"affine": False}, VECTOR),
    (nn.Dropout, (0.5,), {}, VECTOR),
    (nn.AlphaDropout, (0.5,), {}, VECTOR),
    (nn.Identity, (), {}, VECTOR),
    (nn.Flatten, (), {}, IMAGE),
    (nn.Flatten, (2,), {}, IMAGE),
    (nn.Unflatten, (1, (2, 3)), {}, VECTOR),
    (nn.Upsample, ((9, 5),), {"mode": "bilinear"}, IMAGE),
    (nn.Upsample, (), {"scale_factor": 2.0}, IMAGE),
    (nn.PixelShuffle, (2,), {}, IMAGE),
    (nn.PixelUnshuffle, (2,), {}, IMAGE),
    (nn.PReLU, (4,), {}, IMAGE),
    (nn.PReLU, (), {"init": 0.4}, VECTOR),
    (nn.Softmax, (), {"dim": 1}, IMAGE),
    (nn.Softmin, (), {"dim": -1}, IMAGE),
    (nn.LogSoftmax, (), {"dim": 1}, VECTOR),
    (nn.GLU, (), {"dim": 1}, VECTOR),
    (nn.LeakyReLU, (0.3,), {}, VECTOR),
    (nn.ELU, (0.7,), {}, VECTOR),
    (nn.CELU, (0.7,), {}, VECTOR),
    (nn.GELU, (), {"approximate": "tanh"}, VECTOR),
    (nn.Softplus, (2.0, 1.0), {}, VECTOR),
    (nn.Softshrink, (0.2,), {}, VECTOR),
    (nn.Hardshrink, (0.2,), {}, VECTOR),
    (nn.Hardtanh, (-0.5, 0.8), {}, VECTOR),
    (nn.Threshold, (0.1, 0.3), {}, VECTOR),
    *((kind, (), {}, VECTOR) for kind in (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish)),
    *((kind, (), {}, VECTOR) for kind in (nn.Hardsigmoid, nn.Softsign, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid)),
    (nn.Tanh, (), {}, VECTOR),
]
for n, shape in SPACE.items():

    def kind(name: str, n: int = n) -> type:
        return getattr(nn, f"{name}{n}d")

    ROWS += [
        (kind("Conv"), (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, shape),
        (kind("Conv"), (4, 3, 2), {"padding": "same", "dilation": 2, "bias": False}, shape),
        *((kind("Conv"), (4, 3, 3), {"padding": 1, "padding_mode": mode}, shape) for mode in ("circular", "reflect")),
        (kind("Conv"), (4, 3, 3), {"padding": "same", "padding_mode": "replicate"}, shape),
        (kind("ConvTranspose"), (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, shape),
        (kind("MaxPool"), (3, 2, 1), {"ceil_mode": True}, shape),
        (kind("AvgPool"), (3, 2, 1), {"count_include_pad": False}, shape),
        (kind("AdaptiveAvgPool"), (2,), {}, shape),
        (kind("BatchNorm"), (4,), {"eps": 1e-3}, shape),
        (kind("InstanceNorm"), (4,), {"eps": 1e-3}, shape),
        (kind("InstanceNorm"), (4,), {"affine": True, "track_running_stats": True}, shape),
        (kind("Dropout"), (0.5,), {}, shape),
        (kind("ZeroPad"), (1,), {}, shape),
        (kind("ConstantPad"), ((2, -1, *(0, 1) * (n - 1)), 0.7), {}, shape),
        *((kind(f"{name}Pad"), ((2, 1) * n,), {}, shape) for name in ("Reflection", "Replication", "Circular")),
    ]


class Network(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.negative = "Log" in type(layer).__name__  # the current that wakes the neurons is positive
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem = self.lif.init_leaky()
        spikes, mems = [], []
        for step in range(x.shape[1]):
            current = self.layer(x[:, step])
            spike, mem = self.lif(-current if self.negative else current, mem)
            spikes.append(spike)
            mems.append(mem)
        return torch.stack(spikes), torch.stack(mems)


def network(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = Network(build()).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.layer.state_dict().items():
        if "running" in name or ("Norm" in type(module.layer).__name__ and tensor.is_floating_point()):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def inputs(kind: type, shape: tuple[int, ...], batch: int, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    if kind is nn.Embedding:
        return torch.randint(0, 7, (batch, steps, *shape), generator=generator)
    return torch.randn(batch, steps, *shape, generator=generator)


def shown(row):
    kind, args, options, _ = row
    return f"{kind.__name__}({', '.join([*map(str, args), *(f'{key}={value}' for key, value in options.items())])})"


def test_every_layer_that_is_taken_has_a_row():
    assert {kind for kind, *_ in ROWS} == set(LEAVES)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=shown)
def test_a_layer_computes_what_torch_does(row):
    kind, args, options, shape = row
    module = network(lambda: kind(*args, **options))
    converted = from_torch(module, (inputs(kind, shape, BATCH, STEPS),))
    assert_same(module, converted, (inputs(kind, shape, BATCH + 1, STEPS + 2),))


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (lambda: nn.Embedding(7, 5, max_norm=1.0), (3,), r"Embedding\(max_norm=1.0\)"),
        (lambda: nn.Softmax(), VECTOR, r"Softmax\(dim=None\).*name it"),
        (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE, "Upsample.mode='bicubic'"),
        (lambda: nn.InstanceNorm2d(4, track_running_stats=True).train(), IMAGE, "evaluation"),
        (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "running statistics"),
    ],
)
@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
def test_what_has_no_counterpart_is_refused_with_its_path(build, shape, message):
    module = Network(build())
    kind = nn.Embedding if isinstance(module.layer, nn.Embedding) else nn.Module
    with pytest.raises(UnsupportedOptionError, match=message) as caught:
        from_torch(module, (inputs(kind, shape, BATCH, STEPS),))
    assert caught.value.path == "layer"
