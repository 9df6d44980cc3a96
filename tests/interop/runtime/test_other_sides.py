"""What a function gets instead of what it takes is named: a native model, a torch module, arrays of the other side."""

import inspect
import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
import snntorch
import torch
from torch import nn

import snnax_interop
from snnax import snn
from snnax_interop import (
    EquivalenceError,
    TransferError,
    WeightMappingError,
    from_torch,
    save_hyperparameters,
    to_jax,
    to_torch,
)


# Without the checks of annotations, as users call them.
check_equivalence, state_dict, load_state_dict, hyperparameters = (
    inspect.unwrap(getattr(snnax_interop, name))
    for name in ("check_equivalence", "state_dict", "load_state_dict", "hyperparameters")
)


def network(size: int = 3, bias: bool = True, layers: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [4, *[size] * layers]
    parts = [
        part
        for before, after in itertools.pairwise(sizes)
        for part in (nn.Linear(before, after, bias), snntorch.Leaky(beta=0.9, init_hidden=True))
    ]
    return nn.Sequential(*parts)


X = 5 * torch.rand((5, 2, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def converted():
    return from_torch(network(), (X[0],), loop="outside")


NATIVE = snn.Sequential(eqx.nn.Linear(4, 3, key=jax.random.key(0)), snn.LIF(3, 0.9))


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("state_dict", state_dict),
        ("load_state_dict", lambda found: load_state_dict(found, network().state_dict())),
        ("hyperparameters", hyperparameters),
        ("check_equivalence", lambda found: check_equivalence(network(), found, (X,))),
    ],
)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NATIVE, r"found a Sequential; .*converted\.with_model\(model\)\. .*to_torch_module"),
        (network, r"found the torch module Sequential; convert it with from_torch.*module\.state_dict\(\)"),
        (lambda: {}, "found a dict; pass what from_torch returned"),
    ],
    ids=["native", "torch", "dict"],
)
def test_only_a_conversion_is_taken_for_one(function, call, make, message):
    with pytest.raises(TypeError, match=f"^{function}: expected a Converted, as from_torch returns it, {message}"):
        call(make())


def test_no_file_is_written_for_a_model_without_hyperparameters(tmp_path):
    # The first is what the checks of annotations raise
    with pytest.raises(TypeError, match="Converted"):
        save_hyperparameters(tmp_path / "options.json", NATIVE)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda net, converted: (converted, net, (X,)),
            r"the conversion first; expected .*\(module, converted, inputs\)",
        ),
        (lambda net, converted: (NATIVE, converted, (X,)), "expected the torch module that was converted, found a Seq"),
        (lambda net, converted: (net, converted, (to_jax(X),)), r"torch tensors.*found \['Array.*'\]; .*to_torch"),
        (lambda net, converted: (net, converted, to_jax(X)), r"torch tensors.*found \['Array.*'\]; .*to_torch"),
        (lambda net, converted: (net, converted, (X.numpy(),)), r"torch tensors.*found \['ndarray'\]; .*to_torch"),
    ],
    ids=["swapped", "native module", "jax input", "jax input alone", "numpy input"],
)
def test_a_comparison_of_wrong_sides_says_which_is_which(converted, arguments, message):
    with pytest.raises(TypeError, match=f"^check_equivalence: .*{message}".replace("ArrayImpl", "Array")):
        check_equivalence(*arguments(network(), converted))


class Skips(nn.Sequential):
    def forward(self, x):
        return self[0](x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: network(size=5), WeightMappingError, r"of other shapes: '0\.bias' \(5,\) and not \(3,\)"),
        (lambda: network(layers=2), WeightMappingError, r"unexpected: 2\.bias, 2\.weight"),
        (lambda: network(bias=False), WeightMappingError, r"missing: 0\.bias"),
        (
            lambda: Skips(*network()),
            EquivalenceError,
            "at '1': the module calls this neuron 0 times.*conversion 5 times",
        ),
    ],
    ids=["shapes", "more", "fewer", "calls"],
)
def test_a_comparison_with_another_module_says_what_differs(converted, make, error, message):
    with pytest.raises(error, match=f"(?s){message}.*convert this one"):
        check_equivalence(make(), converted, (X,))


def test_one_input_may_be_given_alone(converted):
    report = check_equivalence(network(), converted, X)
    report.raise_if_failed()
    assert str(report) == str(check_equivalence(network(), converted, (X,)))


@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
@pytest.mark.parametrize("where", [lambda model: model, lambda model: {"a": [model]}], ids=["alone", "in a tree"])
@pytest.mark.parametrize(
    "make",
    [
        lambda converted: converted,
        lambda converted: converted.model,
        lambda converted: eqx.nn.Linear(4, 3, key=jax.random.key(0)),
        lambda converted: jax.tree.map(jnp.zeros_like, eqx.filter(converted, eqx.is_array)),
    ],
    ids=["conversion", "native", "layer", "gradient"],
)
def test_a_model_does_not_become_one_of_torch_tensors(converted, make, where, copy):
    model = make(converted)
    with pytest.raises(TransferError, match=r"state_dict\(converted\).*to_torch_module\(model\)") as raised:
        to_torch(where(model), copy=copy)
    assert re.match(r"(at 'a\.0': )?found a model, of the class " + type(model).__name__, str(raised.value))


def test_an_optimiser_that_holds_models_is_refused_with_the_path(converted):
    state = optax.adam(1e-3).init(eqx.filter(converted, eqx.is_inexact_array))
    with pytest.raises(TransferError, match=r"^at '0\.mu': found a model"):
        to_torch(state)


def test_states_and_leaves_of_models_cross(converted):
    states = to_torch(NATIVE.init_states())
    assert isinstance(states[1].v, torch.Tensor) and states[1].v.shape == (3,)
    leaves = to_torch(jax.tree.leaves(eqx.filter(NATIVE, eqx.is_array)))
    assert len(leaves) >= 3 and all(isinstance(each, torch.Tensor) for each in leaves)
    assert to_torch(converted.parameters).keys() == converted.parameters.keys()
