"""One time step of a loop as a native graph."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from snnax import snn

from ..converters.neuron import NeuronConverter
from ..ir.regions import Call, Carried, Invariant, Loop, Scanned, Value
from ..ir.sizes import Size
from ..nodes.call import Form, call_of
from ..nodes.wrappers import FirstState, ResetEveryStep, StepFunction
from ..runtime.plan import Fixed, Key, Steps, Window
from .calls import CallLowering
from .constants import Arrays
from .draft import GraphDraft
from .layers import Layers


@dataclasses.dataclass(frozen=True)
class Stepped:
    """A neuron of a loop: its node, or the nodes of its state where it is stepped as a function."""

    path: str
    converter: NeuronConverter
    out: Value
    states: tuple[Any, ...]

    @property
    def keeps_state(self) -> bool:
        """Whether the state stays with the node."""
        return all(isinstance(state, snn.State) for state in self.states)


@dataclasses.dataclass(frozen=True)
class _PendingFeedback:
    """In the place of a source: a value of the step before, whose call may still have no node.

    `first` makes what it is before the first step, where that is a neuron's own beginning.
    """

    operand: Carried
    first: FirstState | None = None


@runtime_checkable
class Surroundings(Protocol):
    """What a loop body needs of the network around it."""

    arrays: Arrays
    layers: Layers
    calls: CallLowering

    def key(self, value: Any, region: int) -> Key:
        """Where a value is found before the loop of this number."""
        ...

    def is_computed_in_step(self, value: Value) -> bool:
        """Whether a value of outside is computed at every step: what no loop goes into."""
        ...

    def input_name(self, value: Value) -> str | None:
        """The name of an input of the network; None for other values."""
        ...

    def maker(self, value: Value) -> Call:
        """The call that makes a value of outside."""
        ...


class LoopBody:
    """A time step while its graph is built. `recorded` numbers the values whose sequence is read behind the loop."""

    def __init__(self, network: Surroundings, number: int, loop: Loop):
        self.network = network
        self.number = number
        self.loop = loop
        self.draft = GraphDraft()
        self.recorded: dict[Value, int] = {}
        self.neurons: dict[str, Stepped] = {}
        self.initial: dict[tuple[str, str | None], Key] = {}
        self.delays: dict[str, Any] = {}

    def build(self) -> None:
        """Add all calls of the time step."""
        for call in self.loop.body:
            if call.is_neuron:
                self._neuron(call)
            else:
                self.network.calls.add(call, self, in_loop=True)
        # A feedback edge reads a call further down, which has its node only now.
        for sources in list(self.draft.edges.values()):
            sources[:] = [self._resolved(source) for source in sources]
        for value, source in list(self.draft.made.items()):
            self.draft.made[value] = self._resolved(source)

    def record(self, value: Value) -> int:
        """The number of a value of the body among those whose sequence later graphs read."""
        if value not in self.recorded:
            self.draft.made[value] = self._resolved(self.source(value))
            self.recorded[value] = len(self.recorded)
        return self.recorded[value]

    def final_state(self, value: Value) -> snn.State | None:
        """A state that stays with its neuron; None for other values."""
        source = self._resolved(self.source(value))
        return source if isinstance(source, snn.State) else None

    # Values

    def source(self, value: Value) -> Any:
        """The source of a value of the body."""
        made = self.draft.made
        if value not in made:
            operand = self.loop.operands[value]
            if isinstance(operand, Carried):
                return _PendingFeedback(operand)
            made[value] = self._scanned(operand) if isinstance(operand, Scanned) else self.live_in(operand.value)
        return made[value]

    def array(self, value: Value) -> Any:
        operand = self.loop.operands.get(value)
        arrays = self.network.arrays
        known = isinstance(operand, Invariant) and operand.value in arrays
        return arrays.of(operand.value) if known else None  # type: ignore[union-attr]

    def _scanned(self, operand: Scanned) -> Any:
        sequence = operand.sequence
        axis = sequence.batch_axis
        moved = operand.axis - 1 if axis is not None and axis < operand.axis else operand.axis
        window = Window(moved, operand.start, operand.stride, operand.width)
        key = Steps(self.network.key(sequence, self.number), window)
        return self.draft.input(key, self.network.input_name(sequence) or "sequence")

    def live_in(self, value: Value) -> Any:
        """The source of a value of outside, computed here where no loop goes into it."""
        network, draft = self.network, self.draft
        if value in draft.made:
            return draft.made[value]
        name = network.input_name(value)
        if name is not None:
            return draft.input(network.key(value, self.number), name)
        if value in network.arrays:
            return constant_node(draft, network.arrays, value)
        if not network.is_computed_in_step(value):
            return draft.input(network.key(value, self.number), "context")
        network.calls.add(network.maker(value), _Sunk(self), in_loop=True)
        return draft.made[value]

    # Neurons

    def _neuron(self, call: Call) -> None:
        (x,) = call.args
        layer = self.network.layers.layer(call, x, Form(in_axes=(x.batch_axis,)))
        source = self.source(x)
        if call.state_in is None:
            self._keep(call, ResetEveryStep(layer), source)
        elif all(map(self._is_own, call.state_in, call.state_out)):
            name = self._keep(call, layer, source)
            zero = call.converter.starts_at_zero(self.network.layers.modules[call.path])
            for field, state in zip(call.converter.fields, call.state_in, strict=True):
                self._start((name, field), self._initial(state), zero_is_own=zero)
        else:
            self._as_function(call, layer, source)

    def _is_own(self, state: Value | None, own: Value) -> bool:
        """Whether a state is that of the neuron's last step; in a loop of one step, wherever it comes from."""
        operand = None if state is None else self.loop.operands.get(state)
        if isinstance(operand, Carried):
            return operand.update is own
        return state is None or (isinstance(operand, Invariant) and self.loop.count == Size(0, 1))

    def _initial(self, state: Value | None) -> Any:
        """What a state starts from; None for the beginning of its neuron."""
        operand = None if state is None else self.loop.operands[state]
        if isinstance(operand, Carried):
            return operand.initial
        return operand.value if isinstance(operand, Invariant) else None

    def _keep(self, call: Call, layer: Any, source: Any) -> str:
        """A neuron whose state stays with it."""
        draft = self.draft
        name = draft.node(call.path, layer, [source])
        (out,) = call.results
        states = tuple(snn.State(name, field) for field in call.converter.fields)
        # Neurons that do not spike give a state away as it is: it is the output then.
        for value, made in ((out, name), *zip(call.state_out, states, strict=True)):
            if value not in draft.made:
                draft.made[value] = draft.detached(made) if call.no_grad else made
        self.neurons[name] = Stepped(call.path, call.converter, out, states)
        return name

    def _as_function(self, call: Call, layer: Any, source: Any) -> None:
        """A neuron whose state does not simply stay with it: a function of its input and its state."""
        draft, fields = self.draft, call.converter.fields
        assert call.state_in is not None
        (x,), (out,) = call.args, call.results
        given = []
        for field, state in zip(fields, call.state_in, strict=True):
            first = FirstState(layer, field, self.network.layers.shape(x))
            if state is None:
                given.append(draft.node(f"{call.path}.{field}", first, []))
                continue
            found = self.source(state)
            pending = isinstance(found, _PendingFeedback)
            given.append(dataclasses.replace(found, first=first) if pending else found)
        name = draft.node(call.path, StepFunction(layer, fields), [source, *given])
        parts = [draft.node(f"{name}.{item}", call_of("item", item), [name]) for item in range(len(fields) + 1)]
        for value, part in zip((out, *call.state_out), parts, strict=True):
            if value not in draft.made:
                draft.made[value] = draft.detached(part) if call.no_grad else part
        self.neurons[parts[0]] = Stepped(call.path, call.converter, out, tuple(parts[1:]))

    # Values of earlier steps

    def _start(self, place: tuple[str, str | None], initial: Any, *, zero_is_own: bool = True) -> None:
        """Let a state start from a value that is made before the loop."""
        if initial is None or (zero_is_own and self.network.arrays.is_zero(initial)):
            return
        known = isinstance(initial, Value | FirstState)
        self.initial[place] = self.network.key(initial, self.number) if known else Fixed(initial)

    def _resolved(self, source: Any) -> Any:
        """A source, with a delayed edge in the place of a value of the step before."""
        return self._previous(source) if isinstance(source, _PendingFeedback) else source

    def _previous(self, pending: _PendingFeedback) -> snn.Previous:
        update, initial = pending.operand.update, pending.operand.initial
        source = self._resolved(self.source(update))
        if isinstance(source, snn.Previous):
            source = self._delay_node(source)
        shape = self.network.layers.shape(update)
        edge = snn.Previous(source, shape)
        first = pending.first if initial is None else initial
        if not _is_same(self.delays.setdefault(str(edge), first), first):
            # The same value is handed over from two different beginnings.
            edge = snn.Previous(self._delay_node(source), shape)
            self.delays[str(edge)] = first
        self._start((str(edge), None), first, zero_is_own=not isinstance(first, FirstState))
        return edge

    def _delay_node(self, source: Any) -> str:
        """A source as a node, so that it can be read one step late."""
        return self.draft.node("hold", call_of("clone"), [source])


def _is_same(a: Any, b: Any) -> bool:
    """Whether two beginnings are the same value, or the same number."""
    return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)


class _Sunk:
    """The values of outside, for calls that are made inside of a loop though they stand before it."""

    def __init__(self, body: LoopBody):
        self.body = body
        self.draft = body.draft

    def source(self, value: Value) -> Any:
        return self.body.live_in(value)

    def array(self, value: Value) -> Any:
        arrays = self.body.network.arrays
        return arrays.of(value) if value in arrays else None


def constant_node(draft: GraphDraft, arrays: Arrays, value: Value) -> str:
    """A node that gives a parameter or constant."""
    name = draft.node(value.name or "constant", snn.Value(arrays.of(value)), [])
    axis = value.batch_axis
    return name if axis is None else draft.node("squeeze", call_of("squeeze", axis), [name])
