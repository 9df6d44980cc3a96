"""Norse's LIFCell and LICell: every parameter against the installed Norse, and what is refused."""

import inspect

import norse.torch as norse
import pytest
import torch
from norse.torch.functional.threshold import threshold
from torch import nn

from snnax import snn
from snnax_interop import UnsupportedModuleError, UnsupportedOptionError, check_equivalence, from_torch
from snnax_interop.frameworks.norse import LI_CELL, LIF_CELL


class Cell(nn.Module):
    """A layer and a cell in a loop, with the cell's state among the outputs."""

    def __init__(self, cell, size=6):
        super().__init__()
        self.fc = nn.Linear(5, size)
        self.cell = cell

    def forward(self, x):
        state, outs = None, []
        for xt in x:
            out, state = self.cell(self.fc(xt), state)
            outs.append(out)
        return torch.stack(outs), state


def _tensors(values):
    return {name: torch.as_tensor(value) if not isinstance(value, str) else value for name, value in values.items()}


LIF_PARAMETERS = {
    "defaults": {},
    "time constants": {"tau_syn_inv": 350.0, "tau_mem_inv": 70.0},
    "rest": {"v_leak": 0.2, "v_th": 0.7},
    "reset to a value": {"v_reset": -0.3},
    "per neuron": {
        "v_th": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        "tau_mem_inv": [100.0, 120.0, 140.0, 160.0, 180.0, 200.0],
        "v_reset": [0.0, 0.1, 0.0, -0.1, 0.0, 0.2],
        "v_leak": [0.0, 0.1, 0.0, 0.1, 0.0, 0.1],
    },
    "integers": {"tau_syn_inv": 200, "tau_mem_inv": 100, "v_th": 1},
    "super": {"method": "super", "alpha": 10.0},
    "tanh": {"method": "tanh", "alpha": 2.0},
    "triangle": {"method": "triangle", "alpha": 0.3},
    "circ": {"method": "circ", "alpha": 0.5},
    "heaviside": {"method": "heaviside"},
}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    return (torch.rand((9, 3, 5), generator=generator) * 40,)


@pytest.mark.parametrize("dt", [0.001, 0.002])
@pytest.mark.parametrize("name", LIF_PARAMETERS)
def test_lif_cells_compute_what_norse_computes(name, dt, inputs):
    torch.manual_seed(0)
    net = Cell(norse.LIFCell(p=norse.LIFParameters(**_tensors(LIF_PARAMETERS[name])), dt=dt))
    converted = from_torch(net, (torch.rand(4, 2, 5) * 40,))
    report = check_equivalence(net, converted, inputs)
    report.raise_if_failed()
    assert report.spikes > 0
    assert not report.silent


@pytest.mark.parametrize(
    "parameters",
    [{}, {"v_leak": 0.4}, {"tau_mem_inv": 60.0, "tau_syn_inv": 300.0}, {"v_leak": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}],
)
def test_li_cells_compute_what_norse_computes(parameters, inputs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    lif = norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.2)))
    net = norse.SequentialState(net, lif, nn.Linear(5, 6), norse.LICell(norse.LIParameters(**_tensors(parameters))))
    converted = from_torch(net, (torch.rand(2, 5) * 40,), loop="outside")
    report = check_equivalence(net, converted, inputs)
    report.raise_if_failed()
    assert report.spikes > 0


def test_a_cell_becomes_a_native_neuron_with_rates_of_its_own():
    converted = from_torch(Cell(norse.LIFCell(), 4), (torch.rand(4, 2, 5) * 40,))
    _, cell = converted.model.layers
    assert isinstance(cell, snn.LIF)
    assert isinstance(cell.decay_mem, snn.Rate)
    assert float(cell.decay_mem.value) == pytest.approx(0.1)
    assert float(cell.decay_syn.value) == pytest.approx(0.2)


def test_the_gradient_of_super_is_that_of_the_installed_release():
    probe = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(threshold(probe, "super", 10.0).sum(), probe)
    net = Cell(norse.LIFCell(p=norse.LIFParameters(alpha=torch.as_tensor(10.0))))
    surrogate = from_torch(net, (torch.rand(4, 2, 5) * 40,)).model[1].firing.surrogate
    assert 1 / (1 + surrogate.slope) ** 2 == pytest.approx(float(slope))


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"v_th": nn.Parameter(torch.tensor(1.0))}, "p.v_th.*learnable"),
        ({"v_th": torch.ones(2, 1, 6)}, "p.v_th.*shape"),
        ({"tau_mem_inv": torch.tensor(float("nan"))}, "p.tau_mem_inv.*finite"),
    ],
)
def test_parameters_that_have_no_counterpart_are_refused(parameters, what):
    net = Cell(norse.LIFCell(p=norse.LIFParameters(**parameters)))
    with pytest.raises(UnsupportedOptionError, match=what) as caught:
        from_torch(net, (torch.rand(4, 2, 5),))
    assert caught.value.path == "cell"
    assert caught.value.framework == "norse"


def test_cells_without_a_converter_are_refused_with_the_allowed_ones():
    with pytest.raises(UnsupportedModuleError, match=r"'cell'.*LSNNCell.*LICell, LIFCell") as caught:
        from_torch(Cell(norse.LSNNCell()), (torch.rand(4, 2, 5),))
    assert caught.value.path == "cell"


@pytest.mark.parametrize("leaf", [LIF_CELL, LI_CELL])
def test_the_options_are_those_of_the_installed_class(leaf):
    assert set(leaf.options) == set(inspect.signature(leaf.kind).parameters)
