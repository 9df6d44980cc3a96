"""Loops that are one: those of equal length that follow each other, first steps that stand before their loop, and
layers that are called on whole sequences before or after it.

A tape is data flow: its calls may be written in any order in which each comes after what it reads. Where all time steps
of a loop read no later steps of the loop before it, both are one loop over the calls of both, and one model.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..converters.layer import LayerConverter
from ..errors import RecordingError
from ..nodes.dropout import DRAWING
from ..ops import ELEMENTWISE, op_name
from ..trace.tape import Entry, Ref, Tape, base_name, refs, with_values
from .detect import Segment
from .roll import BodyValue, LoopCarried, SameStep, Scanned, outputs_of
from .run import Run, Runs


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A new order for the calls of a tape, of which one segment covers one or two that there were.

    `order` holds numbers of calls, `_Missing` for sums that the first step of a loop lacks, `_Applied` for what is
    called on whole sequences, `_Selected` for the time steps that it is then called on, and `_Stacked` for what it
    made. `reads` are the calls that only take a time step out of a sequence,
    with the value that they take; `replaced` are values under other names, by the number of the call that reads them.
    """

    order: tuple[Any, ...]
    segment: Segment
    reads: Mapping[int, Ref]
    replaced: Mapping[int, Mapping[int, Ref]]
    covered: int = 2


@dataclasses.dataclass(frozen=True)
class _Missing:
    """The sum that a loop begins with its first term: the call like it in the next step, and the number of its total.

    `made` is what the call of the first step makes.
    """

    like: int
    total: int
    term: Ref
    made: Ref


@dataclasses.dataclass(frozen=True)
class _Applied:
    """A call on a whole sequence, as a call on one of its time steps: `values` are what it reads there.

    `made` is the entry `step`, along `axis`, of what the call makes.
    """

    call: int
    axis: int
    step: int
    values: Mapping[int, Ref]
    made: Ref


@dataclasses.dataclass(frozen=True)
class _Selected:
    """One time step of a sequence, its entry `place` along `axis`, as what the call reads that is made of it."""

    call: int
    source: Ref
    axis: int
    place: int
    made: Ref


@dataclasses.dataclass(frozen=True)
class _Stacked:
    """The result of a call on a whole sequence, as the stack of what it makes of the time steps."""

    call: int
    axis: int
    values: tuple[Ref, ...]


def fused(runs: Runs) -> Runs:
    """The same runs with as few segments as there are loops that must follow each other."""
    joined = _all_joined(runs, thorough=False)
    try:
        for run in (joined.given, joined.other_batch, joined.other_length):
            assert run is None or run.bodies
    except RecordingError:
        return _all_joined(runs, thorough=True)
    return joined


def extended(runs: Runs) -> Runs:
    """The same runs in which each loop has the layers that are called on its whole sequences before and after it."""
    for number in range(len(runs.given.segments)):
        runs = _planned(runs, number, (_extended,), thorough=True) or runs
    return runs


def _all_joined(runs: Runs, *, thorough: bool) -> Runs:
    number = 0
    while number + 1 < len(runs.given.segments):
        found = _planned(runs, number, (_begun, _chained), thorough)
        runs, number = (runs, number + 1) if found is None else (found, max(number - 1, 0))
    return runs


def _planned(
    runs: Runs, number: int, plans: Sequence[Callable[[Run, int], _Plan | None]], thorough: bool
) -> Runs | None:
    """The runs in the order of the first plan that is one; None where all must stay as it is.

    With `thorough`, all other segments are looked at again after every change.
    """
    for planned in plans:
        plan = planned(runs.given, number)
        if plan is None:
            continue
        given, batch, length = _apply(plan, runs.given, number), runs.other_batch, runs.other_length
        if batch is not None:
            batch = _apply(plan, batch, number)
        if length is not None:
            other = planned(length, number)
            if other is None:
                continue
            length = _apply(other, length, number)
            if length.outline != given.outline:
                continue
        try:
            for run in (given, batch, length):
                assert run is None or (run.bodies if thorough else run.body(number))
        except RecordingError:
            continue  # they are no equal steps
        return dataclasses.replace(runs, given=given, other_batch=batch, other_length=length)
    return None


def _apply(plan: _Plan, run: Run, number: int) -> Run:
    """A run in the order of a plan."""
    tape = run.tape
    dependent, parametric = set(tape.dependent), set(tape.parametric)
    entries = []
    made: dict[int, torch.Tensor] = {}

    def make(ref: Ref, like: Ref, tensor: torch.Tensor) -> None:
        made[ref.index] = tensor
        for kind in (dependent, parametric):
            kind |= {ref.index} if like.index in kind else set()

    for each in plan.order:
        if isinstance(each, _Missing):
            entries.append(_first_sum(tape.entries[each.like], each))
            make(each.made, each.term, tape.tensors[each.term.index])
        elif isinstance(each, _Applied):
            entry = tape.entries[each.call]
            (whole,) = outputs_of(entry)
            entries.append(dataclasses.replace(with_values(entry, each.values), result=each.made))
            make(each.made, whole, tape.tensors[whole.index].select(each.axis, each.step))
        elif isinstance(each, _Selected):
            index = (*(slice(None),) * each.axis, each.place)
            entries.append(_call(tape.entries[each.call], torch.Tensor.__getitem__, (each.source, index), each.made))
            make(each.made, each.source, tape.tensors[each.source.index].select(each.axis, each.place))
        elif isinstance(each, _Stacked):
            entry = tape.entries[each.call]
            entries.append(_call(entry, torch.stack, (list(each.values), each.axis), entry.result))
        else:
            entry = tape.entries[each]
            if each in plan.reads:
                entry = dataclasses.replace(entry, target=torch.clone, args=(plan.reads[each],), kwargs={})
            entries.append(with_values(entry, plan.replaced.get(each, {})))
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
    after = [dataclasses.replace(each, start=each.start + more) for each in run.segments[number + plan.covered :]]
    return Run(tape, (*run.segments[:number], plan.segment, *after))


def _call(like: Entry, function: Callable[..., Any], args: tuple[Any, ...], result: Any) -> Entry:
    """A call of a function in the place of another."""
    return dataclasses.replace(
        like, target=function, args=args, kwargs={}, result=result, converter=None, no_grad=False
    )


def _given(entry: Entry) -> list[Ref]:
    """The values that a call reads: none, where it is a constant of the shape of one."""
    return [] if entry.constant else refs((entry.args, entry.kwargs, entry.state_in))


def _divided(entries: Sequence[Entry], indices: Iterable[int], made: set[int]) -> tuple[list[int], list[int], set[int]]:
    """Calls that depend on none of the values that are made, those that do, and the values of these."""
    early, late, behind = [], [], set()
    for index in indices:
        entry = entries[index]
        if any(ref.index in made or ref.index in behind for ref in _given(entry)):
            late.append(index)
            behind |= {ref.index for ref in entry.made}
        else:
            early.append(index)
    return early, late, behind


# Loops that follow each other


def _chained(run: Run, number: int) -> _Plan | None:
    """Two loops of equal length, the second of which reads no later step of the first than its own."""
    first, second = run.segments[number : number + 2]
    entries = run.tape.entries
    if first.count != second.count or first.count < 2 or _neurons(run, first) & _neurons(run, second):
        return None
    steps = {index: moment.step for index, moment in run.moments.items() if moment.segment == number}
    early, late, behind = _divided(entries, range(first.stop, second.start), set(steps))
    series = _Series(run, number, behind, steps)
    reads: dict[int, Ref] = {}
    replaced: dict[int, dict[int, Ref]] = {}
    for step in range(second.count):
        for position in range(second.period):
            index = second.index(step, position)
            taken = _taken(run, number + 1, position, step, series)
            given = [ref.index for ref in _given(entries[index])]
            if position in run.body(number + 1).reads and taken:
                (reads[index],) = taken.values()
                given = [reads[index].index]
            elif taken:
                replaced[index] = taken
                given = [taken[each].index if each in taken else each for each in given]
            if any(each in behind or steps.get(each, 0) > step for each in given):
                return None
    order = [*range(first.start), *early]
    for step in range(first.count):
        order += [first.index(step, position) for position in range(first.period)]
        order += [calls[step] for calls in series.applied]
        order += [second.index(step, position) for position in range(second.period)]
    order += [*late, *range(second.stop, len(entries))]
    period = first.period + len(series.applied) + second.period
    segment = Segment(first.start + len(early), period, first.count)
    return _Plan(tuple(order), segment, reads, replaced)


def _neurons(run: Run, segment: Segment) -> set[str]:
    return {entry.path for entry in run.tape.entries[segment.start : segment.stop] if entry.is_neuron}


def _taken(run: Run, number: int, position: int, step: int, series: "_Series") -> dict[int, Ref]:
    """What a call takes out of a stack of values of the loop before it: the value itself for each of its reads."""
    body = run.body(number)
    entry = run.tape.entries[run.segments[number].index(step, position)]
    if position in body.reads:
        sliced, rest = body.reads[position]
        value = series.at(sliced, step) if rest == () else None
        return {} if value is None else {outputs_of(entry)[0].index: value}
    found = {}
    for ref, argument in zip(refs((entry.args, entry.kwargs)), body.arguments[position], strict=False):
        value = series.at(argument, step) if isinstance(argument, Scanned) else None
        if value is not None:
            found[ref.index] = value
    return found


class _Series:
    """The values over time that were stacked after a segment, or written into one tensor by it.

    `behind` are the values that depend on the segment and come after it, `steps` the time step of each of its own.
    `applied` are calls on whole sequences that are made at every time step instead.
    """

    def __init__(self, run: Run, number: int, behind: set[int], steps: dict[int, int]):
        self.run = run
        self.number = number
        self.behind = behind
        self.steps = steps
        self.makers = {ref.index: index for index, entry in enumerate(run.tape.entries) for ref in outputs_of(entry)}
        self.found: dict[tuple[int, int], list[Ref] | None] = {}
        self.applied: list[list[_Applied]] = []
        self.first = len(run.tape.tensors)  # the index of the next new value

    def new(self, count: int) -> list[Ref]:
        """Values that the tape does not hold yet."""
        made = [Ref(self.first + number) for number in range(count)]
        self.first += count
        return made

    def at(self, sliced: Scanned, step: int) -> Ref | None:
        """The value that is read at a time step; None where the sequence is no such stack."""
        values, place = self.values(sliced.base.index, sliced.axis), sliced.start + step * sliced.stride
        return values[place] if values is not None and sliced.width is None and 0 <= place < len(values) else None

    def values(self, index: int, axis: int) -> list[Ref] | None:
        """The entries of a sequence along an axis."""
        if (index, axis) not in self.found:
            self.found[index, axis] = self._values(index, axis)
        return self.found[index, axis]

    def _values(self, index: int, axis: int) -> list[Ref] | None:
        if index not in self.makers:
            return None
        entry, moment = self.run.tape.entries[self.makers[index]], self.run.moments.get(index)
        if moment is None and _acts_on_steps(entry, len(self.run.tape.shape(Ref(index))), axis):
            return self._applied(index, axis)
        if entry.converter is not None:
            return None
        if moment is None and op_name(base_name(entry.target)) == "stack":
            named = dict(zip(("tensors", "dim"), entry.args, strict=False)) | entry.kwargs
            same = named.get("dim", 0) % len(self.run.tape.shape(Ref(index))) == axis and not entry.no_grad
            return list(named["tensors"]) if same else None
        if moment is None or moment.segment != self.number:
            return None
        segment = self.run.segments[self.number]
        write = self.run.body(self.number).writes.get(moment.value.position)
        whole = moment.step == segment.count - 1 and self.run.tape.shape(Ref(index))[axis] == segment.count
        if write is None or not whole or (write.axis, write.start, write.stride) != (axis, 0, 1):
            return None
        calls = [self.run.tape.entries[segment.index(step, moment.value.position)] for step in range(segment.count)]
        if any(call.no_grad for call in calls):
            return None
        return [refs((call.args, call.kwargs))[write.argument] for call in calls]

    def _applied(self, index: int, axis: int) -> list[Ref] | None:
        """What a call makes of each time step of a sequence."""
        tape, call = self.run.tape, self.makers[index]
        shape, count = tape.shape(Ref(index)), self.run.segments[self.number].count
        given = {ref.index: None for ref in _given(tape.entries[call])}
        whole = [each for each in given if each in self.behind or each in self.steps]
        if not whole or shape[axis] != count or index not in self.behind:
            return None
        # What else goes into it must have no axis of time.
        rest = [len(tape.shape(Ref(each))) for each in given if each not in whole]
        if max(rest, default=0) > len(shape) - axis - 1:
            return None
        rows: dict[int, list[Ref]] = {}
        for base in whole:
            same = len(tape.shape(Ref(base))) == len(shape) and tape.shape(Ref(base))[axis] == count
            values = self.values(base, axis) if same else None
            if values is None or len(values) != count:
                return None
            for step, value in enumerate(values):
                if value.index in self.behind or self.steps.get(value.index, 0) > step:
                    return None
            rows[base] = values
        made = self.new(count)
        self.applied.append(
            [
                _Applied(call, axis, step, {base: values[step] for base, values in rows.items()}, ref)
                for step, ref in enumerate(made)
            ]
        )
        self.steps |= {ref.index: step for step, ref in enumerate(made)}
        return made


def _acts_on_steps(entry: Entry, rank: int, axis: int) -> bool:
    """Whether a call does the same to every entry along an axis of its result."""
    if entry.converter is not None:
        acts = entry.converter.acts_on if isinstance(entry.converter, LayerConverter) else None
    else:
        op = op_name(base_name(entry.target))
        acts = "elements" if op in ELEMENTWISE and op not in DRAWING else "last axis" if op == "linear" else None
    return acts == "elements" or (acts == "last axis" and axis < rank - 1)


# Layers that are called on whole sequences


def _extended(run: Run, number: int) -> _Plan | None:
    """A loop with the layers that are called on its whole input before it, and on its whole output after it."""
    segment, entries = run.segments[number], run.tape.entries
    if segment.count < 2:
        return None
    steps = {index: moment.step for index, moment in run.moments.items() if moment.segment == number}
    stop = run.segments[number + 1].start if number + 1 < len(run.segments) else len(entries)
    _, late, behind = _divided(entries, range(segment.stop, stop), set(steps))
    series = _Series(run, number, behind, steps)
    first: list[list[Any]] = []
    reads: dict[int, Ref] = {}
    replaced: dict[int, dict[int, Ref]] = {}
    for position in range(segment.period):
        for argument, sliced in _sequences(run, number, position):
            found = _layers_before(run, number, sliced)
            if not found:
                continue
            calls, made = _stepwise(run, number, sliced, found, series)
            first += calls
            for step, value in enumerate(made):
                index = segment.index(step, position)
                if argument is None:
                    reads[index] = value
                else:
                    whole = refs((entries[index].args, entries[index].kwargs))[argument]
                    replaced.setdefault(index, {})[whole.index] = value
    last = _layers_after(run, late, series)
    if not first and not last:
        return None
    order: list[Any] = [*range(segment.start)]
    for step in range(segment.count):
        order += [calls[step] for calls in first]
        order += [segment.index(step, position) for position in range(segment.period)]
        order += [calls[step] for calls in series.applied]
    order += [last.get(index, index) for index in range(segment.stop, len(entries))]
    period = len(first) + segment.period + len(series.applied)
    return _Plan(tuple(order), Segment(segment.start, period, segment.count), reads, replaced, covered=1)


def _sequences(run: Run, number: int, position: int) -> Iterator[tuple[int | None, Scanned]]:
    """The sequences that a call in a loop takes a time step of; with the argument that it is, None for a mere read."""
    body = run.bodies[number]
    if position in body.reads:
        sliced, rest = body.reads[position]
        if rest == () and sliced.width is None:
            yield None, sliced
        return
    for argument, each in enumerate(body.arguments[position]):
        if isinstance(each, Scanned) and each.width is None:
            yield argument, each


def _layers_before(run: Run, number: int, sliced: Scanned) -> list[tuple[int, Ref]]:
    """The calls that make a sequence out of another of the same steps, with what they read, from a layer on."""
    tape, segment = run.tape, run.segments[number]
    before = range(run.segments[number - 1].stop if number else 0, segment.start)
    users = {*range(segment.start, segment.stop)}
    users |= {each for each in before if op_name(base_name(tape.entries[each].target)) == "unbind"}
    found: list[tuple[int, Ref]] = []
    value, kept = sliced.base, 0
    while value not in refs(tape.result):
        call = next((each for each in reversed(before) if value in outputs_of(tape.entries[each])), None)
        used = {each for each, entry in enumerate(tape.entries) if value in _given(entry)}
        if call is None or not used <= users:
            break
        entry, shape = tape.entries[call], tape.shape(value)
        whole = {ref for ref in _given(entry) if ref.index in tape.dependent}
        rest = [len(tape.shape(ref)) for ref in _given(entry) if ref not in whole]
        steps = _acts_on_steps(entry, len(shape), sliced.axis) and not entry.no_grad
        if len(whole) != 1 or not steps or max(rest, default=0) > len(shape) - sliced.axis - 1:
            break
        (value,) = whole
        if len(tape.shape(value)) != len(shape) or tape.shape(value)[sliced.axis] != shape[sliced.axis]:
            break
        found.append((call, value))
        users = {call}
        kept = len(found) if _is_layer(tape, entry) else kept
    return found[:kept]


def _stepwise(run: Run, number: int, sliced: Scanned, layers: list[tuple[int, Ref]], series: "_Series") -> Any:
    """Calls on a sequence as calls on its time steps, and what they make in the end."""
    count = run.segments[number].count
    places = [sliced.start + step * sliced.stride for step in range(count)]
    call, source = layers[-1]
    values = series.new(count)
    calls: list[list[Any]] = [
        [_Selected(call, source, sliced.axis, place, value) for place, value in zip(places, values, strict=True)]
    ]
    for call, source in reversed(layers):
        made = series.new(count)
        rows = zip(places, values, made, strict=True)
        calls.append([_Applied(call, sliced.axis, place, {source.index: value}, ref) for place, value, ref in rows])
        values = made
    return calls, values


def _layers_after(run: Run, late: Sequence[int], series: "_Series") -> dict[int, _Stacked]:
    """The layers that are called on the sequence that a loop makes, by their numbers."""
    tape = run.tape
    found: dict[int, _Stacked] = {}
    for index in late:
        entry = tape.entries[index]
        outs = outputs_of(entry)
        if len(outs) != 1 or not _is_layer(tape, entry) or entry.no_grad:
            continue
        for axis in range(len(tape.shape(outs[0]))):
            values = series.values(outs[0].index, axis)
            if values is not None:
                found[index] = _Stacked(index, axis, tuple(values))
                break
    return found


def _is_layer(tape: Tape, entry: Entry) -> bool:
    """Whether a call has parameters."""
    return entry.converter is not None or any(
        ref.index in tape.parametric for ref in _given(entry) if ref.index not in tape.dependent
    )


# First steps


def _begun(run: Run, number: int) -> _Plan | None:
    """A loop and the step before it, which may begin its sums with their first terms."""
    first, second = run.segments[number : number + 2]
    if first.count != 1 or second.count < 2:
        return None
    entries = run.tape.entries
    low = run.segments[number - 1].stop if number else 0
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
    early, late, behind = _divided(entries, rest, made)
    if any(
        ref.index in behind for index in (*taken, *range(second.start, second.stop)) for ref in _given(entries[index])
    ):
        return None
    order = (
        *range(low), *early, *step, *range(second.start, second.stop), *late, *range(second.stop, len(entries))
    )  # fmt: skip
    return _Plan(order, Segment(low + len(early), second.period, second.count + 1), {}, replaced)


def _matched(run: Run, number: int, low: int) -> dict[int, int]:
    """The calls before a loop that are its first step, by their positions; sums may be missing."""
    segment, entries = run.segments[number], run.tape.entries
    positions = range(segment.period)
    keys = [_kind(entries[segment.index(0, position)]) for position in positions]
    sums = {position for position in positions if _total(run, number, position) is not None}
    found: dict[int, int] = {}
    place = segment.start
    for position in reversed(positions):
        if position not in sums:
            place = next((each for each in range(place - 1, low - 1, -1) if _kind(entries[each]) == keys[position]), -1)
            if place < 0:
                return {}
            found[position] = place
    for position in sums:
        # Between its neighbours, or nowhere.
        after = min((found[each] for each in found if each > position), default=segment.start)
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
    segment, body = run.segments[number], run.body(number)
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
    return _Missing(segment.index(0, position), total, initial, Ref(made))


def _first_sum(like: Entry, missing: _Missing) -> Entry:
    """The sum of nothing and a first term."""
    args = [missing.term, missing.term]
    args[missing.total] = 0.0  # type: ignore[call-overload]
    return dataclasses.replace(like, args=tuple(args), result=missing.made)
