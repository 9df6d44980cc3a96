"""What a state_dict does not hold, as a JSON file: written, read, and given to a network that was built anew."""

import json

import norse.torch as norse
import pytest
import snntorch
import torch
from norse.torch.functional.reset import reset_subtract
from torch import nn

from snnax_interop import (
    WeightMappingError,
    check_equivalence,
    from_torch,
    hyperparameters,
    load_hyperparameters,
    save_hyperparameters,
    state_dict,
)


class Net(nn.Module):
    """Cells of several classes, one with a threshold that the module holds."""

    def __init__(self, trained: bool = False):
        super().__init__()
        self.v_th = nn.Parameter(torch.tensor(0.4))
        p = {"tau_mem_inv": torch.tensor(70.0), "v_reset": torch.linspace(-0.2, 0.1, 6), "method": "tanh"}
        lif = norse.LIFParameters(v_th=self.v_th, alpha=torch.tensor(0.5), **(p if trained else {}))
        refractory = norse.functional.lif_refrac.LIFRefracParameters(
            lif=norse.LIFParameters(v_th=torch.tensor(0.3 if trained else 1.0)), rho_reset=torch.tensor(2.0)
        )
        self.net = norse.SequentialState(
            nn.Linear(5, 6),
            norse.LIFCell(lif, dt=0.002 if trained else 0.001),
            nn.Linear(6, 6),
            norse.LIFRefracCell(refractory),
            norse.LILinearCell(6, 3, norse.LIParameters(tau_mem_inv=torch.tensor(50.0 if trained else 100.0))),
        )

    def forward(self, x):
        state, outs = None, []
        for xt in x:
            out, state = self.net(xt, state)
            outs.append(out)
        return torch.stack(outs)


def inputs(seed=0):
    return (torch.rand((6, 2, 5), generator=torch.Generator().manual_seed(seed)) * 40,)


@pytest.fixture(scope="module")
def converted():
    torch.manual_seed(0)
    module = Net(trained=True)
    return module, from_torch(module, inputs())


def test_a_network_is_made_again_from_weights_and_a_file(converted, tmp_path):
    module, found = converted
    save_hyperparameters(tmp_path / "net.json", found)
    rebuilt = Net()
    rebuilt.load_state_dict(state_dict(found), strict=True)
    with torch.no_grad():
        assert not torch.equal(rebuilt(*inputs(1)), module(*inputs(1)))
    load_hyperparameters(rebuilt, tmp_path / "net.json")
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(*inputs(1)), module(*inputs(1)), rtol=0, atol=0)
    check_equivalence(rebuilt, found, inputs(2)).raise_if_failed()
    rebuilt(*inputs()).sum().backward()
    assert rebuilt.v_th.grad != 0


def test_the_file_says_what_each_neuron_computes_with(converted):
    found = json.loads(json.dumps(hyperparameters(converted[1])))
    assert list(found["modules"]) == ["net.1", "net.3", "net.4"]
    cell = found["modules"]["net.1"]
    assert cell["class"] == "norse.LIFCell"
    assert cell["options"]["dt"] == 0.002
    assert cell["options"]["p"]["v_th"] == {"parameter": "v_th"}
    assert cell["options"]["p"]["tau_mem_inv"] == 70.0
    assert len(cell["options"]["p"]["v_reset"]) == 6
    assert found["modules"]["net.3"]["options"]["p"]["lif"]["v_th"] == pytest.approx(0.3)


class Boxes(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.fc, self.cell = nn.Linear(5, 6), cell

    def forward(self, x):
        state, outs = None, []
        for xt in x:
            out, state = self.cell(self.fc(xt), state)
            outs.append(out)
        return torch.stack(outs)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (norse.LIFCell(), "found a norse.LIFCell, and a norse.LIFBoxCell in the file"),
        (norse.LIFBoxCell(), "reset_value.*reset_subtract.*cannot be set after the module was built"),
        (nn.GRUCell(6, 6), r"found a torch\.GRUCell"),
        (norse.Lift(nn.Linear(6, 6)), "where the module has no neuron"),
    ],
)
def test_what_was_decided_when_a_module_was_built_is_compared(other, match):
    cell = norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=reset_subtract, v_th=torch.tensor(0.5)))
    found = hyperparameters(from_torch(Boxes(cell), inputs()))
    with pytest.raises(WeightMappingError, match=match) as caught:
        load_hyperparameters(Boxes(other), found)
    assert caught.value.path.startswith("cell")


def test_nothing_is_changed_when_something_does_not_fit(converted):
    found = hyperparameters(converted[1])
    found["modules"]["net.4"]["class"] = "norse.LICell"
    rebuilt = Net()
    before = rebuilt.net[1].p
    with pytest.raises(WeightMappingError):
        load_hyperparameters(rebuilt, found)
    assert rebuilt.net[1].p is before


@pytest.mark.parametrize("content", [{}, [], {"format": "another", "modules": {}}, {"modules": {}}])
def test_other_files_are_no_hyperparameters(content, tmp_path):
    (tmp_path / "file.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no file of hyper-parameters"):
        load_hyperparameters(Net(), tmp_path / "file.json")


def test_options_of_snntorch_are_compared():
    def net(reset):
        torch.manual_seed(0)
        return Stepped(snntorch.Leaky(beta=0.9, reset_mechanism=reset))

    found = hyperparameters(from_torch(net("zero"), inputs()))
    assert found["modules"]["cell"]["options"]["beta"] == {"parameter": "cell.beta"}
    load_hyperparameters(net("zero"), found)
    with pytest.raises(WeightMappingError, match="'subtract' in the module and 'zero' in the file"):
        load_hyperparameters(net("subtract"), found)


class Stepped(Boxes):
    def forward(self, x):
        mem, outs = self.cell.reset_mem(), []
        for xt in x:
            out, mem = self.cell(self.fc(xt), mem)
            outs.append(out)
        return torch.stack(outs)
