"""Whether every call of a program is one of one sample, so that the batch can be dropped."""

from collections.abc import Iterator
from typing import Any

from ..errors import InteropError, RecordingError
from ..ir.dependence import dependents
from ..ir.program import Program
from ..ir.regions import Call, Entries, Loop, Scanned, Value, values_in
from ..ir.sizes import Size
from ..ops import ELEMENTWISE, OPS, Operand


def drop_batch(program: Program) -> Program:
    """The program, whose calls are all of one sample: the batch may be mapped over.

    **Raises:** `RecordingError` with the user's line for a call that mixes the samples of a batch, for a loop over
    them, and for outputs in which the batch is no axis of its own.
    """
    dependent = dependents(program, program.inputs)
    for item in program.body:
        if isinstance(item, Loop):
            _check_loop(item)
        for call in item.body if isinstance(item, Loop) else (item,):
            try:
                _check_call(call, dependent)
            except InteropError as error:
                if not error.path and call.line and call.line not in str(error):
                    raise type(error)(f"{error}\n  {call.line}", path=call.path) from error
                raise
    for value in values_in(program.outputs):
        if value.is_folded:
            raise RecordingError(
                f"forward returns a tensor of shape {_shown(value)} whose batch is folded into another axis. Allowed: "
                "the batch as an axis of its own. Unfold it with view before returning"
            )
    return program


def _check_loop(loop: Loop) -> None:
    for operand in loop.operands.values():
        if isinstance(operand, Scanned) and (operand.sequence.grown == operand.axis or operand.sequence.is_folded):
            raise RecordingError(
                f"the loop runs over the samples of the batch\n  {loop.line}\nAllowed: a loop over time, on all "
                "samples at once"
            )


def _check_call(call: Call, dependent: set[Value]) -> None:
    if call.is_neuron:
        return
    if call.converter is None and call.op in OPS:
        if call.op in ELEMENTWISE:
            _check_numbers(call)
        for value, mixed in _mixed(call):
            if value.grown in mixed:
                raise RecordingError(
                    f"{call.name} mixes the samples of a batch: it works along the batch axis of a tensor of shape "
                    f"{_shown(value)}. Allowed: functions of one sample",
                    path=call.path,
                )
    if any(value.grown is not None for value in call.reads if value in dependent):
        for value in call.results:
            if value in dependent and value.grown is None:
                raise RecordingError(
                    f"{call.name} mixes the samples of a batch: its result of shape {_shown(value)} has no batch axis. "
                    "Allowed: functions of one sample",
                    path=call.path,
                )


def _check_numbers(call: Call) -> None:
    """Refuse elementwise functions of numbers that grow with the batch."""
    for number in call.arguments.values():
        if isinstance(number, Size) and number.batched:
            raise RecordingError(
                f"{call.name}: a number depends on the batch size: {number}, where B is the number of samples. "
                "Allowed: the same arguments whatever the batch size and the length, or sizes of the batch and of time",
                path=call.path,
            )


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


def _shown(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"
