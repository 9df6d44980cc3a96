"""Dropping the batch: which calls of a program are of one sample, and which of all samples at once."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ..errors import RecordingError
from ..ir.dependence import dependents
from ..ir.program import Program
from ..ir.regions import Call, Entries, Item, Loop, Scanned, Value, map_leaves, values_in
from ..ir.sizes import Size, SizeRatio
from ..ops import OPS, Operand
from .folding import Folding


# Parameters of functions that take the sizes of a result: so many samples are one sample there.
_SIZES = {"size", "sizes", "shape", "repeats", "dims"}


def drop_batch(program: Program, mixing: Collection[Call] = ()) -> Program:
    """The program, whose calls are of one sample, so that the batch may be mapped over, or else marked as batched.

    Batched are calls that mix samples, or count them, and those between which the batch is folded into another axis.
    `mixing` are layers of which it is known.

    **Raises:** `RecordingError` with the user's line for a loop over samples, and for values in which the batch is no
    axis of its own where it has to be.
    """
    for loop in program.loops:
        _check_samples(loop)
    batched = _batched(program, mixing)
    if not batched:
        return program

    def marked(call: Call) -> Call:
        return dataclasses.replace(call, batched=True) if call in batched else call

    body = tuple(
        dataclasses.replace(item, body=tuple(map(marked, item.body))) if isinstance(item, Loop) else marked(item)
        for item in program.body
    )
    return dataclasses.replace(program, body=body)


def mixes_samples(program: Program) -> bool:
    """Whether a call of a program is of all samples at once."""
    return any(call.batched for call in program.calls)


def _check_samples(loop: Loop) -> None:
    for operand in loop.operands.values():
        if isinstance(operand, Scanned) and (
            operand.axis in operand.sequence.batched_axes or operand.sequence.is_folded
        ):
            raise RecordingError(
                f"the loop runs over the samples of the batch\n  {loop.line}\nAllowed: a loop over time, on all "
                "samples at once"
            )


def _batched(program: Program, mixing: Collection[Call]) -> set[Call]:
    """The calls of all samples at once.

    One leads to others: what varies from sample to sample grows, and a value whose batch is folded into another axis
    is of all samples where it is made as well as where it is read.
    """
    calls = program.calls
    makers: dict[Value, Item] = {value: item for item in (*calls, *program.loops) for value in item.made}
    found = set(mixing)
    folding = Folding(program, makers)
    found |= {call for call in calls if _mixes(call) or _counts(call) or folding.scatters(call)}
    returned = [value for value in values_in(program.outputs) if value.is_folded]
    before = -1
    while before < len(found):
        before = len(found)
        varying = dependents(program, [*program.inputs, *(value for call in found for value in call.made)])
        found |= {call for call in calls if call not in found and _is_batched(call, varying, makers, found)}
        found |= {_maker(value, makers, "forward returns") for value in returned}
        found |= {
            _maker(value, makers, f"{call.name} is given", call)
            for call in [each for each in calls if each in found]
            for value in call.reads
            if value.is_folded
        }
    _check_loops(program, found)
    return found


def _is_batched(call: Call, varying: set[Value], makers: dict[Value, Item], found: set[Call]) -> bool:
    folded = [value for value in call.reads if value.is_folded and makers.get(value) in found]
    if call.is_neuron:
        if folded:
            raise _folded(folded[0], f"'{call.path}' is given", call.line)
        return False
    several = any(len(value.batched_axes) > 1 for value in (*call.reads, *call.made))
    return bool(folded) or several or _joins(call, varying)


def _mixes(call: Call) -> bool:
    """Whether a function works along the batch axis of a tensor."""
    if call.is_neuron or call.converter is not None or call.op not in OPS:
        return False
    return any(mixed.intersection(value.batched_axes) for value, mixed in _mixed(call))


def _mixed(call: Call) -> Iterator[tuple[Value, frozenset[int]]]:
    """The values that a call reads, with the axes along which it mixes their elements."""
    arguments = {name: _with_tuples(value) for name, value in call.arguments.items()}
    for name, given in arguments.items():
        for position, value in enumerate(given if isinstance(given, tuple) else (given,)):
            if isinstance(value, Value | Entries):
                value = value.value if isinstance(value, Entries) else value
                yield value, OPS[call.op].mixed_axes(Operand(name, len(value.shape), position), arguments)


def _with_tuples(tree: Any) -> Any:
    """Lists as tuples; what a slice leaves is read off the sizes."""
    if isinstance(tree, slice):
        return slice(None)
    return tuple(map(_with_tuples, tree)) if isinstance(tree, list | tuple) else tree


def _counts(call: Call) -> bool:
    """Whether a call computes with the number of samples."""
    numbers: list[Any] = []
    for name, value in call.arguments.items():
        if name not in _SIZES and not call.is_neuron:
            map_leaves(numbers.append, value)
    return any(isinstance(number, Size | SizeRatio) and number.batched for number in numbers)


def _joins(call: Call, varying: set[Value]) -> bool:
    """Whether samples that are not all the same become something without a batch."""
    return any(value.has_batch for value in call.reads if value in varying) and any(
        value in varying and not value.has_batch for value in call.made
    )


# Where the batch has to be an axis of its own


def _maker(value: Value, makers: dict[Value, Item], what: str, reader: Call | None = None) -> Call:
    """The call that makes a value whose batch is folded, if it can be of all samples."""
    maker = makers.get(value)
    if not isinstance(maker, Call) or maker.is_neuron or maker.converter is not None:
        shown = reader or maker
        raise _folded(value, what, "" if shown is None else shown.line)
    return maker


def _check_loops(program: Program, batched: Iterable[Call]) -> None:
    """Refuse loops that read, or hand on, what only a batched call gives."""
    whole = {value for call in batched for value in call.made if value.is_folded}
    for loop in program.loops:
        for value in (*loop.reads, *loop.needed):
            if value in whole:
                raise _folded(value, "a loop reads or hands on", loop.line)


def _folded(value: Value, what: str, line: str) -> RecordingError:
    return RecordingError(
        f"{what} a tensor of shape ({', '.join(map(str, value.shape))}) whose batch is folded into another axis"
        + (f"\n  {line}\n" if line else ". ")
        + "Allowed: the batch as an axis of its own. Unfold it with view before"
    )
