"""Whether a forward owns its time."""

from ..errors import RecordingError
from .run import Run


def nothing_found(neurons: bool, calls: int) -> RecordingError:
    """What was looked for, in vain."""
    what = "no time loop" if neurons else "no neuron that is stepped through time"
    return RecordingError(
        f"{what} was found in forward. Looked for, among its {calls} calls: the same lines running at least twice in a "
        "row with a neuron among them, or reading another time step each time; and states that one call of a neuron "
        "hands to the next. Allowed: a loop of at least two time steps; pass a longer example, or loop='outside' if "
        "one call is one time step",
        framework="torch",
    )


def runs_over_time(run: Run) -> bool:
    """Whether a forward owns its time: it repeats steps of neurons, or hands their states from one to the next."""
    tape, loops = run.tape, run.loops
    stepped = [any(tape.entries[index].is_neuron for index in range(each.start, each.stop)) for each in loops]
    if not any(stepped):
        return any(each.count > 1 for each in loops)
    if any(each.count > 1 and neurons for each, neurons in zip(loops, stepped, strict=True)):
        return True
    return any(
        ref.index in run.at_steps and run.at_steps[ref.index].loop != number
        for number, loop in enumerate(loops)
        for entry in tape.entries[loop.start : loop.stop]
        for ref in entry.state_in or ()
    )
