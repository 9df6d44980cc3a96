"""The lengths at which a program computes what the module does: torch runs both at shorter and at longer ones."""

import dataclasses
from collections.abc import Iterator

from ..errors import LengthError
from ..ir.program import Program
from ..trace.example import Example
from .probe import Inputs, OtherLength, changed_along, longer


# So many steps more than the example: a remainder that forward asks for is one of them, or of the shorter lengths.
_BEYOND = 3


def with_lengths(program: Program, example: Example, length: OtherLength) -> Program:
    """The program, with the shortest length from which on it computes what the module does.

    **Raises:** `LengthError` where they differ at a length beyond the example.
    """
    if example.call is not None or example.outcome(program, example.inputs) != "equal":
        return program  # what torch does not run as the module is, such as a program that draws, shows nothing
    size = length.sizes[0]
    for steps, inputs in _longer(example.inputs, length):
        if example.outcome(program, inputs) == "different":
            raise LengthError(
                f"what forward does at the lengths {length.sizes[0]} and {length.sizes[1]} does not tell what it does "
                f"at {steps}. Allowed: the same at any length, and numbers that follow from it"
            )
    # A program that runs in pairs of steps raises an error at odd lengths, and so may the module.
    refused = {"different", "module raises"} | (set() if length.whole else {"both raise"})
    shortest = 1
    for steps in range(size - 1, 0, -1):
        inputs = changed_along(
            example.inputs, length.axes, lambda x, axis, steps=steps: x.flip(axis).narrow(axis, 0, steps)
        )
        if example.outcome(program, inputs) in refused:
            shortest = steps + 1
            break
    return dataclasses.replace(program, shortest=shortest)


def _longer(inputs: Inputs, length: OtherLength) -> Iterator[tuple[int, Inputs]]:
    for more in range(1, _BEYOND + 1):
        steps = length.sizes[0] + more
        if steps != length.sizes[1]:
            yield steps, changed_along(inputs, length.axes, lambda x, axis, more=more: longer(x, axis, more))
