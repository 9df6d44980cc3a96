"""What autograd is told beside the values - detach, grad modes, writes that it does not see - is in the program."""

import pytest
import snntorch
import torch
from helpers.forwards import built, inputs
from helpers.programs import assert_program_computes, compute, trace
from spikingjelly.activation_based import functional, neuron
from torch import nn

from snnax_interop import RecordingError, check_equivalence, from_torch


FORWARD = """
TIME = 0

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 3)
        self.lif, self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.3), snntorch.Leaky(beta=0.7, threshold=0.2)
        self.gain = nn.Parameter(torch.tensor([0.5, 0.6, 0.7]))

    @torch.no_grad()
    def scaled(self, x):
        return x / (x.amax(-1, keepdim=True) + 1)

    @torch.inference_mode()
    def inferred(self, x):
        y = torch.relu(x - 0.2)
        y.mul_(1.5)
        y[:, 0] = 0.3
        return y

    def forward(self, x):
        m, m2 = self.lif.init_leaky(), self.lif2.init_leaky()
        outs, T = [], len(x)
        for t in range(T):
            cur = self.fc(x[t])
            {current}
            s, m = self.lif(cur, m)
            {between}
            s2, m2 = self.lif2(self.fc2(s), m2)
            kept = m2 * 1.0
            {behind}
            outs.append(kept)
        return torch.stack(outs), m2
"""

# Where the line stands, and the line.
CUTS = {
    "detach_ of a state": ("behind", "m.detach_()"),
    "detach_ of spikes": ("between", "s.detach_()"),
    "detach_ every other step": ("behind", "m.detach_() if t % 2 else None"),
    "detach_ leaves views": ("behind", "part = kept[:, 0]; kept.detach_(); kept = kept + part.unsqueeze(1)"),
    "requires_grad": ("behind", "m = m.detach().requires_grad_(False)"),
    "detach and requires_grad_": ("behind", "m = m.detach().requires_grad_()"),
    "data of a weight": ("current", "cur = torch.nn.functional.linear(x[t], self.fc.weight.data, self.fc.bias)"),
}
MODES = {
    "no_grad for some steps": ("current", "with torch.set_grad_enabled(t >= 2): cur = cur * 1.5"),
    "mode by statements": ("current", "torch.set_grad_enabled(t >= 2); cur = cur * 1.5; torch.set_grad_enabled(True)"),
    "inference_mode": ("current", "with torch.inference_mode(): gate = torch.sigmoid(cur)\ncur = cur * gate.clone()"),
    "inference_mode as decorator": ("current", "cur = self.fc(self.inferred(x[t]).clone())"),
    "no_grad as decorator": ("current", "cur = self.fc(self.scaled(x[t]))"),
    "enable_grad inside": (
        "current",
        "with torch.no_grad():\n    gate = torch.sigmoid(cur)\n    with torch.enable_grad(): cur = cur * gate",
    ),
}
WRITES = {
    "clamp_": ("behind", "with torch.no_grad(): m.clamp_(0, 0.25)"),
    "masked": ("behind", "with torch.no_grad(): m[m > 0.2] = 0.1"),
    "mul_": ("behind", "with torch.no_grad(): m2.mul_(0.5)"),
    "part": ("behind", "with torch.no_grad(): m[:, :2] = 0.1"),
    "copy_": ("behind", "with torch.no_grad(): m.copy_(m.round())"),
    "zero_ at a step": ("behind", "with torch.no_grad(): m.zero_() if t == 2 else None"),
    "fill_ of a part": ("behind", "with torch.no_grad(): m2[:, 1].fill_(0.2)"),
    "through views": (
        "current",
        "v = cur[:, :2].t()\nwith torch.no_grad(): v.mul_(0.5); cur.view(-1)[::2] += 0.1",
    ),
    "out=": ("behind", "with torch.no_grad(): torch.clamp(m2, 0, 0.3, out=m2)"),
    "of what learns": ("behind", "with torch.no_grad(): kept.mul_(self.gain)"),
    "data": ("behind", "m2.data.clamp_(max=0.4)"),
    "data is assigned": ("behind", "m2.data = m2.data * 0.5"),
    "detached": ("behind", "d = m2.detach(); d *= 0.5; d[:, 0] = 0.1"),
    "detached, with a gradient": ("behind", "d = kept.detach(); d *= self.gain; kept = kept + d"),
    "both in turn": ("behind", "d = kept.detach(); d *= self.gain; kept += 0.1; d *= self.gain; kept = kept + 2 * d"),
}  # fmt: skip
CASES = CUTS | MODES | WRITES


def network(place="", line=""):
    lines = dict.fromkeys(("current", "between", "behind"), "pass")
    if place:
        lines[place] = line.replace("\n", "\n" + 12 * " ")
    return built(FORWARD.format(**lines))[0]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", CASES)
def test_gradients_follow_what_autograd_is_told(name):
    module = network(*CASES[name])
    found = trace(module, (inputs(0, 3, 5),))
    elsewhere = (inputs(0, 2, 9),)
    expected = compute(module, found.expected, elsewhere)
    plain = network()
    other = compute(plain, plain.forward, elsewhere)
    # The line matters, to gradients or, in a write, to values.
    pairs = [*zip(expected.outputs, other.outputs, strict=True)]
    pairs += [(each, other.gradients[parameter]) for parameter, each in expected.gradients.items()]
    assert not all(torch.equal(*pair) for pair in pairs)
    assert bool(expected.gradients["fc2.weight"].any())
    for program in (found.first, found.last):
        program.check()
        assert_program_computes(found, program, elsewhere, expected)


@pytest.mark.parametrize(
    "name", ["detach_ of a state", "no_grad for some steps", "masked", "data is assigned", "both in turn"]
)
def test_models_have_these_gradients(name):
    module = network(*CASES[name]).float()
    x = inputs(0, 3, 5).float()
    check_equivalence(module, from_torch(module, x), x.flip(0)[:, :2]).raise_if_failed()


class Jelly(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.fc, self.node, self.fc2 = nn.Linear(4, 6), neuron.LIFNode(v_threshold=0.3), nn.Linear(6, 3)
        self.between = between

    def forward(self, x):
        functional.reset_net(self)
        outs = []
        for step in x:
            outs.append(self.fc2(self.node(self.fc(step))))
            self.between(self)
        return torch.stack(outs)


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 3)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True)

    def forward(self, x):
        self.lif.reset_mem()
        outs = []
        for step in x:
            outs.append(self.fc2(self.lif(self.fc(step))))
            self.lif.detach_hidden()
        return torch.stack(outs)


def clamp(net):
    with torch.no_grad():
        net.node.v.clamp_(-0.1, 0.2)


IDIOMS = {
    "snnTorch: detach_hidden": Hidden,
    "SpikingJelly: detach_net": lambda: Jelly(functional.detach_net),
    "SpikingJelly: node.detach": lambda: Jelly(lambda net: net.node.detach()),
    "SpikingJelly: v.detach_": lambda: Jelly(lambda net: net.node.v.detach_()),
    "SpikingJelly: v is limited": lambda: Jelly(clamp),
}


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms_of_frameworks(idiom):
    torch.manual_seed(0)
    module = IDIOMS[idiom]()
    found = trace(module, (inputs(0, 3, 5),))
    elsewhere = (inputs(0, 2, 9),)
    expected = compute(module, found.expected, elsewhere)
    assert all(bool(each.any()) for each in expected.gradients.values())
    assert_program_computes(found, found.last, elsewhere, expected)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("self.fc.weight.requires_grad_(False)", r"requires_grad_ changes whether the parameter 'fc.weight' learns"),
        ("self.fc.weight.requires_grad = False", r"requires_grad changes whether the parameter 'fc.weight' learns"),
        ("self.fc.bias.detach_()", r"detach_ changes whether the parameter 'fc.bias' learns"),
        ("self.fc.weight.data = self.fc.weight * 0.9", r"an assignment to .data changes the parameter 'fc.weight'"),
        ("m.data = m.data[:, :3]", r"an assignment to .data changes the shape or the dtype"),
    ],
)  # fmt: skip
def test_what_forward_does_to_parameters_is_refused(line, match):
    module = network("behind", line)
    before = {name: (each, each.requires_grad, each.clone()) for name, each in module.named_parameters()}
    with pytest.raises(RecordingError, match=match) as refused:
        from_torch(module.float(), inputs(0, 3, 5).float())
    assert line in str(refused.value)
    for name, each in module.named_parameters():
        same, learns, values = before[name]
        assert each is same and each.requires_grad == learns and torch.equal(each, values.float())


def test_saying_what_is_so_is_no_change():
    module = network("behind", "self.fc.weight.requires_grad_(True)").float()
    assert from_torch(module, inputs(0, 3, 5).float()).program is not None


class HookOfAModule(nn.Module):
    """Gradients that no call shows: torch multiplies them on their way."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 6), snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem, outs = self.lif.init_leaky(), []
        for step in x:
            cur = self.fc(step)
            if cur.grad_fn is not None:
                cur.grad_fn.register_prehook(lambda gradients: tuple(2 * each for each in gradients))
            _, mem = self.lif(cur, mem)
            outs.append(mem)
        return torch.stack(outs)


def test_gradients_that_no_call_shows_are_refused():
    with pytest.raises(RecordingError, match=r"the gradients of 'fc.weight', 'fc.bias', 'input 0' are not those"):
        from_torch(HookOfAModule(), inputs(0, 3, 5).float())
