"""First steps that stand before their loop, as `for` does not begin with them.

People write the first time step of a loop by itself, with sums that begin with their first terms. A tape is data flow:
its calls may be written in any order in which each comes after what it reads, so that the first step becomes one of
the loop's, in all runs of a network alike.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..ops import op_name
from ..trace.tape import Entry, Ref, base_name, refs, with_values
from .body import BodyValue, LoopCarried, SameStep, outputs_of
from .detect import TapeLoop
from .run import Run, Runs


@dataclasses.dataclass(frozen=True)
class _Order:
    """A new order for the calls of a tape, in which one loop covers a first step and the loop behind it.

    `calls` holds numbers of calls, and `_Missing` for sums that the first step lacks; `replaced` are values under other
    names, by the number of the call that reads them.
    """

    calls: tuple[Any, ...]
    loop: TapeLoop
    replaced: Mapping[int, Mapping[int, Ref]]


@dataclasses.dataclass(frozen=True)
class _Missing:
    """The sum that a loop begins with its first term: the call like it in the next step, and the number of its total.

    `made` is what the call of the first step makes.
    """

    like: int
    total: int
    term: Ref
    made: Ref


def restore_first_steps(runs: Runs) -> Runs:
    """The same runs, in which loops have the first steps that stand before them."""
    number = 0
    while number + 1 < len(runs.given.loops):
        restored = _restored(runs, number)
        runs, number = (runs, number + 1) if restored is None else (restored, max(number - 1, 0))
    return runs


def _restored(runs: Runs, number: int) -> Runs | None:
    """The runs in which the loop of this number is the first step of the next; None where it is not."""
    order = _order(runs.given, number)
    if order is None:
        return None
    given, batch, length = _reordered(order, runs.given, number), runs.other_batch, runs.other_length
    if batch is not None:
        batch = _reordered(order, batch, number)
    if length is not None:
        other = _order(length, number)
        if other is None:
            return None
        length = _reordered(other, length, number)
        if length.outline != given.outline:
            return None
    if any(run is not None and run.why_unequal() for run in (given, batch, length)):
        return None  # calls that look alike and are no equal steps stay as they stand
    return dataclasses.replace(runs, given=given, other_batch=batch, other_length=length)


def _reordered(order: _Order, run: Run, number: int) -> Run:
    """A run in another order."""
    tape = run.tape
    dependent, parametric = set(tape.dependent), set(tape.parametric)
    entries = []
    made: dict[int, torch.Tensor] = {}
    for each in order.calls:
        if isinstance(each, _Missing):
            entries.append(_first_sum(tape.entries[each.like], each))
            made[each.made.index] = tape.tensors[each.term.index]
            for kind in (dependent, parametric):
                kind |= {each.made.index} if each.term.index in kind else set()
        else:
            entries.append(with_values(tape.entries[each], order.replaced.get(each, {})))
    new = [made[index] for index in range(len(tape.tensors), len(tape.tensors) + len(made))]
    tape = dataclasses.replace(
        tape,
        entries=entries,
        tensors=[*tape.tensors, *new],
        shapes=[*tape.shapes, *(tuple(tensor.shape) for tensor in new)],
        dependent=dependent,
        parametric=parametric,
    )
    more = len(entries) - len(run.tape.entries)
    after = [dataclasses.replace(each, start=each.start + more) for each in run.loops[number + 2 :]]
    return Run(tape, (*run.loops[:number], order.loop, *after))


def _given(entry: Entry) -> list[Ref]:
    """The values that a call reads: none, where it is a constant of the shape of one."""
    return [] if entry.constant else refs((entry.args, entry.kwargs, entry.state_in))


def _divided(entries: Sequence[Entry], indices: Iterable[int], made: set[int]) -> tuple[list[int], list[int], set[int]]:
    """Calls that depend on none of the values that are made, those that do, and the values of these."""
    early, dependent, behind = [], [], set()
    for index in indices:
        entry = entries[index]
        if any(ref.index in made or ref.index in behind for ref in _given(entry)):
            dependent.append(index)
            behind |= {ref.index for ref in entry.made}
        else:
            early.append(index)
    return early, dependent, behind


def _order(run: Run, number: int) -> _Order | None:
    """A loop with the step before it, which may begin its sums with their first terms."""
    first, second = run.loops[number : number + 2]
    if first.count != 1 or second.count < 2:
        return None
    entries = run.tape.entries
    low = run.loops[number - 1].stop if number else 0
    matched = _matched(run, number + 1, low)
    taken = set(matched.values())
    if not taken.issuperset(index for index in range(first.start, first.stop) if entries[index].is_neuron):
        return None
    step: list[Any] = []
    replaced: dict[int, dict[int, Ref]] = {}
    for position in range(second.period):
        if position in matched:
            step.append(matched[position])
            continue
        missing = _missing(run, number + 1, position, matched, len(run.tape.tensors) + len(replaced))
        if missing is None:
            return None
        step.append(missing)
        replaced[missing.like] = {missing.term.index: missing.made}
    made = {ref.index for index in taken for ref in entries[index].made}
    rest = (index for index in range(low, second.start) if index not in taken)
    early, dependent, behind = _divided(entries, rest, made)
    if any(
        ref.index in behind for index in (*taken, *range(second.start, second.stop)) for ref in _given(entries[index])
    ):
        return None
    order = (
        *range(low), *early, *step, *range(second.start, second.stop), *dependent, *range(second.stop, len(entries))
    )  # fmt: skip
    return _Order(order, TapeLoop(low + len(early), second.period, second.count + 1), replaced)


def _matched(run: Run, number: int, low: int) -> dict[int, int]:
    """The calls before a loop that are its first step, by their positions; sums may be missing."""
    loop, entries = run.loops[number], run.tape.entries
    positions = range(loop.period)
    keys = [_kind(entries[loop.index(0, position)]) for position in positions]
    sums = {position for position in positions if _total(run, number, position) is not None}
    found: dict[int, int] = {}
    place = loop.start
    for position in reversed(positions):
        if position not in sums:
            place = next((each for each in range(place - 1, low - 1, -1) if _kind(entries[each]) == keys[position]), -1)
            if place < 0:
                return {}
            found[position] = place
    for position in sums:
        # Between its neighbours, or nowhere.
        after = min((found[each] for each in found if each > position), default=loop.start)
        before = max((found[each] for each in found if each < position), default=low - 1)
        place = next((each for each in range(before + 1, after) if _kind(entries[each]) == keys[position]), None)
        if place is not None:
            found[position] = place
    return found


def _kind(entry: Entry) -> tuple[Any, ...]:
    """What a call is, wherever it stands."""
    return (*entry.kind, entry.path)


def _total(run: Run, number: int, position: int) -> int | None:
    """Which argument of a sum is its own value of the step before; None for other calls."""
    body = run.body(number)
    entry, arguments = body.entries[position], body.arguments[position]
    if entry.converter is not None or op_name(base_name(entry.target)) != "add" or len(entry.args) != 2 or entry.kwargs:
        return None
    own = BodyValue(position, 0, False)
    for place, argument in enumerate(arguments if len(arguments) == 2 else ()):
        if isinstance(argument, LoopCarried) and argument.value == own and len(argument.initials) == 1:
            return place
    return None


def _missing(run: Run, number: int, position: int, matched: Mapping[int, int], made: int) -> _Missing | None:
    """The sum that the first step lacks, if what the loop begins its sum with is the term of that step."""
    loop, body = run.loops[number], run.body(number)
    total = _total(run, number, position)
    if total is None:
        return None
    (initial,) = body.arguments[position][total].initials  # type: ignore[union-attr]
    term = body.arguments[position][1 - total]
    if not isinstance(term, SameStep) or term.value.position not in matched:
        return None
    maker = run.tape.entries[matched[term.value.position]]
    values = maker.state_out if term.value.is_state else outputs_of(maker)
    if initial != values[term.value.item]:
        return None
    return _Missing(loop.index(0, position), total, initial, Ref(made))


def _first_sum(like: Entry, missing: _Missing) -> Entry:
    """The sum of nothing and a first term."""
    args = [missing.term, missing.term]
    args[missing.total] = 0.0  # type: ignore[call-overload]
    return dataclasses.replace(like, args=tuple(args), result=missing.made)
