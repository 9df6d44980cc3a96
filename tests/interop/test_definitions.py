"""Networks that come with the installed packages: each converts and computes the same, or says why not."""

import copy
import dataclasses
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import pytest
import torch
from helpers.compare import VALUE_TOLERANCE, difference, tensors_of
from helpers.float64 import doubled, float_is_double
from norse.task.speech_commands import model as speech
from norse.torch.models import conv, mobilenet, vgg
from norse.torch.module.leaky_integrator import LILinearCell
from torch import nn

from snnax_interop import InteropError, from_torch


pytestmark = pytest.mark.full


@dataclasses.dataclass(frozen=True)
class Definition:
    """A network and the shape of its input, and the refusal where it has one."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    scale: float = 20.0
    refusal: str = ""
    spikes: bool = True


CELLS = norse.LIFParameters(v_th=torch.as_tensor(0.2))


NO_NEURON = "no neuron that is stepped through time was found"
RANDOM = r"torch\.rand draws random numbers inside forward(?s:.*)encode inputs \(rate coding\) before the network"


def vgg_of(batch_norm: bool) -> nn.Module:
    """A VGG with few channels, and few of the 4096 units of its classifier, whose 120 million weights take minutes."""
    network = vgg.VGG(vgg.make_layers([8, "M", 16], batch_norm), 10, init_weights=False)
    sizes = {0: (16 * 7 * 7, 32), 3: (32, 32), 6: (32, 10)}
    for place, size in sizes.items():
        network.classifier[place] = norse.Lift(nn.Linear(*size))
    network._initialize_weights()
    return network


DEFINITIONS = {
    "ConvNet": Definition(lambda: conv.ConvNet(1, 32), (3, 2, 1, 32, 32)),
    "ConvNet4": Definition(lambda: conv.ConvNet4(1, 32), (3, 2, 1, 32, 32)),
    "VGG": Definition(lambda: vgg_of(False), (2, 1, 3, 32, 32)),
    "VGG with norms": Definition(lambda: vgg_of(True), (2, 1, 3, 32, 32)),
    "speech, LIF": Definition(lambda: speech.lif_model(8, 5, 3), (3, 2, 5)),
    "speech, LSNN": Definition(lambda: speech.lsnn_model(8, 5, 3), (3, 2, 5)),
    "speech, LSTM": Definition(lambda: speech.LSTMModel(8, 5, 3), (3, 2, 5), refusal=NO_NEURON),
    "lifted layer": Definition(lambda: norse.Lift(nn.Conv2d(1, 3, 3)), (3, 2, 1, 8, 8), spikes=False),
    "lifted cell": Definition(lambda: norse.Lift(norse.LIFCell(p=CELLS)), (4, 2, 5)),
    "lifted network": Definition(
        lambda: norse.Lift(
            norse.SequentialState(
                nn.Conv2d(1, 4, 5),
                norse.LIFCell(p=CELLS),
                nn.MaxPool2d(4),
                nn.Conv2d(4, 6, 3),
                nn.BatchNorm2d(6),
                norse.LIFCell(p=CELLS),
                nn.Flatten(),
                nn.Linear(150, 10),
                norse.LICell(),
            )
        ),
        (4, 2, 1, 32, 32),
    ),
    "lifted layers in a row": Definition(
        lambda: nn.Sequential(norse.Lift(nn.Linear(5, 6)), norse.Lift(norse.LIFCell(p=CELLS))), (4, 2, 5)
    ),
    "LILinearCell lifted": Definition(lambda: Readout(), (4, 2, 5)),
    "LIF": Definition(lambda: nn.Sequential(norse.Lift(nn.Linear(5, 3)), norse.LIF()), (3, 2, 5)),
    "RecurrentSequential": Definition(
        lambda: norse.Lift(norse.RecurrentSequential(nn.Linear(5, 5), norse.LIFCell(p=CELLS))), (4, 2, 5)
    ),
    "ConstantCurrentLIFEncoder": Definition(lambda: norse.ConstantCurrentLIFEncoder(5), (2, 5), spikes=False),
    "SpikeLatencyLIFEncoder": Definition(lambda: norse.SpikeLatencyLIFEncoder(5), (2, 5), spikes=False),
    "PopulationEncoder": Definition(lambda: norse.PopulationEncoder(5), (2, 5), refusal=NO_NEURON),
    "PoissonEncoder": Definition(lambda: norse.PoissonEncoder(5), (2, 5), refusal=RANDOM),
    "SignedPoissonEncoder": Definition(lambda: norse.SignedPoissonEncoder(5), (2, 5), refusal=RANDOM),
}


class Readout(nn.Module):
    """Norse's LILinearCell behind a spiking layer."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = norse.LIFCell(p=CELLS), LILinearCell(5, 3)

    def forward(self, x):
        s1 = s2 = None
        voltages = []
        for xt in x:
            z, s1 = self.cell(xt, s1)
            v, s2 = self.out(z, s2)
            voltages.append(v)
        return torch.stack(voltages)


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    definition = DEFINITIONS[name]
    torch.manual_seed(0)
    module = definition.make().eval()
    return module, torch.rand(definition.shape) * definition.scale


@pytest.mark.parametrize("name", [name for name, each in DEFINITIONS.items() if not each.refusal])
def test_a_network_of_a_package_converts_and_computes_the_same(name):
    module, x = made(name)
    converted = from_torch(module, x)
    other = torch.rand(x.shape, dtype=torch.float64) * DEFINITIONS[name].scale
    with torch.no_grad(), float_is_double():
        double = doubled(module)
        for child in double.modules():
            if getattr(child, "dtype", None) == torch.float32:  # ConvNet makes its result in the dtype that it is told
                child.dtype = torch.float64
        expected = [each.numpy() for each in tensors_of(double(other))]
    with jax.enable_x64(True):
        run = jax.jit(lambda x: (converted.astype("float64")(x), converted.astype("float64").spikes(x)))
        outputs, spikes = run(jnp.asarray(other.numpy()))
        found = [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)]
        assert any(bool(each.any()) for each in spikes.values()) == DEFINITIONS[name].spikes
    assert len(found) == len(expected)
    assert max(map(difference, expected, found)) <= VALUE_TOLERANCE


@pytest.mark.parametrize("name", [name for name, each in DEFINITIONS.items() if each.refusal])
def test_a_network_of_a_package_is_refused_with_the_reason(name):
    module, x = made(name)
    with pytest.raises(InteropError, match=DEFINITIONS[name].refusal):
        from_torch(module, x / DEFINITIONS[name].scale)


def test_what_fails_in_norse_itself_comes_through():
    """Its residual blocks add a tensor to a tuple of output and state."""
    net = mobilenet.MobileNetV2(num_classes=5, width_mult=0.25).eval()
    x = torch.rand(2, 1, 3, 32, 32)
    for run in (net, lambda x: from_torch(net, x)):
        with pytest.raises(TypeError, match="can only concatenate tuple"):
            run(x)


def test_a_refused_network_is_left_as_it_was():
    module, x = made("speech, LSTM")
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(InteropError):
        from_torch(module, x)
    assert all(torch.equal(each, before[key]) for key, each in module.state_dict().items())


def test_the_spiking_resnet_of_spikingjelly(monkeypatch):
    """All of its time steps are one model. torchvision, of which it takes addresses of weights, may be absent."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        stub: Any = types.ModuleType(name)
        stub.__path__, stub.load_state_dict_from_url = [], None
        monkeypatch.setitem(sys.modules, name, stub)
    functional, neuron, surrogate, resnet = (
        importlib.import_module(f"spikingjelly.activation_based.{name}")
        for name in ("functional", "neuron", "surrogate", "model.spiking_resnet")
    )
    monkeypatch.delitem(sys.modules, resnet.__name__)
    torch.manual_seed(0)
    options = {"spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan(), "num_classes": 5}
    # With one block in the place of two; spiking_resnet18 itself takes four times as long.
    module = resnet.SpikingResNet(resnet.BasicBlock, [1, 1, 1, 1], **options)
    functional.set_step_mode(module.eval(), "m")
    for each in module.modules():
        if isinstance(each, neuron.IFNode):
            each.v_threshold = 0.2
    converted = from_torch(module, torch.rand(2, 1, 3, 8, 8) * 4)
    assert len([row for row in converted.report.modules if row.source == "spikingjelly.IFNode"]) == 9
    assert "equivalence in float64: ok" in converted.report.verification
    assert converted.plan.loops[0].num_steps(2) == 2
