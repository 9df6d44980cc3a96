"""The comparison of a conversion with its module on the example, before it is given to the user."""

import warnings

import torch

from .. import progress
from ..errors import EquivalenceError, RecordingError
from ..ir.program import Program
from ..runtime.converted import Converted
from ..runtime.plan import InputSpec
from ..trace.example import Example
from .equivalence import compare
from .float64 import record_double
from .gradients import different_gradients
from .report import EquivalenceReport


def verify(converted: Converted, example: Example) -> Converted:
    """The conversion with its verification in the report. Caveats are warnings, and so is a verification of nothing.

    **Raises:** `EquivalenceError` when it differs from the module.
    """
    progress.step("verify")
    checked = _compared(converted, example, example.inputs)
    if checked.silent and not checked.failed and not example.is_whole:
        progress.step("verify on all samples")  # those that were chosen prove too little
        checked = _compared(converted, example, example.whole)
    if checked.failed:
        _check_double(example)
        raise EquivalenceError(
            f"the conversion differs from the module on the example, or on other values; please report this\n{checked}",
            report=checked,
        )
    progress.step("verify gradients")
    _check_gradients(converted, example)
    surprises = [f"at '{path}': {caveat}" for path, caveat in converted.plan.caveats.items()]
    if checked.vacuous:
        surprises.append(f"the comparison of the conversion with the module shows nothing: {checked.vacuous}")
    for surprise in surprises:
        warnings.warn(surprise, UserWarning, stacklevel=3)  # at the call of from_torch
    return converted.with_verification(str(checked))


def holds_for_all_samples(converted: Converted, example: Example) -> bool:
    """Whether what a few samples have shown is what the module does with all of them.

    Another number of samples may lead Python elsewhere. Where rounding makes the two differ, the answer is no.
    """
    progress.step("run all samples")
    program = next(each for each in converted.passes.values() if isinstance(each, Program))
    return example.is_computed_by(program, example.whole)


def _check_gradients(converted: Converted, example: Example) -> None:
    """Whether the module has the gradients of its program, or else of its conversion.

    **Raises:** `RecordingError` where it has others: it does something with gradients that no call shows.
    """
    caller_loop = example.call is not None
    if not different_gradients(converted.program, example.module, example.inputs, caller_loop=caller_loop):
        return
    report = compare(example.module, converted, example.inputs, gradients=True)
    different = [each.name for each in report.failed if each.kind in ("gradient", "input gradient")]
    if different:
        names = ", ".join(f"'{name}'" for name in different)
        raise RecordingError(
            f"the gradients of {names} are not those of the functions that forward calls: something changes them on "
            "their way that no call shows, such as a hook. Allowed: gradients that follow from calls, with detach(), "
            "torch.no_grad() and torch.autograd.Function. Remove hooks, or put them outside of the network"
        )


def _compared(converted: Converted, example: Example, inputs: tuple[torch.Tensor, ...]) -> EquivalenceReport:
    given = tuple(_with_variation(x, spec) for x, spec in zip(inputs, converted.plan.inputs, strict=True))
    return compare(example.module, converted, given, gradients=False)


def _with_variation(tensor: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """An input with further samples of other values: an example may be silent, or alone, where it matters."""
    if spec.batch_axis is None:
        return tensor
    others = tensor.flip([axis for axis in range(tensor.ndim) if axis != spec.batch_axis])
    if not tensor.is_floating_point():
        return torch.cat([tensor, others, tensor], spec.batch_axis)
    return torch.cat([tensor, others * 1.5, tensor * 0.6], spec.batch_axis)


def _check_double(example: Example) -> None:
    """Whether the module does something else in float64, where it is compared.

    **Raises:** `EquivalenceError` that names the line.
    """
    single = example.record(example.inputs)
    caller_loop = example.call is not None
    entry = single.first_difference(record_double(example.module, example.inputs, caller_loop=caller_loop)[1])
    if entry is not None:
        raise EquivalenceError(
            f"forward does something else in float64, where the conversion is compared with it: at {entry.name}\n"
            f"  {entry.line}\nAllowed: the same calls in every precision. Do not branch on the dtype of a tensor",
            path=entry.path,
        )
