"""A framework that the bridge has not known: its record, and a line in the table of `frameworks`, make it convert."""

import dataclasses
import inspect
import sys
import types
import warnings

import pytest
import torch
from torch import nn

from snnax import snn
from snnax.surrogate import ATan, Sigmoid
from snnax_interop import (
    ConversionReport,
    Converted,
    RecordingError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    check_equivalence,
    frameworks,
    from_torch,
    hidden_states,
    hyperparameters,
    load_hyperparameters,
    load_state_dict,
    state_dict,
)
from snnax_interop.converters.framework import Framework, RecordedClasses, SurrogateOption, by_class
from snnax_interop.converters.layer import LayerConverter
from snnax_interop.converters.neuron import Memory, NeuronCall, NeuronConverter


# What would be the package `tinyspikes`.


def sharp(x):
    """Spikes at and above zero, with the slope of a sigmoid."""
    smooth = torch.sigmoid(4 * x)
    return (x >= 0).to(x.dtype) + (smooth - smooth.detach())


class Scale(nn.Module):
    """A weight for each feature."""

    def __init__(self, features):
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, features))

    def forward(self, x):
        return x * self.weight


class Neuron(nn.Module):
    """A leaky neuron that keeps its membrane, and is reset by subtraction."""

    def __init__(self, keep=0.8, threshold=1.0, gate=sharp, mode="subtract"):
        super().__init__()
        self.keep, self.threshold, self.gate, self.mode = keep, threshold, gate, mode
        self.membrane = None

    def forward(self, x):
        v = x if self.membrane is None else self.keep * self.membrane + x
        z = self.gate(v - self.threshold)
        self.membrane = v - z.detach() * self.threshold
        return z


class Block(nn.Module):
    """Made of others."""

    def __init__(self, features, outputs, **options):
        super().__init__()
        self.scale, self.fc, self.neuron = Scale(features), nn.Linear(features, outputs), Neuron(**options)

    def forward(self, x):
        return self.neuron(self.fc(self.scale(x)))


class Unknown(nn.Module):
    def forward(self, x):
        return x


CLASSES = (Scale, Neuron, Block, Unknown)


# What would be `frameworks/tinyspikes/__init__.py`.


def build_scale(module, context):
    return context.call("mul", other=context.parameter("weight"))


def build_neuron(module, context):
    if module.mode != "subtract":
        raise context.refuse("mode", module.mode, allowed="'subtract'", advice="Use it")
    if module.gate is not sharp and module.gate not in context.surrogates:
        raise context.refuse("gate", module.gate, allowed="sharp", advice="Name it in surrogates=")
    return snn.LIF(
        context.x_shape,
        snn.Factor(context.constant("keep", torch.tensor(module.keep, dtype=torch.float64)), constraint="none"),
        context.constant("threshold", torch.tensor(module.threshold, dtype=torch.float64)),
        "subtract",
        spike_at_threshold=True,
        surrogate=context.surrogates.get(module.gate, Sigmoid(4.0)),
    )


def read_membrane(module):
    return () if module.membrane is None else (module.membrane,)


def reset_membrane(module):
    module.membrane = None


def split_neuron(module, call):
    return NeuronCall(x=call.argument(), state_in=call.kept or None, out=call.result, state_out=(module.membrane,))


def run_neuron(module, x, state):
    v = x if state is None or state[0] is None else module.keep * state[0] + x
    z = module.gate(v - module.threshold)
    return z, (v - z.detach() * module.threshold,)


FRAMEWORK = Framework(
    name="tinyspikes",
    converters=by_class(
        LayerConverter(kind=Scale, framework="tinyspikes", options=("features",), build=build_scale),
        NeuronConverter(
            kind=Neuron,
            framework="tinyspikes",
            options=("keep", "threshold", "gate", "mode"),
            build=build_neuron,
            fields=("v",),
            run=run_neuron,
            read_every_call=("keep", "threshold"),
            split_call=split_neuron,
            memory=Memory(read=read_membrane, reset=reset_membrane),
            caveat=lambda module: "forgets quickly" if module.keep < 0.5 else "",
        ),
    ),
    recorded=RecordedClasses(takes=lambda kind: kind is Block),
    surrogate=SurrogateOption(attribute="gate", spikes_at_threshold=True),
)


@pytest.fixture(autouse=True)
def tinyspikes(monkeypatch):
    """The framework as if it were installed, and its line in the table."""
    for kind in CLASSES:
        monkeypatch.setattr(kind, "__module__", "tinyspikes.modules")
    support = types.ModuleType("tinyspikes_support")
    support.FRAMEWORK = FRAMEWORK
    monkeypatch.setitem(sys.modules, "tinyspikes_support", support)
    monkeypatch.setitem(frameworks.KNOWN, "tinyspikes", frameworks.Known(module="tinyspikes_support"))


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.block, self.readout = Block(5, 7, **options), nn.Linear(7, 3)

    def forward(self, x):
        return torch.stack([self.readout(self.block(x[:, t])) for t in range(x.shape[1])], 1)


X = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(1)) * 4


def test_a_network_of_the_framework_converts_with_its_gradients():
    net = Net()
    converted = from_torch(net, (X,))
    check_equivalence(net, converted, (X,)).raise_if_failed()
    rows = {row.path: (row.source, row.target) for row in converted.report}
    assert rows["block.neuron"] == ("tinyspikes.Neuron", "LIF")
    assert rows["block.scale"] == ("tinyspikes.Scale", "Call(mul)")
    assert [row.source for row in converted.report.containers] == ["Net", "Block"]


def test_its_options_states_and_weights_are_known_by_their_names():
    net = Net(keep=0.7)
    converted = from_torch(net, (X,))
    options = {"keep": 0.7, "threshold": 1.0, "gate": f"{__name__}.sharp", "mode": "subtract"}
    found = hyperparameters(converted)
    assert found["modules"] == {"block.neuron": {"class": "tinyspikes.Neuron", "options": options}}
    other = Net()
    load_hyperparameters(other, found)
    assert other.block.neuron.keep == 0.7
    net(X)
    assert hidden_states(net)["block.neuron"]["v"].shape == (4, 7)
    loaded = load_state_dict(converted, net.state_dict())
    assert state_dict(loaded).keys() == net.state_dict().keys()


def test_nothing_is_read_back_out_of_the_report():
    net = Net(keep=0.7)
    converted = from_torch(net, (X,))
    empty = ConversionReport(modules=(), containers=(), order=(), models=(), notes=(), caveats=())
    silent = Converted(
        converted.parameters,
        converted.buffers,
        dataclasses.replace(converted.plan, report=empty),
        converted.dtype,
    )
    assert str(silent.report) != str(converted.report)
    assert hyperparameters(silent) == hyperparameters(converted)
    assert state_dict(load_state_dict(silent, net.state_dict())).keys() == net.state_dict().keys()
    check_equivalence(net, silent, (X,), gradients=False).raise_if_failed()


def test_a_step_of_torch_itself_is_that_of_the_module():
    net = Neuron(keep=0.7)
    run = FRAMEWORK.converters[Neuron].run
    state = None
    for x in X.unbind(1):
        out, state = run(net, x, state)
        assert torch.equal(out, net(x))
        assert torch.equal(state[0], net.membrane)


def test_what_forward_does_against_expectation_is_warned_about_and_shown():
    with pytest.warns(UserWarning, match=r"at 'block\.neuron': forgets quickly"):
        converted = from_torch(Net(keep=0.4), (X,))
    assert "caveat: at 'block.neuron': forgets quickly" in str(converted.report)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "caveat" not in str(from_torch(Net(), (X,)).report)


def test_a_class_without_a_converter_is_refused_with_those_that_have_one():
    net = Net()
    net.readout = Unknown()
    message = r"tinyspikes's Unknown cannot be converted. Allowed of tinyspikes: Neuron, Scale"
    with pytest.raises(UnsupportedModuleError, match=message) as caught:
        from_torch(net, (X,))
    assert (caught.value.path, caught.value.framework) == ("readout", "tinyspikes")


def test_a_subclass_of_its_neuron_is_refused():
    class Own(Neuron):
        pass

    net = Net()
    net.block.neuron = Own()
    with pytest.raises(UnsupportedModuleError, match="Own is a subclass of the neuron Neuron"):
        from_torch(net, (X,))


def test_an_option_without_a_counterpart_is_refused():
    with pytest.raises(UnsupportedOptionError, match=r"Neuron\(mode='zero'\) has no exact counterpart") as caught:
        from_torch(Net(mode="zero"), (X,))
    assert (caught.value.path, caught.value.framework) == ("block.neuron", "tinyspikes")


def test_a_function_of_the_users_own_is_found_by_the_name_that_the_framework_has_for_it():
    def own(x):
        smooth = torch.atan(torch.pi * x) / torch.pi
        return (x >= 0).to(x.dtype) + (smooth - smooth.detach())

    net = Net(gate=own)
    with pytest.raises(UnsupportedOptionError, match="gate"):
        from_torch(net, (X,))
    converted = from_torch(net, (X,), surrogates={own: ATan(2.0)})
    check_equivalence(net, converted, (X,)).raise_if_failed()
    with pytest.raises(ValueError, match=r"no neuron of the network has .*own as its gate"):
        from_torch(Net(), (X,), surrogates={own: ATan(2.0)})


def test_an_error_shows_the_users_line_and_not_that_of_the_framework(monkeypatch):
    def branching(self, x):
        return x if float(x.sum()) > 0 else -x

    monkeypatch.setattr(Block, "forward", types.FunctionType(branching.__code__, {"__name__": "tinyspikes.modules"}))
    monkeypatch.setattr(Net, "forward", lambda self, x: self.block(x))
    with pytest.raises(RecordingError) as caught:
        from_torch(Net(), (X,))
    assert "self.block(x)" in str(caught.value) and "float(x.sum())" not in str(caught.value)


@pytest.mark.parametrize("kind", FRAMEWORK.converters, ids=lambda kind: kind.__name__)
def test_the_options_are_those_of_the_class(kind):
    assert set(FRAMEWORK.converters[kind].options) == set(inspect.signature(kind).parameters)
