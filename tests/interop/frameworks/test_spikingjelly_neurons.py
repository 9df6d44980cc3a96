"""Every neuron and surrogate of SpikingJelly 2.0 with every option against the installed class, in both step modes."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.conversion import without_comparison
from helpers.side_by_side import SideBySide, by_group, first_of_each, groups
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snnax.surrogate import ATan, Relaxed
from snnax_interop import (
    RecordingError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    check_equivalence,
    from_torch,
    hidden_states,
    state_dict,
    to_jax,
)
from snnax_interop.converters.context import ConversionContext
from snnax_interop.converters.neuron import neuron_of
from snnax_interop.converters.parameters import Weights
from snnax_interop.frameworks.spikingjelly import FRAMEWORK
from snnax_interop.nodes.call import Form


pytestmark = pytest.mark.full


N = 6


class Network(nn.Module):
    """A layer, the neuron under test, and a readout: spikes of all steps, and the memories after the last."""

    def __init__(self, under_test: nn.Module, layer: nn.Module, readout: nn.Module):
        super().__init__()
        self.layer, self.neuron, self.readout = layer, under_test, readout

    @property
    def in_steps(self):
        return self.neuron.step_mode == "s"

    def start(self, x):
        functional.reset_net(self)

    def step(self, x, state):
        return (self.neuron(self.layer(x)),), None

    def finish(self, outs, state):
        (spikes,) = outs
        return self.readout(spikes), [value for value in self.neuron._memories.values() if torch.is_tensor(value)]

    def forward(self, x):
        functional.reset_net(self)
        if self.neuron.step_mode == "m":
            spikes = self.neuron(self.layer(x))
        else:
            spikes = torch.stack([self.neuron(self.layer(x[t])) for t in range(x.shape[0])])
        return self.readout(spikes), [value for value in self.neuron._memories.values() if torch.is_tensor(value)]


@dataclasses.dataclass(frozen=True)
class Case:
    """A neuron of a class with options; `set_later` sets attributes that the constructor of a class has not."""

    kind: type
    options: dict[str, Any]
    mode: str = "s"
    set_later: dict[str, Any] = dataclasses.field(default_factory=dict)
    surprise: str = ""
    spikes: bool = True
    train: bool = True

    def build(self) -> nn.Module:
        torch.manual_seed(5)
        under_test = self.kind(**copy.deepcopy(self.options))
        for name, value in self.set_later.items():
            setattr(under_test, name, value)
        under_test.step_mode = self.mode
        return Network(under_test, nn.Linear(4, N), nn.Linear(N, 3)).train(self.train)

    def inputs(self, seed: int, steps: int = 8, batch: int = 3) -> tuple[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(steps, batch, 4, generator=generator) * 6 - 1.5,)


CASES: dict[str, Case] = {}


def add(name: str, kind: type, modes: str = "s", **extra: Any) -> Callable[..., None]:
    """Adds cases with the options of each; `extra` is for the case. The step mode does not change what is built."""

    def cases(**options: dict[str, Any]) -> None:
        for label, given in options.items():
            for mode in modes:
                CASES[f"{name} {label} {mode}"] = Case(kind, given, mode, **extra)

    return cases


BASES: dict[str, tuple[type, dict[str, Any]]] = {
    "IF": (neuron.IFNode, {}),
    "LIF": (neuron.LIFNode, {"tau": 1.7}),
    "PLIF": (neuron.ParametricLIFNode, {"init_tau": 1.7}),
    "QIF": (neuron.QIFNode, {}),
    "EIF": (neuron.EIFNode, {"tau": 10.0}),  # with shorter ones, membranes that are not set back overflow
    "Izhikevich": (neuron.IzhikevichNode, {"a": 0.3, "b": 0.2}),
    "KLIF": (neuron.KLIFNode, {}),
    "TernaryIF": (neuron.TernaryIFNode, {}),
    "TernaryLIF": (neuron.TernaryLIFNode, {"tau": 1.7}),
    "RAF": (neuron.RAFNode, {}),
    "CUBA": (neuron.CUBALIFNode, {}),
}
ZERO = {"IF", "LIF", "KLIF", "TernaryIF", "CUBA"}  # where a reset to zero is written in another way
for name, (kind, given) in BASES.items():
    later = {"detach_reset": True, "store_v_seq": True} if name == "CUBA" else {}
    options = {} if name == "CUBA" else {"detach_reset": True, "store_v_seq": True}
    add(name, kind)(soft={**given, "v_reset": None, "surrogate_function": surrogate.ATan(3.0)})
    add(name, kind, "sm", set_later=later)(
        **{"value, detached": {**given, **options, "v_threshold": 0.7, "v_reset": -0.2}}
    )
    if name in ZERO:
        add(name, kind)(zero={**given, "v_threshold": 0.8, "v_reset": 0.0})
for name in ("LIF", "PLIF", "KLIF", "TernaryLIF"):
    kind, given = BASES[name]
    add(name, kind)(**{"whole input": {**given, "decay_input": False, "v_reset": 0.1}})
add("LIF", neuron.LIFNode)(**{"whole input, soft": {"decay_input": False, "v_reset": None, "detach_reset": True}})
add("QIF", neuron.QIFNode)(
    parameters={"tau": 3.0, "v_c": 0.6, "a0": 0.9, "v_rest": 0.05, "v_threshold": 0.7, "v_reset": -0.1}
)
add("EIF", neuron.EIFNode)(
    parameters={"tau": 3.0, "delta_T": 0.8, "theta_rh": 0.5, "v_rest": 0.05, "v_threshold": 0.7, "v_reset": -0.1}
)
add("Izhikevich", neuron.IzhikevichNode)(
    parameters={
        "tau": 3.0, "v_c": 0.6, "a0": 0.9, "v_rest": 0.05, "w_rest": 0.1, "tau_w": 5.0, "a": 0.4, "b": 0.3,
        "v_reset": -0.1,
    },
    defaults={},
)  # fmt: skip
add("KLIF", neuron.KLIFNode)(
    **{
        "scaled": {"scale_reset": True, "tau": 1.7, "v_threshold": 0.6},
        "scaled, soft": {"scale_reset": True, "v_reset": None, "v_threshold": 0.6},
    }
)
add("RAF", neuron.RAFNode)(parameters={"b": -0.5, "omega": 2.0, "dt": 0.5, "v_threshold": 0.4})
add("CUBA", neuron.CUBALIFNode)(parameters={"c_decay": 0.3, "v_decay": 1.1, "v_threshold": 0.9, "v_reset": 0.2})
add("HalfThreshold", neuron.HalfThresholdIFNode)(plain={})
add("HalfThreshold", neuron.HalfThresholdIFNode, "sm")(
    detached={"v_threshold": 0.6, "detach_reset": True, "store_v_seq": True}
)
add("ILIF", neuron.ILIFNode)(plain={})
add("ILIF", neuron.ILIFNode, "sm")(
    counts={
        "tau": 2.5, "v_threshold": 0.4, "detach_reset": True, "store_v_seq": True,
        "surrogate_function": surrogate.MultiLevelSpikeCount(3, grad_window=(-0.5, 3.5)),
    },
)  # fmt: skip
add("CLIF", neuron.ComplementaryLIFNode)(plain={})
add("CLIF", neuron.ComplementaryLIFNode, "sm")(
    parameters={"tau": 1.5, "v_threshold": 0.6, "surrogate_function": surrogate.Sigmoid(), "store_state_seqs": True},
)
add("CLIF", neuron.ComplementaryLIFNode, train=False, surprise="its spikes have no gradient")(evaluated={})
for name, act in (("function", torch.tanh), ("module", nn.LeakyReLU(0.2))):
    for related in (False, True):
        given = {"act": act, "threshold_related": related, "tau": 1.7, "v_reset": -0.1}
        label = f"LIAF {name} {'above threshold' if related else 'of the membrane'}"
        CASES[f"{label} s"] = Case(neuron.LIAFNode, given, "s", spikes=False)
        CASES[f"{label} m"] = Case(neuron.LIAFNode, {**given, "store_v_seq": True}, "m", spikes=False)
CASES["LIAF spikes m"] = Case(
    neuron.LIAFNode,
    {"act": torch.relu, "threshold_related": True, "v_threshold": 0.6},
    "m",
    surprise="its output is spikes and not act",
)
add("SynapseFilter", layer.SynapseFilter, "sm", spikes=False)(
    fixed={"tau": 3.0}, learned={"tau": 2.5, "learnable": True}
)


def kind_of(name: str) -> Hashable:
    """What networks have in common that are compared together."""
    case = CASES[name]
    return case.kind, case.spikes, case.train


FIRST = first_of_each(CASES, lambda name: CASES[name].kind)
by_class = pytest.mark.parametrize("name", FIRST)
by_options = by_group(groups(CASES, kind_of))


def build(names: tuple[str, ...]) -> nn.Module:
    nets = {name: CASES[name].build() for name in names}
    return nets[names[0]] if len(nets) == 1 else SideBySide(nets)


def path_of(name: str, names: tuple[str, ...]) -> str:
    return "neuron" if len(names) == 1 else f"nets.{name}.neuron"


@functools.cache
def converted(names: tuple[str, ...]) -> tuple[nn.Module, Any, list[str]]:
    """The module of some cases, its conversion, and the warnings: nothing is converted twice."""
    module = build(names)
    # What is alone is one of each class, and compared by the conversion too.
    compared = contextlib.nullcontext() if len(names) == 1 else without_comparison()
    with warnings.catch_warnings(record=True) as caught, compared:
        warnings.simplefilter("always", UserWarning)
        found = from_torch(module, CASES[names[0]].inputs(0))
    return module, found, [str(each.message) for each in caught]


def assert_same(names: tuple[str, ...]) -> None:
    """Spikes, states and gradients are those of SpikingJelly."""
    module, found, _ = converted(names)
    report = check_equivalence(module, found, CASES[names[0]].inputs(1, steps=11, batch=2))
    report.raise_if_failed()
    assert not report.silent
    assert bool(report.spikes) == CASES[names[0]].spikes
    states = {each.name for each in report.comparisons if each.kind == "final state"}
    fields = {name: neuron_of(FRAMEWORK.converters[CASES[name].kind]).fields for name in names}
    assert states == {f"{path_of(name, names)}.{field}" for name in names for field in fields[name]}


@by_class
def test_a_class_has_the_spikes_states_and_gradients_of_spikingjelly(name):
    assert_same((name,))


@by_options
def test_all_options_have_the_spikes_states_and_gradients_of_spikingjelly(names):
    assert_same(names)


@by_options
def test_what_would_surprise_is_said_in_a_warning_and_nothing_else(names):
    _, found, messages = converted(names)
    for name in names:
        surprise = CASES[name].surprise
        said = [message for message in messages if message.startswith(f"at '{path_of(name, names)}': ")]
        assert len(said) == (1 if surprise else 0)
        assert all(surprise in message for message in said)
    assert len(messages) == sum(bool(CASES[name].surprise) for name in names)
    assert not any("continues" in note for note in found.report.notes)


@by_options
def test_weights_go_back_strictly_and_into_a_module_rebuilt_from_code(names):
    module, found, _ = converted(names)
    scaled = {key: value * 1.01 for key, value in found.parameters.items()}
    changed = eqx.tree_at(lambda converted: converted.parameters, found, scaled)
    rebuilt = build(names)
    rebuilt.load_state_dict(state_dict(changed), strict=True)
    given = dict(module.state_dict())
    assert list(given) == list(rebuilt.state_dict())
    for key, value in rebuilt.state_dict().items():
        torch.testing.assert_close(value, given[key] * 1.01)


class Bare(nn.Module):
    """The neuron alone, so that nothing rounds."""

    def __init__(self, under_test: nn.Module):
        super().__init__()
        self.gain, self.neuron = nn.Parameter(torch.ones(())), under_test

    def forward(self, x):
        functional.reset_net(self)
        spikes, membranes = [], []
        for t in range(x.shape[0]):
            spikes.append(self.neuron(x[t] * self.gain))
            membranes.append(self.neuron.v)
        return torch.stack(spikes), torch.stack(membranes)


EXACT = {
    "IF": neuron.IFNode(),
    "IF soft": neuron.IFNode(v_reset=None),
    "LIF": neuron.LIFNode(),
    "LIF of three": neuron.LIFNode(tau=3.0, v_reset=0.25),
    "LIF whole input": neuron.LIFNode(decay_input=False, v_reset=None),
    "CUBA": neuron.CUBALIFNode(v_threshold=1.0, v_decay=0.5),
    "Ternary": neuron.TernaryIFNode(),
    "HalfThreshold": neuron.HalfThresholdIFNode(),
    "ILIF": neuron.ILIFNode(tau=2.0),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_membrane_on_the_threshold_spikes_in_float32(name):
    module = Bare(EXACT[name])
    x = torch.tensor(
        [[[0.5, 1.0, 2.0, -1.0]], [[0.5, 1.0, 1.0, 0.25]], [[0.75, 1.5, 0.0, 2.0]], [[1.0, -1.0, 2.0, 1.0]]]
    )
    found = from_torch(module, (x,))(to_jax(x))
    with torch.no_grad():
        spikes, membranes = module(x)
    if name == "IF":
        assert spikes[0, 0].tolist() == [0, 1, 1, 0]
    assert spikes.any()
    np.testing.assert_array_equal(found[0], spikes.numpy())
    np.testing.assert_array_equal(found[1], membranes.numpy())


# Surrogates

SURROGATES = {
    "Sigmoid": surrogate.Sigmoid(3.0),
    "ATan": surrogate.ATan(3.0),
    "PiecewiseQuadratic": surrogate.PiecewiseQuadratic(0.8),
    "PiecewiseExp": surrogate.PiecewiseExp(1.5),
    "SoftSign": surrogate.SoftSign(3.0),
    "SuperSpike": surrogate.SuperSpike(0.7),
    "Erf": surrogate.Erf(1.5),
    "Rect": surrogate.Rect(0.5),
    "LeakyKReLU": surrogate.LeakyKReLU(0.2, 0.7),
    "PiecewiseLeakyReLU": surrogate.PiecewiseLeakyReLU(0.6, 0.1),
    "NonzeroSignLogAbs": surrogate.NonzeroSignLogAbs(2.0),
    "QPseudoSpike": surrogate.QPseudoSpike(2.5),
    "S2NN": surrogate.S2NN(3.0, 0.7),
    "SquarewaveFourierSeries": surrogate.SquarewaveFourierSeries(3, 6.0),
    "SquarewaveFourierSeries of no wave": surrogate.SquarewaveFourierSeries(1),
    "LogTailedReLU": surrogate.LogTailedReLU(0.3),
    "FakeNumericalGradient": surrogate.FakeNumericalGradient(0.6),
    "DeterministicPass": surrogate.DeterministicPass(),
    "MultiLevelSpikeCount": surrogate.MultiLevelSpikeCount(3, grad_window=(-1.0, 2.0)),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_has_the_spikes_and_the_slopes_of_spikingjelly(name):
    module = SURROGATES[name]
    distances = np.concatenate([np.linspace(-4, 4, 129), [1e-3, -1e-3, 1.0, -1.0, 30.0, -30.0]])
    x = torch.tensor(distances, requires_grad=True)
    spikes = module(x)
    (slopes,) = torch.autograd.grad(spikes.sum(), x)
    with jax.enable_x64(True):
        given = jnp.asarray(distances)
        converter = FRAMEWORK.converters[type(module)]
        context = ConversionContext(
            converter=converter,
            path="",
            module=module,
            x_shape=given.shape,
            form=Form(),
            dtype=torch.float64,
            weights=Weights(module),
        )
        found, pull = jax.vjp(converter.build(module, context), given)
        (ours,) = pull(jnp.ones_like(given))
    np.testing.assert_array_equal(found, spikes.detach().numpy())
    np.testing.assert_allclose(ours, slopes.numpy(), rtol=1e-12, atol=1e-15)
    assert spikes.any() and (slopes.any() or "no wave" in name)


class OwnNeuron(nn.Module):
    """A neuron as users write it, around a surrogate that they call."""

    def __init__(self, surrogate_function: nn.Module):
        super().__init__()
        self.fc, self.surrogate_function = nn.Linear(4, N), surrogate_function

    def forward(self, x):
        v, spikes = 0.0, []
        for t in range(x.shape[0]):
            v = 0.5 * v + self.fc(x[t])
            spikes.append(self.surrogate_function(v - 1.0))
            v = v * (1.0 - spikes[-1].detach())
        return torch.stack(spikes), v


@pytest.mark.parametrize("name", ["ATan", "SquarewaveFourierSeries", "MultiLevelSpikeCount"])
def test_a_surrogate_that_is_called_in_forward(name):
    torch.manual_seed(0)
    module = OwnNeuron(SURROGATES[name])
    found = from_torch(module, (torch.rand(8, 3, 4) * 8,))
    x = torch.rand(11, 2, 4) * 8
    report = check_equivalence(module, found, (x,))
    report.raise_if_failed()
    assert found(to_jax(x))[0].any()


def in_if(function: Any, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, N), neuron.IFNode(surrogate_function=function, step_mode="m", **options))


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + x**2)


class OwnSurrogate(nn.Module):
    """A surrogate of a user, as a module."""

    def forward(self, x):
        return Own.apply(x)


X = (torch.linspace(-1, 3, 8 * 3 * 4).reshape(8, 3, 4),)


@pytest.mark.parametrize("function", [OwnSurrogate(), Own.apply], ids=["module", "function"])
def test_a_surrogate_that_the_user_names_is_taken_and_compared(function):
    module = in_if(function)
    function = module[1].surrogate_function
    found = from_torch(module, X, surrogates={function: Relaxed(jnp.arctan)})
    check_equivalence(module, found, X).raise_if_failed()
    with pytest.raises(UnsupportedOptionError, match=r"the slope at a distance of -4\.0"):
        from_torch(module, X, surrogates={function: ATan(2.0)})
    with pytest.raises(UnsupportedOptionError, match=r"IFNode\(surrogate_function=.*name what it computes"):
        from_torch(module, X)


# The option tables


@pytest.mark.parametrize("kind", FRAMEWORK.converters, ids=lambda kind: kind.__name__)
def test_every_constructor_option_is_dealt_with(kind):
    assert set(FRAMEWORK.converters[kind].options) == set(inspect.signature(kind).parameters)


BASE = "a base class"
DRAWS = "it draws random numbers in every call"
GRADIENT = "its gradient is not that of its equations"
FEEDBACK = "it feeds back through weights of its own, for one kind of experiment"
CONVERSION = "it is a part of networks that were converted from others without spikes"
# Why a class is not converted, as in docs/coming_from_spikingjelly.md.
REFUSED = {
    **dict.fromkeys(
        (
            "BaseNode", "SimpleBaseNode", "NonSpikingBaseNode", "AdaptBaseNode", "ILCBaseNode", "MPBNBaseNode",
            "NoisyBaseNode", "NoisyILCBaseNode", "NoisyNonSpikingBaseNode", "SurrogateFunctionBase",
        ),
        BASE,
    ),
    **dict.fromkeys(
        ("NoisyCUBALIFNode", "NoisyILCCUBALIFNode", "NoisyNonSpikingIFNode", "PoissonPass", "DropConnectLinear"), DRAWS
    ),
    **dict.fromkeys(
        (
            "DSRIFNode", "DSRLIFNode", "OTTTLIFNode", "SLTTLIFNode", "OTTTSequential", "GradwithTrace", "SpikeTraceOp",
        ),
        GRADIENT,
    ),
    **dict.fromkeys(("ILCCUBALIFNode", "ILCIFNode", "ILCLIFNode"), FEEDBACK),
    **dict.fromkeys(
        ("ActivationAwareIFNode", "FewSpikeNode", "HGNode", "OutlierAwareThresholdNode", "STBIFNode"), CONVERSION
    ),
    "FlexSN": "its equations are a function of the user",
    "MPBNLIFNode": "it normalises its membrane with statistics that it changes in every time step",
    "MaxUnpool1d": "unpooling has no counterpart",
    "MaxUnpool2d": "unpooling has no counterpart",
    "MaxUnpool3d": "unpooling has no counterpart",
    "TLastSeqToANNContainer": "it runs under torch.vmap, where no call can be recorded",
}  # fmt: skip


def public(module: Any, parent: type) -> set[type]:
    kinds = {value for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")}
    package = module.__name__
    return {kind for kind in kinds if issubclass(kind, parent) and kind.__module__.startswith(package)}


MODULES = (neuron, layer, surrogate)


def is_converted(kind: type) -> bool:
    return kind in FRAMEWORK.converters or FRAMEWORK.recorded.takes(kind)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_public_class_is_converted_or_refused_for_a_reason(module):
    assert {kind.__name__ for kind in public(module, nn.Module) if not is_converted(kind)} <= set(REFUSED)


def test_no_class_is_refused_that_is_converted():
    kinds = {kind.__name__: kind for module in MODULES for kind in public(module, nn.Module)}
    assert set(REFUSED) <= set(kinds)
    assert not any(is_converted(kinds[name]) for name in REFUSED)


# Refusals


def in_sequence(under_test: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, N), under_test)


class OwnIF(neuron.IFNode):
    """A subclass, which 2.0 does not ask for its charge."""

    def neuronal_charge(self, x):
        self.v = self.v + 2 * x


def per_neuron(under_test: nn.Module, name: str) -> nn.Module:
    setattr(under_test, name, torch.linspace(0.5, 1.0, N))
    return under_test


@pytest.mark.parametrize(
    ("under_test", "match", "error"),
    [
        (OwnIF(step_mode="m"), r"at '1': OwnIF is a subclass of the neuron IFNode", UnsupportedModuleError),
        (neuron.SLTTLIFNode(), r"at '1': spikingjelly's SLTTLIFNode cannot be converted", UnsupportedModuleError),
        (
            per_neuron(neuron.IFNode(surrogate_function=surrogate.Rect(), step_mode="m"), "v_threshold"),
            r"IFNode\(v_threshold=tensor",
            UnsupportedOptionError,
        ),
        (
            per_neuron(neuron.LIFNode(surrogate_function=surrogate.Rect(), step_mode="m"), "tau"),
            r"LIFNode\(tau=tensor",
            UnsupportedOptionError,
        ),
        (
            neuron.LIFNode(surrogate_function=surrogate.ATan(spiking=False), step_mode="m"),
            r"LIFNode\(spiking=False\).*Allowed: True",
            UnsupportedOptionError,
        ),
        (
            neuron.LIFNode(surrogate_function=per_neuron(surrogate.ATan(), "alpha"), step_mode="m"),
            r"surrogate_function.alpha=tensor",
            UnsupportedOptionError,
        ),
        (neuron.LIAFNode(lambda x: 2 * x, False), r"LIAFNode\(act=.*name one of torch's", UnsupportedOptionError),
    ],
    ids=["subclass", "online", "thresholds", "taus", "spiking", "alpha", "activation"],
)
def test_what_has_no_exact_counterpart_is_refused(under_test, match, error):
    module = in_sequence(under_test)
    loop = "inside" if under_test.step_mode == "m" else "outside"
    x = X[0] if loop == "inside" else X[0][0]
    with pytest.raises(error, match=match):
        from_torch(module, (x,), loop=loop)


class ReadsSeries(nn.Module):
    """Membranes that a neuron has collected step by step."""

    def __init__(self):
        super().__init__()
        self.fc, self.neuron = nn.Linear(4, N), neuron.IFNode(store_v_seq=True)

    def forward(self, x):
        functional.reset_net(self)
        for t in range(x.shape[0]):
            self.neuron(self.fc(x[t]))
        return self.neuron.v_seq


def test_membranes_that_a_neuron_collects_step_by_step_are_refused():
    with pytest.raises(RecordingError, match="computed outside of this forward pass"):
        from_torch(ReadsSeries(), X)


class ReadsWhole(ReadsSeries):
    """Membranes of a whole sequence, and its spikes."""

    def forward(self, x):
        functional.set_step_mode(self, "m")
        functional.reset_net(self)
        spikes = self.neuron(self.fc(x))
        return spikes, self.neuron.v_seq


def test_membranes_of_a_whole_sequence_are_an_output_and_the_mode_may_be_set_in_forward():
    torch.manual_seed(0)
    module = ReadsWhole()
    found = from_torch(module, X)
    assert module.neuron.step_mode == "s" and module.neuron.v == 0.0
    check_equivalence(module, found, X).raise_if_failed()


# States


def test_a_network_that_is_never_reset_starts_anew_and_goes_on_from_the_states_of_torch():
    module = in_sequence(neuron.IzhikevichNode(step_mode="m", a=0.3, b=0.2))
    first, second = (torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(seed)) * 6 for seed in (0, 1))
    module(first)  # what it left behind is not seen
    found = from_torch(module, (first,))
    assert "1: torch continues from the last membrane at the next call unless reset" in str(found.report)
    functional.reset_net(module)
    with torch.no_grad():
        module(first)
        states = hidden_states(module)
        expected = module(second).numpy()
    assert expected.any()
    np.testing.assert_array_equal(found(to_jax(second), states=states), expected)
    _, ours = found.run(to_jax(first))
    for field in ("v", "a"):
        np.testing.assert_allclose(ours["1"][field], states["1"][field], rtol=1e-4, atol=1e-6)
    assert (np.asarray(found(to_jax(second))) != expected).any()


def test_one_call_may_be_one_time_step():
    module = in_sequence(neuron.LIFNode(v_reset=-0.3, v_threshold=0.4))
    found = from_torch(module, (8 * X[0][0],), loop="outside")
    check_equivalence(module, found, X).raise_if_failed()


class StartsElsewhere(nn.Module):
    """The membrane is set by forward, to a number or to a tensor."""

    def __init__(self, start: Any):
        super().__init__()
        self.fc, self.neuron, self.start = nn.Linear(4, N), neuron.LIFNode(v_reset=-0.2), start

    def forward(self, x):
        self.neuron.v = self.start if isinstance(self.start, float) else torch.full((x.shape[1], N), 0.7, dtype=x.dtype)
        return torch.stack([self.neuron(self.fc(x[t])) for t in range(x.shape[0])])


@pytest.mark.parametrize("start", [0.7, "tensor"])
def test_a_membrane_may_be_set_in_forward(start):
    torch.manual_seed(0)
    module = StartsElsewhere(start)
    found = from_torch(module, X)
    check_equivalence(module, found, X).raise_if_failed()


def test_the_module_is_left_as_it_was():
    module = CASES["Izhikevich value, detached m"].build()
    (x,) = CASES["Izhikevich value, detached m"].inputs(0)
    module(x)
    before = {name: id(value) for name, value in module.neuron._memories.items()}, id(module.neuron.v_seq)
    from_torch(module, (x,))
    assert before == ({name: id(value) for name, value in module.neuron._memories.items()}, id(module.neuron.v_seq))
