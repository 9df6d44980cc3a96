"""Many short networks in torch's idioms: each converts, and computes the same on inputs that it has not seen."""

import functools

import jax
import pytest
import torch
import zoo_joined
import zoo_layers
import zoo_loops
import zoo_memory
import zoo_state
import zoo_structure
import zoo_tensors
import zoo_time
import zoo_wild
from test_convert import assert_same, run_torch, tensors_of
from torch import nn

from snnax_interop import Converted, from_torch
from snnax_interop.frameworks import registry_for
from snnax_interop.verify.equivalence import _double, _float_is_double


GROUPS = [zoo_time, zoo_loops, zoo_state, zoo_memory, zoo_joined, zoo_structure, zoo_tensors, zoo_layers, zoo_wild]
CASES = {name: case for group in GROUPS for name, case in group.CASES.items()}

by_case = pytest.mark.parametrize("name", CASES)


def by_shape(*shapes: str) -> pytest.MarkDecorator:
    """All cases with those of these shapes that they have."""
    return pytest.mark.parametrize(
        ("name", "shape"),
        [
            pytest.param(name, shape, id=f"{name}-{shape}")
            for name, case in CASES.items()
            for shape in shapes
            if getattr(case, shape) is not None
        ],
    )


@functools.cache
def attempt(name: str) -> tuple[nn.Module, Converted | Exception]:
    """A case's module, with its conversion or what the conversion raised: no case is converted twice."""
    case = CASES[name]
    module = case.build()
    try:
        with jax.enable_x64(case.double):
            return module, from_torch(module, case.step(), loop="auto")
    except Exception as error:
        return module, error


def converted(name: str) -> tuple[nn.Module, Converted]:
    module, found = attempt(name)
    if isinstance(found, Exception):
        raise found
    return module, found


def test_no_name_is_given_twice():
    assert len(CASES) == sum(len(group.CASES) for group in GROUPS)


@by_shape("example", "other_batch", "other_length")
def test_the_torch_side_spikes_everywhere_and_has_gradients_for_all_parameters(name, shape):
    """A network that is silent, or ignores a parameter, would show nothing."""
    case = CASES[name]
    double = _double(case.build())
    inputs = case.inputs(getattr(case, shape), 11)
    given = tuple(x.double().requires_grad_() if x.is_floating_point() else x for x in inputs)
    with _float_is_double(), registry_for(double).listed(double):
        run = run_torch(double, given, case.loop == "outside", case.uses)
        for path in run.spiking:
            assert run.spikes[path].any(), f"'{path}' never spikes"
            assert not (run.spikes[path] != 0).all(), f"'{path}' always spikes"
        named = {key: each for key, each in double.named_parameters() if each.requires_grad}
        loss = sum((out * torch.randn(out.shape)).sum() for out in tensors_of(run.outputs))
        varied = [x for x in given if x.requires_grad]
        gradients = torch.autograd.grad(loss, [*named.values(), *varied], allow_unused=True)
    names = [*named, *(f"input {number}" for number in range(len(varied)))]
    sizes = [0.0 if each is None else float(each.abs().max()) for each in gradients]
    zero = tuple(key for key, size in zip(names, sizes, strict=True) if size <= 1e-9 * max(sizes))
    assert zero == tuple(key for key in names if key in case.inert)


@by_case
def test_the_example_runs_in_the_precision_of_the_module(name):
    case = CASES[name]
    module = case.build()
    with torch.no_grad():
        run = run_torch(module, case.inputs(case.example), case.loop == "outside", case.uses)
    assert run.spiking
    assert all(run.spikes[path].any() for path in run.spiking)
    assert all(bool(torch.isfinite(out).all()) for out in tensors_of(run.outputs))


@by_shape("other_batch", "other_length")
def test_a_network_of_the_zoo_computes_the_same(name, shape):
    case = CASES[name]
    inputs = case.inputs(getattr(case, shape), 11)
    assert_same(*converted(name), inputs, case.loop == "outside", case.inert, case.uses)
