"""Find the time loop in a tape: the repeated body, and how each of its values travels from step to step."""

import dataclasses
from typing import Any

import numpy as np
from torch.utils import _pytree as pytree

from .errors import RecordingError
from .ops import op_name
from .recording import Entry, Ref, Tape, base_name, refs


@dataclasses.dataclass(frozen=True)
class Loop:
    """Entries `start + t * period + position` of a tape, for `count` time steps `t`."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count

    def index(self, step: int, position: int) -> int:
        return self.start + step * self.period + position


@dataclasses.dataclass(frozen=True)
class Produced:
    """A value made inside the loop: by the call at `position`, its output number `item` or state field `item`."""

    position: int
    item: int
    is_state: bool


@dataclasses.dataclass(frozen=True)
class Here:
    """An argument made earlier in the same step."""

    value: Produced


@dataclasses.dataclass(frozen=True)
class Carried:
    """An argument made in the previous step; `initial` is a `Ref` or a number in the first."""

    value: Produced
    initial: Any


@dataclasses.dataclass(frozen=True)
class Outer:
    """An argument made before the loop, the same at every step."""

    ref: Ref


@dataclasses.dataclass(frozen=True)
class Sliced:
    """One time step of a value made before the loop: entry `start + t * stride` along `axis`."""

    base: Ref
    axis: int
    start: int = 0
    stride: int = 1


@dataclasses.dataclass
class Body:
    """The calls of one time step. `arguments[position]` holds, for each `Ref` slot of the call, where it comes from.

    `reads` are the positions that only take a time step out of a sequence, with what is left of their index; `writes`
    those that put a value into the place of its time step along an axis of a tensor made before the loop.
    """

    entries: list[Entry]
    arguments: list[list[Any]]
    states: list[list[Any] | None]
    reads: dict[int, tuple[Sliced, Any]]
    writes: dict[int, int]


def find_loop(tape: Tape) -> Loop | None:
    """The longest repetition on the tape, of those that step a neuron where there are neurons.

    **Raises:** `RecordingError` when neurons are stepped outside of it.
    """
    numbers: dict[Any, int] = {}
    codes = np.array([numbers.setdefault(entry.signature, len(numbers)) for entry in tape.entries], dtype=np.int64)
    neurons = np.array([entry.leaf is not None and entry.leaf.split_call is not None for entry in tape.entries], bool)
    best: tuple[int, int, int] | None = None
    for period in _gaps(codes):
        same = codes[:-period] == codes[period:]
        for start, stop in _runs(same):
            covered = stop - start + period
            inside = neurons[start : start + covered].any() or not neurons.any()
            if inside and (best is None or covered > best[0] or (covered == best[0] and period < best[1])):
                best = (covered, period, start)
    if best is None:
        return None
    covered, period, start = best
    count, rest = divmod(covered, period)
    if rest:
        behind = range(start + count * period, len(tape.entries))
        entry = tape.entries[next((index for index in behind if neurons[index]), behind.start)]
        raise RecordingError(
            f"the time steps of the loop differ: after {count} equal steps one is incomplete\n  {entry.line}\n"
            "Allowed: the same calls at every step. Move what runs at some steps only out of the loop",
            path=entry.path,
        )
    loop = Loop(start, period, count)
    for index, entry in enumerate(tape.entries):
        if neurons[index] and not loop.start <= index < loop.stop:
            raise RecordingError(
                f"the neuron '{entry.path}' is stepped outside of the time loop, or at some steps only\n"
                f"  {entry.line}\nAllowed: one loop that steps every neuron in the same way at every time step",
                path=entry.path,
            )
    return loop


def _gaps(codes: np.ndarray) -> list[int]:
    """Distances between neighbouring calls of the same kind: the periods that a loop can have."""
    last: dict[int, int] = {}
    gaps: dict[int, None] = {}
    for index, code in enumerate(codes.tolist()):
        if code in last:
            gaps[index - last[code]] = None
        last[code] = index
    # A body that calls the same thing twice shows its period only as the sum of neighbouring gaps.
    first: dict[int, list[int]] = {}
    for index, code in enumerate(codes.tolist()):
        first.setdefault(code, []).append(index)
    for places in first.values():
        for place in places[1:33]:
            gaps[place - places[0]] = None
    return sorted(gaps)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def outputs_of(entry: Entry) -> list[Ref]:
    return refs(entry.result)


def slots(entry: Entry) -> tuple[list[Any], Any]:
    """The leaves of a call's arguments, and their structure."""
    return pytree.tree_flatten((entry.args, entry.kwargs))


def made_inside(tape: Tape, loop: Loop) -> dict[int, tuple[int, Produced]]:
    """The time step and the place in the body of every value that the loop makes."""
    produced = {}
    for step in range(loop.count):
        for position in range(loop.period):
            entry = tape.entries[loop.index(step, position)]
            for item, ref in enumerate(outputs_of(entry)):
                produced[ref.index] = (step, Produced(position, item, False))
            for item, ref in enumerate(entry.state_out):
                produced[ref.index] = (step, Produced(position, item, True))
    return produced


def analyse(tape: Tape, loop: Loop) -> Body:
    """Where every argument of the loop's body comes from.

    **Raises:** `RecordingError` naming the source line where the steps differ.
    """
    produced = made_inside(tape, loop)
    unbound = _unbound(tape, loop)
    body = Body([], [], [], {}, {})
    for position in range(loop.period):
        steps = [tape.entries[loop.index(step, position)] for step in range(loop.count)]
        entry = steps[-1]
        steps[0] = _commuted(steps[0], entry)
        flat = [slots(each) for each in steps]
        arguments = []
        varying = {}
        for number, (leaf, *others) in enumerate(zip(*_aligned(flat, entry), strict=True)):
            values = [leaf, *others]
            if isinstance(values[-1], Ref):
                arguments.append(_source(values, produced, unbound, entry))
            elif any(isinstance(value, Ref) or value != values[0] for value in values):
                varying[number] = values
        axis = _time_write(tape, steps, varying, entry) if varying else None
        if axis is not None:
            body.writes[position] = axis
        elif varying:
            body.reads[position] = _time_read(tape, steps, arguments, varying, entry)
        body.entries.append(entry)
        body.arguments.append(arguments)
        body.states.append(_states(tape, steps, produced, unbound, entry))
    return body


def _aligned(flat: list[tuple[list[Any], Any]], entry: Entry) -> list[list[Any]]:
    leaves, spec = flat[-1]
    if any(other != spec for _, other in flat):
        raise RecordingError(
            f"{entry.name} is called with other arguments at some time steps\n  {entry.line}\n"
            "Allowed: the same call at every step",
            path=entry.path,
        )
    del leaves
    return [each for each, _ in flat]


def _source(values: list[Any], produced: dict, unbound: dict, entry: Entry) -> Any:
    """What an argument is, from its values at all steps."""
    first, rest = values[0], values[1:]
    if isinstance(first, Ref) and all(value == first for value in rest):
        if first.index not in produced:
            return Outer(first)
        if len(values) == 1:
            return Here(produced[first.index][1])
    if isinstance(first, Ref) and first.index in unbound and all(
        isinstance(value, Ref) and unbound.get(value.index) == (unbound[first.index][0], step)
        for step, value in enumerate(values)
    ):  # fmt: skip
        return unbound[first.index][0]
    found = [produced.get(value.index) if isinstance(value, Ref) else None for value in values]
    made = {each[1] for each in found[1:] if each is not None}
    if len(made) == 1 and all(each is not None for each in found[1:]):
        (value,) = made
        if all(each is not None and each == (step, value) for step, each in enumerate(found)):
            return Here(value)
        if all(each is not None and each[0] == step for step, each in enumerate(found[1:])) and found[0] is None:
            return Carried(value, first)
    raise RecordingError(
        f"an argument of {entry.name} comes from different places at different time steps\n  {entry.line}\n"
        "Allowed: values made before the loop, in the same step, or in the step before",
        path=entry.path,
    )


def _commuted(first: Entry, later: Entry) -> Entry:
    """The first step of `total = 0`, `total = total + x`: Python hands `0 + x` to torch as `x + 0`."""
    operands = (*first.args, *later.args)
    if (
        len(operands) == 4
        and op_name(base_name(first.target)) in ("add", "mul")
        and [isinstance(operand, Ref) for operand in operands] == [True, False, True, True]
    ):
        return dataclasses.replace(first, args=first.args[::-1])
    return first


def _states(tape: Tape, steps: list[Entry], produced: dict, unbound: dict, entry: Entry) -> list[Any] | None:
    """Where the state of a neuron comes from, for each field; None where every step starts from its beginning."""
    if entry.leaf is None or entry.leaf.split_call is None:
        return None
    given = [None if _is_beginning(tape, each) else each.state_in for each in steps]
    if all(state is None for state in given):
        return None
    if any(state is None for state in given[1:]):
        raise RecordingError(
            f"the state of '{entry.path}' is reset at some time steps only\n  {entry.line}\n"
            "Allowed: a state that is handed from step to step, or reset at every step",
            path=entry.path,
        )
    fields = []
    for field in range(len(entry.state_out)):
        values = [None if state is None else state[field] for state in given]
        fields.append(_source(values, produced, unbound, entry))
    return fields


def _is_beginning(tape: Tape, entry: Entry) -> bool:
    """Whether a neuron is called with the state that it starts with: none, or zeros where that is the same."""
    assert entry.leaf is not None
    if entry.state_in is None:
        return True
    return entry.leaf.starts_at_zero(entry.target) and all(tape.is_zero(ref) for ref in entry.state_in)


def _unbound(tape: Tape, loop: Loop) -> dict[int, tuple[Sliced, int]]:
    """Values that `torch.unbind` (or iteration) took out of a sequence before the loop."""
    found = {}
    for entry in tape.entries[: loop.start]:
        if entry.leaf is None and op_name(base_name(entry.target)) == "unbind":
            arguments = dict(zip(("input", "dim"), entry.args, strict=False)) | entry.kwargs
            base, dim = arguments["input"], arguments.get("dim", 0)
            axis = dim % len(tape.shape(base))
            for step, ref in enumerate(outputs_of(entry)):
                found[ref.index] = (Sliced(base, axis), step)
    return found


def _time_read(
    tape: Tape, steps: list[Entry], arguments: list[Any], varying: dict[int, list[Any]], entry: Entry
) -> tuple[Sliced, Any]:
    """A subscript whose integer runs with the time step."""
    name = op_name(base_name(entry.target)) if entry.leaf is None else ""
    if name in ("getitem", "select") and len(varying) == 1 and len(arguments) == 1 and isinstance(arguments[0], Outer):
        (numbers,) = varying.values()
        base = arguments[0].ref
        rank = len(tape.shape(base))
        if all(type(number) is int for number in numbers):
            if name == "select":
                given = dict(zip(("input", "dim", "index"), entry.args, strict=False)) | entry.kwargs
                axis, rest = (given["dim"] % rank, ()) if given["index"] == numbers[-1] else (None, ())
            else:
                axis, rest = _subscript_axis(entry.args[1], [each.args[1] for each in steps], rank)
            start = numbers[0]
            stride = numbers[1] - numbers[0] if len(numbers) > 1 else 1
            runs = all(number == start + stride * step for step, number in enumerate(numbers))
            if axis is not None and runs and stride > 0 and start >= 0:
                return Sliced(base, axis, start, stride), rest
    shown = next(iter(varying.values()))
    raise RecordingError(
        f"{entry.name} has an argument that changes from step to step: {shown[:4]}...\n  {entry.line}\n"
        "Allowed: time as an index that counts up (x[t], x[:, t]) into a value made before the loop",
        path=entry.path,
    )


def _time_write(tape: Tape, steps: list[Entry], varying: dict[int, list[Any]], entry: Entry) -> int | None:
    """The axis along which an index assignment fills a tensor from its first place to its last; else None."""
    if entry.leaf is not None or op_name(base_name(entry.target)) != "setitem" or len(varying) != 1:
        return None
    (numbers,) = varying.values()
    shape = tape.shape(entry.args[0])
    axis, rest = _subscript_axis(entry.args[1], [each.args[1] for each in steps], len(shape))
    counts_up = numbers == list(range(len(steps)))
    whole = axis is not None and rest == () and shape[axis] == len(steps) and isinstance(entry.args[2], Ref)
    slot = shape[:axis] + shape[axis + 1 :] if axis is not None else ()
    return axis if counts_up and whole and tape.shape(entry.args[2]) == slot else None


def _subscript_axis(index: Any, indices: list[Any], rank: int) -> tuple[int | None, Any]:
    """The axis of the integer that changes, and the subscript that remains once that axis is gone."""
    if not isinstance(index, tuple):
        return 0, ()
    changing = [
        place for place, item in enumerate(index) if type(item) is int and any(each[place] != item for each in indices)
    ]
    if len(changing) != 1 or any(item is None or isinstance(item, Ref) for item in index):
        return None, ()
    (place,) = changing
    rest = tuple(item for other, item in enumerate(index) if other != place)
    axis = rank - (len(index) - place) if Ellipsis in index[:place] else place
    trivial = all(item is Ellipsis or item == slice(None) for item in rest)
    return axis, () if trivial else rest
