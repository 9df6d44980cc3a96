"""The invariants of a program, checked."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from .regions import Call, Carried, Invariant, Item, Loop, Operand, Scanned, StepNumber, Value, values_in
from .sizes import Size


# Python's augmented assignments, which torch writes in place.
_AUGMENTED = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"}


def check(given: Iterable[Value], body: Iterable[Item], outputs: Any) -> None:
    """Whether the rules hold that a program can show by itself.

    Every value is defined once and before its use, with a type and with sizes; a call writes into nothing, and names
    the same values by its parameters as it is called with; loops read values of outside as operands only, and hand on
    what their bodies define; what changes with the time step is in loops only.

    **Raises:** `AssertionError` that says which value or call breaks which rule.
    """
    defined: set[Value] = set()
    for value in given:
        _define(value, defined, "what the program is given")
    for item in body:
        for value in item.reads:
            _expect(value in defined, f"{_shown(item)} reads {_named(value)} before it is defined")
        if isinstance(item, Loop):
            _check_loop(item)
        else:
            _check_call(item)
            number = any(isinstance(leaf, StepNumber) for leaf in _leaves((item.args, item.kwargs)))
            _expect(not number, f"{_shown(item)} takes a number of a time step outside of a loop")
        for value in item.made:
            _define(value, defined, _shown(item))
    for value in values_in(outputs):
        _expect(value in defined, f"the program returns {_named(value)}, which nothing defines")


def _check_call(call: Call) -> None:
    if call.converter is None:
        name = getattr(call.target, "__name__", call.op)
        in_place = name in _AUGMENTED or (name.endswith("_") and not name.endswith("__"))
        _expect(not in_place and "out" not in call.kwargs, f"{_shown(call)} writes into a tensor")
    _expect(not (call.batched and call.is_neuron), f"{_shown(call)} is a neuron, and of all samples at once")
    bound, called = values_in(call.arguments), values_in((call.args, call.kwargs))
    _expect(set(bound) == set(called), f"{_shown(call)} is bound to other values than it is called with")
    if call.state_in is not None:
        _expect(call.is_neuron, f"{_shown(call)} has a state and is no neuron")
        _expect(len(call.state_in) == len(call.state_out), f"{_shown(call)} has another state before than after")
    _expect(len(call.state_out) == len(call.fields), f"{_shown(call)} does not make every field of its state")


def _check_loop(loop: Loop) -> None:
    defined: set[Value] = set()
    _expect(not loop.count.batched, f"{_shown(loop)} runs so many steps for each sample")
    for value, operand in loop.operands.items():
        _define(value, defined, "an operand of a loop")
        _check_operand(value, operand)
    for call in loop.body:
        for value in call.reads:
            _expect(value in defined, f"{_shown(call)} reads {_named(value)}, which is no operand of its loop")
        _check_call(call)
        for value in call.made:
            _define(value, defined, _shown(call))
    updates = [operand.update for operand in loop.operands.values() if isinstance(operand, Carried)]
    for value in (*updates, *loop.finals.values(), *loop.emitted.values()):
        _expect(value in defined, f"a loop hands on {_named(value)}, which its body does not define")
    for outer, inner in loop.finals.items():
        _expect(outer.shape == inner.shape, f"the final {_named(outer)} has another shape than in the loop")
    for outer, inner in loop.emitted.items():
        _expect(outer.shape == (loop.count, *inner.shape), f"the emitted {_named(outer)} is no stack over the steps")
    for outer, inner in (*loop.finals.items(), *loop.emitted.items()):
        _expect(outer.dtype == inner.dtype, f"{_named(outer)} has another type behind the loop than in it")


def _check_operand(value: Value, operand: Operand) -> None:
    if isinstance(operand, Carried):
        _expect(operand.update is not value, f"a loop carries {_named(value)}, which no step makes")
        return
    source = operand.value if isinstance(operand, Invariant) else operand.sequence
    shape = source.shape
    if isinstance(operand, Scanned):
        _expect(0 <= operand.axis < len(shape), "a loop scans an axis that its sequence lacks")
        _expect(operand.stride != 0, "a loop scans one entry only")
        width = () if operand.width is None else (Size(0, operand.width),)
        shape = (*shape[: operand.axis], *width, *shape[operand.axis + 1 :])
    _expect(value.shape == shape, f"the operand {_named(value)} has another shape than what it is of")
    _expect(value.dtype == source.dtype, f"the operand {_named(value)} has another type than what it is of")


def _define(value: Value, defined: set[Value], by: str) -> None:
    _expect(value not in defined, f"{_named(value)} is defined twice, again by {by}")
    _expect(isinstance(value.dtype, torch.dtype), f"{_named(value)} of {by} has no type")
    _expect(all(isinstance(size, Size) for size in value.shape), f"{_named(value)} of {by} has an unknown size")
    defined.add(value)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        yield from _leaves(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _leaves(each)
    elif isinstance(tree, slice):
        yield from _leaves((tree.start, tree.stop, tree.step))
    else:
        yield tree


def _named(value: Value) -> str:
    return value.name or "a value"


def _shown(item: Item) -> str:
    return f"{item.op} ({item.line})" if isinstance(item, Call) else f"the loop at {item.line}"


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)
