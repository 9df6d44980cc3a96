"""The gradients of a module beside those of its program, both run by torch in float64: what autograd sees is kept."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..frameworks import registry_for
from ..ir.evaluator import evaluate
from ..ir.program import Program
from ..trace.caller_loop import over_time
from ..trace.isolation import preserved
from ..trace.tape import leaves_of
from ..trace.unwrap import eager
from .float64 import backward_float_is_double, float_is_double, in_float64


# Of the largest gradient of a parameter: numbers that forward makes are of float32 in a program.
_TOLERANCE = 1e-5
_NO_GRADIENT = 1e-6  # of the largest of all: smaller ones are compared as if they were of this size


def different_gradients(
    program: Program, module: torch.nn.Module, inputs: Sequence[torch.Tensor], *, caller_loop: bool
) -> list[str]:
    """The parameters and inputs whose gradients, of a linear function of the outputs, are others in the program.

    None where torch itself cannot take gradients of the module; all where it cannot of the program.
    """
    double = in_float64(module)
    registry = registry_for(double)
    call = over_time(double, len(inputs)) if caller_loop else double
    with preserved(module), registry.listed(double), eager(), float_is_double():
        sides = []
        for side in (call, lambda *given: evaluate(program, double, *given)):
            with preserved(double):
                registry.reset_states(double)
                sides.append(_gradients(side, double, inputs))
    expected, found = sides
    largest = max(map(_size, expected.values()), default=0.0)
    return [name for name, each in expected.items() if not _close(each, found.get(name), largest)]


def _gradients(
    call: Callable[..., Any], module: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The gradients by name; of no names where torch cannot take them."""
    doubled = [x.detach().double() if x.is_floating_point() else x.detach() for x in inputs]
    doubled = [x.clone().requires_grad_(x.is_floating_point()) for x in doubled]
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            outputs = [x for x in leaves_of(call(*doubled), torch.Tensor) if x.is_floating_point()]
    except Exception:  # as where forward writes into an input, which a leaf does not allow
        return {}
    total = torch.zeros((), dtype=torch.float64)
    for x in outputs:
        total = total + (x * torch.randn(x.shape, generator=torch.Generator().manual_seed(x.ndim))).sum()
    wanted = {name: each for name, each in module.named_parameters() if each.requires_grad}
    wanted |= {f"input {number}": x for number, x in enumerate(doubled) if x.requires_grad}
    if not wanted:
        return {}
    if not total.requires_grad:
        return {name: torch.zeros_like(each) for name, each in wanted.items()}
    try:
        with backward_float_is_double():
            found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    except RuntimeError:  # as where a value that a gradient needs is written over
        return {}
    pairs = zip(wanted.items(), found, strict=True)
    return {name: torch.zeros_like(each) if gradient is None else gradient for (name, each), gradient in pairs}


def _close(expected: torch.Tensor, found: torch.Tensor | None, largest: float) -> bool:
    if found is None or found.shape != expected.shape:
        return False
    scale = max(_size(expected), _NO_GRADIENT * largest, 1e-12)
    return bool(torch.isclose(found, expected, rtol=0, atol=_TOLERANCE * scale, equal_nan=True).all())


def _size(gradient: torch.Tensor) -> float:
    """The largest finite magnitude."""
    return float(gradient.abs().nan_to_num(0.0, posinf=0.0).max()) if gradient.numel() else 0.0
