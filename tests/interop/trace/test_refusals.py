"""What cannot be converted exactly is refused: with the place, the source line, and the module as it was."""

import inspect
import random
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
import torch.nn.functional as F
from helpers.isolation import assert_unchanged, photograph
from helpers.loop import Net, sequence
from snntorch import utils
from torch import nn

from snnax_interop import (
    EquivalenceError,
    InteropError,
    MissingDependencyError,
    RecordingError,
    TransferError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    WeightMappingError,
    check_equivalence,
    from_torch,
    to_jax,
)


# Users run without the type checks that the tests add, and meet the library's own.
from_torch = inspect.unwrap(from_torch)


def refused(module, error, match, *, path="", line="", example=None, loop="inside"):
    """Refused with this message, at this path, showing this source line; the module is left as it was."""
    before = photograph(module)
    with pytest.raises(error, match=match) as caught:
        from_torch(module, (sequence(),) if example is None else example, loop=loop)
    assert_unchanged(before, module)
    if isinstance(caught.value, InteropError):
        assert caught.value.path == path
        assert path in str(caught.value)
    assert line in str(caught.value)
    return caught.value


# Values that steer Python


class BranchOnMean(Net):
    def current(self, x, t, mem):
        if mem.mean() > 0:
            return self.fc(x[t])
        return self.fc(x[t]) * 2


class Item(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) * x[t].max().item()


class FloatOf(Net):
    def finish(self, spikes, x):
        return torch.stack(spikes) * float(x.sum())


class NumpyOf(Net):
    def finish(self, spikes, x):
        return torch.stack(spikes) * torch.from_numpy(x.numpy()).sum()


class Halting(Net):
    def forward(self, x):
        mem = self.start(x)
        spikes, t = [], 0
        while not spikes or spikes[-1].sum() < 3:
            spk, mem = self.lif(self.fc(x[t]), mem)
            spikes.append(spk)
            t += 1
        return torch.stack(spikes)


class ForgottenByTolist(Net):
    def current(self, x, t, mem):
        return self.fc(torch.tensor(x[t].tolist()))


class InBlock(Net):
    """The fault lies inside of a submodule, whose path is named."""

    class Gate(nn.Module):
        def forward(self, x):
            return x if bool(x.any()) else x * 0

    def make_extra(self):
        return self.Gate()

    def current(self, x, t, mem):
        return self.extra(self.fc(x[t]))


@pytest.mark.parametrize(
    ("kind", "path", "line"),
    [
        (BranchOnMean, "", "if mem.mean() > 0:"),
        (Item, "", "x[t].max().item()"),
        (FloatOf, "", "float(x.sum())"),
        (NumpyOf, "", "torch.from_numpy(x.numpy())"),
        (Halting, "", "while not spikes or spikes[-1].sum() < 3:"),
        (ForgottenByTolist, "", "torch.tensor(x[t].tolist())"),
        (InBlock, "extra", "return x if bool(x.any()) else x * 0"),
    ],
)
def test_control_flow_on_values_is_refused(kind, path, line):
    error = refused(
        kind(), RecordingError, "takes values out of a tensor that depends on the inputs", path=path, line=line
    )
    assert "Use tensor functions" in str(error)


def test_an_early_stop_by_torch_equal_is_refused():
    class Stop(Net):
        def current(self, x, t, mem):
            if torch.equal(x[t], x[t] * 2):
                raise ValueError
            return self.fc(x[t])

    refused(Stop(), RecordingError, "takes values out of a tensor", line="if torch.equal(x[t], x[t] * 2):")


# Random numbers


class Rand(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) + torch.rand(4)


class RandLike(Net):
    def start(self, x):
        return torch.rand_like(x[0])


class Bernoulli(Net):
    def current(self, x, t, mem):
        return self.fc(torch.bernoulli(x[t] / 6))


class RandomModule(Net):
    """A layer made anew in every call, with weights drawn from the generator."""

    def current(self, x, t, mem):
        return nn.Linear(4, 4)(self.fc(x[t]))


class AlphaDropout(Net):
    def make_extra(self):
        return nn.AlphaDropout(0.3)

    def current(self, x, t, mem):
        return self.extra(self.fc(x[t]))


@pytest.mark.parametrize(
    ("kind", "path", "match", "line"),
    [
        (Rand, "", "rand draws random numbers inside forward", "self.fc(x[t]) + torch.rand(4)"),
        (RandLike, "", "rand_like draws random numbers inside forward", "return torch.rand_like(x[0])"),
        (Bernoulli, "", "bernoulli draws random numbers inside forward", "torch.bernoulli(x[t] / 6)"),
        (RandomModule, "", "draws random numbers inside forward", "return nn.Linear(4, 4)(self.fc(x[t]))"),
        (AlphaDropout, "extra", r"AlphaDropout.*draws random numbers inside forward", "self.extra(self.fc(x[t]))"),
    ],
)
def test_random_numbers_are_refused(kind, path, match, line):
    error = refused(kind().train(), RecordingError, match, path=path, line=line)
    assert "module.eval()" in str(error)


def test_alpha_dropout_in_evaluation_mode_converts():
    assert len(from_torch(AlphaDropout().eval(), (sequence(),)).report) >= 2


# Gradients and hooks of the user's own


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return (x > 0).float()

    @staticmethod
    def backward(context, gradient):
        return gradient / gradient.norm()


class OwnFunction(Net):
    def current(self, x, t, mem):
        return OwnGradient.apply(self.fc(x[t]))


class OwnFunctionOfInputs(Net):
    """Nothing here requires a gradient unless the inputs do, so the function leaves no trace in the graph."""

    def current(self, x, t, mem):
        return self.fc(OwnGradient.apply(x[t] - 3))


@pytest.mark.parametrize("kind", [OwnFunction, OwnFunctionOfInputs])
def test_autograd_functions_that_are_not_elementwise_are_refused(kind):
    refused(kind(), RecordingError, r"OwnGradient calls .*norm", line="OwnGradient.apply(")


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("path", ["fc", "lif", ""])
def test_hooks_are_refused(path, register):
    module = Net()
    getattr(module.get_submodule(path), register)(lambda *args: None)
    refused(module, UnsupportedModuleError, r"has forward hooks.*handle\.remove\(\)", path=path)


# Gradients that are changed, and gradients inside forward


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_gradient_hooks_on_parameters_are_refused(register):
    module = Net()
    handle = getattr(module.fc.weight, register)(lambda *args: None)
    refused(module, UnsupportedModuleError, r"has a gradient hook.*handle\.remove\(\)", path="fc.weight")
    handle.remove()
    from_torch(module, (sequence(),))


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("path", ["fc", "lif", ""])
def test_backward_hooks_are_refused(path, register):
    module = Net()
    getattr(module.get_submodule(path), register)(lambda *args: None)
    refused(module, UnsupportedModuleError, r"has backward hooks.*handle\.remove\(\)", path=path)


def test_hooks_of_the_state_dict_do_not_matter():
    module = Net()
    module.register_state_dict_pre_hook(lambda *args: None)
    module.register_load_state_dict_post_hook(lambda *args: None)
    assert len(from_torch(module, (sequence(),)).report) == 2


class InnerGradient(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        return cur + torch.autograd.grad(cur.sum(), self.fc.bias, retain_graph=True)[0]


class InnerBackward(Net):
    def current(self, x, t, mem):
        self.fc(x[t]).sum().backward()
        return self.fc(x[t])


class HookedSpikes(Net):
    def finish(self, spikes, x):
        out = torch.stack(spikes)
        out.register_hook(lambda gradient: gradient * 2)
        return out


@pytest.mark.parametrize(
    ("kind", "match", "line"),
    [
        (InnerGradient, r"torch\.autograd\.grad computes gradients inside forward", "torch.autograd.grad(cur.sum()"),
        (InnerBackward, "backward computes gradients inside forward", "self.fc(x[t]).sum().backward()"),
        (HookedSpikes, "register_hook attaches to the gradient of a tensor", "out.register_hook(lambda"),
    ],
)
def test_gradients_inside_forward_are_refused(kind, match, line):
    refused(kind(), RecordingError, match, line=line)


# TorchScript


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    "compiled", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(2, 4))], ids=["script", "trace"]
)
def test_torchscript_is_refused(compiled):
    script = compiled(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    match = r"TorchScript module.*Pass the original module, from before torch\.jit\.script"
    refused(script, UnsupportedModuleError, match)
    module = Net()
    module.extra = script
    refused(module, UnsupportedModuleError, match, path="extra")


# Parameters, buffers and options that forward changes


class Rate(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("rate", torch.ones(4))


class DecayingBuffer(Rate):
    def current(self, x, t, mem):
        self.rate.mul_(0.9)
        return self.fc(x[t]) * self.rate


class WrittenBuffer(Rate):
    def current(self, x, t, mem):
        self.rate[0] = 2.0
        return self.fc(x[t]) * self.rate


class AddedBuffer(Rate):
    def current(self, x, t, mem):
        self.rate += 1
        return self.fc(x[t]) * self.rate


class ClampedWeight(Net):
    def current(self, x, t, mem):
        self.fc.weight.data.clamp_(min=0)
        return self.fc(x[t])


class NormedWeight(Net):
    def start(self, x):
        with torch.no_grad():
            self.fc.weight.mul_(0.5)
        return super().start(x)


@pytest.mark.parametrize(
    ("kind", "match", "line"),
    [
        (DecayingBuffer, "mul_ changes the buffer 'rate' inside forward", "self.rate.mul_(0.9)"),
        (WrittenBuffer, "__setitem__ changes the buffer 'rate' inside forward", "self.rate[0] = 2.0"),
        (AddedBuffer, "changes the buffer 'rate' inside forward", "self.rate += 1"),
        (ClampedWeight, "clamp_ changes the parameter 'fc.weight' inside", "self.fc.weight.data.clamp_(min=0)"),
        (NormedWeight, "mul_ changes the parameter 'fc.weight' inside forward", "self.fc.weight.mul_(0.5)"),
    ],
)
def test_writes_into_parameters_and_buffers_are_refused(kind, match, line):
    refused(kind(), RecordingError, match, line=line)


class ComputedDecay(Net):
    def current(self, x, t, mem):
        self.lif.beta = torch.sigmoid(x[t].mean())
        return self.fc(x[t])


class RaisedThreshold(Net):
    def current(self, x, t, mem):
        self.lif.threshold = self.lif.threshold + 0.1
        return self.fc(x[t])


class ReplacedWeight(Net):
    def current(self, x, t, mem):
        self.fc.weight = nn.Parameter(self.fc.weight.detach() * 0.5)
        return self.fc(x[t])


@pytest.mark.parametrize(
    ("kind", "path", "name"),
    [(ComputedDecay, "lif", "beta"), (RaisedThreshold, "lif", "threshold"), (ReplacedWeight, "fc", "weight")],
)
def test_options_that_forward_sets_are_refused(kind, path, name):
    refused(kind(), RecordingError, rf"'{path}\.{name}' of the \w+ is set inside forward", path=path)


# Boolean masks


class ReadByMask(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        return cur + cur[cur > 0].sum()


class WrittenByMask(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur[torch.ones(3, 4, dtype=torch.bool)] = torch.arange(12.0)
        return cur


@pytest.mark.parametrize(
    ("kind", "match", "line"),
    [
        (ReadByMask, "a boolean mask picks values", "cur[cur > 0].sum()"),
        (WrittenByMask, "a boolean mask writes one value for each place", "= torch.arange(12.0)"),
    ],
)
def test_shapes_that_depend_on_a_mask_are_refused(kind, match, line):
    refused(kind(), RecordingError, match, line=line)


class MaskedNumber(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur[cur < 0.2] = 0.1
        return cur


class MaskedTensor(Net):
    """A scalar tensor with a gradient, under a mask of columns that is a constant."""

    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur[:, torch.tensor([True, False, True, False])] = self.fc.bias.sum() + 1
        return cur


class MaskedSamples(Net):
    """Whole rows, one value for each column."""

    def current(self, x, t, mem):
        cur = self.fc(x[t]) * 2
        cur[x[t].mean(1) < 3] = self.fc.bias
        return cur


@pytest.mark.parametrize("kind", [MaskedNumber, MaskedTensor, MaskedSamples])
def test_writes_under_a_mask_convert(kind):
    torch.manual_seed(0)
    module = kind()
    converted = from_torch(module, (sequence(),))
    check_equivalence(module, converted, (sequence(7, 2),)).raise_if_failed()


# What a second call does


class Lazy(Net):
    """The membrane is made once, and goes on at the next call."""

    def make_extra(self):
        self.mem = None

    def forward(self, x):
        if self.mem is None:
            self.mem = self.lif.reset_mem()
        spikes = []
        for t in range(x.shape[0]):
            spk, self.mem = self.lif(self.fc(x[t]), self.mem)
            spikes.append(spk)
        return torch.stack(spikes)


class Counting(Net):
    def make_extra(self):
        self.calls = 0

    def start(self, x):
        self.calls += 1
        return super().start(x)

    def current(self, x, t, mem):
        return self.fc(x[t]) if self.calls == 1 else torch.relu(self.fc(x[t]))


class Annealing(Net):
    def make_extra(self):
        self.gain = 1.0

    def start(self, x):
        self.gain *= 0.5
        return super().start(x)

    def current(self, x, t, mem):
        return self.fc(x[t]) * self.gain


class Remembering(Net):
    def make_extra(self):
        self.history = []

    def finish(self, spikes, x):
        self.history.append(torch.stack(spikes).detach())
        return torch.stack(self.history).sum(0)


class Failing(Net):
    def start(self, x):
        if hasattr(self, "done"):
            raise ValueError("called twice")
        self.done = True
        return super().start(x)


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        (Lazy, "self.mem", ""),
        (Counting, "self.calls", "self.fc(x[t]) if self.calls == 1"),
        (Annealing, "self.gain", "self.fc(x[t]) * self.gain"),
        (Remembering, "self.history", "torch.stack(self.history).sum(0)"),
        (Failing, "self.done", ""),
    ],
)
def test_what_is_kept_from_call_to_call_is_refused(kind, name, line):
    error = refused(kind(), RecordingError, "forward keeps something from call to call", line=line)
    assert name in str(error) and "Initialise what changes at the beginning of forward" in str(error)


class MovingRate(Rate):
    def finish(self, spikes, x):
        self.rate = self.rate * 0.9 + torch.stack(spikes).mean((0, 1)).detach()
        return torch.stack(spikes)


class ScratchBuffer(Rate):
    """A buffer that is set before it is read."""

    def start(self, x):
        self.rate = torch.zeros(x.shape[1], 4)
        return super().start(x)

    def current(self, x, t, mem):
        self.rate = self.rate * 0.9 + self.fc(x[t])
        return self.rate


def test_buffers_that_go_on_are_refused_and_those_that_begin_anew_convert():
    refused(MovingRate(), RecordingError, "the buffer 'rate' is changed inside forward", line="self.rate * 0.9")
    assert len(from_torch(ScratchBuffer(), (sequence(),)).report) == 2


def test_hidden_states_that_go_on_are_noted():
    class Hidden(nn.Module):
        def __init__(self, reset):
            super().__init__()
            self.reset = reset
            self.fc = nn.Linear(4, 4)
            self.lif = snntorch.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x):
            if self.reset:
                utils.reset(self)
            return torch.stack([self.lif(self.fc(x[t])) for t in range(x.shape[0])])

    note = "lif: torch continues from the last membrane at the next call unless reset; the conversion starts anew"
    torch.manual_seed(0)
    assert note in from_torch(Hidden(False), (sequence(),)).report.notes
    assert note not in from_torch(Hidden(True), (sequence(),)).report.notes


GENERATOR = np.random.default_rng(0)


class PythonRandom(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) * random.random()


class NumpyRandom(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) + torch.from_numpy(np.random.rand(4).astype(np.float32))


class SteppedAtRandom(Net):
    def forward(self, x):
        return self.lif(self.fc(x) + np.random.rand(), torch.zeros(3, 4))[0]


class NumpyGenerator(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) * float(GENERATOR.random())


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (PythonRandom, "self.fc(x[t]) * random.random()"),
        (NumpyRandom, "torch.from_numpy(np.random.rand(4)"),
        (NumpyGenerator, "float(GENERATOR.random())"),
    ],
)
def test_random_numbers_of_others_are_refused(kind, line):
    torch.manual_seed(0)
    numpy = np.random.get_state()[1].tolist()
    match = "forward gives other values when it is called again"
    refused(kind(), RecordingError, match, line=line)
    refused(SteppedAtRandom(), RecordingError, match, example=(sequence()[0],), loop="outside")
    assert numpy == np.random.get_state()[1].tolist()


class BranchOnDtype(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        return cur * 2 if self.fc.weight.dtype == torch.float32 else torch.relu(cur)


def test_a_branch_on_the_dtype_is_refused():
    torch.manual_seed(0)
    error = refused(
        BranchOnDtype(), EquivalenceError, "forward does something else in float64", line="cur * 2 if self.fc.weight"
    )
    assert "please report" not in str(error)


# Modules and functions


class UnknownLayer(Net):
    def make_extra(self):
        return nn.CrossMapLRN2d(2)

    def current(self, x, t, mem):
        return self.extra(self.fc(x[t]))


class SubclassedNeuron(Net):
    class Own(snntorch.Leaky):
        def forward(self, x, mem=None):
            return super().forward(x * 2, mem)

    def __init__(self):
        super().__init__()
        self.lif = self.Own(beta=0.9)


class OtherModule(Net):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.ReLU()]

    def current(self, x, t, mem):
        return self.hidden[0](self.fc(x[t]))


def test_unknown_library_modules_are_refused_with_what_is_allowed():
    error = refused(
        UnknownLayer(),
        UnsupportedModuleError,
        r"torch's CrossMapLRN2d cannot be converted\. Allowed of torch: ",
        path="extra",
    )
    assert "Linear" in str(error) and error.framework == "torch"


def test_subclasses_of_neurons_are_refused():
    refused(SubclassedNeuron(), UnsupportedModuleError, "Own is a subclass of the neuron Leaky", path="lif")


@pytest.mark.parametrize("kind", [OtherModule])
def test_modules_that_are_no_attributes_are_refused(kind):
    refused(
        kind(), UnsupportedModuleError, "a ReLU that is no submodule of the network is called; make it an attribute"
    )


class Function(Net):
    def current(self, x, t, mem):
        return torch.fft.fft(self.fc(x[t])).real


class InBlockFunction(InBlock):
    class Gate(nn.Module):
        def forward(self, x):
            return torch.digamma(x)


@pytest.mark.parametrize(
    ("kind", "path", "name", "line"),
    [
        (Function, "", "fft", "torch.fft.fft(self.fc(x[t])).real"),
        (InBlockFunction, "extra", "digamma", "return torch.digamma(x)"),
    ],
)
def test_unknown_functions_are_refused_with_what_is_allowed(kind, path, name, line):
    error = refused(kind(), RecordingError, rf"the function .*{name} cannot be converted", path=path, line=line)
    assert "functions of snnax_interop.ops.OPS, such as " in str(error)


# Loops


class NoLoop(Net):
    def forward(self, x):
        return self.lif(self.fc(x))[0]


@pytest.mark.parametrize(
    ("kind", "match", "path", "line"),
    [
        (NoLoop, "no time loop was found in forward", "", ""),
    ],
)
def test_loops_whose_steps_differ_are_refused(kind, match, path, line):
    refused(kind(), RecordingError, match, path=path, line=line)


def test_a_single_time_step_is_refused_inside():
    error = refused(Net(), RecordingError, "no time loop was found", example=(sequence(1),))
    assert "pass a longer example" in str(error)
    assert "Looked for, among its" in str(error)


def test_a_network_without_neurons_is_refused():
    refused(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), RecordingError, "no neuron that is stepped", loop="auto")


# Memory and the batch


class WriteIntoView(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur[:, 0].mul_(2)
        return cur


class WriteIntoInput(Net):
    def current(self, x, t, mem):
        x[t].clamp_(max=2)
        return self.fc(x[t])


class WriteIntoWindows(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur.unfold(1, 2, 2).mul_(2)
        return cur


class DiagonalOfAll(Net):
    def current(self, x, t, mem):
        cur = self.fc(x[t])
        cur.fill_diagonal_(0.5)
        return cur


class LoopOverSamples(Net):
    def forward(self, x):
        return torch.stack([super(LoopOverSamples, self).forward(x[:, b]) for b in range(x.shape[1])])


class FoldedIntoNeuron(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]).view(-1).softmax(0)

    def finish(self, spikes, x):
        return torch.stack(spikes).view(x.shape)


class FoldedOutput(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]).view(-1)

    def finish(self, spikes, x):
        return torch.stack(spikes).sum(1)


class DropsChannelsOfAll(Net):
    def current(self, x, t, mem):
        return self.fc(x[t]) + F.dropout1d((x[t] @ x[t].T)[None], 0.5, True).sum(2).T


@pytest.mark.parametrize(
    ("kind", "match", "line"),
    [
        (
            WriteIntoWindows,
            "mul_ writes into memory that another tensor shares, through",
            "cur.unfold(1, 2, 2).mul_(2)",
        ),
        (DiagonalOfAll, "fill_diagonal_ writes into a tensor as no function", "cur.fill_diagonal_(0.5)"),
    ],
)
def test_writes_into_shared_memory_that_have_no_function_are_refused(kind, match, line):
    refused(kind(), RecordingError, match, line=line)


def test_a_write_through_a_view_converts():
    torch.manual_seed(0)
    module = WriteIntoView()
    converted = from_torch(module, (sequence(),))
    check_equivalence(module, converted, (sequence(7, 2),)).raise_if_failed()


def test_a_write_into_the_input_converts_and_leaves_it_alone():
    """torch itself takes no gradients here: it writes into what the layer before keeps for its own."""
    torch.manual_seed(0)
    module, example = WriteIntoInput(), sequence()
    before = example.clone()
    converted = from_torch(module, (example,))
    assert torch.equal(example, before)
    check_equivalence(module, converted, (sequence(7, 2),), gradients=False).raise_if_failed()


@pytest.mark.parametrize(
    ("kind", "match", "line"),
    [
        (LoopOverSamples, "forward does something else with another batch size", "torch.stack(spikes)"),
        (FoldedIntoNeuron, "'lif' is given a tensor of shape .4B. whose batch is folded", "self.lif("),
        (FoldedOutput, "torch.stack is given a tensor of shape .T, 4B. whose batch is folded", ".sum(1)"),
        (DropsChannelsOfAll, "F.dropout1d drops channels", "F.dropout1d("),
    ],
)
def test_samples_that_cannot_be_told_apart_are_refused(kind, match, line):
    refused(kind(), RecordingError, match, line=line)


def test_a_branch_on_the_batch_size_is_refused():
    class Branch(Net):
        def current(self, x, t, mem):
            return self.fc(x[t]) if x.shape[1] == 3 else torch.relu(self.fc(x[t]))

    refused(
        Branch(), RecordingError, "does something else with another batch size", line="self.fc(x[t]) if x.shape[1] == 3"
    )


def test_a_result_without_tensors_is_refused():
    class Nothing(Net):
        def finish(self, spikes, x):
            return None

    refused(Nothing(), RecordingError, "forward returns no tensor")


def test_a_result_that_ignores_the_loop_is_refused():
    class Ignores(Net):
        def finish(self, spikes, x):
            return x * 2

    refused(Ignores(), RecordingError, "does not depend on the time loop")


# Arguments of from_torch


@pytest.mark.parametrize(
    ("example", "error", "match"),
    [
        ((np.ones((5, 3, 4), np.float32),), TypeError, r"must be a tuple of torch tensors.*found \['ndarray'\]"),
        ((sequence(), 3), TypeError, r"must be a tuple of torch tensors.*found \['Tensor', 'int'\]"),
        ((), TypeError, "must be a tuple of torch tensors"),
        ((torch.zeros(5, 0, 4),), ValueError, r"example input 0 is empty, of shape \(5, 0, 4\)"),
        ((torch.full((5, 3, 4), torch.nan),), ValueError, "example input 0 holds NaN or infinity"),
        ((torch.full((5, 3, 4), torch.inf),), ValueError, "example input 0 holds NaN or infinity"),
        ((sequence().double(),), TransferError, r"'input 0' is float64, which JAX holds only with .*jax_enable_x64"),
        ((sequence().to("meta"),), TransferError, "'input 0' is on meta"),
    ],
    ids=["NumPy", "number", "none", "empty", "NaN", "infinity", "float64", "meta"],
)
def test_bad_examples_are_refused(example, error, match):
    path = "input 0" if error is TransferError else ""
    refused(Net(), error, match, example=example, path=path)


def test_float64_modules_are_refused_without_x64():
    refused(Net().double(), TransferError, "'fc.weight' is float64, which JAX holds only with", path="fc.weight")


def test_bad_loop_values_and_modules_are_refused():
    refused(Net(), ValueError, "loop must be 'inside', 'outside' or 'auto', found 'both'", loop="both")
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, found function"):
        from_torch(lambda x: x, (sequence(),))


# Inputs of a converted network


class TwoInputs(Net):
    def forward(self, x, gain):
        mem = self.start(x)
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]) * gain, mem)
            spikes.append(spk)
        return torch.stack(spikes)


@pytest.fixture(scope="module")
def converted():
    torch.manual_seed(0)
    return from_torch(TwoInputs(), (sequence(), torch.ones(3, 4)))


X, GAIN = jnp.ones((5, 3, 4)), jnp.ones((3, 4))


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        ((X,), ValueError, r"expected 2 inputs \['x', 'gain'\], found 1"),
        ((X, GAIN, GAIN), ValueError, r"expected 2 inputs \['x', 'gain'\], found 3"),
        ((X[..., :3], GAIN), ValueError, r"input 'x' must have shape \(time, batch, 4\), found \(5, 3, 3\)"),
        ((X[0], GAIN), ValueError, r"input 'x' must have shape \(time, batch, 4\), found \(3, 4\)"),
        ((X, GAIN[:2]), ValueError, r"input 'gain' has 2 along batch, other inputs have 3"),
        ((X.astype(jnp.int32), GAIN), TypeError, r"input 'x' must have dtype float32, found int32; cast it"),
        ((X, GAIN.astype(jnp.bfloat16)), TypeError, r"input 'gain' must have dtype float32, found bfloat16; cast it"),
        ((sequence(), GAIN), TypeError, r"input 'x' is a torch tensor; convert it with snnax_interop\.to_jax"),
        (([1.0], GAIN), TypeError, r"input 'x' must be a JAX or NumPy array, found list"),
    ],
)
def test_a_converted_network_names_what_it_expects_and_what_it_found(converted, inputs, error, match):
    with pytest.raises(error, match=match):
        converted(*inputs)


def test_a_network_of_fixed_length_names_its_length():
    class Fixed(Net):
        def forward(self, x):
            mem = self.start(x)
            spikes = []
            for t in range(5):
                spk, mem = self.lif(self.fc(x[t]), mem)
                spikes.append(spk)
            return torch.stack(spikes)

    converted = from_torch(Fixed(), (sequence(),))
    assert "runs exactly 5 time steps" in str(converted.report)
    with pytest.raises(ValueError, match=r"input 'x' must have shape \(.*\), found \(4, 3, 4\)|has 4 along time"):
        converted(to_jax(sequence(4)))


def test_float64_needs_x64_here_too(converted):
    with pytest.raises(ValueError, match="float64 needs jax_enable_x64"):
        converted.astype("float64")


def test_a_trained_model_of_another_structure_is_refused(converted):
    with pytest.raises(WeightMappingError, match="another structure"):
        converted.with_model(jax.tree.map(lambda x: x, [converted.model]))


def test_other_networks_in_the_process_do_not_matter():
    """`utils.reset` also touches neurons of networks that have nothing to do with this one."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.lif = snntorch.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            return torch.stack([self.lif(self.fc(x[t])) for t in range(x.shape[0])])

    trained = Hidden()
    trained(sequence()).sum().backward()
    assert trained.lif.mem.grad_fn is not None
    assert len(from_torch(Hidden(), (sequence(),)).report) == 2


def test_a_list_that_forward_appends_to_stays_the_same_list():
    class Logging(Net):
        def finish(self, spikes, x):
            self.log.append(len(spikes))
            return torch.stack(spikes)

    module = Logging()
    log = module.log = [0]
    from_torch(module, (sequence(),))
    assert module.log is log
    assert log == [0]


# Without torch


@pytest.mark.parametrize("statement", ["import snnax_interop", "from snnax_interop import from_torch"])
@pytest.mark.parametrize("package", ["torch", "tqdm"])
@pytest.mark.full
def test_without_what_the_bridge_needs_the_pip_line_is_named(statement, package):
    code = f"""
        import sys
        sys.modules["{package}"] = None
        try:
            {statement}
        except ImportError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    start = f"MissingDependencyError {package} is not installed"
    assert done.stdout.startswith(start), done.stdout + done.stderr
    assert "pip install '.[interop]'" in done.stdout


def test_every_error_of_the_bridge_is_an_interop_error_with_path_and_framework():
    for kind in (EquivalenceError, MissingDependencyError, RecordingError, TransferError, UnsupportedModuleError):
        error = kind("what", path="a.b", framework="torch")
        assert isinstance(error, InteropError)
        assert (error.path, error.framework, str(error)) == ("a.b", "torch", "at 'a.b': what")
    assert issubclass(UnsupportedOptionError, InteropError)


class SlowsDown(Net):
    """Does something else from step 7 on, beyond the end of the example."""

    def forward(self, x):
        mem = self.start(x)
        spikes = []
        for t in range(x.shape[0]):
            current = self.fc(x[t])
            if t >= 7:
                current = torch.tanh(current)
            spk, mem = self.lif(current, mem)
            spikes.append(spk)
        return torch.stack(spikes)


class StopsReading(Net):
    """Reads the same step again from step 7 on, beyond the end of the example, at the same source line."""

    def forward(self, x):
        mem = self.start(x)
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[min(t, 7)]), mem)
            spikes.append(spk)
        return torch.stack(spikes)


class Middle(Net):
    def forward(self, x):
        mem = self.start(x)
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            spikes.append(spk)
        return spikes[len(spikes) // 2]


@pytest.mark.parametrize("kind", [SlowsDown, StopsReading, Middle])
def test_steps_that_differ_only_beyond_the_example_hold_for_its_length(kind):
    converted = from_torch(kind(), (sequence(),))
    assert any("exactly this length" in note for note in converted.report.notes)
    with pytest.raises(ValueError, match=r"must have shape \(5, batch, 4\), found \(6, 3, 4\)"):
        converted(to_jax(sequence(6)))


class PicksByBatch(Net):
    """The same lines, on another tensor when the batch is larger."""

    def forward(self, x):
        mem = self.start(x)
        low, high = x * 0.5, x * 2.0
        chosen = [low, high][x.shape[1] % 2]
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(chosen[t]), mem)
            spikes.append(spk)
        return torch.stack(spikes)


def test_values_that_are_chosen_by_the_batch_size_are_refused():
    refused(PicksByBatch(), RecordingError, "another batch size or other values", line="self.fc(chosen[t])")


class Annealed(Net):
    """A number that grows with each call, and means something else only later."""

    calls = 0

    def current(self, x, t, mem):
        return self.fc(x[t]) * (2 if self.calls > 5 else 1)

    def finish(self, spikes, x):
        self.calls += 1
        return torch.stack(spikes)


class KeptLength(Annealed):
    """The length of the first call, for all that follow."""

    calls: float | None = None

    def current(self, x, t, mem):
        if self.calls is None:
            self.calls = float(len(x))
        return self.fc(x[t]) / self.calls

    def finish(self, spikes, x):
        return torch.stack(spikes)


class Counted(Annealed):
    """A number that no tensor depends on."""

    def current(self, x, t, mem):
        return self.fc(x[t])


@pytest.mark.parametrize("kind", [Annealed, KeptLength])
def test_numbers_that_calls_change_and_others_read_are_refused(kind):
    module = kind()
    with pytest.raises(RecordingError, match=r"forward changes self.calls from call to call, and computes something"):
        from_torch(module, torch.rand(5, 3, 4))
    assert module.calls == kind.calls


def test_numbers_that_calls_only_count_convert():
    module = Counted()
    from_torch(module, torch.rand(5, 3, 4))
    assert module.calls == 0
