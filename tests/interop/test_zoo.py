"""Many short networks in torch's idioms: each converts, and computes the same on inputs that it has not seen."""

import jax
import pytest
import torch
import zoo
from helpers.compare import assert_same_elsewhere, run_torch, tensors_of
from helpers.conversion import without_comparison
from torch import nn

from snnax_interop import Converted, from_torch


by_case = pytest.mark.parametrize("name", zoo.CASES)
# One of each kind also runs in the quick tier.
QUICK = {
    "hidden with output", "norse None", "encoder and decoder loops", "outside, kept states", "delay buffer",
    "lateral inhibition", "states in a tensor", "top-down", "spike times", "convolutional blocks", "truncated gradient",
    "growing tensor", "competing samples",
}  # fmt: skip


def converted(name: str) -> tuple[nn.Module, Converted]:
    """A case's module, with its conversion."""
    case = zoo.CASES[name]
    module = case.build()
    with jax.enable_x64(case.double), without_comparison():
        return module, from_torch(module, case.step(), loop="auto")


def test_no_name_is_given_twice():
    assert len(zoo.CASES) == sum(len(group.CASES) for group in zoo.GROUPS)
    assert zoo.CASES.keys() >= QUICK


@by_case
def test_the_example_runs_in_the_precision_of_the_module(name):
    case = zoo.CASES[name]
    module = case.build()
    with torch.no_grad():
        run = run_torch(module, case.inputs(case.example), case.loop == "outside", case.uses)
    assert run.spiking
    assert all(run.spikes[path].any() for path in run.spiking)
    assert all(bool(torch.isfinite(out).all()) for out in tensors_of(run.outputs))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.full]) for name in zoo.CASES]
)
def test_a_network_of_the_zoo_computes_the_same_at_another_batch_size_and_length(name):
    """A network that is silent, or ignores a parameter, would show nothing."""
    case = zoo.CASES[name]
    run = assert_same_elsewhere(case, *converted(name))
    for path in run.spiking:
        assert not (run.spikes[path] != 0).all(), f"'{path}' always spikes"
    assert run.flat == tuple(name for name in run.gradients if name in case.inert)
