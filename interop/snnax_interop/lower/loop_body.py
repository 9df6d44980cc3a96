"""One time step of a segment as a native graph."""

import dataclasses
from typing import TYPE_CHECKING, Any

from snnax import snn

from ..converters.neuron import NeuronConverter
from ..errors import RecordingError
from ..loops.roll import (
    Argument,
    BodyValue,
    Invariant,
    LoopCarried,
    SameStep,
    Scanned,
    ScannedList,
    is_same,
    outputs_of,
    produced,
)
from ..nodes.call import Call, Form, Input, Items, Slice
from ..nodes.wrappers import FirstState, Restart, StepFunction
from ..runtime.plan import Window
from ..trace.tape import Entry, Ref, refs
from .calls import GraphBuilder, Twins, call_of


if TYPE_CHECKING:
    from .lowering import NetworkBuilder


@dataclasses.dataclass(frozen=True)
class Stepped:
    """A neuron of a stage: its node, or the nodes of its state where it is stepped as a function."""

    path: str
    converter: NeuronConverter
    out: Ref
    states: tuple[Any, ...]

    @property
    def keeps_state(self) -> bool:
        """Whether the state stays with the node."""
        return all(isinstance(state, snn.State) for state in self.states)


@dataclasses.dataclass(frozen=True)
class _Late:
    """In the place of a source: a value of an earlier time step, whose call may still have no node."""

    here: LoopCarried
    there: LoopCarried
    first: FirstState | None = None


class StageBuilder:
    """Builds the graph of one time step of segment `number`.

    `initial` says where states start that do not start by themselves: keys of values, or numbers, by the name of the
    node and the field, or by the name of a delayed edge and None.
    """

    def __init__(self, network: "NetworkBuilder", number: int):
        self.network = network
        self.number = number
        runs = network.runs
        self.segment = runs.given.segments[number]
        self.body = runs.given.bodies[number]
        self.body_there = runs.there.bodies[number]
        self.step = GraphBuilder(network, number, is_step=True)
        self.sources: dict[BodyValue, Any] = {}
        self.recorded: dict[BodyValue, int] = {}
        self.neurons: dict[str, Stepped] = {}
        self.initial: dict[tuple[str, str | None], Any] = {}
        self.delays: dict[str, tuple[Any, ...]] = {}

    def line(self, value: BodyValue) -> str:
        return self.body.entries[value.position].line

    def build(self) -> None:
        """Add all calls of the time step."""
        for position, entry in enumerate(self.body.entries):
            if position in self.body.writes or position in self.body.constants:
                continue  # what is written is collected after the loop, constants where they are read
            if position in self.body.reads:
                self._read(position)
            elif entry.is_neuron:
                self._neuron(position)
            else:
                self.step.add(
                    self._twins(position), lambda place, ref, there, position=position: self._argument(position, place)
                )
            for item, out in enumerate(outputs_of(entry)):
                if out.index in self.step.made:
                    self.sources[BodyValue(position, item, False)] = self.step.made[out.index]
        # A feedback edge reads a call further down, which has its node only now.
        for name in list(self.step.edges):
            sources = self.step.edges[name]
            sources[:] = [self._settled(source) for source in sources]

    def record(self, value: BodyValue) -> int:
        """The number of a value among those whose sequence later graphs read."""
        if value not in self.recorded:
            self.sources[value] = self._settled(self._source(SameStep(value), SameStep(value)))
            self.recorded[value] = len(self.recorded)
        return self.recorded[value]

    def final_state(self, value: BodyValue) -> tuple[str, str] | None:
        """The node and the field of a state that stays with its neuron; None for other values."""
        source = self.sources[value]
        return (source.node, source.field) if isinstance(source, snn.State) else None

    def written_value(self, position: int) -> BodyValue:
        argument = self.body.arguments[position][1]
        if not isinstance(argument, SameStep):
            raise RecordingError(
                f"the loop writes a value that it does not compute\n  {self.body.entries[position].line}\n"
                "Allowed: values of the same step"
            )
        return argument.value

    def written_target(self, position: int) -> tuple[Ref, Ref]:
        """The tensor that a write starts from, here and in the run of another length."""
        here, there = (body.arguments[position][0] for body in (self.body, self.body_there))
        if isinstance(here, LoopCarried) and isinstance(there, LoopCarried):
            first, first_there = here.initials[0], there.initials[0]
            if isinstance(first, Ref) and isinstance(first_there, Ref):
                return first, first_there
        raise RecordingError(
            f"the loop writes into another tensor at every step\n  {self.body.entries[position].line}\n"
            "Allowed: one tensor that is filled"
        )

    # Where arguments come from

    def _twins(self, position: int) -> Twins:
        runs = self.network.runs
        others = [
            None if run is None else run.bodies[self.number].entries[position]
            for run in (runs.other_batch, runs.other_length)
        ]
        return Twins(self.body.entries[position], *others)

    def _argument(self, position: int, place: int) -> Any:
        return self._source(self.body.arguments[position][place], self.body_there.arguments[position][place])

    def _source(self, here: Argument, there: Argument) -> Any:
        network, step = self.network, self.step
        if type(here) is not type(there):
            raise RecordingError("a value comes from another place at another length. Allowed: the same at any length")
        if isinstance(here, SameStep):
            return self._made(here.value)
        if isinstance(here, LoopCarried) and isinstance(there, LoopCarried):
            if here.value != there.value or len(here.initials) != len(there.initials):
                raise RecordingError("a step reads another value at another length. Allowed: the same at any length")
            return _Late(here, there)
        if isinstance(here, Invariant) and isinstance(there, Invariant):
            return step.value(here.ref, there.ref)
        if isinstance(here, Scanned) and isinstance(there, Scanned):
            same = ("axis", "stride", "width")
            if any(getattr(here, name) != getattr(there, name) for name in same):
                raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
            return step.input(network.window(self.number, here, there), self._sequence_name(here.base))
        assert isinstance(here, ScannedList) and isinstance(there, ScannedList)
        key = network.sequence_output(self.number, here.refs, there.refs)
        return step.input(("sliced", key, Window(0, 0, 1, None)), "sequence")

    def _made(self, value: BodyValue) -> Any:
        """The source of a value of the same time step."""
        if value.position in self.body.writes:
            entry = self.body.entries[value.position]
            raise RecordingError(
                f"the loop reads a tensor that it is filling step by step\n  {entry.line}\n"
                "Allowed: reading it after the loop",
                path=entry.path,
            )
        if value not in self.sources and value.position in self.body.constants:
            self.sources[value] = self._constant(value)
        return self.sources[value]

    def _sequence_name(self, base: Ref) -> str:
        inputs = self.network.runs.tape.inputs
        return self.network.input_names[inputs.index(base)] if base in inputs else "sequence"

    def _constant(self, value: BodyValue) -> Any:
        """A value that depends on no input and parameter: the same at every step, or a number that follows a rule."""
        network, runs = self.network, self.network.runs
        rows = [[step[value.item] for step in body.constants[value.position]] for body in (self.body, self.body_there)]
        tapes = (runs.given.tape, runs.there.tape)
        tensors = [[tape.tensors[ref.index] for ref in row] for tape, row in zip(tapes, rows, strict=True)]
        if all(is_same(row) for row in tensors):
            return self.step.value(rows[0][-1], rows[1][-1])
        if not all(bool((tensor == tensor.ravel()[0]).all()) for row in tensors for tensor in row):
            raise RecordingError(
                f"a constant changes from step to step\n  {self.line(value)}\n"
                "Allowed: the same at every step, or numbers. Make a tensor of all of them before the loop, and read "
                "it by index"
            )
        numbers = [[tensor.ravel()[0].item() for tensor in row] for row in tensors]
        source = self.step.input(network.schedule(*numbers), "schedule")
        shape = network.axes.sample_shape(rows[0][-1])
        return self.step.node("expand", call_of("expand", *shape), [source]) if shape else source

    # Calls

    def _read(self, position: int) -> None:
        sliced, rest = self.body.reads[position]
        there, rest_there = self.body_there.reads[position]
        if rest != rest_there:
            raise RecordingError("the time steps read other values at another length. Allowed: the same ones")
        source = self._source(sliced, there)
        axes = self.network.axes
        entry = self.body.entries[position]
        (out,) = outputs_of(entry)
        if rest:
            axis = axes.batch_axis(sliced.base)
            if axis is not None and axis > sliced.axis and sliced.width is None:
                axis -= 1
            index = Items(tuple(Slice(i.start, i.stop, i.step) if isinstance(i, slice) else i for i in rest))
            call = Call((), "getitem", Items((Input(0), index)), (), (axis,), (axes.batch_axis(out),))
            source = self.step.node("getitem", call, [source])
        self.sources[BodyValue(position, 0, False)] = self.step.detached(entry, source)

    def _neuron(self, position: int) -> None:
        entry = self.body.entries[position]
        assert isinstance(entry.converter, NeuronConverter)
        (x,) = refs(entry.args)
        layer = self.network.layer(entry, x, Form(in_axes=(self.network.axes.batch_axis(x),)))
        source = self._argument(position, 0)
        states, others = self.body.states[position], self.body_there.states[position]
        if states is None or others is None:
            self._add_neuron(position, entry, Restart(layer), source)
        elif all(map(self._is_own, states, self._own(position))):
            name = self._add_neuron(position, entry, layer, source)
            for field, state, there in zip(entry.converter.fields, states, others, strict=True):
                first, first_there = _first(state), _first(there)
                self._start((name, field), first, first_there, entry.converter.starts_at_zero(entry.target))
        else:
            self._add_function(position, entry, layer, source)

    def _own(self, position: int) -> list[BodyValue]:
        """The state of a neuron after a step, as values."""
        entry = self.body.entries[position]
        values = produced(entry, position)
        return [values[ref.index] for ref in entry.state_out]

    def _is_own(self, state: Argument | None, own: BodyValue) -> bool:
        """Whether a state is that of the neuron's last step; in a segment of one step, wherever it comes from."""
        if isinstance(state, LoopCarried):
            return state.value == own and len(state.initials) == 1
        return state is None or (isinstance(state, Invariant) and self.segment.count == 1)

    def _add_neuron(self, position: int, entry: Entry, layer: Any, source: Any) -> str:
        (out,) = outputs_of(entry)
        assert isinstance(entry.converter, NeuronConverter)
        name = self.step.node(entry.path, layer, [source])
        self.step.made[out.index] = self.step.detached(entry, name)
        states = tuple(snn.State(name, field) for field in entry.converter.fields)
        tensors = self.network.runs.tape.tensors
        for number, (state, ref) in enumerate(zip(states, entry.state_out, strict=True)):
            # Neurons that do not spike give a state away as it is.
            shown = name if tensors[ref.index] is tensors[out.index] else state
            self.sources[BodyValue(position, number, True)] = self.step.detached(entry, shown)
        self.neurons[name] = Stepped(entry.path, entry.converter, out, states)
        return name

    def _add_function(self, position: int, entry: Entry, layer: Any, source: Any) -> None:
        """A neuron whose state does not simply stay with it: a function of its input and its state."""
        converter = entry.converter
        assert isinstance(converter, NeuronConverter)
        states, others = self.body.states[position], self.body_there.states[position]
        assert states is not None and others is not None
        given = []
        for field, state, there in zip(converter.fields, states, others, strict=True):
            (x,) = refs(entry.args)
            first = FirstState(layer, field, self.network.axes.sample_shape(x))
            if state is None or there is None:
                given.append(self.step.node(f"{entry.path}.{field}", first, []))
                continue
            found = self._source(state, there)
            given.append(dataclasses.replace(found, first=first) if isinstance(found, _Late) else found)
        name = self.step.node(entry.path, StepFunction(layer, converter.fields), [source, *given])
        (out,) = outputs_of(entry)
        parts = [
            self.step.node(f"{name}.{item}", call_of("item", item), [name]) for item in range(len(converter.fields) + 1)
        ]
        self.step.made[out.index] = self.step.detached(entry, parts[0])
        for number, part in enumerate(parts[1:]):
            self.sources[BodyValue(position, number, True)] = self.step.detached(entry, part)
        self.neurons[parts[0]] = Stepped(entry.path, converter, out, tuple(parts[1:]))

    # Values of earlier steps

    def _start(self, place: tuple[str, str | None], here: Any, there: Any, zero_is_own: bool = True) -> None:
        """Let a state start from a value that is made before the segment."""
        if here is None or (zero_is_own and self.network.is_zero(here)):
            return
        if isinstance(here, Ref):
            self.initial[place] = self.network.output(self.number, here, there)
        else:
            self.initial[place] = ("number", here)

    def _settled(self, source: Any) -> Any:
        """A source, with delayed edges in the place of values of earlier steps."""
        return self._previous(source) if isinstance(source, _Late) else source

    def _previous(self, late: _Late) -> Any:
        value, initials = late.here.value, list(zip(late.here.initials, late.there.initials, strict=True))
        source = self._made(value)
        if isinstance(source, _Late | snn.Previous):
            source = self._held(self._settled(source))
        entry = self.body.entries[value.position]
        made = entry.state_out if value.is_state else outputs_of(entry)
        shape = self.network.axes.sample_shape(made[value.item])
        for number, (here, there) in enumerate(reversed(initials)):
            if number:
                source = self._held(source)
            assert not isinstance(source, snn.Previous)
            edge = snn.Previous(source, shape)
            if here is None and late.first is not None:
                key = self.network.key(self.number, self.network.plain[self.number].node("first", late.first, []))
                here = there = key
            if self.delays.setdefault(str(edge), (here,)) != (here,):
                # The same value is handed over from two different beginnings.
                edge = snn.Previous(self._held(source), shape)
                self.delays[str(edge)] = (here,)
            if isinstance(here, tuple):
                self.initial[str(edge), None] = here
            else:
                self._start((str(edge), None), here, there)
            source = edge
        return source

    def _held(self, source: Any) -> str:
        """A source as a node, so that it can be read one step late."""
        return self.step.node("hold", call_of("clone"), [source])


def _first(state: Argument | None) -> Any:
    """What a state starts from; None for the beginning of its neuron."""
    if isinstance(state, LoopCarried):
        return state.initials[0]
    return state.ref if isinstance(state, Invariant) else None
