"""The arrays of a program: its parameters and constants, and where they go in the native model."""

from collections.abc import Callable
from typing import Any

import torch

from ..converters.parameters import Weights
from ..ir.program import Program
from ..ir.regions import Constant, Value
from ..trace.tape import Tape


class Arrays:
    """The arrays of parameters and constants; one for all places of a value."""

    def __init__(self, program: Program, weights: Weights):
        self.program = program
        self.weights = weights
        self.found: dict[Value, Any] = {}
        self.constants: dict[str, Constant] = {}

    def __contains__(self, value: Value) -> bool:
        return value in self.program.parameters or value in self.program.constants

    def of(self, value: Value) -> Any:
        """The array of a parameter or constant; of one sample, where it spans the batch."""
        if value not in self.found:
            key = self.program.parameters.get(value)
            if key is not None:
                self.found[value] = self.weights.parameter(key, exact=True)
            else:
                constant = self.program.constants[value]
                array = self.weights.constant(value.name or "constant", constant.tensor, exact=True)
                self.constants[self.weights.slot(array).key] = constant
                self.found[value] = array
        return self.found[value]

    def is_zero(self, initial: Any) -> bool:
        """Whether what a state starts from is zero, whatever the inputs and parameters are."""
        if not isinstance(initial, Value):
            return initial == 0
        constant = self.program.constants.get(initial)
        return constant is not None and not bool(constant.tensor.any())

    def take_float64(self, run_in_float64: Callable[[], Tape | None]) -> None:
        """Take constants that float32 rounds from a float64 run, for where the network is cast to float64."""
        tensors = [constant.tensor for constant in self.constants.values()]
        if not any(each.dtype == torch.float32 and bool((each != each.round()).any()) for each in tensors):
            return
        tape = run_in_float64()
        for key, constant in self.constants.items() if tape is not None else ():
            tensor = tape.tensors[constant.origin].detach()  # type: ignore[union-attr]
            for axis, size in enumerate(constant.tensor.shape):
                tensor = tensor.narrow(axis, 0, size)
            self.weights.float64_constants[key] = tensor.numpy().copy()
