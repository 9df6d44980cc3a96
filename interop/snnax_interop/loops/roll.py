"""One time step of a loop: its calls, and how each of their values travels from step to step."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from torch.utils import _pytree as pytree

from ..converters.layer import LayerConverter
from ..converters.neuron import NeuronConverter
from ..errors import RecordingError
from ..ops import ELEMENTWISE, op_name
from ..trace.tape import Entry, Ref, Tape, base_name
from .body import (
    Argument,
    Body,
    BodyValue,
    Invariant,
    LoopCarried,
    SameStep,
    Scanned,
    ScannedList,
    StepNumbers,
    ValueAtStep,
    Write,
    at_steps,
    outputs_of,
    slots,
)
from .detect import TapeLoop
from .subscripts import has_stride, moving_index, moving_subscript


def analyse(tape: Tape, loop: TapeLoop, others: Mapping[int, ValueAtStep] | None = None) -> Body:
    """Where every argument of the calls of one time step comes from.

    `others` are the values of all loops; None while these are not known.

    **Raises:** `RecordingError` naming the source line where the steps differ.
    """
    rolling = _Rolling(tape, loop, others)
    for position in range(loop.period):
        rolling.add(position)
    return rolling.body


class _Rolling:
    def __init__(self, tape: Tape, loop: TapeLoop, others: Mapping[int, ValueAtStep] | None):
        self.tape = tape
        self.loop = loop
        self.others = others
        self.own = at_steps(tape, [loop])
        self.unbound = _unbound(tape, loop)
        self.body = Body(loop)

    def add(self, position: int) -> None:
        body, tape = self.body, self.tape
        steps = [tape.entries[self.loop.index(step, position)] for step in range(self.loop.count)]
        entry = steps[-1]
        steps[0] = _with_absent_state(self.commuted(steps[0], entry), entry)
        made = [outputs_of(each) for each in steps]
        if entry.converter is None and all(tape.is_constant(ref) for each in made for ref in each):
            body.constants[position] = made
            body.entries.append(entry)
            body.arguments.append([])
            body.states.append(None)
            return
        arguments: list[Argument] = []
        varying: dict[int, list[Any]] = {}
        for number, values in enumerate(zip(*_aligned(steps), strict=True)):
            if isinstance(values[-1], Ref):
                arguments.append(self.source(list(values), entry))
            elif any(isinstance(value, Ref) or value != values[0] for value in values):
                varying[number] = list(values)
        write = _filled(tape, steps, varying) or _grown(steps, arguments, position)
        if write is not None:
            body.writes[position] = write
        elif varying and _takes_numbers(entry, varying):
            entry = _with_numbers(entry, varying)
        elif varying:
            body.reads[position] = _time_read(tape, steps, arguments, varying)
        if write is None:
            # A number that a loop starts from stands for a whole tensor of it.
            first = any(isinstance(each, LoopCarried) and not isinstance(each.initials[0], Ref) for each in arguments)
            self.check_shapes(steps[1:] if first else steps)
        body.entries.append(entry)
        body.arguments.append(arguments)
        body.states.append(self.states(steps))

    def commuted(self, first: Entry, later: Entry) -> Entry:
        """The first step of `total = 0`, `total = total + x`: Python hands `0 + x` to torch as `x + 0`."""
        operands = (*first.args, *later.args)
        if (
            len(operands) != 4
            or op_name(base_name(first.target)) not in ("add", "mul")
            or [isinstance(operand, Ref) for operand in operands] != [True, False, True, True]
        ):
            return first
        a, b = (self.own.get(each.args[0].index) for each in (first, later))
        in_order = first.args[0] == later.args[0] or (
            a is not None and b is not None and a.value == b.value and b.step - a.step == self.loop.count - 1
        )
        return first if in_order else dataclasses.replace(first, args=first.args[::-1])

    def source(self, values: list[Any], entry: Entry) -> Argument:
        """What an argument is, from its values at all steps."""
        first = values[0]
        found = [self.own.get(value.index) if isinstance(value, Ref) else None for value in values]
        if isinstance(first, Ref) and found[0] is None and all(value == first for value in values):
            return Invariant(first)
        for lag in range(len(values)):
            made = found[lag]
            if made is None:
                continue
            if any(each != ValueAtStep(0, step, made.value) for step, each in enumerate(found[lag:])):
                break
            if any(value is None for value in values[:lag]) and not _takes_none(entry):
                break
            return LoopCarried(made.value, tuple(values[:lag])) if lag else SameStep(made.value)
        if all(isinstance(value, Ref) for value in values) and not any(found):
            scanned = self.scanned([value.index for value in values])
            if scanned is not None:
                return scanned
            if len(set(values)) == len(values) and (self.others is None or _is_series(values, self.others)):
                return ScannedList(tuple(values))
        raise RecordingError(
            f"an argument of {entry.name} comes from different places at different time steps\n  {entry.line}\n"
            "Allowed: values made before the loop, in the same step, or in a step before",
            path=entry.path,
        )

    def scanned(self, indices: list[int]) -> Scanned | None:
        """Values that `torch.unbind` (or iteration) took out of a sequence before the loop."""
        found = [self.unbound.get(index) for index in indices]
        if found[0] is None or any(each is None or each[0] != found[0][0] for each in found):
            return None
        base, numbers = found[0][0], [each[1] for each in found if each is not None]
        stride = numbers[1] - numbers[0]
        return dataclasses.replace(base, start=numbers[0], stride=stride) if has_stride(numbers, stride) else None

    def states(self, steps: list[Entry]) -> list[Argument | None] | None:
        """Where the state of a neuron comes from, for each field; None where every step starts from its beginning."""
        entry = steps[-1]
        if not entry.is_neuron:
            return None
        given = [None if _is_beginning(self.tape, each) else each.state_in for each in steps]
        fields = len(entry.state_out)
        if all(state is None for state in given):
            return None if len(steps) > 1 else [None for _ in range(fields)]
        if any(state is None for state in given[1:]):
            raise RecordingError(
                f"the state of '{entry.path}' is reset at some time steps only\n  {entry.line}\n"
                "Allowed: a state that is handed from step to step, or reset at every step",
                path=entry.path,
            )
        return [
            self.source([None if state is None else state[field] for state in given], entry) for field in range(fields)
        ]

    def check_shapes(self, steps: list[Entry]) -> None:
        entry = steps[-1]
        shapes = [[self.tape.shape(ref) for ref in outputs_of(each)] for each in steps]
        if any(each != shapes[-1] for each in shapes):
            raise RecordingError(
                f"the result of {entry.name} has another shape at some time steps: {shapes[0]} and {shapes[-1]}\n"
                f"  {entry.line}\nAllowed: the same shapes at every step. Collect values in a list and stack them",
                path=entry.path,
            )


def _is_series(values: list[Ref], at_steps: Mapping[int, ValueAtStep]) -> bool:
    """Whether values of loops follow each other in time, rather than being several values of one step."""
    found = [at_steps.get(value.index) for value in values]
    steps = [
        abs(b.step - a.step) == 1
        for a, b in itertools.pairwise(found)
        if a is not None and b is not None and a.value == b.value
    ]
    return any(steps)


def _aligned(steps: list[Entry]) -> list[list[Any]]:
    """The leaves of the arguments at every step."""
    entry = steps[-1]
    flat = [slots(each) for each in steps]
    if any(structure != flat[-1][1] for _, structure in flat):
        raise RecordingError(
            f"{entry.name} is called with other arguments at some time steps\n  {entry.line}\n"
            "Allowed: the same call at every step",
            path=entry.path,
        )
    return [leaves for leaves, _ in flat]


def _takes_none(entry: Entry) -> bool:
    """Whether a call takes None for the state that it starts with: a neuron, or a recurrent layer, whose is zeros."""
    return entry.is_neuron or (isinstance(entry.converter, LayerConverter) and "hx" in entry.converter.inputs)


def _with_absent_state(first: Entry, later: Entry) -> Entry:
    """The first step of a recurrent layer that is given no state yet, in the form of its later calls."""
    if not _takes_none(later) or later.is_neuron:
        return first
    args = first.args if len(first.args) == len(later.args) else (*first.args, None)
    if len(args) != len(later.args):
        return first
    args = tuple(
        pytree.tree_map(lambda _: None, b) if a is None and b is not None else a
        for a, b in zip(args, later.args, strict=True)
    )
    return dataclasses.replace(first, args=args)


def _is_beginning(tape: Tape, entry: Entry) -> bool:
    """Whether a neuron is called with the state that it starts with: none, or zeros where that is the same."""
    assert isinstance(entry.converter, NeuronConverter)
    if entry.state_in is None:
        return True
    return entry.converter.starts_at_zero(entry.target) and all(tape.is_zero(ref) for ref in entry.state_in)


def _unbound(tape: Tape, loop: TapeLoop) -> dict[int, tuple[Scanned, int]]:
    """The parts that a sequence was cut into before a loop, with where they begin."""
    found = {}
    for entry in tape.entries[: loop.start]:
        name = op_name(base_name(entry.target)) if entry.converter is None else ""
        if name not in ("unbind", "split", "chunk"):
            continue
        size = "split_size_or_sections" if name == "split" else "chunks"
        names = ("input", "dim") if name == "unbind" else ("input", size, "dim")
        arguments = dict(zip(names, entry.args, strict=False)) | entry.kwargs
        base = arguments["input"] if "input" in arguments else arguments["tensor"]
        dim = arguments.get("dim", 0)
        axis = dim % len(tape.shape(base))
        start = 0
        for ref in outputs_of(entry):
            width = None if name == "unbind" else tape.shape(ref)[axis]
            found[ref.index] = (Scanned(base, axis, width=width), start)
            start += width or 1
    return found


# Reading a time step


def _time_read(
    tape: Tape, steps: list[Entry], arguments: list[Argument], varying: dict[int, list[Any]]
) -> tuple[Scanned, Any]:
    """A subscript that moves with the time step, and what is left of it without its time."""
    entry = steps[-1]
    name = op_name(base_name(entry.target)) if entry.converter is None else ""
    if name in ("getitem", "select", "narrow") and len(arguments) == 1 and isinstance(arguments[0], Invariant):
        base = arguments[0].ref
        found = moving_index(name, steps, len(tape.shape(base)))
        if found is not None:
            size = tape.shape(base)[found.axis]
            starts = [start % size if -size <= start < size else start for start in found.starts]
            stride = starts[1] - starts[0]
            last = starts[-1] + (found.width or 1)
            if has_stride(starts, stride) and min(starts) >= 0 and last <= size:
                return Scanned(base, found.axis, starts[0], stride, found.width), found.rest
    shown = next(iter(varying.values()))
    raise RecordingError(
        f"{entry.name} has an argument that changes from step to step: {shown[:4]}...\n  {entry.line}\n"
        "Allowed: numbers in arithmetic, and time as an index that counts up or down (x[t], x[:, t], x[T - 1 - t], "
        "x[t : t + 3]) into a value made before the loop",
        path=entry.path,
    )


# Numbers that change


def _takes_numbers(entry: Entry, varying: dict[int, list[Any]]) -> bool:
    numbers = [value for values in varying.values() for value in values]
    are_numbers = all(type(number) in (bool, int, float) for number in numbers)
    return are_numbers and entry.converter is None and op_name(base_name(entry.target)) in ELEMENTWISE


def _with_numbers(entry: Entry, varying: dict[int, list[Any]]) -> Entry:
    leaves, structure = pytree.tree_flatten((entry.args, entry.kwargs))
    leaves = [StepNumbers(tuple(varying[n])) if n in varying else leaf for n, leaf in enumerate(leaves)]
    args, kwargs = pytree.tree_unflatten(leaves, structure)
    return dataclasses.replace(entry, args=args, kwargs=kwargs)


# Keeping a value for later


def _filled(tape: Tape, steps: list[Entry], varying: dict[int, list[Any]]) -> Write | None:
    """An index assignment that fills a tensor along an axis, one entry per time step."""
    entry = steps[-1]
    if entry.converter is not None or op_name(base_name(entry.target)) != "setitem" or len(varying) != 1:
        return None
    shape = tape.shape(entry.args[0])
    found = moving_subscript([each.args[1] for each in steps], len(shape))
    if found is None or found.rest != () or found.width is not None:
        return None
    strides = [stride for stride in (1, -1) if has_stride(found.starts, stride)]
    slot = shape[: found.axis] + shape[found.axis + 1 :]
    value = entry.args[2]
    fits = isinstance(value, Ref) and tape.shape(value) == slot
    return Write(1, found.axis, found.starts[0] % shape[found.axis], strides[0]) if fits and strides else None


def _grown(steps: list[Entry], arguments: list[Argument], position: int) -> Write | None:
    """A concatenation that makes a tensor longer at every time step."""
    entry = steps[-1]
    if entry.converter is not None or len(steps) < 2 or op_name(base_name(entry.target)) not in ("cat", "concat"):
        return None
    own = LoopCarried(BodyValue(position, 0, False), (slots(steps[0])[0][0],))
    given = dict(zip(("tensors", "dim"), entry.args, strict=False)) | entry.kwargs
    if len(arguments) != 2 or arguments[0] != own:
        return None
    return Write(1, given.get("dim", 0), None)
