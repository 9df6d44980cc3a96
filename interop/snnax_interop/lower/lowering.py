"""From runs to native graphs: for a time step of each segment, for what is computed before it, and for the end."""

from collections.abc import Sequence
from typing import Any

import torch

from ..converters.context import ConversionContext
from ..converters.parameters import Weights
from ..converters.surrogates import Surrogates
from ..errors import LengthError, RecordingError
from ..ir.formulas import StepTable, fit_steps
from ..ir.sizes import Size
from ..loops.lists import Part, parts_of
from ..loops.roll import BodyValue, Scanned, ValueAtStep, is_same, outputs_of
from ..loops.run import Axes, Runs
from ..nodes.call import Call, Form, Input, Items, Slice, StepList
from ..runtime.plan import Window
from ..runtime.slots import BATCH
from ..trace.tape import Entry, Ref, Tape, refs
from .calls import GraphBuilder, Twins, call_of
from .loop_body import StageBuilder


class NetworkBuilder:
    """Builds the graphs of a network, segment by segment.

    `plain[k]` is what is computed before segment `k` and outside of all segments, the last of them what comes after
    the last segment; `stages[k]` is one time step of segment `k`.
    """

    def __init__(
        self,
        runs: Runs,
        module: torch.nn.Module,
        weights: Weights,
        input_names: list[str],
        surrogates: Surrogates,
    ):
        self.runs = runs
        self.axes = Axes(runs)
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.weights = weights
        self.input_names = input_names
        self.surrogates = surrogates
        self.dtype = _floating_dtype(module, runs.tape)
        self.report: list[tuple[Entry, Any]] = []
        self.layers: dict[Any, Any] = {}
        self.arrays: dict[int, Any] = {}
        self.constants: dict[str, Ref] = {}
        self.normalised: set[str] = set()
        self.keeping: set[str] = set()  # layers that keep something from step to step
        given = runs.given
        self.maker = {ref.index: index for index, entry in enumerate(given.tape.entries) for ref in entry.made}
        self.stepped = _stepped(runs)
        count = len(given.segments)
        self.plain = [GraphBuilder(self, number) for number in range(count + 1)]
        self.outputs: list[list[Any]] = [[] for _ in self.plain]
        self.stages: list[StageBuilder] = []
        for number in range(count):
            self.stages.append(StageBuilder(self, number))
            self.stages[-1].build()

    @property
    def rounds(self) -> bool:
        """Whether a constant of the network may have another value in float64."""
        tensors = (self.runs.tape.tensors[ref.index] for ref in self.constants.values())
        return any(tensor.dtype == torch.float32 and bool((tensor != tensor.round()).any()) for tensor in tensors)

    @property
    def after(self) -> GraphBuilder:
        return self.plain[-1]

    # Values

    def is_array(self, ref: Ref, there: Ref) -> bool:
        """Whether a value is a parameter, a buffer, or a constant that does not depend on the length."""
        tape, other = self.runs.tape, self.runs.there.tape
        if ref in tape.inputs:
            return False
        if ref.index not in self.maker:
            return True
        return tape.is_constant(ref) and is_same([tape.tensors[ref.index], other.tensors[there.index]])

    def array(self, ref: Ref) -> Any:
        """The array of a parameter, buffer or constant; of one sample, where it spans the batch."""
        if ref.index not in self.arrays:
            tape = self.runs.tape
            name = tape.names.get(ref.index)
            if name is not None and name in self.weights.canonical and name in self.weights.keys:
                self.arrays[ref.index] = self.weights.parameter(name, exact=True)
            else:
                array = self.weights.constant(name or "constant", self._of_sample(ref, tape), exact=True)
                self.arrays[ref.index] = array
                self.constants[self.weights.slot(array).key] = ref
        return self.arrays[ref.index]

    def widen(self, tape: Tape) -> None:
        """Take the constants from the tape of a float64 run too, for where the network is cast to float64."""
        for key, ref in self.constants.items():
            self.weights.wide[key] = self._of_sample(ref, tape).numpy().copy()

    def _of_sample(self, ref: Ref, tape: Tape) -> torch.Tensor:
        """A constant, with a batch axis of length one where it spans the batch."""
        tensor = tape.tensors[ref.index].detach()
        axis = self.axes.batch_axis(ref)
        if axis is None:
            return tensor
        if not bool((tensor == tensor.narrow(axis, 0, 1)).all()):
            raise RecordingError(
                f"a constant {tuple(tensor.shape)} has another value for each sample of the batch. "
                "Allowed: constants without batch axis, or equal along it. Pass it as an input"
            )
        return tensor.narrow(axis, 0, 1)

    def is_zero(self, initial: Any) -> bool:
        return self.runs.tape.is_zero(initial) if isinstance(initial, Ref) else initial == 0

    def output(self, number: int, ref: Ref, there: Ref) -> tuple:
        """The key of a value as it is before segment `number`."""
        return self.key(number, self.plain[number].value(ref, there))

    def key(self, number: int, source: Any) -> tuple:
        """The key of a source of the plain graph before segment `number`."""
        builder, outputs = self.plain[number], self.outputs[number]
        for key, name in builder.inputs.items():
            if name == source:
                return key
        if source not in outputs:
            outputs.append(source)
        return ("made", number, outputs.index(source))

    # Calls

    def layer(self, entry: Entry, x: Ref, form: Form) -> Any:
        """The native layer of a module; one for all its calls of the same form. `x` is the first input."""
        assert entry.converter is not None
        shape = self.axes.sample_shape(x)
        name = None if self.runs.other_batch is None else BATCH
        folded = self.axes.is_folded(x)
        module = self.modules[entry.path]
        context = ConversionContext(
            converter=entry.converter,
            path=entry.path,
            module=module,
            x_shape=shape,
            form=form,
            dtype=self.dtype,
            weights=self.weights,
            axis_name=name,
            folded=folded,
            surrogates=self.surrogates,
        )
        key = (entry.path, shape, form)
        if key not in self.layers:
            self.layers[key] = entry.converter.build(module, context)
            self.report.append((entry, self.layers[key]))
        return self.layers[key]

    def twins(self, index: int) -> Twins:
        """A call outside of all segments, in all runs."""
        runs = self.runs
        entries = [None if run is None else run.tape.entries for run in (runs.other_batch, runs.other_length)]
        place = index
        if runs.other_length is not None:
            # As many calls before the end, or after the segment before it.
            for here, there in zip(runs.given.segments, runs.other_length.segments, strict=True):
                if here.stop <= index:
                    place = index - here.stop + there.stop
        batch, length = entries
        return Twins(
            runs.tape.entries[index],
            None if batch is None else batch[index],
            None if length is None else length[place],
        )

    def schedule(self, values: Sequence[Any], there: Sequence[Any]) -> tuple:
        """The key of numbers that change from step to step."""
        if self.runs.lengths is None:
            return ("schedule", StepTable(tuple(values)))
        found = fit_steps([values, there])
        if found is None:
            shown = ", ".join(str(value) for value in list(values)[:4])
            raise LengthError(f"the numbers {shown}... follow no rule that is known for other lengths")
        return ("schedule", found)

    def window(self, number: int, sliced: Scanned, there: Scanned) -> tuple:
        """The key of a time step of a sequence that is made before segment `number`."""
        axis = self.axes.batch_axis(sliced.base)
        if sliced.axis == axis or self.axes.is_folded(sliced.base):
            raise RecordingError(
                "the loop runs over the samples of the batch. Allowed: a loop over time, on all samples at once"
            )
        size, size_there = self.runs.tape.shape(sliced.base)[sliced.axis], 0
        if self.runs.other_length is not None:
            size_there = self.runs.other_length.tape.shape(there.base)[there.axis]
        start = self._start((sliced.start, there.start), (size, size_there), from_end=sliced.stride < 0)
        moved = sliced.axis - 1 if axis is not None and axis < sliced.axis else sliced.axis
        key = self.output(number, sliced.base, there.base)
        return ("sliced", key, Window(moved, start, sliced.stride, sliced.width))

    def _start(self, starts: tuple[int, int], sizes: tuple[int, int], *, from_end: bool) -> int:
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

    # Values of segments, seen from after them

    def moment(self, builder: GraphBuilder, ref: Ref, there: Ref) -> Any:
        """The source, in a plain graph, of a value at one time step of a segment before it."""
        found, other = self.runs.given.moments[ref.index], self.runs.there.moments[there.index]
        stage = self.stages[found.segment]
        count = stage.segment.count
        write = stage.body.writes.get(found.value.position)
        if write is not None:
            if found.step != count - 1:
                raise RecordingError(
                    f"a tensor that the loop fills is read before the loop ends\n  {stage.line(found.value)}\n"
                    "Allowed: reading it after the loop"
                )
            entry = stage.body.entries[found.value.position]
            return builder.detached(entry, self._written(builder, stage, found.value, ref))
        index = self._index(found, other)
        if index == -1 and found.value.is_state:
            state = stage.final_state(found.value)
            if state is not None:
                return builder.input(("final", found.segment, *state), f"{state[0]}.{state[1]}")
        sequence = self._recorded(builder, found.segment, found.value)
        return builder.node("last" if index == -1 else "getitem", call_of("getitem", index), [sequence])

    def _index(self, moment: ValueAtStep, there: ValueAtStep) -> int:
        """A time step as an index that holds at any length."""
        counts = self._counts(moment.segment)
        if moment.segment != there.segment or moment.value != there.value:
            raise LengthError("what follows the loop reads another value at another length. Allowed: the same one")
        return self.place(moment.step, there.step, counts)

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

    def _counts(self, segment: int) -> tuple[int, int]:
        return self.runs.given.segments[segment].count, self.runs.there.segments[segment].count

    def _recorded(self, builder: GraphBuilder, segment: int, value: BodyValue) -> str:
        """The sequence of a value of a segment's step, as an input of a later graph."""
        number = self.stages[segment].record(value)
        return builder.input(("recorded", segment, number), f"recorded{segment or ''}_{number}")

    def _written(self, builder: GraphBuilder, stage: StageBuilder, value: BodyValue, ref: Ref) -> Any:
        """A tensor that a segment filled, or made longer, step by step."""
        write = stage.body.writes[value.position]
        entry = stage.body.entries[value.position]
        sequence = self._recorded(builder, stage.number, stage.written_value(value.position))
        item = refs((entry.args, entry.kwargs))[1]
        axis = self.axes.batch_axis(item)
        in_axes: tuple[int | None, ...] = (None if axis is None else axis + 1,)
        out_axes = (self.axes.batch_axis(ref),)
        initial, initial_there = stage.written_target(value.position)
        steps = StepList(0)
        if write.start is None:
            axis = write.axis % len(self.runs.tape.shape(ref))
            grown = builder.node("cat", Call((), "cat", Items((steps, axis)), (), in_axes, out_axes), [sequence])
            if not self.runs.tape.tensors[initial.index].numel():
                return grown
            both = Items((Items((Input(0), Input(1))), axis))
            call = Call((), "cat", both, (), (self.axes.batch_axis(initial), *out_axes), out_axes)
            return builder.node("cat", call, [builder.value(initial, initial_there), grown])
        if write.stride < 0:
            sequence = builder.node("reversed", call_of("getitem", Slice(None, None, -1)), [sequence])
        stacked = builder.node(
            "stack", Call((), "stack", Items((steps, write.axis)), (), in_axes, out_axes), [sequence]
        )
        counts = self._counts(stage.number)
        sizes = (
            self.runs.tape.shape(initial)[write.axis],
            self.runs.there.tape.shape(initial_there)[write.axis],
        )
        there = stage.body_there.writes[value.position]
        firsts, lasts = zip(write.bounds(counts[0]), there.bounds(counts[1]), strict=True)
        if firsts == (0, 0) and lasts == sizes:
            return stacked
        start = self._start(firsts, sizes, from_end=False)
        stop = self._start(lasts, sizes, from_end=lasts[0] == sizes[0])
        index = Items((*(Slice(None, None, None),) * write.axis, Slice(start, stop or None, None)))
        call = Call(
            (), "setitem", Items((Input(0), index, Input(1))), (), (self.axes.batch_axis(initial), *out_axes), out_axes
        )
        return builder.node("setitem", call, [builder.value(initial, initial_there), stacked])

    # Lists of values over time

    def is_series(self, items: Any, number: int) -> bool:
        """Whether a list holds values of successive time steps of segments before the one of this number."""
        if len(items) < 2 or not all(isinstance(item, Ref) for item in items):
            return False
        found = [self.runs.given.moments.get(item.index) for item in items]
        if any(each is not None and each.segment >= number for each in found):
            return False
        return any(part.count > 1 for part in parts_of(items, self.runs.given.moments))

    def sequence(self, builder: GraphBuilder, items: Sequence[Ref], there: Sequence[Ref]) -> Any:
        """The source, in a plain graph, of a list of values over time."""
        parts = parts_of(items, self.runs.given.moments)
        others = parts_of(there, self.runs.there.moments)
        if [part.kind for part in parts] != [part.kind for part in others]:
            raise LengthError("a list of values over time is another list at another length. Allowed: the same values")
        axes = {self.axes.batch_axis(part.ref) for part in parts}
        if len(axes) > 1:
            raise RecordingError("a list of values over time has the batch at different axes. Allowed: one axis")
        sources = [self._part(builder, a, b) for a, b in zip(parts, others, strict=True)]
        if len(sources) == 1:
            return sources[0]
        joined = Call(
            (), "cat", Items((Items(tuple(map(Input, range(len(sources))))), 0)), (), (None,) * len(sources), (None,)
        )
        return builder.node("cat", joined, sources)

    def sequence_output(self, number: int, items: Sequence[Ref], there: Sequence[Ref]) -> tuple:
        """The key of a list of values over time, as it is before segment `number`."""
        return self.key(number, self.sequence(self.plain[number], items, there))

    def _part(self, builder: GraphBuilder, part: Part, there: Part) -> Any:
        if not part.moments:
            return builder.node("unsqueeze", call_of("unsqueeze", 0), [builder.value(part.ref, there.ref)])
        segment = part.moments[0].segment
        counts = self._counts(segment)
        first, last = zip(part.steps, there.steps, strict=True)
        start = 0 if first == (0, 0) else self.place(*first, counts)
        # The next step of the list would be behind the end.
        to_the_end = all(each + part.stride > count for each, count in zip(last, counts, strict=True))
        stop = None if last == counts or to_the_end else self.place(*last, counts)
        step = None if part.stride in (1, -1) else part.stride
        sources = [self._recorded(builder, segment, moment.value) for moment in part.moments]
        source = sources[0]
        if len(sources) > 1:
            inputs = tuple(map(Input, range(len(sources))))
            stacked = Call((), "stack", Items((Items(inputs), 1)), (), (None,) * len(sources), (None,))
            stacked_node = builder.node("stack", stacked, sources)
            if (start, stop) != (0, None):
                stacked_node = builder.node("getitem", call_of("getitem", Slice(start, stop, None)), [stacked_node])
            return builder.node("flatten", call_of("flatten", 0, 1), [stacked_node])
        if (start, stop, step) != (0, None, None):
            source = builder.node("getitem", call_of("getitem", Slice(start, stop, step)), [source])
        return (
            source if part.stride > 0 else builder.node("reversed", call_of("getitem", Slice(None, None, -1)), [source])
        )

    def length(self, segment: int) -> Size:
        """How many time steps a segment has.

        **Raises:** `LengthError` when that does not follow from the length of the inputs.
        """
        counts = self._counts(segment)
        lengths = self.runs.lengths
        found = Size(0, counts[0]) if lengths is None else Size.fit(counts, lengths, exact=self.runs.whole)
        if found is None and lengths is not None and self.runs.rounds:
            found = Size.rounding(counts, lengths)
        if found is None:
            raise LengthError(f"the loop runs {counts[0]} and {counts[1]} steps at the lengths {lengths}")
        return found


def _stepped(runs: Runs) -> set[int]:
    """The values that what a segment computes goes into."""
    found: set[int] = set(runs.given.moments)
    for entry in runs.tape.entries:
        if any(ref.index in found for ref in refs((entry.args, entry.kwargs))):
            found |= {ref.index for ref in outputs_of(entry)}
    return found


def _floating_dtype(module: torch.nn.Module, tape: Tape) -> torch.dtype:
    candidates = [*module.parameters(), *(tape.tensors[ref.index] for ref in tape.inputs)]
    for tensor in candidates:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()
