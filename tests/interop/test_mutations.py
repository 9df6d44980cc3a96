"""Change each parameter, constant and option of a network in turn: the converted model changes likewise."""

import copy
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from helpers.compare import VALUE_TOLERANCE, difference, tensors_of
from helpers.conversion import without_comparison
from torch import nn

from snnax_interop import Converted, from_torch
from snnax_interop.runtime.slots import Frozen


pytestmark = pytest.mark.full


SHAPE = (5, 3, 5)


class Leaky(nn.Module):
    """Two Leaky layers: all options of the hidden one are given, and both outputs of it are read."""

    def __init__(self, **options):
        super().__init__()
        options = {"beta": 0.8, "threshold": 0.6} | options
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        with torch.no_grad():
            self.fc1.weight.mul_(2)
            self.fc2.weight.mul_(4)
        self.lif1 = snntorch.Leaky(**options)
        self.lif2 = snntorch.Leaky(beta=torch.linspace(0.5, 0.9, 4), threshold=0.3, learn_beta=True)

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for xt in x:
            spk1, mem1 = self.lif1(self.fc1(xt), mem1)
            _spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(torch.cat([spk1, mem1, mem2], -1))
        return torch.stack(out)


class Norse(nn.Module):
    """A LIF cell and a LI cell of Norse."""

    def __init__(self, dt=0.001, li_dt=0.001, li_tau=100.0, li_leak=0.0, **options):
        super().__init__()
        options = {"v_th": 0.2} | options
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        as_tensors = {name: torch.as_tensor(value) for name, value in options.items()}
        self.lif = norse.LIFCell(p=norse.LIFParameters(**as_tensors), dt=dt)
        leak = torch.as_tensor(li_leak)
        self.li = norse.LICell(p=norse.LIParameters(tau_mem_inv=torch.as_tensor(li_tau), v_leak=leak), dt=li_dt)

    def forward(self, x):
        s1 = s2 = None
        out = []
        for xt in 8 * x:
            z, s1 = self.lif(self.fc1(xt), s1)
            v, s2 = self.li(self.fc2(z), s2)
            out.append(torch.cat([s1.v, v], -1))
        return torch.stack(out)


class Layers(nn.Module):
    """Convolution, norms, pooling and an activation with their options."""

    def __init__(
        self, stride=1, padding=1, dilation=1, groups=1, eps=0.1, group_eps=0.2, layer_eps=0.3, num_groups=2,
        pool=2, pool_stride=2, slope=0.1, padding_mode="zeros", ceil_mode=False,
    ):  # fmt: skip
        super().__init__()
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self.conv = nn.Conv2d(2, 4, 3, **geometry, padding_mode=padding_mode)
        self.bn, self.group = nn.BatchNorm2d(4, eps=eps), nn.GroupNorm(num_groups, 4, eps=group_eps)
        self.pool = nn.MaxPool2d(pool, pool_stride, ceil_mode=ceil_mode)
        self.layer, self.act = nn.LayerNorm(4, eps=layer_eps), nn.LeakyReLU(slope)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.4)
        with torch.no_grad():
            for norm in (self.bn, self.group, self.layer):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.uniform_(-0.2, 0.4)
            self.bn.running_mean.uniform_(-0.2, 0.2)
            self.bn.running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            h = self.act(self.group(self.bn(self.conv(xt))))
            spk, mem = self.lif(self.pool(h), mem)
            out.append(self.layer(spk.mean((2, 3)) + mem.sum((2, 3))))
        return torch.stack(out)


class Readout(nn.Module):
    """A readout by hand: every number is written into `forward`."""

    def __init__(
        self, decay=0.7, gain=1.5, offset=0.2, exponent=2, axis=-1, start=1, stop=5, steps=3, low=-1.0, high=1.2,
        width=2, shift=1, begin=0.3, scale=0.5, rate=0.9, keep=4,
    ):  # fmt: skip
        super().__init__()
        self.numbers = dict(locals())
        for name in ("self", "__class__"):
            del self.numbers[name]
        self.fc, self.back = nn.Linear(5, 6), nn.Linear(6, 6)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.6)

    def forward(self, x):
        n = self.numbers
        mem = torch.full((x.size(1), 6), n["begin"])
        trace, out, total = torch.zeros(x.size(1), 6), [], 0.0
        weights = torch.linspace(0.5, n["scale"], 6)
        for t in range(x.size(0)):
            spk, mem = self.lif(n["gain"] * self.fc(x[t]) + n["offset"], mem)
            trace = n["decay"] * trace + (1 - n["decay"]) * spk * weights
            mixed = torch.roll(trace + mem.clamp(n["low"], n["high"]), n["shift"], -1) ** n["exponent"]
            total = total + n["rate"] ** t * mixed[:, n["start"] : n["stop"]].sum(1)
            out.append(torch.softmax(mixed.reshape(-1, n["width"], 6 // n["width"]), n["axis"]).flatten(1))
        for _ in range(n["steps"]):
            trace = torch.tanh(self.back(trace))
        return torch.stack(out), total, trace[:, : n["keep"]].sum(1)


class States(nn.Module):
    """States that start from a parameter and from a buffer; a number and a learnt vector for each time step."""

    def __init__(self, rates=(1.0, 0.5, 0.25, 0.125, 0.0625), start=0.1):
        super().__init__()
        self.rates = rates
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 6, bias=False)
        self.mem0 = nn.Parameter(torch.linspace(0, 1, 6))
        self.register_buffer("mem1", torch.full((6,), start))
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 1.0]))
        self.position = nn.Parameter(torch.randn(5, 6) * 0.3)
        self.frozen = nn.Parameter(torch.linspace(0.5, 1.0, 6), requires_grad=False)
        self.lif1, self.lif2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.7, threshold=0.4)

    def forward(self, x):
        mem1 = self.mem0.unsqueeze(0).expand(x.size(1), -1)
        mem2 = self.mem1.expand(x.size(1), -1)
        out = []
        for t in range(5):
            spk, mem1 = self.lif1(self.fc1(x[t]) * self.rates[t] + self.position[t], mem1)
            _spk, mem2 = self.lif2(self.fc2(spk) * self.mask + self.frozen, mem2)
            out.append(mem1 + 2 * mem2)
        return torch.stack(out)


class Shared(nn.Module):
    """One weight used twice, a recurrence, and thresholds of their own."""

    def __init__(self):
        super().__init__()
        self.fc, self.rec, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.out.weight = self.rec.weight
        self.lif = snntorch.Leaky(
            beta=0.8,
            threshold=torch.linspace(0.3, 0.8, 5),
            learn_threshold=True,
            graded_spikes_factor=0.7,
            learn_graded_spikes_factor=True,
        )

    def forward(self, x):
        mem, spk, out = self.lif.reset_mem(), torch.zeros(x.size(1), 5), []
        for xt in x:
            spk, mem = self.lif(self.fc(xt) + self.rec(spk), mem)
            out.append(self.out(spk) + mem)
        return torch.stack(out)


NETWORKS = {"leaky": Leaky, "norse": Norse, "layers": Layers, "readout": Readout, "states": States, "shared": Shared}
IMAGES = (4, 2, 2, 6, 6)


def built(name: str, **options: Any) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64, and its input; both the same whenever they are made."""
    torch.manual_seed(3)
    module = NETWORKS[name](**options).double()
    generator = torch.Generator().manual_seed(1)
    shape = IMAGES if name == "layers" else SHAPE
    return module, 2.0 * torch.rand(shape, generator=generator, dtype=torch.float64)


def torch_outputs(module: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [each.numpy().copy() for each in tensors_of(module(x))]


@eqx.filter_jit
def run(converted: Converted, x: jax.Array) -> list[jax.Array]:
    return jax.tree.leaves(converted(x))


def jax_outputs(converted: Converted, x: torch.Tensor) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in run(converted, jnp.asarray(x.numpy()))]


def assert_equal(expected: list[np.ndarray], found: list[np.ndarray]) -> None:
    assert len(expected) == len(found)
    assert max(map(difference, expected, found)) <= VALUE_TOLERANCE


def assert_other(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    """That a change shows, far above any tolerance."""
    pairs = zip(before, after, strict=True)
    assert any(a.shape != b.shape or difference(a, b) > 1e-4 for a, b in pairs), "the change has no effect in torch"


@functools.cache
def first(name: str) -> tuple[nn.Module, torch.Tensor, Converted, list[np.ndarray]]:
    """A network, its input, its conversion, and what it computes."""
    module, x = built(name)
    converted = from_torch(module, x)
    found = torch_outputs(module, x)
    assert_equal(found, jax_outputs(converted, x))
    return module, x, converted, found


# Buffers of snnTorch and of batch normalisation that no forward pass in evaluation mode reads.
UNREAD = ("mem", "reset_mechanism_val", "num_batches_tracked", "graded_spikes_factor")


def tensor_names(name: str) -> list[str]:
    module, _ = built(name)
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    learnt = {key for key, each in module.named_parameters() if each.requires_grad}
    return [key for key in named if key in learnt or key.rsplit(".", 1)[-1] not in UNREAD]


@pytest.fixture(autouse=True)
def double(double_precision):
    """The comparisons here are the tests' own; those of the conversion itself would take as long again."""
    with without_comparison():
        yield


TENSORS = [(name, key) for name in NETWORKS for key in tensor_names(name)]


@pytest.mark.parametrize(("name", "key"), TENSORS)
def test_a_changed_tensor_changes_the_conversion_likewise(name, key):
    module, x, converted, before = first(name)
    module = copy.deepcopy(module)
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        factor = 0.6 + 0.2 * torch.rand(named[key].shape, generator=generator, dtype=torch.float64)
        named[key].mul_(factor)
        named[key].add_(0.03)
    expected = torch_outputs(module, x)
    assert_other(before, expected)
    again = jax_outputs(from_torch(module, x), x)
    assert_equal(expected, again)
    changed = with_tensor(converted, key, named[key])
    # The same arithmetic on the same values: nothing of the first conversion was kept.
    assert_equal(again, jax_outputs(changed, x))


def with_tensor(converted: Converted, key: str, value: torch.Tensor) -> Converted:
    """A conversion with another value of one parameter or buffer."""
    key = converted.plan.canonical[key]
    array = jnp.asarray(value.detach().numpy())
    if key in converted.parameters:
        return eqx.tree_at(lambda each: each.parameters[key], converted, array)
    return eqx.tree_at(
        lambda each: each.buffers[key], converted, Frozen(array), is_leaf=lambda x: isinstance(x, Frozen)
    )


def test_a_parameter_used_twice_is_one():
    assert "out.weight" not in first("shared")[2].parameters


OPTIONS = [
    ("leaky", "beta", 0.5),
    ("leaky", "threshold", 0.9),
    ("leaky", "reset_mechanism", "zero"),
    ("leaky", "reset_mechanism", "none"),
    ("leaky", "reset_delay", False),
    ("leaky", "inhibition", True),
    ("leaky", "graded_spikes_factor", 0.6),
    ("norse", "dt", 0.002),
    ("norse", "li_dt", 0.002),
    ("norse", "li_tau", 150.0),
    ("norse", "li_leak", 0.2),
    ("norse", "v_th", 0.4),
    ("norse", "v_reset", -0.2),
    ("norse", "v_leak", 0.1),
    ("norse", "tau_mem_inv", 150.0),
    ("norse", "tau_syn_inv", 100.0),
    ("layers", "stride", 2),
    ("layers", "padding", 2),
    ("layers", "dilation", 2),
    ("layers", "groups", 2),
    ("layers", "padding_mode", "circular"),
    ("layers", "eps", 0.5),
    ("layers", "group_eps", 0.9),
    ("layers", "layer_eps", 2.0),
    ("layers", "num_groups", 4),
    ("layers", "pool", 3),
    ("layers", "pool_stride", 1),
    ("layers", "slope", 0.6),
    ("readout", "decay", 0.4),
    ("readout", "gain", 2.0),
    ("readout", "offset", -0.1),
    ("readout", "exponent", 3),
    ("readout", "axis", 1),
    ("readout", "start", 2),
    ("readout", "stop", 3),
    ("readout", "stop", -2),
    ("readout", "steps", 4),
    ("readout", "steps", 1),
    ("readout", "low", 0.4),
    ("readout", "high", 0.7),
    ("readout", "width", 3),
    ("readout", "shift", 2),
    ("readout", "begin", 0.5),
    ("readout", "scale", 1.0),
    ("readout", "rate", 0.6),
    ("readout", "keep", 3),
    ("states", "rates", (1.0, 0.5, 0.25, 0.5, 0.0625)),
    ("states", "start", 0.6),
]


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_another_option_or_number_changes_the_conversion_likewise(name, option, value):
    _, x, _, before = first(name)
    module, _ = built(name, **{option: value})
    expected = torch_outputs(module, x)
    assert_other(before, expected)
    assert_equal(expected, jax_outputs(from_torch(module, x), x))
