"""The first steps of a long example: what a network does shows itself on them, and they take less time to record.

The run of all steps is the other length then. What is found is compared with the module at a third length, beyond the
example, where both are only run.
"""

import dataclasses
import itertools

from ..ir.program import Program
from ..loops.run import Run
from ..trace.example import Example
from .probe import Inputs, LengthProbe, OtherLength, beyond, changed_along, time_axes


# Loops of two and three steps in one come out whole.
FEW_STEPS = 6
_MANY_STEPS = 10


@dataclasses.dataclass(frozen=True)
class FewSteps:
    """The first steps of an example, with their run, and the run of all of them as that of another length."""

    example: Example
    run: Run
    length: OtherLength
    whole: Example

    def hold_beyond(self, program: Program) -> bool:
        """Whether the module computes what the program does where time is more than twice as long as the example.

        A module that raises an error there shows nothing.
        """
        inputs = changed_along(self.whole.inputs, self.length.axes, beyond)
        return self.whole.is_computed_by(program, inputs, or_raises=True)

    def compared(self, program: Program) -> Example:
        """So many steps that all neurons that spike at all have spiked, and as many again, if that is a length."""
        steps = max(FEW_STEPS, 2 * self._last_first_spike())
        inputs = _first(steps, self.whole.inputs, self.length.axes)
        fits = steps == FEW_STEPS or self.whole.is_computed_by(program, inputs)
        return dataclasses.replace(self.whole, inputs=inputs) if fits else self.whole

    def _last_first_spike(self) -> int:
        """The number of steps until each neuron has made something else than zero."""
        run, tensors = self.length.run, self.length.run.tape.tensors
        first: dict[str, int] = {}
        for loop in run.loops:
            for step, position in itertools.product(range(loop.count), range(loop.period)):
                entry = run.tape.entries[loop.index(step, position)]
                silent = entry.is_neuron and entry.path not in first
                if silent and bool(tensors[entry.made[0].index].any()):
                    first[entry.path] = step + 1
        return max(first.values(), default=self.length.sizes[1])


def few_steps(example: Example, run: Run) -> FewSteps | None:
    """The first steps of the example; None where it is short, or where they are no smaller instance of the same run."""
    for axes in time_axes(run, example.inputs):
        (size,) = {example.inputs[number].shape[axis] for number, axis in axes.items()}
        if size < _MANY_STEPS:
            continue
        inputs = _first(FEW_STEPS, example.inputs, axes)
        try:
            first = Run.of(example.record(inputs))
            probe = LengthProbe(example.record, first, inputs, axes)
            length = probe.confirmed(OtherLength(run, axes, (FEW_STEPS, size)))
        except Exception:  # whatever happens at this length: the whole example will show it
            continue
        if length is not None:
            return FewSteps(dataclasses.replace(example, inputs=inputs), first, length, example)
    return None


def _first(steps: int, inputs: Inputs, axes: dict[int, int]) -> Inputs:
    """So many steps of the inputs, or all where there are no more."""
    return changed_along(inputs, axes, lambda x, axis: x.narrow(axis, 0, min(steps, x.shape[axis])))
