"""Three runs of a network as one program, whose sizes are formulas of the batch size and the length.

Behind this pass nothing knows that there were runs: as given, with another batch size, with another length. What they
do not agree on, or what no formula explains, is refused here.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch

from ..converters.neuron import NeuronConverter
from ..errors import InteropError, LengthError, RecordingError, UnsupportedOptionError
from ..ir.formulas import StepTable, fit_steps
from ..ir.program import Program
from ..ir.regions import (
    Call,
    Carried,
    Constant,
    Entries,
    Invariant,
    Loop,
    Operand,
    Scanned,
    StepNumber,
    Value,
    values_in,
)
from ..ir.sizes import Size, SizeRatio
from ..loops import roll
from ..loops.lists import Part, parts_of
from ..loops.roll import Body, BodyValue, StepNumbers, is_same, moving_subscript, outputs_of
from ..loops.run import Runs
from ..ops import base_name, bind, op_name
from ..trace.tape import Entry, Ref, function_name, refs


@dataclasses.dataclass(frozen=True)
class Length:
    """Which input, along which axis, says how long the network runs."""

    number: int
    axis: int


def unify(runs: Runs, name: str, input_names: Sequence[str], keys: Collection[str], length: Length | None) -> Program:
    """The program that all runs are instances of. `keys` are those of the state_dict.

    **Raises:** `LengthError` for what does not follow from the length, `RecordingError` for what does not follow from
    the batch size, each with the user's line.
    """
    return _Unifier(runs, keys).program(name, input_names, length)


@dataclasses.dataclass(frozen=True)
class _Entries:
    """One call in all runs."""

    given: Entry
    batch: Entry
    length: Entry

    @property
    def op(self) -> str:
        return "" if self.given.converter is not None else op_name(base_name(self.given.target))

    @property
    def all(self) -> tuple[Entry, Entry, Entry]:
        return self.given, self.batch, self.length

    def results(self) -> list[tuple[Ref, Ref]]:
        """What the call makes, as given and at the other length; as many as both make."""
        return list(zip(outputs_of(self.given), outputs_of(self.length), strict=False))

    def states(self) -> list[tuple[Ref, Ref]]:
        return list(zip(self.given.state_out, self.length.state_out, strict=True))

    def refuse(self, what: str, kind: type[RecordingError] = RecordingError) -> RecordingError:
        entry = self.given
        return kind(
            f"{function_name(entry.target)}: {what}\n  {entry.line}\nAllowed: the same arguments whatever the batch "
            "size and the length, or sizes of the batch and of time",
            path=entry.path,
        )


class _Unifier:
    """The program while it grows: `items` in order, with a `_LoopDraft` for every loop until all is known."""

    def __init__(self, runs: Runs, keys: Collection[str]):
        self.runs = runs
        self.keys = keys
        self.given = runs.given.tape
        self.other_batch = self.given if runs.other_batch is None else runs.other_batch.tape
        self.other_length = runs.there.tape
        self.values: dict[int, Value] = {}
        self.parameters: dict[Value, str] = {}
        self.constants: dict[Value, Constant] = {}
        self.items: list[Any] = []
        self.drafts: list[_LoopDraft] = []
        self.makers = {ref.index: entry for entry in self.given.entries for ref in entry.made}
        self.makers_there = {ref.index: entry for entry in self.other_length.entries for ref in entry.made}

    def program(self, name: str, input_names: Sequence[str], length: Length | None) -> Program:
        tapes = (self.given.inputs, self.other_length.inputs)
        inputs = {self.define(ref, there): wanted for ref, there, wanted in zip(*tapes, input_names, strict=True)}
        live = _live(self)
        stop = 0
        for number, segment in enumerate(self.runs.given.segments):
            self.straight(range(stop, segment.start), live)
            draft = _LoopDraft(self, number)
            draft.build()
            self.drafts.append(draft)
            self.items.append(draft)
            stop = segment.stop
        self.straight(range(stop, len(self.given.entries)), live)
        outputs = self.outputs(self.given.result, self.other_batch.result, self.other_length.result)
        return Program(
            name=name,
            inputs=inputs,
            parameters=self.parameters,
            constants=self.constants,
            body=tuple(item.loop() if isinstance(item, _LoopDraft) else item for item in self.items),
            outputs=outputs,
            example=(self.runs.batch_sizes[0], 0 if self.runs.lengths is None else self.runs.lengths[0]),
            length=None if length is None else (length.number, length.axis),
        )

    def straight(self, indices: range, live: set[int]) -> None:
        """The calls of these numbers, which are in no loop."""
        for index in indices:
            entries = self.entries(index)
            if index in live and not self.is_folded_away(entries) and entries.op != "unbind":
                self.items.append(self.call(entries, _Outside(self)))

    def is_folded_away(self, entries: _Entries) -> bool:
        """Whether all that a call makes is constant."""
        made = entries.results()
        return entries.given.converter is None and all(self.is_constant(ref, there) for ref, there in made)

    def entries(self, index: int) -> _Entries:
        """A call outside of all segments, in all runs."""
        runs = self.runs
        place = index
        if runs.other_length is not None:
            # As many calls before the end, or after the segment before it.
            for here, there in zip(runs.given.segments, runs.other_length.segments, strict=True):
                if here.stop <= index:
                    place = index - here.stop + there.stop
        tapes = (self.given, self.other_batch, self.other_length)
        return _Entries(*(tape.entries[at] for tape, at in zip(tapes, (index, index, place), strict=True)))

    # Values

    def define(self, ref: Ref, there: Ref, name: str = "") -> Value:
        """A new value of outside."""
        self.values[ref.index] = self.new(ref, there, name)
        return self.values[ref.index]

    def new(self, ref: Ref, there: Ref, name: str = "") -> Value:
        """A value with the sizes of one on the tapes."""
        return Value(self.shape(ref, there), self.given.tensors[ref.index].dtype, name)

    def value(self, ref: Ref, there: Ref) -> Value:
        """A value of outside, defined now where nothing has."""
        if ref.index not in self.values:
            self.values[ref.index] = self.found(ref, there)
        return self.values[ref.index]

    def found(self, ref: Ref, there: Ref) -> Value:
        name = self.given.names.get(ref.index)
        if name is not None and name in self.keys:
            value = self.new(ref, there, name)
            self.parameters[value] = name
            return value
        if ref.index not in self.makers or self.is_constant(ref, there):
            return self.constant(ref, there, name or "")
        if ref.index in self.runs.given.moments:
            return self.at_step(ref, there)
        entry = self.makers[ref.index]
        assert op_name(base_name(entry.target)) == "unbind", "a value is read before the call that makes it"
        return self.unbound(ref, there)

    def is_constant(self, ref: Ref, there: Ref) -> bool:
        """Whether a value is the same whatever the inputs and parameters, the length and the batch size are."""
        if ref.index not in self.makers or not self.given.is_constant(ref):
            return False
        first, other = self.given.tensors[ref.index], self.other_length.tensors[there.index]
        return is_same([first, other]) and self.is_of_sample(ref)

    def is_of_sample(self, ref: Ref) -> bool:
        """Whether a constant is the same for every sample of a batch of another size."""
        first, other = self.given.tensors[ref.index], self.other_batch.tensors[ref.index]
        return self.of_sample(first, self.other_batch.shape(ref)).equal(
            self.of_sample(other, self.given.shape(ref))
        ) if first.ndim == other.ndim else False  # fmt: skip

    @staticmethod
    def of_sample(tensor: torch.Tensor, other: tuple[int, ...]) -> torch.Tensor:
        """The first entry along the axes that another run has otherwise."""
        for axis, size in enumerate(other):
            tensor = tensor if tensor.shape[axis] == size else tensor.narrow(axis, 0, 1)
        return tensor.detach()

    def constant(self, ref: Ref, there: Ref, name: str) -> Value:
        value = self.new(ref, there, name)
        tensor = self.given.tensors[ref.index].detach()
        if not is_same([tensor, self.other_length.tensors[there.index]]):
            raise LengthError("a tensor that forward does not compute has other values at another length")
        axis = value.batch_axis
        if axis is not None:
            if not bool((tensor == tensor.narrow(axis, 0, 1)).all()):
                raise RecordingError(
                    f"a constant {tuple(tensor.shape)} has another value for each sample of the batch. "
                    "Allowed: constants without batch axis, or equal along it. Pass it as an input"
                )
            tensor = tensor.narrow(axis, 0, 1)
        self.constants[value] = Constant(tensor, ref.index)
        return value

    def unbound(self, ref: Ref, there: Ref) -> Value:
        """One part of a sequence that was cut along an axis, at any length."""
        entry, other = self.makers[ref.index], self.makers_there[there.index]
        parts, others = outputs_of(entry), outputs_of(other)
        place = self.place(parts.index(ref), others.index(there), (len(parts), len(others)))
        base, base_there = refs(entry.args)[0], refs(other.args)[0]
        dim = {**dict(zip(("input", "dim"), entry.args, strict=False)), **entry.kwargs}.get("dim", 0)
        call = self.synthetic(
            torch.select, (self.value(base, base_there), dim, place), self.shape(ref, there), like=entry
        )
        return call

    def synthetic(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        shape: tuple[Size, ...],
        *,
        like: Entry | None = None,
    ) -> Value:
        """The result of a call that no run has made, which is added outside of the loops."""
        value = Value(shape, values_in(args)[0].dtype)
        line, no_grad = ("", False) if like is None else (like.line, like.no_grad)
        op, arguments = bind(function, args, {})
        self.items.append(Call(op, function, args, {}, arguments, (value,), line=line, no_grad=no_grad))
        return value

    # Sizes

    def shape(self, ref: Ref, there: Ref) -> tuple[Size, ...]:
        """The sizes of a value.

        **Raises:** `RecordingError` where the batch is no single axis that grows in proportion.
        """
        first, second = self.given.shape(ref), self.other_batch.shape(ref)
        third = self.other_length.shape(there)
        if len(first) != len(second):
            raise RecordingError(
                f"a value of shape {first} has the shape {second} when the batch grows: its number of axes depends on "
                "the batch size. Allowed: axes that stay. Name the axis in squeeze(dim)"
            )
        if len(first) != len(third):
            raise LengthError(f"a value of shape {first} has the shape {third} at another length")
        sizes = [self.size(*each) for each in zip(first, second, third, strict=True)]
        if any(size is None for size in sizes) or sum(size is not None and size.batched for size in sizes) > 1:
            small, large = self.runs.batch_sizes
            if first == second:
                raise LengthError(f"a value of shape {first} has the shape {third} at another length")
            raise RecordingError(
                f"a value of shape {first} becomes {second} when the batch grows from {small} to {large}. "
                "Allowed: the batch as one axis, of its own or folded with time"
            )
        return tuple(size for size in sizes if size is not None)

    def size(self, a: int, b: int, c: int) -> Size | None:
        """The formula of an integer: as given, with another batch size, at another length."""
        small, large = self.runs.batch_sizes
        batched = a != b
        if batched:
            if a % small or c % small or a // small * large != b:
                return None
            a, c = a // small, c // small
        lengths = self.runs.lengths
        if lengths is None or a == c:
            return Size(0, a, batched=batched)
        found = Size.fit((a, c), lengths) or Size.rounding((a, c), lengths) or Size.affine((a, c), lengths)
        return None if found is None else dataclasses.replace(found, batched=batched)

    def number(self, entries: _Entries, a: Any, b: Any, c: Any) -> Any:
        """A number among the arguments of a call: as it is, where it is always the same."""
        first, second = self.runs.batch_sizes
        if a != b:
            if not isinstance(a, int) or a % first or a // first * second != b:
                raise entries.refuse(f"a number depends on the batch size: {a} with {first} samples, {b} with {second}")
            of_sample = c // first if isinstance(c, int) and c % first == 0 else c
            found = self.number(entries, a // first, a // first, of_sample)
            if isinstance(found, SizeRatio):
                raise entries.refuse(f"a number depends on the batch size: {a} with {first} samples, {b} with {second}")
            found = found if isinstance(found, Size) else Size(0, found)
            return dataclasses.replace(found, batched=True)
        lengths = self.runs.lengths
        if a == c or lengths is None:
            return a
        whole = isinstance(a, int) and isinstance(c, int)
        found = Size.fit((a, c), lengths) if whole else SizeRatio.fit((a, c), lengths)
        if found is None:
            what = f"a number depends on the length: {a} with {lengths[0]} steps, {c} with {lengths[1]}"
            raise entries.refuse(what, LengthError)
        return found

    def count(self, number: int) -> Size:
        """How many time steps a segment has.

        **Raises:** `LengthError` when that does not follow from the length of the inputs.
        """
        counts, lengths = self.counts(number), self.runs.lengths
        found = Size(0, counts[0]) if lengths is None else Size.fit(counts, lengths, exact=self.runs.whole)
        if found is None and lengths is not None and self.runs.rounds:
            found = Size.rounding(counts, lengths)
        if found is None:
            raise LengthError(f"the loop runs {counts[0]} and {counts[1]} steps at the lengths {lengths}")
        return found

    def counts(self, number: int) -> tuple[int, int]:
        return self.runs.given.segments[number].count, self.runs.there.segments[number].count

    def steps(self, values: Sequence[Any], there: Sequence[Any]) -> StepNumber:
        """Numbers that change from step to step."""
        if self.runs.lengths is None:
            return StepNumber(StepTable(tuple(values)))
        found = fit_steps([values, there])
        if found is None:
            shown = ", ".join(str(value) for value in list(values)[:4])
            raise LengthError(f"the numbers {shown}... follow no rule that is known for other lengths")
        return StepNumber(found)

    def place(self, step: int, there: int, counts: tuple[int, int]) -> int:
        """A time step counted from the start, or from the end where negative."""
        if counts[0] == counts[1]:
            return step - counts[0] if step == counts[0] - 1 else step
        if step - counts[0] == there - counts[1]:
            return step - counts[0]
        if step == there:
            return step
        raise LengthError(
            f"what follows the loop reads time step {step} of {counts[0]}, and {there} of {counts[1]}. Allowed: "
            "steps counted from the start or from the end"
        )

    def start(self, starts: tuple[int, int], sizes: tuple[int, int], *, from_end: bool) -> int:
        """A place in a sequence that holds at any length: from the start, or negative from the end."""
        ends = (starts[0] - sizes[0], starts[1] - sizes[1])
        if self.runs.other_length is None:
            return ends[0] if from_end else starts[0]
        if ends[0] == ends[1] and (from_end or starts[0] != starts[1]):
            return ends[0]
        if starts[0] == starts[1]:
            return starts[0]
        raise LengthError(
            f"the loop starts reading at {starts[0]} of {sizes[0]}, and at {starts[1]} of {sizes[1]}. Allowed: places "
            "counted from the start or from the end"
        )

    # Calls

    def call(self, entries: _Entries, scope: "_Outside | _LoopDraft", results: Sequence[Value] | None = None) -> Call:
        """A call in terms of values. `results` are those that it makes, where they are defined already."""
        entry = entries.given
        try:
            args, kwargs = _Arguments(self, entries, scope).filled()
            if results is None:
                results = [self.define(ref, there) for ref, there in entries.results()]
        except InteropError as error:
            if not error.path and entry.line and entry.line not in str(error):
                raise type(error)(f"{error}\n  {entry.line}", path=entry.path) from error
            raise
        converter = entry.converter
        op, arguments = _normal_form(entry, args, kwargs)
        return Call(
            op=op,
            target=entry.target,
            args=args,
            kwargs=kwargs,
            arguments=arguments,
            results=tuple(results),
            is_single=isinstance(entry.result, Ref),
            path=entry.path,
            line=entry.line,
            shown="" if converter is not None else function_name(entry.target),
            converter=converter,
            fields=converter.fields if isinstance(converter, NeuronConverter) else (),
            no_grad=entry.no_grad,
        )

    def outputs(self, item: Any, batch: Any, length: Any) -> Any:
        """The structure that forward returns."""
        if isinstance(item, Ref):
            return self.value(item, length)
        if isinstance(item, list | tuple) and self.is_series(item, len(self.drafts)):
            return Entries(self.sequence(item, length))
        if isinstance(item, dict):
            if list(item) != list(length):
                raise RecordingError(f"forward returns {list(item)} here, and {list(length)} at another length")
            return type(item)((key, self.outputs(item[key], batch[key], length[key])) for key in item)
        if isinstance(item, list | tuple):
            if len(item) != len(length):
                raise RecordingError(f"forward returns {len(item)} values here, and {len(length)} at another length")
            found = [self.outputs(*each) for each in zip(item, batch, length, strict=True)]
            return type(item)(*found) if type(item) not in (list, tuple) else type(item)(found)
        return item

    # Values of loops, seen from behind them

    def at_step(self, ref: Ref, there: Ref) -> Value:
        """A value at one time step of a loop before."""
        found, other = self.runs.given.moments[ref.index], self.runs.there.moments[there.index]
        draft = self.drafts[found.segment]
        segment, value = found.segment, found.value
        write = draft.body.writes.get(value.position)
        if write is not None:
            if found.step != self.counts(segment)[0] - 1:
                raise RecordingError(
                    f"a tensor that the loop fills is read before the loop ends\n  {draft.line(value)}\n"
                    "Allowed: reading it after the loop"
                )
            return self.written(draft, value, ref, there)
        if segment != other.segment or value != other.value:
            raise LengthError("what follows the loop reads another value at another length. Allowed: the same one")
        index = self.place(found.step, other.step, self.counts(segment))
        if index == -1:
            return draft.final(value)
        emitted = draft.emit(value)
        return self.synthetic(torch.select, (emitted, 0, index), emitted.shape[1:])

    def written(self, draft: "_LoopDraft", value: BodyValue, ref: Ref, there: Ref) -> Value:
        """A tensor that a loop filled, or made longer, step by step."""
        write, other = draft.body.writes[value.position], draft.body_there.writes[value.position]
        entry = draft.body.entries[value.position]
        sequence = draft.emit(draft.written_value(value.position))
        initial, initial_there = draft.written_target(value.position)
        shape = self.shape(ref, there)
        if write.start is None:
            axis = write.axis % len(shape)
            if not self.given.tensors[initial.index].numel():
                return self.synthetic(torch.cat, (Entries(sequence), axis), shape, like=entry)
            grown = self.synthetic(torch.cat, (Entries(sequence), axis), self.grown(sequence, axis), like=entry)
            both = [self.value(initial, initial_there), grown]
            return self.synthetic(torch.cat, (both, axis), shape, like=entry)
        if write.stride < 0:
            sequence = self.synthetic(torch.flip, (sequence, [0]), sequence.shape, like=entry)
        item = sequence.shape[1:]
        stacked = self.synthetic(
            torch.stack,
            (Entries(sequence), write.axis),
            (*item[: write.axis], sequence.shape[0], *item[write.axis :]),
            like=entry,
        )
        counts = self.counts(draft.number)
        sizes = (self.given.shape(initial)[write.axis], self.other_length.shape(initial_there)[write.axis])
        firsts, lasts = zip(write.bounds(counts[0]), other.bounds(counts[1]), strict=True)
        if firsts == (0, 0) and lasts == sizes:
            return stacked
        start = self.start(firsts, sizes, from_end=False)
        stop = self.start(lasts, sizes, from_end=lasts[0] == sizes[0])
        index = (*(slice(None),) * write.axis, slice(start, stop or None))
        target = self.value(initial, initial_there)
        return self.synthetic(torch.Tensor.__setitem__, (target, index, stacked), shape, like=entry)

    @staticmethod
    def grown(sequence: Value, axis: int) -> tuple[Size, ...]:
        """The shape of the entries of a sequence, one behind the other along an axis."""
        count, *item = sequence.shape
        size = item[axis]
        if size.factor == 0:
            times = size.offset
            item[axis] = dataclasses.replace(count, factor=count.factor * times, offset=count.offset * times)
        return tuple(item)

    # Lists of values over time

    def is_series(self, items: Any, before: int) -> bool:
        """Whether a list holds values of successive time steps of segments before the one of this number."""
        if len(items) < 2 or not all(isinstance(item, Ref) for item in items):
            return False
        found = [self.runs.given.moments.get(item.index) for item in items]
        if any(each is not None and each.segment >= before for each in found):
            return False
        return any(part.count > 1 for part in parts_of(items, self.runs.given.moments))

    def sequence(self, items: Sequence[Ref], there: Sequence[Ref]) -> Value:
        """A list of values over time as one value, with time as its first axis."""
        parts = parts_of(items, self.runs.given.moments)
        others = parts_of(there, self.runs.there.moments)
        if [part.kind for part in parts] != [part.kind for part in others]:
            raise LengthError("a list of values over time is another list at another length. Allowed: the same values")
        if len({_batch_axis(self.shape(a.ref, b.ref)) for a, b in zip(parts, others, strict=True)}) > 1:
            raise RecordingError("a list of values over time has the batch at different axes. Allowed: one axis")
        values = [self.part(a, b) for a, b in zip(parts, others, strict=True)]
        if len(values) == 1:
            return values[0]
        length = self.size(len(items), len(items), len(there))
        if length is None:
            raise LengthError("a list of values over time has a number of items that does not follow from the length")
        return self.synthetic(torch.cat, (values, 0), (length, *values[0].shape[1:]))

    def part(self, part: Part, there: Part) -> Value:
        """Items of a list that follow each other in time."""
        if not part.moments:
            value = self.value(part.ref, there.ref)
            return self.synthetic(torch.unsqueeze, (value, 0), (Size(0, 1), *value.shape))
        segment = part.moments[0].segment
        draft, counts = self.drafts[segment], self.counts(segment)
        first, last = zip(part.steps, there.steps, strict=True)
        start = 0 if first == (0, 0) else self.place(*first, counts)
        # The next step of the list would be behind the end.
        to_the_end = all(each + part.stride > count for each, count in zip(last, counts, strict=True))
        stop = None if last == counts or to_the_end else self.place(*last, counts)
        step = None if part.stride in (1, -1) else part.stride
        sources = [draft.emit(moment.value) for moment in part.moments]
        length = self.size(part.count, part.count, there.count)
        if length is None:
            raise LengthError("a list of values over time has a number of items that does not follow from the length")
        value = sources[0]
        if len(sources) > 1:
            shape = (value.shape[0], Size(0, len(sources)), *value.shape[1:])
            value = self.synthetic(torch.stack, (sources, 1), shape)
        if (start, stop, step) != (0, None, None):
            index = slice(start, stop, step)
            value = self.synthetic(torch.Tensor.__getitem__, (value, index), (length, *value.shape[1:]))
        if len(sources) > 1:
            times = dataclasses.replace(
                length, factor=length.factor * len(sources), offset=length.offset * len(sources)
            )
            value = self.synthetic(torch.flatten, (value, 0, 1), (times, *value.shape[2:]))
        return value if part.stride > 0 else self.synthetic(torch.flip, (value, [0]), value.shape)


def _normal_form(entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and its arguments by name; of a function that is no known operation, as it is called.

    **Raises:** `UnsupportedOptionError` for a form that an operation does not take.
    """
    if entry.converter is not None:
        kind = entry.converter.kind
        if isinstance(entry.converter, NeuronConverter):
            return kind.__name__, {"input": args[0]}
        bound = inspect.signature(kind.forward).bind(None, *args, **kwargs).arguments
        return kind.__name__, dict(list(bound.items())[1:])
    try:
        return bind(entry.target, args, kwargs)
    except LookupError:
        return entry.kind[0], {**{str(place): each for place, each in enumerate(args)}, **kwargs}
    except TypeError as error:
        raise UnsupportedOptionError(
            f"{function_name(entry.target)} cannot be converted in this form: {error}\n  {entry.line}", path=entry.path
        ) from error


def _batch_axis(shape: tuple[Size, ...]) -> int | None:
    return next((axis for axis, size in enumerate(shape) if size == Size(0, 1, batched=True)), None)


def _live(unifier: _Unifier) -> set[int]:
    """The numbers of the calls outside of loops that what forward returns, or a loop, depends on."""
    run, tape = unifier.runs.given, unifier.given
    wanted = {ref.index for ref in refs(tape.result)}
    for body in run.bodies:
        wanted |= {ref.index for ref in _read_by(body)}
    found: set[int] = set()
    for index in reversed(range(len(tape.entries))):
        entry = tape.entries[index]
        if any(ref.index in wanted for ref in entry.made) and not any(ref.index in run.moments for ref in entry.made):
            found.add(index)
            made = unifier.entries(index)
            if not unifier.is_folded_away(made):
                wanted |= {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}
    return found


def _read_by(body: Body) -> list[Ref]:
    """The values of outside that the steps of a loop read."""
    found: list[Ref] = []
    arguments = [argument for row in body.arguments for argument in row]
    arguments += [state for row in body.states for state in row or () if state is not None]
    arguments += [sliced for sliced, _ in body.reads.values()]
    for each in arguments:
        if isinstance(each, roll.Invariant):
            found.append(each.ref)
        elif isinstance(each, roll.Scanned):
            found.append(each.base)
        elif isinstance(each, roll.ScannedList):
            found += each.refs
        elif isinstance(each, roll.LoopCarried):
            found += refs(list(each.initials))
    return found


class _Arguments:
    """The arguments of one call, in terms of values; integers become formulas."""

    def __init__(self, unifier: _Unifier, entries: _Entries, scope: "_Outside | _LoopDraft"):
        self.unifier = unifier
        self.entries = entries
        self.scope = scope
        self.place = 0

    def filled(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        entries = self.entries
        args = self.items(*self.places_from_the_end())
        kwargs = {
            name: self.fill(value, *(other.kwargs[name] for other in (entries.batch, entries.length)))
            for name, value in entries.given.kwargs.items()
            if name != "out"
        }
        return tuple(args), kwargs

    def places_from_the_end(self) -> list[Any]:
        """The positional arguments in all runs; an index that is as far from the end at any length is negative."""
        rows = [entry.args for entry in self.entries.all]
        if self.entries.op != "getitem" or not isinstance(rows[0][0], Ref):
            return rows
        here = self.unifier.given.shape(rows[0][0])
        there = self.unifier.other_length.shape(rows[2][0])
        found = moving_subscript([rows[0][1], rows[2][1]], len(here))
        if (
            found is None
            or found.width is not None
            or found.starts[0] - here[found.axis] != (found.starts[1] - there[found.axis])
        ):
            return rows
        return [(row[0], found.with_place(row[1], found.starts[0] - here[found.axis])) for row in rows]

    def fill(self, a: Any, b: Any, c: Any) -> Any:
        if isinstance(a, Ref):
            place, self.place = self.place, self.place + 1
            return self.scope.argument(place, a, c if isinstance(c, Ref) else a)
        if isinstance(a, StepNumbers):
            return self.step_numbers(a, b, c)
        if isinstance(a, list | tuple):
            return self.sequence(a, b, c)
        if isinstance(a, slice):
            return slice(*(self.fill(*(getattr(each, part) for each in (a, b, c))) for part in _SLICE))
        if isinstance(a, bool) or a is None or a is Ellipsis or isinstance(a, str):
            if not (a == b == c):
                raise self.entries.refuse(f"an argument is {a} here, and {b} or {c} at another batch size or length")
            return a
        if isinstance(a, np.generic):
            return self.fill(*(each.item() for each in (a, b, c)))
        if isinstance(a, int | float):
            return self.unifier.number(self.entries, a, b, c)
        return a

    def sequence(self, a: Any, b: Any, c: Any) -> Any:
        if self.unifier.is_series(a, self.scope.number):
            self.place += len(a)
            return Entries(self.scope.outside(self.unifier.sequence(a, c)))
        items = self.items(a, b, c)
        return items if isinstance(a, list) else tuple(items)

    def items(self, a: Any, b: Any, c: Any) -> list[Any]:
        if not (isinstance(b, list | tuple) and isinstance(c, list | tuple) and len(a) == len(b) == len(c)):
            raise self.entries.refuse(
                f"an argument has {len(a)} items here and another number at another length", LengthError
            )
        return [self.fill(*items) for items in zip(a, b, c, strict=True)]

    def step_numbers(self, a: StepNumbers, b: Any, c: Any) -> StepNumber:
        if a != b:
            shown = b.values[:3] if isinstance(b, StepNumbers) else b
            raise self.entries.refuse(f"numbers depend on the batch size: {a.values[:3]} and {shown}")
        return self.unifier.steps(a.values, c.values if isinstance(c, StepNumbers) else ())


_SLICE = ("start", "stop", "step")


class _Outside:
    """The values that calls outside of all loops read."""

    def __init__(self, unifier: _Unifier):
        self.unifier = unifier

    @property
    def number(self) -> int:
        """How many loops are done."""
        return len(self.unifier.drafts)

    def argument(self, place: int, ref: Ref, there: Ref) -> Value:
        del place
        return self.unifier.value(ref, there)

    def outside(self, value: Value) -> Value:
        return value


class _LoopDraft:
    """A loop while it grows: what is final or emitted shows only behind it."""

    def __init__(self, unifier: _Unifier, number: int):
        self.unifier = unifier
        self.number = number
        runs = unifier.runs
        self.body = runs.given.bodies[number]
        self.body_batch = runs.given.bodies[number] if runs.other_batch is None else runs.other_batch.bodies[number]
        self.body_there = runs.there.bodies[number]
        self.count = unifier.count(number)
        self.operands: dict[Value, Operand] = {}
        self.made: dict[BodyValue, Value] = {}
        self.calls: list[Call] = []
        self.finals: dict[Value, Value] = {}
        self.emitted: dict[Value, Value] = {}
        self.position = 0

    def line(self, value: BodyValue) -> str:
        return self.body.entries[value.position].line

    def loop(self) -> Loop:
        """The finished loop."""
        first = next((entry.line for entry in self.body.entries if entry.line), "")
        return Loop(
            self.count,
            self.operands,
            tuple(self.calls),
            {outer: inner for inner, outer in self.finals.items()},
            {outer: inner for inner, outer in self.emitted.items()},
            first,
        )

    def build(self) -> None:
        """Add all calls of a time step."""
        for position in range(len(self.body.entries)):
            if position in self.body.writes or position in self.body.constants:
                continue  # what is written is emitted, constants are defined where they are read
            if position in self.body.reads:
                self.value(BodyValue(position, 0, False))
            else:
                self.call(position)

    # What the loop hands on

    def final(self, value: BodyValue) -> Value:
        """A value of the last step, outside."""
        inner = self.value(value)
        if inner not in self.finals:
            self.finals[inner] = Value(inner.shape, inner.dtype)
        return self.finals[inner]

    def emit(self, value: BodyValue) -> Value:
        """A value of all steps, stacked, outside."""
        inner = self.value(value)
        if inner not in self.emitted:
            self.emitted[inner] = Value((self.count, *inner.shape), inner.dtype)
        return self.emitted[inner]

    def written_value(self, position: int) -> BodyValue:
        """What a write keeps."""
        argument = self.body.arguments[position][1]
        if not isinstance(argument, roll.SameStep):
            raise RecordingError(
                f"the loop writes a value that it does not compute\n  {self.body.entries[position].line}\n"
                "Allowed: values of the same step"
            )
        return argument.value

    def written_target(self, position: int) -> tuple[Ref, Ref]:
        """The tensor that a write starts from, as given and at the other length."""
        here, there = (body.arguments[position][0] for body in (self.body, self.body_there))
        if isinstance(here, roll.LoopCarried) and isinstance(there, roll.LoopCarried):
            first, first_there = here.initials[0], there.initials[0]
            if isinstance(first, Ref) and isinstance(first_there, Ref):
                return first, first_there
        raise RecordingError(
            f"the loop writes into another tensor at every step\n  {self.body.entries[position].line}\n"
            "Allowed: one tensor that is filled"
        )

    # Values of a step

    def value(self, value: BodyValue) -> Value:
        """A value of the same step."""
        if value not in self.made:
            self.made[value] = self.found(value)
        return self.made[value]

    def found(self, value: BodyValue) -> Value:
        position, body = value.position, self.body
        entry = body.entries[position]
        if position in body.writes:
            raise RecordingError(
                f"the loop reads a tensor that it is filling step by step\n  {entry.line}\n"
                "Allowed: reading it after the loop",
                path=entry.path,
            )
        if position in body.constants:
            return self.constant(value)
        if position in body.reads:
            return self.read(position)
        entries = self.entries(position)
        pairs = entries.states() if value.is_state else entries.results()
        return self.unifier.new(*pairs[value.item])

    def entries(self, position: int) -> _Entries:
        return _Entries(*(body.entries[position] for body in (self.body, self.body_batch, self.body_there)))

    def constant(self, value: BodyValue) -> Value:
        """A value that depends on no input and parameter: the same at every step, or a number that follows a rule."""
        unifier = self.unifier
        rows = [[step[value.item] for step in body.constants[value.position]] for body in (self.body, self.body_there)]
        tapes = (unifier.given, unifier.other_length)
        tensors = [[tape.tensors[ref.index] for ref in row] for tape, row in zip(tapes, rows, strict=True)]
        ref, there = rows[0][-1], rows[1][-1]
        if all(map(is_same, tensors)):
            if not unifier.is_constant(ref, there):
                raise LengthError(f"a constant of the loop is another one at another length\n  {self.line(value)}")
            return self.outside(unifier.value(ref, there))
        if not all(bool((tensor == tensor.ravel()[0]).all()) for row in tensors for tensor in row):
            raise RecordingError(
                f"a constant changes from step to step\n  {self.line(value)}\n"
                "Allowed: the same at every step, or numbers. Make a tensor of all of them before the loop, and read "
                "it by index"
            )
        numbers = [[tensor.ravel()[0].item() for tensor in row] for row in tensors]
        result = unifier.new(ref, there)
        number = unifier.steps(*numbers)
        options = {"dtype": result.dtype}
        args = (result.shape, number)
        op, arguments = bind(torch.full, args, options)
        self.calls.append(Call(op, torch.full, args, options, arguments, (result,), line=self.line(value)))
        return result

    def read(self, position: int) -> Value:
        """A time step of a sequence."""
        (sliced, rest), (there, rest_there) = self.body.reads[position], self.body_there.reads[position]
        entry = self.body.entries[position]
        if rest != rest_there:
            raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
        value = self.operand(sliced, there)
        if rest or entry.no_grad:
            result = self.unifier.new(*self.entries(position).results()[0])
            args = (value, rest) if rest else (value,)
            function: Callable[..., Any] = torch.Tensor.__getitem__ if rest else torch.clone
            op, arguments = bind(function, args, {})
            self.calls.append(
                Call(op, function, args, {}, arguments, (result,), line=entry.line, no_grad=entry.no_grad)
            )
            return result
        return value

    # Operands

    def argument(self, place: int, ref: Ref, there: Ref) -> Value:
        """The argument of this number of the call at the present position."""
        del ref, there
        arguments = (body.arguments[self.position][place] for body in (self.body, self.body_there))
        return self.operand(*arguments)

    def operand(self, here: Any, there: Any) -> Value:
        """What an argument is, inside of the loop."""
        unifier = self.unifier
        if type(here) is not type(there):
            raise RecordingError("a value comes from another place at another length. Allowed: the same at any length")
        if isinstance(here, roll.SameStep):
            return self.value(here.value)
        if isinstance(here, roll.LoopCarried):
            return self.carried(here, there)
        if isinstance(here, roll.Invariant):
            return self.outside(unifier.value(here.ref, there.ref))
        if isinstance(here, roll.Scanned):
            return self.scanned(here, there)
        return self.scan(Scanned(unifier.sequence(here.refs, there.refs)))

    def outside(self, value: Value) -> Value:
        """A value of outside."""
        return self.add(Invariant(value), value.shape, value)

    def scanned(self, here: roll.Scanned, there: roll.Scanned) -> Value:
        unifier = self.unifier
        same = ("axis", "stride", "width")
        if any(getattr(here, name) != getattr(there, name) for name in same):
            raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
        sizes = (unifier.given.shape(here.base)[here.axis], unifier.other_length.shape(there.base)[there.axis])
        start = unifier.start((here.start, there.start), sizes, from_end=here.stride < 0)
        sequence = unifier.value(here.base, there.base)
        if sequence.shape[here.axis].batched:
            raise RecordingError(
                "the loop runs over the samples of the batch. Allowed: a loop over time, on all samples at once"
            )
        return self.scan(Scanned(sequence, here.axis, start, here.stride, here.width))

    def scan(self, operand: Scanned) -> Value:
        before, behind = operand.sequence.shape[: operand.axis], operand.sequence.shape[operand.axis + 1 :]
        kept = () if operand.width is None else (Size(0, operand.width),)
        return self.add(operand, (*before, *kept, *behind), operand.sequence)

    def carried(self, here: roll.LoopCarried, there: roll.LoopCarried) -> Value:
        """A value of as many steps ago as there are initial values: of the step before, and so on."""
        if here.value != there.value or len(here.initials) != len(there.initials):
            raise RecordingError("a step reads another value at another length. Allowed: the same at any length")
        value = self.value(here.value)
        for first, first_there in reversed(list(zip(here.initials, there.initials, strict=True))):
            initial = self.unifier.value(first, first_there) if isinstance(first, Ref) else first
            value = self.add(Carried(value, initial), value.shape, value)
        return value

    def add(self, operand: Operand, shape: tuple[Size, ...], like: Value) -> Value:
        """The operand's value inside of the loop; one for all that are equal."""
        for value, each in self.operands.items():
            if each == operand:
                return value
        value = Value(shape, like.dtype, like.name)
        self.operands[value] = operand
        return value

    # Calls

    def call(self, position: int) -> None:
        self.position = position
        entries = self.entries(position)
        entry = entries.given
        results = [self.value(BodyValue(position, item, False)) for item in range(len(entries.results()))]
        call = self.unifier.call(entries, self, results)
        if entry.is_neuron:
            states, others = self.body.states[position], self.body_there.states[position]
            call = dataclasses.replace(
                call,
                state_in=None if states is None or others is None else tuple(map(self.state, states, others)),
                state_out=tuple(map(self.value, self.state_values(position))),
            )
        self.calls.append(call)

    def state_values(self, position: int) -> list[BodyValue]:
        """The state of a neuron after a step; a field that is the output as well is the output."""
        entry = self.body.entries[position]
        values = roll.produced(entry, position)
        return [values[ref.index] for ref in entry.state_out]

    def state(self, here: Any, there: Any) -> Value | None:
        return None if here is None or there is None else self.operand(here, there)
