"""Networks as SpikingJelly's users write them, its layers and containers, and its model zoo, against torch."""

import dataclasses
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, neuron, surrogate
from torch import nn

from snnax import snn
from snnax_interop import (
    InteropError,
    RecordingError,
    UnsupportedModuleError,
    check_equivalence,
    from_torch,
    state_dict,
    to_jax,
)
from snnax_interop.frameworks.spikingjelly import _layers


pytestmark = pytest.mark.full


ATAN = surrogate.ATan()


def lif(**options: Any) -> nn.Module:
    return neuron.LIFNode(v_threshold=0.3, surrogate_function=ATAN, **options)


def in_mode(mode: str, *modules: nn.Module) -> nn.Sequential:
    net = nn.Sequential(*modules)
    functional.set_step_mode(net, mode)
    return net


class Whole(nn.Module):
    """A network that takes whole sequences, and is reset before each of them."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.net = in_mode("m", *modules)

    def forward(self, x):
        functional.reset_net(self)
        return self.net(x)


class Loop(nn.Module):
    """A network that is called once per time step; its outputs are summed up in place."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.net = in_mode("s", *modules)

    def forward(self, x):
        functional.reset_net(self)
        out = 0.0
        for t in range(x.shape[0]):
            out += self.net(x[t])
        return out / x.shape[0]


def conv_net() -> list[nn.Module]:
    return [
        layer.Conv2d(1, 3, 3, padding=1, bias=False),
        layer.BatchNorm2d(3),
        neuron.IFNode(v_threshold=0.3, surrogate_function=ATAN),
        layer.MaxPool2d(2, 2),
        layer.Flatten(),
        layer.Linear(27, 10, bias=False),
        lif(),
        layer.VotingLayer(5),
    ]


class Static(Whole):
    """The same image at every time step, and the mean of the spikes."""

    def forward(self, x):
        functional.reset_net(self)
        return self.net(x.unsqueeze(0).repeat(4, 1, 1, 1, 1)).mean(0)


class BatchFirst(Whole):
    """Event frames come as `[N, T, ...]`."""

    def forward(self, x):
        functional.reset_net(self)
        return self.net(x.transpose(0, 1)).mean(0)


class Functions(nn.Module):
    """The functions in the place of containers."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.lif, self.out = nn.Linear(8, 6), nn.BatchNorm1d(6), lif(), nn.Linear(6, 3)

    def forward(self, x):
        functional.reset_net(self)
        x = functional.seq_to_ann_forward(x, [self.fc, self.bn])
        return functional.multi_step_forward(x, (self.lif, self.out))


class OwnNode(neuron.SimpleBaseNode):
    """A neuron of one's own, by its charge."""

    def neuronal_charge(self, x):
        self.v = 0.6 * self.v + 0.8 * x


class Trace(base.MemoryModule):
    """A layer of one's own with a memory."""

    def __init__(self):
        super().__init__()
        self.register_memory("trace", 0.0)

    def single_step_forward(self, x):
        self.trace = 0.5 * self.trace + x
        return self.trace

    def multi_step_forward(self, x_seq):
        return torch.stack([self.single_step_forward(x_seq[t]) for t in range(x_seq.shape[0])])


def with_bias(module: Any, value: float) -> Any:
    nn.init.constant_(module.bias, value)
    return module


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, the shape of its input, whether its length is free, and whether neurons are among its layers.

    Gradients of what only repeats other cases in large networks are left out, for their time.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6, 3, 8)
    train: bool = False
    free: bool = True
    spikes: bool = True
    batch: int = 1
    gradients: bool = True


IMAGE = (6, 3, 1, 6, 6)


def between(module: Callable[[], nn.Module], features: int = 8) -> Callable[[], nn.Module]:
    """Spikes go into a layer, and a linear layer reads it."""
    return lambda: Whole(layer.Linear(8, 8), lif(), module(), layer.Linear(features, 4))


def first(module: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A layer on images, and a neuron behind it."""
    return lambda: Whole(module(), lif())


def attended(module: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Whole(layer.Conv2d(1, 4, 3, padding=1), layer.BatchNorm2d(4), lif(), module())


def loud(module: nn.Module) -> nn.Module:
    """A module whose normalisations put its neurons above threshold."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d):
            nn.init.constant_(child.bias, 0.6)
    return module


CASES: dict[str, Case] = {
    "whole sequences": Case(lambda: Whole(*conv_net()), IMAGE),
    "whole sequences, never reset": Case(lambda: in_mode("m", *conv_net()), IMAGE),
    "whole sequences in training": Case(lambda: Whole(*conv_net()), IMAGE, train=True),
    "step by step": Case(lambda: Loop(*conv_net()), IMAGE),
    "step by step in training": Case(lambda: Loop(*conv_net()), IMAGE, train=True),
    "static images": Case(lambda: Static(*conv_net()), IMAGE[1:], batch=0),
    "batch first": Case(lambda: BatchFirst(*conv_net()), (3, 6, 1, 6, 6), batch=0),
    "functions": Case(Functions),
    "functions in training": Case(Functions, train=True),
    "linear recurrence": Case(lambda: Whole(layer.LinearRecurrentContainer(lif(), 8, 8, step_mode="m"))),
    "linear recurrence step by step": Case(lambda: Loop(layer.LinearRecurrentContainer(lif(), 8, 8, bias=False))),
    "elementwise recurrence": Case(
        lambda: Whole(layer.ElementWiseRecurrentContainer(lif(), lambda y, x: x - 0.5 * y, step_mode="m"))
    ),
    "SeqToANNContainer in training": Case(
        lambda: Whole(layer.SeqToANNContainer(nn.Linear(8, 8), nn.BatchNorm1d(8)), lif()), train=True
    ),
    "MultiStepContainer": Case(lambda: Whole(layer.MultiStepContainer(nn.Linear(8, 8), lif()))),
    "StepModeContainer with state": Case(lambda: Whole(layer.StepModeContainer(True, "m", nn.Linear(8, 8), lif()))),
    "StepModeContainer without state": Case(
        lambda: Whole(layer.StepModeContainer(False, "m", nn.Linear(8, 8)), lif())
    ),
    "TLastMultiStepContainer": Case(
        lambda: Whole(layer.TLastMultiStepContainer(nn.Linear(8, 8), lif())), (3, 8, 6), batch=0
    ),
    "SynapseFilter": Case(between(lambda: layer.SynapseFilter(tau=2.0, learnable=True))),
    "Delay": Case(between(lambda: layer.Delay(2))),
    "Delay of nothing": Case(between(lambda: layer.Delay(0))),
    "Delay step by step": Case(lambda: Loop(layer.Linear(8, 8), lif(), layer.Delay(2), layer.Linear(8, 4))),
    "Dropout": Case(between(lambda: layer.Dropout(0.5))),
    "WSConv2d": Case(first(lambda: layer.WSConv2d(1, 3, 3)), IMAGE),
    "WSLinear": Case(first(lambda: layer.WSLinear(8, 8, gain=False))),
    "NeuNorm": Case(attended(lambda: layer.NeuNorm(4, 6, 6)), IMAGE),
    "ThresholdDependentBatchNorm": Case(
        lambda: Whole(layer.Conv2d(1, 3, 3), layer.ThresholdDependentBatchNorm2d(1.0, 0.3, 3), lif()), IMAGE
    ),
    "ThresholdDependentBatchNorm in training": Case(
        lambda: Whole(layer.Conv2d(1, 3, 3), layer.ThresholdDependentBatchNorm2d(1.0, 0.3, 3), lif()), IMAGE, train=True
    ),
    "TemporalEffectiveBatchNorm": Case(
        lambda: Whole(layer.Linear(8, 8), layer.TemporalEffectiveBatchNorm1d(6, 8), lif()), free=False
    ),
    "BatchNormThroughTime": Case(
        lambda: Whole(layer.Linear(8, 8), layer.BatchNormThroughTime1d(6, 8), lif()), free=False
    ),
    "GatedLIFNode": Case(first(lambda: neuron.GatedLIFNode(4, 1)), (4, *IMAGE[1:]), free=False),
    "GatedLIFNode, shared": Case(first(lambda: neuron.GatedLIFNode(3)), (3, *IMAGE[1:]), free=False),
    "SimpleLIFNode": Case(lambda: Loop(layer.Linear(8, 8), neuron.SimpleLIFNode(2.0, True, 0.3)), spikes=False),
    "SimpleIFNode": Case(lambda: Whole(layer.Linear(8, 8), neuron.SimpleIFNode(0.3, None)), spikes=False),
    "a node of one's own": Case(lambda: Loop(layer.Linear(8, 8), OwnNode(0.3)), spikes=False),
    "a memory of one's own": Case(between(Trace)),
    "NonSpikingLIFNode": Case(between(lambda: neuron.NonSpikingLIFNode(3.0, "mean-mem"))),
    "SpikeCountToBinary": Case(
        lambda: Whole(
            layer.Linear(8, 8), neuron.ILIFNode(), layer.SpikeCountToBinary(4), layer.Linear(8, 4),
            layer.TemporalBinSum(4),
        )
    ),
    "PSN": Case(between(lambda: with_bias(neuron.PSN(6), -0.1)), free=False),
    "MaskedPSN": Case(between(lambda: with_bias(neuron.MaskedPSN(3, 6, 0.5), -0.1)), free=False),
    "MaskedPSN, fully": Case(between(lambda: with_bias(neuron.MaskedPSN(3, 6, 1.0), -0.1)), free=False),
    "MaskedPSN step by step": Case(
        lambda: Loop(layer.Linear(8, 8), with_bias(neuron.MaskedPSN(3, 8, 1.0), -0.1)), spikes=False
    ),
    "SlidingPSN": Case(between(lambda: with_bias(neuron.SlidingPSN(3), -0.1))),
    "SlidingPSN step by step": Case(
        lambda: Loop(layer.Linear(8, 8), with_bias(neuron.SlidingPSN(3, exp_init=False), -0.1)), spikes=False
    ),
    "TemporalWiseAttention": Case(between(lambda: layer.TemporalWiseAttention(6, 2, dimension=2)), free=False),
    "MultiDimensionalAttention": Case(
        attended(lambda: layer.MultiDimensionalAttention(6, 4, 2, 2)), IMAGE, free=False, gradients=False
    ),
    "SpikeDrivenSelfAttention": Case(
        attended(lambda: layer.SpikeDrivenSelfAttention(4, 2, lif)), IMAGE, gradients=False
    ),
    **{
        kind.__name__: Case(
            lambda kind=kind: Whole(layer.Conv1d(2, 4, 1), lif(), loud(kind(4, 2, lif))), (4, 3, 2, 5)
        )
        for kind in (layer.SpikingSelfAttention, layer.TokenQKAttention, layer.ChannelQKAttention)
    },
}  # fmt: skip
for decode in (None, "last_mem", "max-mem", "max-abs-mem"):
    CASES[f"NonSpikingIFNode {decode}"] = Case(
        lambda decode=decode: Whole(layer.Linear(8, 8), lif(), layer.Linear(8, 4), neuron.NonSpikingIFNode(decode))
    )


def inputs_of(case: Case, seed: int, *, other: bool = False) -> tuple[torch.Tensor]:
    shape = list(case.shape)
    if other:
        shape[case.batch] = 2
        shape[0] += case.free and case.batch == 1
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 4,)


@pytest.mark.parametrize("name", CASES)
def test_a_network_computes_the_same(name):
    case = CASES[name]
    torch.manual_seed(0)
    module = case.make().train(case.train)
    found = from_torch(module, inputs_of(case, 0))
    others = inputs_of(case, 1, other=True)
    report = check_equivalence(module, found, others, gradients=case.gradients)
    report.raise_if_failed()
    assert bool(report.spikes) == case.spikes
    outs = found(to_jax(others[0]))
    assert any(np.asarray(out).any() for out in (outs if isinstance(outs, list) else [outs]))
    assert ("continues" in str(found.report)) == (name == "whole sequences, never reset")
    assert ("for exactly this length" in str(found.report)) == (not case.free or name == "static images")


def test_layers_over_sequences_are_one_chain_of_layers_of_one_step():
    found = from_torch(Whole(*conv_net()).eval(), inputs_of(Case(nn.Identity, IMAGE), 0))
    names = [type(each).__name__ for each in found.model.layers]
    assert isinstance(found.model, snn.Sequential)
    assert [name for name in names if name != "Call"] == ["Conv2d", "IF", "Linear", "LIF", "Voting"]


@pytest.mark.parametrize("net", [Whole, Loop])
def test_running_statistics_follow_the_batches_as_in_torch(net):
    torch.manual_seed(0)
    module = net(*conv_net()).train()
    (x,) = inputs_of(Case(nn.Identity, IMAGE), 0)
    found = from_torch(module, (x,))
    _, found = found.call_and_update(to_jax(x))
    module(x)
    for key, value in state_dict(found).items():
        torch.testing.assert_close(value, module.state_dict()[key], rtol=1e-5, atol=1e-6)
    assert module.net[1].num_batches_tracked == (1 if net is Whole else 6)


# Layers that are torch's but for their step mode


def layers(dims: int) -> list[nn.Module]:
    def of(name: str, *args: Any, **kwargs: Any) -> nn.Module:
        return getattr(layer, f"{name}{dims}d")(*args, **kwargs)

    return [
        of("Conv", 2, 4, 3, padding="same", groups=2),
        of("BatchNorm", 4),
        of("ConvTranspose", 4, 4, 3, stride=2, padding=1, output_padding=1),
        layer.GroupNorm(2, 4),
        of("ThresholdDependentBatchNorm", 1.0, 2.0, 4),
        lif(),
        of("MaxPool", 3, 2, padding=1),
        of("AvgPool", 2, 1),
        layer.Upsample(scale_factor=2),
        of("AdaptiveAvgPool", 2),
        layer.PrintShapeModule(),
        layer.Flatten(),
        layer.Linear(4 * 2**dims, 6),
        layer.VotingLayer(2),
    ]


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_layers_with_a_step_mode(dims, mode):
    torch.manual_seed(0)
    chosen = [each for each in layers(dims) if mode == "m" or "Threshold" not in type(each).__name__]
    module = (Whole if mode == "m" else Loop)(*chosen).eval()
    for child in module.modules():
        if hasattr(child, "running_mean"):
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 2.0)
    found = from_torch(module, (torch.rand(3, 2, 2, *(4,) * dims) * 4,))
    report = check_equivalence(module, found, (torch.rand(4, 3, 2, *(4,) * dims) * 4,))
    report.raise_if_failed()
    assert report.spikes


def test_all_layers_with_a_step_mode_are_tested():
    tested = {type(each) for dims in (1, 2, 3) for each in layers(dims)}
    assert set(_layers.LEAVES) - tested == {layer.Dropout, layer.Dropout2d}


# Refusals


@pytest.mark.parametrize(
    ("make", "match", "error"),
    [
        (between(lambda: layer.Dropout(0.5)), r"Dropout draws random numbers.*module\.eval\(\)", InteropError),
        (between(lambda: layer.TemporalEffectiveBatchNorm1d(6, 8)), "num_batches_tracked", InteropError),
        (between(lambda: layer.TLastSeqToANNContainer(nn.Linear(8, 8))), "TLastSeqToANNContainer cannot be converted",
         UnsupportedModuleError),
    ],
    ids=["dropout in training", "TEBN in training", "vmap"],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(make, match, error):
    torch.manual_seed(0)
    with pytest.raises(error, match=rf"(?s){match}"):
        from_torch(make().train(), (torch.rand(6, 3, 8),))


class Twice(nn.Module):
    """A layer that keeps something goes on in another loop, or is called outside of loops."""

    def __init__(self, under_test: nn.Module, again: str):
        super().__init__()
        self.fc, self.lif, self.kept, self.again = nn.Linear(8, 8), lif(), under_test, again

    def forward(self, x):
        functional.reset_net(self)
        spikes = [self.lif(self.fc(x[t])) for t in range(x.shape[0])]
        if self.again == "outside":
            return self.kept(spikes[-1])
        first = torch.stack([self.kept(each) for each in spikes])
        return torch.stack([self.kept(first[-1 - t]) for t in range(x.shape[0])])


@pytest.mark.parametrize("again", ["in another loop", "outside"])
@pytest.mark.parametrize("under_test", [layer.Delay(1), neuron.SlidingPSN(2)], ids=lambda each: type(each).__name__)
def test_a_layer_that_keeps_something_is_refused_where_it_is_not_called_in_every_step(under_test, again):
    torch.manual_seed(0)
    with pytest.raises(RecordingError, match=r"'kept' keeps what it was given from call to call"):
        from_torch(Twice(under_test, again), (torch.rand(6, 3, 8) * 4,))


# The model zoo


class _Missing(types.ModuleType):
    """In the place of a module of torchvision, which is not needed to build a network."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@pytest.fixture(scope="module")
def zoo():
    """The files of the model zoo, most of which import torchvision for the addresses of weights."""
    prefix = "spikingjelly.activation_based.model"
    names = ("torchvision", "torchvision.models", "torchvision.models.utils", "torchvision._internally_replaced_utils")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            stub = _Missing(name)
            stub.__path__ = []
            patch.setitem(sys.modules, name, stub)
        yield lambda name: importlib.import_module(f"{prefix}.{name}")
        for name in [name for name in sys.modules if name.startswith(f"{prefix}.")]:
            patch.delitem(sys.modules, name)


IF_NODE = {"spiking_neuron": neuron.IFNode, "surrogate_function": ATAN, "detach_reset": True}


def residual(file: Any, **options: Any) -> nn.Module:
    """Two blocks of a residual network of the zoo, the second with another shortcut, few channels wide."""
    shortcut = nn.Sequential(layer.Conv2d(4, 6, 1, 2, bias=False), layer.BatchNorm2d(6))
    if "cnf" in options:
        shortcut.append(neuron.IFNode(surrogate_function=ATAN))
    return nn.Sequential(
        layer.Conv2d(3, 4, 3, padding=1),
        layer.BatchNorm2d(4),
        neuron.IFNode(surrogate_function=ATAN),
        file.BasicBlock(4, 4, **options, **IF_NODE),
        file.BasicBlock(4, 6, 2, shortcut, **options, **IF_NODE),
        layer.AdaptiveAvgPool2d(1),
        layer.Flatten(),
        layer.Linear(6, 4),
    )


def vgg(file: Any) -> nn.Module:
    net = file.SpikingVGG([4, "M", 6, "M"], num_classes=4, **IF_NODE)
    net.classifier = nn.Sequential(layer.Linear(6 * 7 * 7, 4))  # its own has 120 million weights
    return net


ZOO: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]] = {
    "spiking_resnet": (lambda zoo: residual(zoo("spiking_resnet")), (3, 8, 8)),
    "sew_resnet": (lambda zoo: residual(zoo("sew_resnet"), cnf="IAND"), (3, 8, 8)),
    "spiking_vgg": (lambda zoo: vgg(zoo("spiking_vgg")), (3, 8, 8)),
    "parametric_lif_net": (
        lambda zoo: zoo("parametric_lif_net").MNISTNet(
            channels=4, spiking_neuron=neuron.ParametricLIFNode, surrogate_function=ATAN
        ),
        (1, 28, 28),
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_the_model_zoo(name, zoo):
    make, shape = ZOO[name]
    torch.manual_seed(0)
    module = make(zoo).eval()
    functional.set_step_mode(module, "m")
    for child in module.modules():
        if hasattr(child, "v_threshold"):
            child.v_threshold = 0.2
    found = from_torch(module, (torch.rand(3, 1, *shape) * 4,))
    report = check_equivalence(module, found, (torch.rand(4, 2, *shape) * 4,), gradients="resnet" not in name)
    report.raise_if_failed()
    assert report.spikes > 100
    assert len(found.blueprint.stages) == (2 if "vgg" in name else 1)  # a flatten over the sequence divides its loop
