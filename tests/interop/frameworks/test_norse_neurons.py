"""Every neuron class of Norse with its options against the installed Norse, as a cell in a loop and over sequences."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from helpers.conversion import without_comparison
from helpers.side_by_side import SideBySide, by_group, first_of_each, groups
from norse.torch.functional import izhikevich, lif, lif_refrac, lsnn
from norse.torch.functional.reset import reset_subtract
from norse.torch.functional.threshold import threshold
from norse.torch.module import coba_lif, lif_ex, lif_mc, lif_mc_refrac, snn as bases
from torch import nn

from snnax import snn
from snnax_interop import (
    InteropError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    check_equivalence,
    from_torch,
    state_dict,
    to_jax,
)
from snnax_interop.frameworks.norse import FRAMEWORK


pytestmark = pytest.mark.full


N, INPUTS = 6, 5


def tensors(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.as_tensor(value) if isinstance(value, float | list) else value for name, value in values.items()
    }


class Cell(nn.Module):
    """A cell in a loop, with its state among the outputs."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.fc = nn.Linear(INPUTS, N)
        self.neuron = neuron
        self.out = nn.Linear(N, 3)

    in_steps = True

    def start(self, x):
        return None

    def step(self, x, state):
        z, state = self.neuron(self.fc(x), state)
        return (self.out(z),), state

    def finish(self, outs, state):
        return outs, state

    def forward(self, x, state=None):
        outs = []
        for xt in x:
            z, state = self.neuron(self.fc(xt), state)
            outs.append(self.out(z))
        return torch.stack(outs), state


class Lifted(Cell):
    """A layer over the whole sequence."""

    in_steps = False

    def forward(self, x, state=None):
        z, state = self.neuron(self.fc(x), state)
        return self.out(z), state


class Silent(Cell):
    """No state comes out."""

    def finish(self, outs, state):
        return outs

    def forward(self, x):
        return super().forward(x)[0]


@dataclasses.dataclass(frozen=True)
class Case:
    """A neuron in a network; `surprise` is part of the warning that its conversion gives."""

    make: Callable[[], nn.Module]
    net: type[nn.Module] = Cell
    scale: float = 40.0
    spikes: bool = True
    surprise: str = ""

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        return self.net(self.make())

    def inputs(self, seed: int, steps: int = 6, batch: int = 2) -> tuple[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand((steps, batch, INPUTS), generator=generator) * self.scale,)


CASES: dict[str, Case] = {}


def vector(low: float, high: float) -> list[float]:
    return torch.linspace(low, high, N).tolist()


def add(kind: type, parameters: type, options: dict[str, dict[str, Any]], **case: Any) -> None:
    """Cases of a class for these fields of its parameters."""
    recurrent = issubclass(kind, bases.SNNRecurrentCell | bases.SNNRecurrent) or kind is norse.LILinearCell
    net = Lifted if issubclass(kind, bases.SNN | bases.SNNRecurrent) else Cell
    for name, values in options.items():

        def make(values=values):
            p = parameters(**tensors({key: value for key, value in values.items() if key != "dt"}))
            sizes = (N, N) if recurrent else ()
            return kind(*sizes, p=p, **({"dt": values["dt"]} if "dt" in values else {}))

        CASES[f"{kind.__name__} {name}"] = Case(make, net, **case)


REST = {"v_leak": 0.2, "v_reset": -0.3}
TIMES = {"tau_syn_inv": 350.0, "tau_mem_inv": 70.0, "dt": 0.002}
METHODS = {
    "super": {"method": "super", "alpha": 10.0},
    "tanh": {"method": "tanh", "alpha": 2.0},
    "triangle": {"method": "triangle", "alpha": 0.3},
    "circ": {"method": "circ", "alpha": 0.5},
    "heavi_erfc": {"method": "heavi_erfc", "alpha": 0.7},
    "heaviside": {"method": "heaviside"},
}
NEURONS = {
    "defaults": {},
    "times": TIMES,
    "rest": {**REST, "v_th": 0.7},
    "per neuron": {"v_th": vector(0.3, 0.8), "tau_mem_inv": vector(80, 200), "v_reset": vector(-0.2, 0.1)},
}
for kind in (norse.LIFCell, norse.LIF, norse.LIFRecurrentCell, norse.LIFRecurrent):
    add(kind, norse.LIFParameters, {**NEURONS, "integers": {"tau_mem_inv": 80, "v_th": 1, "alpha": 3}})
for kind in (norse.LIFCell, norse.LIFRecurrent):
    add(kind, norse.LIFParameters, METHODS)
add(norse.LIFCell, norse.LIFParameters, {"rest per neuron": {"v_leak": vector(-0.1, 0.2)}})
SUBTRACT = {"subtract": {"reset_method": reset_subtract, "v_th": 0.6}}
add(norse.LIFBoxCell, norse.LIFBoxParameters, {**NEURONS, "times": {"tau_mem_inv": 70.0, "dt": 0.002}, **SUBTRACT})
READOUTS = {"defaults": {}, "times": TIMES, "rest": {"v_leak": 0.2}, "per neuron": {"tau_mem_inv": vector(80, 200)}}
for kind in (norse.LICell, norse.LI, norse.LILinearCell):
    add(kind, norse.LIParameters, READOUTS, spikes=False)
BOX = {"defaults": {}, "times": {"tau_mem_inv": 70.0, "dt": 0.002}, "rest": {"v_leak": 0.2}}
add(norse.LIBoxCell, norse.LIBoxParameters, BOX, spikes=False)
for kind in (norse.IAFCell, norse.IAF):
    add(kind, norse.IAFParameters, {"defaults": {}, "reset": {"v_reset": -0.3, "v_th": 2.0}}, scale=2.0)
for kind in (lif_ex.LIFExCell, lif_ex.LIFEx, lif_ex.LIFExRecurrentCell, lif_ex.LIFExRecurrent):
    add(kind, norse.LIFExParameters, {"defaults": {}, "all": {**TIMES, **REST, "delta_T": 0.7, "v_th": 0.9}})
ADAPTED = {**TIMES, **REST, "adaptation_current": 2.0, "adaptation_spike": 0.3, "tau_ada_inv": 30.0, "delta_T": 0.7}
for kind in (norse.LIFAdExCell, norse.LIFAdEx, norse.LIFAdExRecurrentCell, norse.LIFAdExRecurrent):
    add(kind, norse.LIFAdExParameters, {"defaults": {}, "all": ADAPTED})
THRESHOLDS = {**TIMES, **REST, "tau_adapt_inv": 60.0, "beta": 0.7, "v_th": 0.6}
for kind in (norse.LSNNCell, norse.LSNN, norse.LSNNRecurrentCell, norse.LSNNRecurrent):
    add(kind, norse.LSNNParameters, {"defaults": {}, "all": THRESHOLDS})
PERIOD = {"lif": norse.LIFParameters(**tensors({"v_th": 0.4, **REST})), "rho_reset": 2.0}
for kind in (norse.LIFRefracCell, norse.LIFRefracRecurrentCell, norse.LIFRefracRecurrent):
    add(kind, lif_refrac.LIFRefracParameters, {"defaults": {}, "all": PERIOD})
for kind in (norse.LIFAdExRefracCell, norse.LIFAdExRefracRecurrentCell, norse.LIFAdExRefracRecurrent):
    add(kind, norse.LIFAdExRefracParameters, {"defaults": {}, "period": {"rho_reset": 2.0}})

BEHAVIOURS = {
    name: value for name, value in vars(izhikevich).items() if isinstance(value, izhikevich.IzhikevichSpikingBehavior)
}
for name, behaviour in BEHAVIOURS.items():
    CASES[f"IzhikevichCell {name}"] = Case(functools.partial(norse.IzhikevichCell, behaviour), scale=900.0)
OWN = izhikevich.create_izhikevich_spiking_behavior(0.05, 0.25, -60.0, 3.0, -62.0, -60.0, tau_inv=200)
CASES["Izhikevich own"] = Case(functools.partial(norse.Izhikevich, OWN), Lifted, 300.0)
for kind in (norse.IzhikevichRecurrentCell, norse.IzhikevichRecurrent):
    net = Cell if kind is norse.IzhikevichRecurrentCell else Lifted
    CASES[f"{kind.__name__} tonic"] = Case(functools.partial(kind, N, N, izhikevich.tonic_spiking), net, 300.0)

for autapses in (False, True):
    options: Any = {"autapses": autapses}
    CASES[f"LIFRecurrent autapses={autapses}"] = Case(functools.partial(norse.LIFRecurrent, N, N, **options), Lifted)
    CASES[f"LSNNRecurrentCell autapses={autapses}"] = Case(functools.partial(norse.LSNNRecurrentCell, N, N, **options))
CASES["LIF recorded"] = Case(lambda: norse.LIF(record_states=True), Lifted)
CASES["LIFRecurrent recorded"] = Case(lambda: norse.LIFRecurrent(N, N, record_states=True), Lifted)
CASES["LIFRefracRecurrent recorded"] = Case(lambda: norse.LIFRefracRecurrent(N, N, record_states=True), Lifted)
CASES["LIFRecurrentCell, weights that are no parameters"] = Case(
    lambda: norse.LIFRecurrentCell(N, N, input_weights=torch.randn(N, N), recurrent_weights=torch.randn(N, N))
)
# Recorded as tensor functions: there is no such neuron in snnax.
CASES["CobaLIFCell"] = Case(lambda: coba_lif.CobaLIFCell(N, N), surprise="its input is ignored")
CASES["LIFMCRecurrentCell"] = Case(lambda: lif_mc.LIFMCRecurrentCell(N, N))
CASES["LIFMCRefracRecurrentCell"] = Case(
    lambda: lif_mc_refrac.LIFMCRefracRecurrentCell(N, N), surprise="not scaled by dt"
)


class Learnable(nn.Module):
    """A neuron whose parameters are those of the module around it; `p` holds the same tensors."""

    def __init__(self, kind: type, parameters: type, lifted: bool, **values: Any):
        super().__init__()
        for name, value in tensors(values).items():
            setattr(self, name, nn.Parameter(value))
        sizes = (N, N) if issubclass(kind, bases.SNNRecurrentCell | bases.SNNRecurrent) else ()
        own = {name: getattr(self, name) for name in values}
        self.neuron = kind(*sizes, p=parameters(**own))

    def forward(self, x, state=None):
        return self.neuron(x, state)


LEARNED = {
    "tau_syn_inv": 150.0, "tau_mem_inv": vector(80, 120), "v_leak": 0.1, "v_th": vector(0.3, 0.7), "v_reset": -0.2,
}  # fmt: skip
for kind in (norse.LIFCell, norse.LIF, norse.LIFRecurrentCell, norse.LIFRecurrent):
    net = Lifted if kind in (norse.LIF, norse.LIFRecurrent) else Cell
    make: Any = functools.partial(Learnable, kind, norse.LIFParameters, net is Lifted, **LEARNED)
    CASES[f"{kind.__name__} learned"] = Case(make, net)
make = functools.partial(Learnable, norse.LSNNCell, norse.LSNNParameters, False, v_th=0.5, beta=0.7, tau_adapt_inv=60.0)
CASES["LSNNCell learned"] = Case(make, Silent)
CASES["IAFCell learned"] = Case(
    functools.partial(Learnable, norse.IAFCell, norse.IAFParameters, False, v_th=2.0, v_reset=-0.4), scale=2.0
)


def class_of(name: str) -> str:
    return name.split()[0].rstrip(",")


def kind_of(name: str) -> Hashable:
    """What networks have in common that are compared together."""
    case = CASES[name]
    return class_of(name), case.scale, case.spikes


FIRST = first_of_each(CASES, class_of)
by_class = pytest.mark.parametrize("name", FIRST)
by_options = by_group(groups(CASES, kind_of))


def build(names: tuple[str, ...]) -> nn.Module:
    nets = {name: CASES[name].build() for name in names}
    return nets[names[0]] if len(nets) == 1 else SideBySide(nets)


@functools.cache
def recorded(names: tuple[str, ...]) -> tuple[nn.Module, Any, list[str]]:
    """The module of some cases, its conversion, and the warnings: nothing is converted twice."""
    module = build(names)
    # What is alone is one of each class, and compared by the conversion too.
    compared = contextlib.nullcontext() if len(names) == 1 else without_comparison()
    with warnings.catch_warnings(record=True) as caught, compared:
        warnings.simplefilter("always", UserWarning)
        found = from_torch(module, CASES[names[0]].inputs(0))
    return module, found, [str(each.message) for each in caught]


def converted(*names: str) -> tuple[nn.Module, Any]:
    return recorded(names)[:2]


def assert_same(names: tuple[str, ...]) -> None:
    """Spikes, states and gradients are those of Norse."""
    module, found = converted(*names)
    report = check_equivalence(module, found, CASES[names[0]].inputs(1, steps=11, batch=3))
    report.raise_if_failed()
    assert not report.silent
    assert (report.spikes > 0) == CASES[names[0]].spikes


@by_class
def test_a_class_has_the_spikes_states_and_gradients_of_norse(name):
    assert_same((name,))


@by_options
def test_all_options_have_the_spikes_states_and_gradients_of_norse(names):
    assert_same(names)


@by_options
def test_weights_go_back_strictly_and_into_a_module_rebuilt_from_code(names):
    module, found = converted(*names)
    weights = state_dict(found)
    rebuilt = build(names)
    with torch.no_grad():
        for parameter in rebuilt.parameters():
            parameter.add_(1.0)
    for target in (copy.deepcopy(module), rebuilt):
        target.load_state_dict(weights, strict=True)
        for key, value in module.state_dict().items():
            torch.testing.assert_close(target.state_dict()[key], value, rtol=0, atol=0)


@by_options
def test_what_would_surprise_is_said_in_a_warning_and_nothing_else(names):
    messages = recorded(names)[2]
    for name in names:
        surprise = CASES[name].surprise
        path = "neuron" if len(names) == 1 else f"nets.{name}.neuron"
        said = [message for message in messages if f"'{path}'" in message]
        assert len(said) == (1 if surprise else 0)
        assert all(surprise in message for message in said)
    assert len(messages) == sum(bool(CASES[name].surprise) for name in names)


NATIVE = {
    norse.LIFCell: snn.LIF, norse.LIF: snn.LIF, norse.LICell: snn.LI, norse.LI: snn.LI, norse.LILinearCell: snn.LI,
    norse.LIFBoxCell: snn.LIF, norse.LIBoxCell: snn.LI, norse.IAFCell: snn.IF, norse.IAF: snn.IF,
    lif_ex.LIFExCell: snn.EIF, lif_ex.LIFEx: snn.EIF, norse.LIFAdExCell: snn.AdEx, norse.LIFAdEx: snn.AdEx,
    norse.LIFRefracCell: snn.Refractory, norse.LIFAdExRefracCell: snn.Refractory,
    norse.IzhikevichCell: snn.Izhikevich, norse.Izhikevich: snn.Izhikevich,
}  # fmt: skip


@pytest.mark.parametrize("kind", FRAMEWORK.converters, ids=lambda kind: kind.__name__)
def test_every_class_becomes_a_neuron(kind):
    name = next(name for name in CASES if name.split()[0] == kind.__name__)
    wanted = NATIVE.get(kind, snn.Recurrent if "Recurrent" in kind.__name__ else None)
    row = next(row for row in converted(name)[1].report if row.source.endswith(f".{kind.__name__}"))
    assert row.target == ("LSNN" if wanted is None else wanted.__name__)


# The option tables


@pytest.mark.parametrize("kind", FRAMEWORK.converters, ids=lambda kind: kind.__name__)
def test_every_constructor_option_is_dealt_with(kind):
    base = next((base for base in kind.__mro__ if base.__module__ == bases.__name__), None)
    names = set(inspect.signature(kind).parameters) | set(inspect.signature(base or kind).parameters)
    # What the classes themselves hand to their base, and the step for sparse inputs, which are refused.
    handed_on = {"activation", "state_fallback", "activation_sparse", "args", "kwargs"}
    if "spiking_method" in names:
        handed_on.add("p")
    assert set(FRAMEWORK.converters[kind].options) == names - handed_on


FIELDS = {
    norse.LIFParameters: NEURONS["per neuron"] | TIMES | REST | METHODS["tanh"],
    norse.LIFBoxParameters: {"tau_mem_inv": 1.0, "v_th": 1.0, **REST, **METHODS["tanh"], **SUBTRACT["subtract"]},
    norse.LIParameters: {"tau_syn_inv": 1.0, "tau_mem_inv": 1.0, "v_leak": 0.0},
    norse.LIBoxParameters: {"tau_mem_inv": 1.0, "v_leak": 0.0},
    norse.IAFParameters: {"v_th": 1.0, "v_reset": 0.0, **METHODS["tanh"]},
    norse.LIFExParameters: {**TIMES, **REST, "v_th": 1.0, "delta_T": 1.0, **METHODS["tanh"]},
    norse.LIFAdExParameters: {**ADAPTED, "v_th": 1.0, **METHODS["tanh"]},
    norse.LSNNParameters: {**THRESHOLDS, **METHODS["tanh"]},
    lif_refrac.LIFRefracParameters: PERIOD,
    norse.LIFAdExRefracParameters: {"lif_adex": None, "rho_reset": 2.0},
}


@pytest.mark.parametrize("parameters", FIELDS, ids=lambda each: each.__name__)
def test_every_field_of_the_parameters_is_dealt_with(parameters):
    assert set(parameters._fields) == set(FIELDS[parameters]) - {"dt"}


# Modules that are recorded, or that cannot be: everything public has its place.
RECORDED = {
    "CobaLIFCell", "LIFMCRecurrentCell", "LIFMCRefracRecurrentCell", "SequentialState", "RecurrentSequential", "Lift",
    "ConstantCurrentLIFEncoder", "SpikeLatencyLIFEncoder", "SpikeLatencyEncoder", "PopulationEncoder", "LConv2d",
    "ConvNet", "ConvNet4", "MobileNetV2", "VGG",  # see test_definitions
}  # fmt: skip
REFUSED = {
    "PoissonEncoder", "PoissonEncoderStep", "SignedPoissonEncoder",  # random
    "LIFCorrelation", "RegularizationCell", "SpikesToTimesDecoder",  # see test_norse_networks
    "SpatialReceptiveField2d", "SampledSpatialReceptiveField2d", "ParameterizedSpatialReceptiveField2d",
    "TemporalReceptiveField",
}  # fmt: skip


def test_every_public_module_is_a_neuron_or_recorded_or_refused():
    public = {name for name, value in vars(norse).items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    assert public - {kind.__name__ for kind in FRAMEWORK.converters} - RECORDED - REFUSED == set()


# States


class Given(nn.Module):
    """The first state is made in forward."""

    def __init__(self, neuron: nn.Module, state: Callable[[int], Any], lifted: bool = False):
        super().__init__()
        torch.manual_seed(1)
        self.net = (Lifted if lifted else Cell)(neuron)
        self.state = state

    def forward(self, x):
        return self.net(x, self.state(x.shape[1]))


def full(value: float) -> Callable[[int], torch.Tensor]:
    return lambda batch: torch.full((batch, N), value)


STATES = {
    "zeros": (norse.LIFCell, lambda b: lif.LIFFeedForwardState(torch.zeros(b, N), torch.zeros(b, N)), False),
    "values": (norse.LIFCell, lambda b: lif.LIFFeedForwardState(full(0.5)(b), full(1.0)(b)), False),
    "one number": (norse.LIFCell, lambda b: lif.LIFFeedForwardState(torch.tensor(0.4), torch.tensor(0.2)), False),
    "of a recurrent cell": (norse.LIFCell, lambda b: lif.LIFState(full(1.0)(b), full(0.5)(b), full(1.0)(b)), False),
    "over a sequence": (norse.LIF, lambda b: lif.LIFFeedForwardState(full(0.5)(b), full(1.0)(b)), True),
    "with spikes": (
        lambda: norse.LIFRecurrent(N, N), lambda b: lif.LIFState(full(1.0)(b), full(0.5)(b), full(1.0)(b)), True,
    ),
    "a threshold": (
        norse.LSNNCell, lambda b: lsnn.LSNNFeedForwardState(full(0.5)(b), full(1.0)(b), full(0.7)(b)), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_first_states_are_those_that_are_given(name):
    make, state, lifted = STATES[name]
    module = Given(make(), state, lifted)
    case = Case(make)
    report = check_equivalence(module, from_torch(module, case.inputs(0)), case.inputs(1, steps=9, batch=3))
    report.raise_if_failed()
    assert report.spikes > 0


# What is kept and what is not


def test_a_cell_becomes_a_native_neuron_with_rates_of_its_own():
    found = converted("LIFCell defaults")[1]
    _, neuron, _ = found.model.layers
    assert isinstance(neuron.decay_mem, snn.Rate)
    assert float(neuron.decay_mem.value) == pytest.approx(0.1)
    assert float(neuron.decay_syn.value) == pytest.approx(0.2)


def test_the_gradient_of_super_is_that_of_the_installed_release():
    probe = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(threshold(probe, "super", 10.0).sum(), probe)
    surrogate = converted("LIFCell super")[1].model[1].firing.surrogate
    assert 1 / (1 + surrogate.slope) ** 2 == pytest.approx(float(slope))


def test_a_diagonal_without_gradient_stays_as_it_is():
    case = CASES["LIFRecurrent autapses=False"]
    module = case.build()
    with torch.no_grad():
        module.neuron.recurrent_weights += torch.eye(N)  # as a file of weights may have it
    found = from_torch(module, case.inputs(0))
    check_equivalence(module, found, case.inputs(1)).raise_if_failed()
    copied = copy.deepcopy(module)  # torch loses the hook, and the diagonal learns
    assert not copied.neuron.recurrent_weights._backward_hooks
    check_equivalence(copied, from_torch(copied, case.inputs(0)), case.inputs(1)).raise_if_failed()


def test_the_module_is_left_as_it_was():
    case = CASES["LIFRecurrent autapses=False"]
    module = case.build()
    neuron, before = module.neuron, copy.deepcopy(module.state_dict())
    step, start, hooks = neuron.activation, neuron.state_fallback, dict(neuron.recurrent_weights._backward_hooks)
    from_torch(module, case.inputs(0))
    assert neuron.activation is step
    assert neuron.state_fallback == start
    assert dict(neuron.recurrent_weights._backward_hooks) == hooks
    for key, value in before.items():
        torch.testing.assert_close(module.state_dict()[key], value, rtol=0, atol=0)


def test_results_are_close_in_float32():
    for name in ("LIFCell times", "LIFRecurrent rest", "LSNNCell all", "LIFRefracRecurrent all"):
        module, found = converted(name)
        x = CASES[name].inputs(3, steps=12)
        with torch.no_grad():
            outs = module(*x)[0]
        np.testing.assert_allclose(found(to_jax(x[0]))[0], outs, rtol=1e-4, atol=1e-4)


def test_membranes_exactly_on_the_threshold_do_not_spike():
    neuron = norse.LIFCell(norse.LIFParameters(**tensors({"tau_mem_inv": 125.0, "tau_syn_inv": 250.0})))

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = neuron

        def forward(self, x):
            state, outs = None, []
            for xt in x:
                z, state = self.neuron(xt, state)
                outs.append(torch.stack([z, state.v]))
            return torch.stack(outs)

    module = Bare()
    x = torch.zeros(4, 2, N)
    x[0, 0], x[0, 1] = 8.0, 9.0  # 8 / 8 is the threshold
    with torch.no_grad():
        outs = module(x)
    assert not outs[0, 0, 0].any() and outs[0, 0, 1].all()
    found = from_torch(module, (x + torch.rand(1) * 3,))
    np.testing.assert_array_equal(found(to_jax(x)), outs)


# Refusals


def refuse(module: nn.Module, error: type[InteropError], match: str, x: torch.Tensor | None = None) -> InteropError:
    with pytest.raises(error, match=match) as caught:
        from_torch(module, (torch.rand(4, 2, INPUTS) if x is None else x,))
    return caught.value


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"v_th": torch.ones(2, 1, N)}, r"p\.v_th.*shape"),
        ({"tau_mem_inv": torch.tensor(float("nan"))}, r"p\.tau_mem_inv.*finite"),
        ({"v_th": nn.Parameter(torch.tensor(1.0)) * 2}, r"p\.v_th.*computed from others"),
    ],
)
def test_parameters_that_have_no_counterpart_are_refused(parameters, what):
    error = refuse(Cell(norse.LIFCell(p=norse.LIFParameters(**parameters))), UnsupportedOptionError, what)
    assert (error.path, error.framework) == ("neuron", "norse")


def test_adjoint_steps_are_refused():
    refuse(Cell(norse.LSNNCell(adjoint=True)), UnsupportedOptionError, "lsnn_feed_forward_adjoint_step.*adjoint=True")


def test_a_reset_of_the_user_is_refused():
    p = norse.LIFBoxParameters(reset_method=lambda z, v, reset, th: v * (1 - z))
    refuse(Cell(norse.LIFBoxCell(p)), UnsupportedOptionError, r"p\.reset_method.*reset_value, reset_subtract")


def test_a_gradient_hook_of_the_user_is_refused():
    module = Cell(norse.LIFRecurrentCell(N, N))
    module.neuron.recurrent_weights.register_hook(lambda gradient: gradient * 2)
    refuse(module, UnsupportedModuleError, "gradient hook")


def test_a_parameter_that_no_module_holds_is_said_to_stay_as_it_is():
    module = Cell(norse.LIFCell(norse.LIFParameters(v_th=nn.Parameter(torch.tensor(0.5)))))
    with pytest.warns(UserWarning, match=r"p\.v_th is a Parameter that no module has registered"):
        found = from_torch(module, Case(norse.LIFCell).inputs(0))
    check_equivalence(module, found, Case(norse.LIFCell).inputs(1)).raise_if_failed()
