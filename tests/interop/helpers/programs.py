"""Programs of the networks of all tests, traced once per network, and what they compute when torch runs them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import zoo
from torch import nn
from torch.utils import _pytree as pytree

from snnax_interop.convert import Passes, programs
from snnax_interop.converters.registry import Registry
from snnax_interop.frameworks import registry_for
from snnax_interop.ir.evaluator import evaluate
from snnax_interop.ir.program import Program
from snnax_interop.trace.isolation import preserved

from . import torch_networks
from .compare import run_outside, tensors_of
from .float64 import doubled
from .torch_networks import Case


NETWORKS: dict[str, Case] = {**zoo.CASES, **torch_networks.CASES}

Tensors = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Traced:
    """A module in float64, and what the passes before lowering make of it."""

    module: nn.Module
    registry: Registry
    passes: Passes
    outside: bool

    @property
    def programs(self) -> dict[str, Program]:
        """By pass, in their order."""
        return {name: each for name, each in self.passes.items() if isinstance(each, Program)}

    @property
    def first(self) -> Program:
        return next(iter(self.programs.values()))

    @property
    def last(self) -> Program:
        return [*self.programs.values()][-1]

    def expected(self, *inputs: torch.Tensor) -> Any:
        """What the module itself computes, from its initial state."""
        with preserved(self.module):
            self.registry.reset_states(self.module)
            return run_outside(self.module, *inputs) if self.outside else self.module(*inputs)


@functools.cache
def traced(name: str) -> Traced:
    """A network of the tests; only in tests that use the fixture `double_precision`."""
    case = NETWORKS[name]
    torch.set_default_dtype(torch.float32)  # weights and inputs are those of the other tests
    module, inputs = case.build(), case.step()
    torch.set_default_dtype(torch.float64)
    return trace(doubled(module), widened(inputs), case.loop)


def trace(module: nn.Module, inputs: Tensors, loop: Any = "auto") -> Traced:
    return Traced(module, registry_for(module), programs(module, inputs, loop), loop == "outside")


def widened(inputs: Tensors) -> Tensors:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


@dataclasses.dataclass(frozen=True)
class Computed:
    """Outputs, and the gradients of a weighted sum of them; zero where a parameter or an input does not matter."""

    outputs: Any
    gradients: dict[str, torch.Tensor]

    @property
    def flat(self) -> set[str]:
        """The names of the gradients that are zero, but for rounding."""
        sizes = {name: float(each.abs().max()) for name, each in self.gradients.items()}
        return {name for name, size in sizes.items() if size <= 1e-9 * max(sizes.values())}


def compute(module: nn.Module, run: Callable[..., Any], inputs: Tensors) -> Computed:
    """Outputs and gradients of `run`, which uses the parameters of `module`."""
    given = tuple(x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs)
    outputs = run(*given)
    generator = torch.Generator().manual_seed(7)
    loss = torch.zeros(())
    for out in tensors_of(outputs):
        loss = loss + (out * torch.randn(out.shape, generator=generator)).sum()
    wanted = {name: each for name, each in module.named_parameters() if each.requires_grad}
    wanted |= {f"input {number}": x for number, x in enumerate(given) if x.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(wanted.items(), found, strict=True)
    }
    return Computed(outputs, gradients)


def assert_program_computes(network: Traced, program: Program, inputs: Tensors, expected: Computed) -> None:
    """Outputs and gradients of a program, run by torch, are those that the module has."""
    before = {name: each.clone() for name, each in network.module.state_dict().items()}
    found = compute(network.module, functools.partial(evaluate, program, network.module), inputs)
    assert_equal_outputs(expected.outputs, found.outputs)
    for name, gradient in expected.gradients.items():
        difference = _difference(gradient, found.gradients[name])
        assert difference <= 1e-8, f"the gradient of '{name}' differs by {difference:.1e}"
    for name, each in network.module.state_dict().items():
        assert torch.equal(each, before[name]), f"the evaluation has written '{name}'"


def assert_equal_outputs(expected: Any, found: Any) -> None:
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(expected), pytree.tree_leaves(found), strict=True):
        if isinstance(one, torch.Tensor):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            difference = _difference(one, other)
            assert difference <= 1e-10, f"an output differs by {difference:.1e}"
        else:
            assert one == other


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    if not expected.numel():
        return 0.0
    expected, found = expected.detach().double(), found.detach().double()
    return float((expected - found).abs().max()) / max(float(expected.abs().max()), 1e-12)
