"""Networks inside of a wrapper: they convert as they are, under the wrapper's own parameter names."""

import pytest
import snntorch
import torch
from helpers.isolation import assert_unchanged, photograph
from helpers.loop import Net, sequence
from torch import nn

from snnax_interop import check_equivalence, from_torch, state_dict


class Stepped(nn.Module):
    """One time step per call; the state is an argument that a wrapper's forward does not name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x, mem=None):
        return self.lif(self.fc(x), mem)


class CompiledInside(Net):
    def make_extra(self):
        return torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), backend="eager")

    def current(self, x, t, mem):
        return self.extra(self.fc(x[t]))


class CompiledInPlace(CompiledInside):
    def make_extra(self):
        extra = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        extra.compile(backend="eager")
        return extra


class CompiledFunction(Net):
    def __init__(self):
        super().__init__()
        self.squash = torch.compile(lambda x: torch.tanh(x) * 3, backend="eager")

    def current(self, x, t, mem):
        return self.squash(self.fc(x[t]))


CASES = {
    "compiled": (lambda: torch.compile(Net(), backend="eager"), "inside", "_orig_mod.fc.weight"),
    "compiled, loop outside": (lambda: torch.compile(Stepped(), backend="eager"), "outside", "_orig_mod.fc.weight"),
    "compiled inside": (CompiledInside, "inside", "extra._orig_mod.0.weight"),
    "compiled in place": (CompiledInPlace, "inside", "extra.0.weight"),
    "compiled function": (CompiledFunction, "inside", "fc.weight"),
    "DataParallel": (lambda: nn.DataParallel(Net()), "inside", "module.fc.weight"),
    "DataParallel, loop outside": (lambda: nn.DataParallel(Stepped()), "outside", "module.fc.weight"),
}


@pytest.mark.parametrize("name", CASES)
def test_wrapped_networks_convert_with_the_wrappers_keys(name):
    make, loop, key = CASES[name]
    torch.manual_seed(0)
    module = make()
    before = photograph(module)
    converted = from_torch(module, (sequence() if loop == "inside" else sequence()[0],), loop=loop)
    check_equivalence(module, converted, (sequence(7, 2),)).raise_if_failed()
    assert_unchanged(before, module)
    weights = state_dict(converted)
    assert key in weights
    assert list(weights) == list(module.state_dict())
    module.load_state_dict(weights, strict=True)
    assert len(converted.report) >= 2
