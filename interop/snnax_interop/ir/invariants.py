"""The invariants of a program, checked."""

from collections.abc import Iterable
from typing import Any

from .regions import Call, Carried, Item, Loop, Scanned, StepNumber, Value, values_in
from .sizes import Size


def check(given: Iterable[Value], body: Iterable[Item], outputs: Any) -> None:
    """Whether every value is defined once and before its use, and loops read values of outside as operands only.

    **Raises:** `AssertionError` that says which value or call breaks which rule.
    """
    defined: set[Value] = set()
    for value in given:
        _define(value, defined, "the program is given")
    for item in body:
        for value in item.reads:
            _expect(value in defined, f"{_shown(item)} reads {value.name or 'a value'} before it is defined")
        if isinstance(item, Loop):
            _check_loop(item)
        else:
            _check_call(item)
        for value in item.made:
            _define(value, defined, _shown(item))
    for value in values_in(outputs):
        _expect(value in defined, f"the program returns {value.name or 'a value'}, which nothing defines")


def _check_call(call: Call, *, in_loop: bool = False) -> None:
    number = not in_loop and any(isinstance(leaf, StepNumber) for leaf in _leaves((call.args, call.kwargs)))
    _expect(not number, f"{_shown(call)} takes a number of a time step outside of a loop")
    for value in call.made:
        _expect(all(isinstance(size, Size) for size in value.shape), f"{_shown(call)} makes a value of an unknown size")
        batched = [size for size in value.shape if size.batched]
        _expect(len(batched) <= 1, f"{_shown(call)} makes a value with several batch axes")
    if call.state_in is not None:
        _expect(call.is_neuron, f"{_shown(call)} has a state and is no neuron")
        _expect(len(call.state_in) == len(call.state_out), f"{_shown(call)} has another state before than after")


def _check_loop(loop: Loop) -> None:
    defined: set[Value] = set()
    for value, operand in loop.operands.items():
        _define(value, defined, "an operand of a loop")
        if isinstance(operand, Scanned):
            _expect(0 <= operand.axis < len(operand.sequence.shape), "a loop scans an axis that its sequence lacks")
            _expect(operand.stride != 0, "a loop scans one entry only")
    for call in loop.body:
        for value in call.reads:
            _expect(
                value in defined, f"{_shown(call)} reads {value.name or 'a value'}, which is no operand of its loop"
            )
        _check_call(call, in_loop=True)
        for value in call.made:
            _define(value, defined, _shown(call))
    updates = [operand.update for operand in loop.operands.values() if isinstance(operand, Carried)]
    for value in (*updates, *loop.finals.values(), *loop.emitted.values()):
        _expect(value in defined, f"a loop hands on {value.name or 'a value'}, which its body does not define")


def _define(value: Value, defined: set[Value], by: str) -> None:
    _expect(value not in defined, f"{value.name or 'a value'} is defined twice, again by {by}")
    defined.add(value)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for each in tree.values() for leaf in _leaves(each)]
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in _leaves(each)]
    return [tree]


def _shown(item: Item) -> str:
    return f"{item.op} ({item.line})" if isinstance(item, Call) else f"the loop at {item.line}"


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)
