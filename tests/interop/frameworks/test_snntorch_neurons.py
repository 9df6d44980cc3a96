"""Every neuron of snnTorch 1.0 with every option against the installed class: spikes, states, gradients in float64."""

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
import snntorch
import torch
from helpers.conversion import without_comparison
from helpers.side_by_side import SideBySide, by_group, first_of_each, groups
from snntorch import surrogate
from snntorch.functional import quant
from torch import nn

from snnax.surrogate import ATan, Relaxed
from snnax_interop import (
    InteropError,
    RecordingError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    check_equivalence,
    from_torch,
    state_dict,
    to_jax,
)
from snnax_interop.frameworks.snntorch import FRAMEWORK


pytestmark = pytest.mark.full


N = 6


def vector(low: float, high: float, size: int = N) -> torch.Tensor:
    return torch.linspace(low, high, size)


class Network(nn.Module):
    """A layer, the neuron under test, and a readout."""

    def __init__(self, neuron: nn.Module, layer: nn.Module, readout: nn.Module):
        super().__init__()
        self.layer, self.neuron, self.readout = layer, neuron, readout

    in_steps = True

    def start(self, x):
        return self.neuron.reset_mem()

    def finish(self, outs, states):
        return outs


class Explicit(Network):
    """States are handed over by the loop, membranes come out."""

    def step(self, x, states):
        states = states if isinstance(states, tuple) else (states,)
        found = self.neuron(self.layer(x), *states)
        takes_spikes = isinstance(self.neuron, snntorch.RLeaky | snntorch.RSynaptic)
        return (self.readout(found[0]), found[-1]), found if takes_spikes else found[1:]

    def forward(self, x):
        states = self.neuron.reset_mem()
        states = states if isinstance(states, tuple) else (states,)
        takes_spikes = isinstance(self.neuron, snntorch.RLeaky | snntorch.RSynaptic)
        outs, membranes = [], []
        for t in range(x.shape[0]):
            found = self.neuron(self.layer(x[t]), *states)
            states = found if takes_spikes else found[1:]
            outs.append(self.readout(found[0]))
            membranes.append(found[-1])
        return torch.stack(outs), torch.stack(membranes)


class Hidden(Network):
    """The neuron keeps its state; only its spikes come out."""

    def step(self, x, states):
        found = self.neuron(self.layer(x))
        return (self.readout(found[0] if isinstance(found, tuple) else found),), None

    def forward(self, x):
        self.neuron.reset_mem()
        outs = []
        for t in range(x.shape[0]):
            found = self.neuron(self.layer(x[t]))
            outs.append(self.readout(found[0] if isinstance(found, tuple) else found))
        return torch.stack(outs)


class Delta(Network):
    """`DeltaLeaky` takes and returns a tuple of states."""

    def step(self, x, states):
        current = self.layer(x)
        spikes, states = self.neuron(current) if self.neuron.init_hidden else self.neuron(current, states)
        return (self.readout(spikes), states[0]), states

    def forward(self, x):
        states = self.neuron.reset_mem()
        outs, membranes = [], []
        for t in range(x.shape[0]):
            current = self.layer(x[t])
            spikes, states = self.neuron(current) if self.neuron.init_hidden else self.neuron(current, states)
            outs.append(self.readout(spikes))
            membranes.append(states[0])
        return torch.stack(outs), torch.stack(membranes)


class Sequences(Network):
    """Layers over whole sequences."""

    in_steps = False

    def forward(self, x):
        found = self.neuron(self.layer(x))
        return (self.readout(found[0]), found[1]) if isinstance(found, tuple) else self.readout(found)


@dataclasses.dataclass(frozen=True)
class Case:
    """A neuron of a class with options, in a network; `inert` parameters have no gradient in torch either."""

    kind: type
    options: dict[str, Any]
    net: type = Explicit
    image: bool = False
    size: int = N
    readout: tuple[int, ...] = (N,)
    surprise: str = ""
    inert: tuple[str, ...] = ()
    scale: float = 6.0

    def build(self) -> nn.Module:
        torch.manual_seed(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # snnTorch's own, about inhibition
            neuron = self.kind(**copy.deepcopy(self.options))  # snnTorch does not copy tensors
        layer = nn.Conv2d(1, 3, 3, padding=1) if self.image else nn.Linear(4, self.size)
        readout = nn.Flatten() if self.image else nn.Linear(*self.readout, 3)
        return self.net(neuron, layer, readout)

    def inputs(self, seed: int, steps: int = 8, batch: int = 3) -> tuple[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (steps, batch, 1, 5, 5) if self.image else (steps, batch, 4)
        return (torch.rand(shape, generator=generator) * self.scale - self.scale / 4,)


QUANT = quant.state_quant(num_bits=4, threshold=1)
RESETS = ("subtract", "zero", "none")
CASES: dict[str, Case] = {}


def add(name: str, kind: type, net: type = Explicit, **extra: Any) -> Callable[..., None]:
    """Adds cases with the options of each; `extra` is for the case."""

    def cases(**options: dict[str, Any]) -> None:
        for label, given in options.items():
            CASES[f"{name} {label}"] = Case(kind, given, net, **extra)

    return cases


BASES: dict[str, tuple[type, dict[str, Any]]] = {
    "Leaky": (snntorch.Leaky, {"beta": 0.8}),
    "Synaptic": (snntorch.Synaptic, {"alpha": 0.6, "beta": 0.8}),
    "Alpha": (snntorch.Alpha, {"alpha": 0.8, "beta": 0.6}),
    "Lapicque": (snntorch.Lapicque, {"R": 2.0, "C": 1.5}),
    "RLeaky": (snntorch.RLeaky, {"beta": 0.8, "linear_features": N}),
    "RSynaptic": (snntorch.RSynaptic, {"alpha": 0.6, "beta": 0.8, "linear_features": N}),
    "SLSTM": (snntorch.SLSTM, {"input_size": N, "hidden_size": N, "threshold": 0.1}),
}
LAPICQUE = "decays by 1 - time_step / (R C)"
for name, (kind, base) in BASES.items():
    low = 0.05 if name == "SLSTM" else 0.5
    thresholds = {"threshold": vector(low, 3 * low), "learn_threshold": True}
    for reset in RESETS:
        add(f"{name} {reset}", kind)(
            plain={**base, "reset_mechanism": reset},
            learned={**base, "reset_mechanism": reset, **thresholds},
        )
    add(name, kind)(
        surrogate={**base, "spike_grad": surrogate.fast_sigmoid(slope=5)},
        disabled={**base, "surrogate_disable": True},
        quantised={**base, "threshold": low, "state_quant": QUANT, "reset_mechanism": "zero"},
        output={**base, "output": True},
    )
    add(name, kind, Hidden)(
        hidden={**base, "init_hidden": True},
        **{"hidden with output": {**base, "init_hidden": True, "output": True, "reset_mechanism": "subtract"}},
    )
    if name != "SLSTM":
        add(name, kind)(inhibition={**base, "inhibition": True, **thresholds})
for name in ("Synaptic", "RSynaptic"):
    kind, base = BASES[name]
    add(name, kind)(
        decays={**base, "alpha": vector(0.2, 0.9), "beta": vector(0.9, 0.3), "learn_alpha": True, "learn_beta": True},
        bounds={**base, "alpha": torch.tensor([-0.3, 0.0, 0.5, 0.9, 1.0, 1.2]), "learn_alpha": True},
        **{"only alpha learned": {**base, "learn_alpha": True}},
    )
for name in ("Synaptic", "RLeaky"):
    kind, base = BASES[name]
    for reset in RESETS:
        add(f"{name} {reset}", kind)(**{"at once": {**base, "reset_mechanism": reset, "reset_delay": False}})
    add(name, kind)(**{"quantised at once": {**base, "state_quant": QUANT, "reset_delay": False}})
for name in ("RLeaky", "RSynaptic"):
    kind, base = BASES[name]
    alone = {key: value for key, value in base.items() if key != "linear_features"}
    add(name, kind)(
        **{
            "fixed connection": {**base, "learn_recurrent": False},
            "one to one": {**alone, "all_to_all": False, "V": vector(-0.8, 0.8)},
            "one to one, one weight": {**alone, "all_to_all": False, "V": 0.4},
            "one to one, fixed": {**alone, "all_to_all": False, "V": vector(-0.8, 0.8), "learn_recurrent": False},
        }
    )
    add(name, kind, image=True)(
        **{
            "convolution": {**alone, "conv2d_channels": 3, "kernel_size": 3},
            "convolution of two sizes": {**alone, "conv2d_channels": 3, "kernel_size": (3, 5)},
        }
    )
add("RLeaky", snntorch.RLeaky)(decays={"beta": vector(0.2, 0.9), "linear_features": N, "learn_beta": True})
add("Alpha", snntorch.Alpha)(
    decays={"alpha": vector(0.7, 0.95), "beta": vector(0.2, 0.6), "learn_beta": True},
    **{"subtract learned decay": {"alpha": 0.9, "beta": 0.5, "learn_beta": True, "reset_mechanism": "subtract"}},
)
add("Lapicque", snntorch.Lapicque, surprise=LAPICQUE)(
    beta={"beta": 0.7},
    **{
        "beta and R": {"beta": 0.7, "R": 2.0},
        "beta and C": {"beta": 0.7, "C": 2.0},
    },
)
add("Lapicque", snntorch.Lapicque)(
    **{
        "time step": {"R": 5.0, "C": 2.0, "time_step": 0.5, "threshold": 0.5},
        "integers": {"R": 2, "C": 3},
    },
)
add("SLSTM", snntorch.SLSTM)(
    **{"no bias": {"input_size": N, "hidden_size": N, "bias": False, "threshold": 0.1, "reset_mechanism": "zero"}}
)
add("SLSTM", snntorch.SLSTM, readout=(5,), surprise="zeroes both states", inert=("neuron.lstm_cell.weight_hh",))(
    **{"other sizes": {"input_size": N, "hidden_size": 5, "threshold": 0.1, "reset_mechanism": "subtract"}}
)
CELL = {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "threshold": 0.1}
add("SConv2dLSTM", snntorch.SConv2dLSTM, image=True)(
    plain=CELL,
    subtract={**CELL, "reset_mechanism": "subtract", "learn_threshold": True},
    zero={**CELL, "reset_mechanism": "zero", "bias": False},
    quantised={**CELL, "state_quant": quant.state_quant(num_bits=4, threshold=0.2), "avg_pool": 2},
    **{
        "maximum pool": {**CELL, "max_pool": 2, "kernel_size": (3, 5)},
        "average pool": {**CELL, "avg_pool": (2, 1), "reset_mechanism": "subtract"},
    },
)
add("SConv2dLSTM", snntorch.SConv2dLSTM, Hidden, image=True)(hidden={**CELL, "init_hidden": True})
add("DeltaLeaky", snntorch.DeltaLeaky, Delta)(
    plain={"delta_threshold": 0.4, "beta": 0.8},
    learned={"delta_threshold": 0.4, "beta": vector(-0.2, 1.2), "learn_beta": True},
    surrogate={"beta": 0.5, "spike_grad": surrogate.atan(3.0)},
    hidden={"delta_threshold": 0.3, "beta": 0.8, "init_hidden": True},
)
SEQUENCE = {"input_size": N, "hidden_size": 5, "beta": 0.7, "threshold": 0.3}
add("LeakyParallel", snntorch.LeakyParallel, Sequences, readout=(5,))(
    plain=SEQUENCE,
    drawn={**SEQUENCE, "beta": None, "bias": False},
    learned={
        **SEQUENCE, "learn_beta": True, "weight_hh_enable": True, "learn_threshold": True,
        "graded_spikes_factor": 0.7, "learn_graded_spikes_factor": True,
    },
    factor={**SEQUENCE, "graded_spikes_factor": 2.0},
    surrogate={**SEQUENCE, "spike_grad": surrogate.sigmoid(slope=4)},
    disabled={**SEQUENCE, "surrogate_disable": True},
    typed={**SEQUENCE, "device": "cpu", "dtype": torch.float32},
)  # fmt: skip
STATE = {"beta": 0.6, "channels": N}
LINEAR = {"beta": 0.6, "in_features": N, "out_features": 5}
EXPONENTIAL = "decays by exp(-1 / tau)"
for name, kind, base, size in (
    ("StateLeaky", snntorch.StateLeaky, STATE, N),
    ("LinearLeaky", snntorch.LinearLeaky, LINEAR, 5),
):
    add(name, kind, Sequences, readout=(size,), surprise=EXPONENTIAL)(
        plain=base,
        learned={**base, "beta": vector(0.2, 0.9, size), "learn_beta": True, "learn_threshold": True},
        membrane={**base, "output": False, "learn_beta": True},
        surrogate={**base, "spike_grad": surrogate.fast_sigmoid(slope=5)},
        disabled={**base, "surrogate_disable": True},
    )
add("LinearLeaky", snntorch.LinearLeaky, Sequences, readout=(5,), surprise=EXPONENTIAL)(
    **{"no bias": {**LINEAR, "bias": False}}
)


def kind_of(name: str) -> Hashable:
    """What networks have in common that run on the same input."""
    case = CASES[name]
    return case.kind, case.image, case.scale


FIRST = first_of_each(CASES, lambda name: CASES[name].kind)
by_class = pytest.mark.parametrize("name", FIRST)
by_options = by_group(groups(CASES, kind_of))


@pytest.fixture(autouse=True)
def delta_neurons_are_off_the_list():
    """`snntorch.utils.reset` fails on every network of a process while a `DeltaLeaky` without membrane is alive."""
    yield
    neurons = snntorch.SpikingNeuron.instances
    neurons[:] = [each for each in neurons if not isinstance(each, snntorch.DeltaLeaky)]


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
    """Spikes, states and gradients are those of snnTorch."""
    module, found, _ = converted(names)
    report = check_equivalence(module, found, CASES[names[0]].inputs(1, steps=11, batch=2))
    report.raise_if_failed()
    assert not report.silent
    compared = {each.name for each in report.comparisons if each.kind == "spikes"}
    spiking = {path_of(name, names) for name in names if CASES[name].options.get("output", True)}
    assert compared >= spiking
    assert report.spikes or not spiking


@by_class
def test_a_class_has_the_spikes_states_and_gradients_of_snntorch(name):
    assert_same((name,))


@by_options
def test_all_options_have_the_spikes_states_and_gradients_of_snntorch(names):
    assert_same(names)


@by_options
def test_what_would_surprise_is_said_in_a_warning_and_nothing_else(names):
    _, found, messages = converted(names)
    for name in names:
        path, surprise = path_of(name, names), CASES[name].surprise
        said = [message for message in messages if message.startswith(f"at '{path}': ")]
        assert len(said) == (1 if surprise else 0)
        assert all(surprise in message for message in said)
        assert bool(found.plan.caveats.get(path)) == bool(surprise)
    assert len(messages) == sum(bool(CASES[name].surprise) for name in names)


@by_options
def test_weights_go_back_strictly_and_into_a_module_rebuilt_from_code(names):
    module, found, _ = converted(names)
    scaled = {key: value * 1.01 for key, value in found.parameters.items()}
    changed = eqx.tree_at(lambda converted: converted.parameters, found, scaled)
    rebuilt = build(names)
    rebuilt.load_state_dict(state_dict(changed), strict=True)
    given = dict(module.state_dict())
    assert list(given) == list(rebuilt.state_dict())
    trained = {key for key, each in module.named_parameters() if each.requires_grad}
    trained |= {key.replace(".V", ".recurrent.V") for key in trained if key.endswith("neuron.V")}
    for key, value in rebuilt.state_dict().items():
        expected = given[key] * 1.01 if key in trained else given[key]
        assert value.dtype == given[key].dtype
        torch.testing.assert_close(value, expected)


@by_class
def test_results_are_close_in_float32(name):
    module, found, _ = converted((name,))
    (x,) = CASES[name].inputs(2)
    with torch.no_grad():
        expected = module(x)
    results = eqx.filter_jit(found)(to_jax(x))
    for a, b in zip(jax.tree.leaves(results), torch.utils._pytree.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=2e-4, atol=2e-5)


class Bare(nn.Module):
    """The neuron alone, so that nothing rounds."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.gain, self.neuron = nn.Parameter(torch.ones(())), neuron

    def forward(self, x):
        states = self.neuron.reset_mem()
        states = states if isinstance(states, tuple) else (states,)
        takes_spikes = isinstance(self.neuron, snntorch.RLeaky | snntorch.RSynaptic)
        spikes, membranes = [], []
        for t in range(x.shape[0]):
            found = self.neuron(x[t] * self.gain, *states)
            states = found if takes_spikes else found[1:]
            spikes.append(found[0])
            membranes.append(found[-1])
        return torch.stack(spikes), torch.stack(membranes)


ALONE = {"all_to_all": False, "V": -0.5}
EXACT = {
    "Leaky": (snntorch.Leaky, {"beta": 0.5}),
    "Synaptic": (snntorch.Synaptic, {"alpha": 0.5, "beta": 0.5}),
    "Lapicque": (snntorch.Lapicque, {"R": 1.0, "C": 2.0}),
    "RLeaky": (snntorch.RLeaky, {"beta": 0.5, **ALONE}),
    "RSynaptic": (snntorch.RSynaptic, {"alpha": 0.5, "beta": 0.5, **ALONE}),
}


@pytest.mark.filterwarnings("ignore:at 'neuron'")
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", EXACT)
def test_membranes_exactly_on_the_threshold_do_not_spike_in_float32(name, reset):
    """Halves and quarters are exact: rounding has no say, and `>` differs from `>=`."""
    kind, options = EXACT[name]
    module = Bare(kind(threshold=1.0, reset_mechanism=reset, **options))
    x = torch.randint(-2, 7, (6, 5, 40), generator=torch.Generator().manual_seed(2)) / 4
    found = from_torch(module, (x,))(to_jax(x))
    with torch.no_grad():
        spikes, membranes = module(x)
    assert (membranes == 1).any() and spikes.any()
    np.testing.assert_array_equal(found[0], spikes.numpy())
    np.testing.assert_array_equal(found[1], membranes.numpy())


# The option tables


def parameters(kind: type) -> set[str]:
    names = set(inspect.signature(kind).parameters)
    if kind is snntorch.DeltaLeaky:  # hands on what it does not name
        names = names - {"args", "kwargs"} | set(inspect.signature(snntorch.Leaky).parameters)
    return names


@pytest.mark.parametrize("kind", FRAMEWORK.converters, ids=lambda kind: kind.__name__)
def test_every_constructor_option_is_dealt_with(kind):
    assert set(FRAMEWORK.converters[kind].options) == parameters(kind)


# Shown as "never converted" in the documentation, with the reason.
REFUSED = {"AssociativeLeaky"}
BASE_CLASSES = {"LIF", "SpikingNeuron"}
# Not taken whole: what they compute is recorded.
RECORDED = {"GradedSpikes", "BatchNormTT1d", "BatchNormTT2d"}


def test_every_public_class_is_converted_or_refused_for_a_reason():
    public = {name for name, value in vars(snntorch).items() if inspect.isclass(value)}
    known = {kind.__name__ for kind in FRAMEWORK.converters}
    assert public - {"RecurrentOneToOne"} == known | REFUSED | BASE_CLASSES | (RECORDED & public)


# Refusals


class FromZeros(Explicit):
    """States that fit from the beginning: snnTorch raises an error for others here."""

    def forward(self, x):
        states, out = (torch.zeros(x.shape[1], N),) * 3, []
        for t in range(x.shape[0]):
            states = self.neuron(self.layer(x[t]), *states)
            out.append(self.readout(states[0]))
        return torch.stack(out)


def refuse(case: Case, match: str, error: type[InteropError] = UnsupportedOptionError) -> None:
    with pytest.raises(error, match=match):
        from_torch(case.build(), case.inputs(0))


@pytest.mark.parametrize(
    ("case", "match"),
    [
        (
            Case(snntorch.RSynaptic, {**BASES["RSynaptic"][1], "reset_delay": False}, FromZeros),
            r"RSynaptic\(reset_delay=False\)",
        ),
        (Case(snntorch.Synaptic, {**BASES["Synaptic"][1], "state_quant": torch.relu}), r"Synaptic\(state_quant="),
        (
            Case(snntorch.StateLeaky, {**STATE, "graded_spikes_factor": 0.5}, Sequences),
            r"StateLeaky\(graded_spikes_factor=.*multiplies by it twice",
        ),
        (
            Case(snntorch.StateLeaky, {**STATE, "kernel_truncation_steps": 3}, Sequences),
            r"StateLeaky\(kernel_truncation_steps=3\)",
        ),
        (Case(snntorch.LinearLeaky, {**LINEAR, "state_quant": QUANT}, Sequences, readout=(5,)), "state_quant"),
        (
            Case(snntorch.Lapicque, {"beta": torch.tensor(0.7), "learn_beta": True}),
            r"Lapicque\(learn_beta=True\).*never reaches the membrane|requires_grad|deepcopy",
        ),
    ],
    ids=lambda value: value.kind.__name__ if isinstance(value, Case) else "",
)
def test_options_without_an_exact_counterpart_are_refused(case, match):
    refuse(case, match)


def test_a_gradient_hook_of_leaky_parallel_is_refused():
    case = Case(snntorch.LeakyParallel, {**SEQUENCE, "learn_beta": True}, Sequences, readout=(5,))
    refuse(case, "gradient hook", UnsupportedModuleError)


def test_associative_leaky_is_refused():
    module = nn.Sequential(snntorch.AssociativeLeaky.from_num_spiking_neurons(4, 9))
    with pytest.raises(UnsupportedModuleError, match="AssociativeLeaky cannot be converted"):
        from_torch(module, (torch.rand(5, 2, 4),))


def test_a_connection_that_was_exchanged_is_refused():
    case = CASES["RLeaky subtract plain"]
    module = case.build()
    module.neuron.recurrent = nn.Sequential(nn.Linear(N, N), nn.ReLU())
    with pytest.raises(UnsupportedOptionError, match=r"RLeaky\(recurrent="):
        from_torch(module, case.inputs(0))


def test_a_weight_that_was_replaced_converts_as_it_is_used_with_a_warning():
    case = CASES["RLeaky one to one, fixed"]
    module = case.build()
    module.neuron.V = torch.full((N,), 9.0)
    with pytest.warns(UserWarning, match=r"snnTorch computes with recurrent\.V"):
        converted = from_torch(module, case.inputs(0))
    check_equivalence(module, converted, case.inputs(1)).raise_if_failed()


class HalfGiven(Explicit):
    """The synapse is handed over, the membrane is one for all samples."""

    def forward(self, x):
        syn, mem, out = torch.zeros(x.shape[1], N), torch.zeros(1, N), []
        for t in range(x.shape[0]):
            spk, syn, _ = self.neuron(self.layer(x[t]), syn, mem)
            out.append(self.readout(spk))
        return torch.stack(out)


def test_states_that_snntorch_would_zero_in_part_are_refused():
    case = Case(snntorch.Synaptic, BASES["Synaptic"][1], HalfGiven)
    refuse(case, "snnTorch would replace some of them by zeros", RecordingError)


def test_the_module_is_left_as_it_was():
    case = CASES["RSynaptic subtract learned"]
    module = case.build()
    before = copy.deepcopy(module.state_dict())
    from_torch(module, case.inputs(0))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.neuron.mem.numel() == 0


# Surrogates of one's own


def softened(x: torch.Tensor, gradient: torch.Tensor, spikes: torch.Tensor) -> torch.Tensor:
    return gradient / (1 + x.abs()) ** 3


class Own(torch.autograd.Function):
    """Spikes at or above the threshold where `reaches`."""

    @staticmethod
    def forward(ctx, x, reaches):
        ctx.save_for_backward(x)
        return ((x >= 0) if reaches else (x > 0)).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + x**2), None


def above(x: torch.Tensor) -> torch.Tensor:
    return Own.apply(x, False)


def reaching(x: torch.Tensor) -> torch.Tensor:
    return Own.apply(x, True)


OWN = {
    "custom_surrogate": (
        surrogate.custom_surrogate(softened),
        Relaxed(lambda x: 0.5 * x * (2 + abs(x)) / (1 + abs(x)) ** 2),
    ),
    "autograd function": (above, Relaxed(jnp.arctan)),
}


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky", "Alpha"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "recorded"])
@pytest.mark.parametrize("name", OWN)
def test_a_surrogate_of_the_user_is_taken_as_it_is_named_or_as_it_computes(name, kind, named):
    function, surrogate = OWN[name]
    cls, base = BASES[kind]
    case = Case(cls, {**base, "spike_grad": function, "learn_threshold": True, "threshold": vector(0.4, 1.2)})
    module = case.build()
    function = module.neuron.spike_grad
    found = from_torch(module, case.inputs(0), surrogates={function: surrogate} if named else {})
    check_equivalence(module, found, case.inputs(1)).raise_if_failed()


@pytest.mark.parametrize(
    ("function", "named", "match"),
    [
        (above, ATan(2.0), r"above and ATan\(alpha=2\.0\): the slope at a distance of -4\.0"),
        (
            reaching,
            Relaxed(jnp.arctan),
            r"reaching: the spike at a distance of 0\.0 .* is 1\.0 in torch and 0\.0 here",
        ),
    ],
)
def test_a_surrogate_that_is_not_what_the_function_computes_is_refused(function, named, match):
    case = Case(snntorch.Leaky, {"beta": 0.8, "spike_grad": function})
    with pytest.raises(UnsupportedOptionError, match=match):
        from_torch(case.build(), case.inputs(0), surrogates={function: named})


def test_surrogates_of_other_networks_and_other_things_are_errors():
    case = Case(snntorch.Leaky, {"beta": 0.8, "spike_grad": above})
    with pytest.raises(ValueError, match="no neuron of the network has reaching as its spike_grad"):
        from_torch(case.build(), case.inputs(0), surrogates={above: Relaxed(jnp.arctan), reaching: ATan(2.0)})
    with pytest.raises(TypeError, match="surrogate"):
        from_torch(case.build(), case.inputs(0), surrogates={above: "atan"})
    case = Case(snntorch.Leaky, {"beta": 0.8, "spike_grad": reaching})
    with pytest.raises(UnsupportedOptionError, match=r"name what it computes: from_torch\(\.\.\., surrogates="):
        from_torch(case.build(), case.inputs(0))


# Layers whose forward is recorded


class Normalised(nn.Module):
    """Batch normalisation through time: a layer of its own for every step."""

    def __init__(self, images: bool):
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3) if images else nn.Linear(4, 3)
        self.bn = snntorch.BatchNormTT2d(3, 4) if images else snntorch.BatchNormTT1d(3, 4)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.3)
        for each in self.bn:
            each.running_mean.uniform_(-0.5, 0.5)
            each.running_var.uniform_(0.5, 2.0)
            each.weight.data.uniform_(0.5, 1.5)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for t in range(4):
            spk, mem = self.lif(self.bn[t](self.layer(x)), mem)
            out.append(spk)
        return torch.stack(out), mem


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("images", [False, True], ids=["1d", "2d"])
def test_batch_normalisation_through_time(images, training):
    torch.manual_seed(0)
    module = Normalised(images).train(training)
    shape = (1, 5, 5) if images else (4,)
    found = from_torch(module, (torch.rand(3, *shape) * 4,))
    check_equivalence(module, found, (torch.rand(6, *shape) * 4,)).raise_if_failed()
    if training:
        _, found = found.call_and_update(to_jax(torch.rand(6, *shape)))
        assert state_dict(found)["bn.3.num_batches_tracked"] == 1


def test_layers_over_sequences_with_layers_between_are_one_chain():
    torch.manual_seed(0)
    module = nn.Sequential(
        snntorch.LeakyParallel(4, 6, beta=0.7, threshold=0.2),
        nn.Linear(6, 5),
        snntorch.LeakyParallel(5, 3, beta=0.7, threshold=0.05, weight_hh_enable=True, learn_beta=True),
    )
    found = from_torch(module, (torch.rand(7, 3, 4) * 4,))
    assert [type(layer).__name__ for layer in found.model.layers] == ["LeakyParallel", "Linear", "LeakyParallel"]
    check_equivalence(module, found, (torch.rand(9, 2, 4) * 4,)).raise_if_failed()


def test_graded_spikes_broadcast_along_the_batch_and_keep_its_size():
    class Graded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 5), snntorch.Leaky(beta=0.8, threshold=0.3)
            self.graded = snntorch.GradedSpikes(3, 2.0)

        def forward(self, x):
            mem, out = self.lif.reset_mem(), []
            for xt in x:
                spk, mem = self.lif(self.fc(xt), mem)
                out.append(self.graded(spk))
            return torch.stack(out)

    torch.manual_seed(0)
    module = Graded()
    found = from_torch(module, (torch.rand(5, 3, 4) * 4,))
    assert "converted for exactly this batch" in str(found.report)
    check_equivalence(module, found, (torch.rand(7, 3, 4) * 4,)).raise_if_failed()
