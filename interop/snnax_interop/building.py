"""From a rolled tape to native graphs: what comes before the loop, one time step, what comes after it.

Tapes of runs with another batch size and another length tell batch, time and constant sizes apart; the native graphs
are for one sample, without a batch axis.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from snnax import snn

from .call import Call, Held, Input, Items, Slice, StepCount, StepList
from .errors import InteropError, RecordingError, UnsupportedModuleError
from .leaf import Leaf
from .ops import ELEMENTWISE, OPS, op_name
from .recording import Entry, Ref, Tape, base_name, function_name, refs
from .restart import Restart
from .rolling import Body, Carried, Here, Loop, Outer, Produced, Sliced, made_inside, outputs_of
from .weights import Site, Weights


@dataclasses.dataclass(frozen=True)
class Runs:
    """The tapes of one network: as given, with another batch size, with another length (None: it has no length)."""

    tape: Tape
    loop: Loop
    other_batch: Tape | None
    other_length: tuple[Tape, Loop] | None
    batch_sizes: tuple[int, int]

    @property
    def lengths(self) -> tuple[int, int] | None:
        return None if self.other_length is None else (self.loop.count, self.other_length[1].count)


class Axes:
    """Where the batch is in every value, and what an integer becomes for one sample."""

    def __init__(self, runs: Runs):
        self.runs = runs

    def batch_axis(self, ref: Ref) -> int | None:
        """The batch axis of a value; None when it has none of its own."""
        axis = self._grown(ref)
        return axis if axis is not None and not self.is_folded(ref) else None

    def is_folded(self, ref: Ref) -> bool:
        """Whether the batch is folded into another axis, such as time.

        For one sample that axis is just the other one: functions that treat its entries alike need no batch axis.
        """
        axis = self._grown(ref)
        return axis is not None and self.runs.tape.shape(ref)[axis] != self.runs.batch_sizes[0]

    def is_batched(self, ref: Ref) -> bool:
        return self._grown(ref) is not None

    def sample_shape(self, ref: Ref) -> tuple[int, ...]:
        shape, axis = self.runs.tape.shape(ref), self._grown(ref)
        sizes = [size // self.runs.batch_sizes[0] if place == axis else size for place, size in enumerate(shape)]
        return tuple(size for place, size in enumerate(sizes) if place != axis or self.is_folded(ref))

    def _grown(self, ref: Ref) -> int | None:
        """The axis that is larger for a larger batch.

        **Raises:** `RecordingError` when there are several, or one that does not grow in proportion.
        """
        if self.runs.other_batch is None:
            return None
        first, second = self.runs.tape.shape(ref), self.runs.other_batch.shape(ref)
        changed = [axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        if not changed:
            return None
        small, large = self.runs.batch_sizes
        if len(changed) == 1 and first[changed[0]] * large == second[changed[0]] * small:
            return changed[0]
        raise RecordingError(
            f"a value of shape {first} becomes {second} when the batch grows from {small} to {large}. "
            "Allowed: the batch as one axis, of its own or folded with time"
        )


# The source of an argument of a call, from its number, its value, and its value in the run of another length.
SourceOf = Callable[[int, Ref, Ref], Any]


@dataclasses.dataclass
class GraphBuilder:
    """Nodes and edges of one native graph while it grows. Inputs are keyed by what they stand for."""

    network: "NetworkBuilder"
    nodes: dict[str, Any] = dataclasses.field(default_factory=dict)
    edges: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    inputs: dict[Any, str] = dataclasses.field(default_factory=dict)
    made: dict[int, Any] = dataclasses.field(default_factory=dict)

    def name(self, wanted: str) -> str:
        wanted = wanted or "module"
        taken = {*self.nodes, *self.inputs.values()}
        if wanted not in taken:
            return wanted
        number = 2
        while f"{wanted}_{number}" in taken:
            number += 1
        return f"{wanted}_{number}"

    def input(self, key: Any, wanted: str) -> str:
        if key not in self.inputs:
            self.inputs[key] = self.name(wanted)
        return self.inputs[key]

    def node(self, wanted: str, layer: Any, sources: list[Any]) -> str:
        name = self.name(wanted)
        self.nodes[name] = layer
        self.edges[name] = sources
        return name

    def graph(self, outputs: Any) -> snn.Graph:
        return snn.Graph(self.nodes, self.edges, outputs, tuple(self.inputs.values()))

    # Values that do not change from step to step

    def outer(self, ref: Ref) -> Any:
        """The source of a value made outside of the loop, adding the calls that it takes."""
        network = self.network
        if ref.index in self.made:
            return self.made[ref.index]
        if ref in network.runs.tape.inputs:
            number = network.runs.tape.inputs.index(ref)
            return self.input(("static", ref), network.input_names[number])
        if network.is_array(ref):
            name = network.runs.tape.names.get(ref.index, "constant")
            source = self.node(name, snn.Value(network.array(ref)), [])
            axis = network.axes.batch_axis(ref)
            if axis is not None:
                source = self.node("squeeze", _call("squeeze", axis), [source])
            self.made[ref.index] = source
        else:
            self.add(network.twins(network.maker[ref.index]), lambda place, ref, there: self.outer(ref))
        return self.made[ref.index]

    # Calls

    def add(self, twins: "Twins", source_of: SourceOf) -> None:
        """Add the node of one call; its results are found in `made` afterwards."""
        entry = twins.entry
        try:
            if entry.leaf is not None:
                self._add_module(twins, source_of)
            else:
                self._add_function(twins, source_of)
        except InteropError as error:
            if not error.path and entry.line and entry.line not in str(error):
                raise type(error)(f"{error}\n  {entry.line}", path=entry.path) from error
            raise

    def detached(self, entry: Entry, source: Any) -> Any:
        """A source without its gradient, where the call ran under `torch.no_grad()`."""
        if not entry.no_grad:
            return source
        return self.node("detach", _call("detach"), [source])

    def _add_module(self, twins: "Twins", source_of: SourceOf) -> None:
        entry, network = twins.entry, self.network
        assert entry.leaf is not None
        inputs = [leaf for leaf in entry.args if isinstance(leaf, Ref)]
        if len(inputs) != 1 or entry.kwargs:
            raise UnsupportedModuleError(
                f"{entry.leaf.kind.__name__} is called with {len(entry.args)} arguments and {list(entry.kwargs)}. "
                "Allowed: one input",
                path=entry.path,
            )
        (x,) = inputs
        if not isinstance(entry.result, Ref):
            raise UnsupportedModuleError(
                f"{entry.leaf.kind.__name__} returns a {type(entry.result).__name__}. Allowed: one tensor (for "
                "pooling, return_indices=False)",
                path=entry.path,
            )
        out = entry.result
        there = next(leaf for leaf in twins.rest[1].args if isinstance(leaf, Ref))
        layer = network.layer(entry, x, out)
        name = self.node(entry.path, layer, [source_of(0, x, there)])
        self.made[out.index] = self.detached(entry, name)

    def _add_function(self, twins: "Twins", source_of: SourceOf) -> None:
        entry, network = twins.entry, self.network
        op = twins.op
        outs = outputs_of(entry)
        axes = network.axes
        filler = _Template(self, twins, source_of, elementwise=op in ELEMENTWISE)
        args = filler.fill(entry.args, *twins.others("args"))
        kwargs = tuple(
            (name, filler.fill(value, *(other.kwargs[name] for other in twins.rest)))
            for name, value in entry.kwargs.items()
            if name not in _IGNORED
        )
        in_axes = tuple(filler.in_axes)
        out_axes = tuple(axes.batch_axis(out) for out in outs)
        given = [ref for ref in refs((entry.args, entry.kwargs)) if ref.index in network.runs.tape.dependent]
        if any(axes.is_batched(ref) for ref in given):
            for out in outs:
                if not axes.is_batched(out) and out.index in network.runs.tape.dependent:
                    raise RecordingError(
                        f"{function_name(entry.target)} mixes the samples of a batch: its result of shape "
                        f"{network.runs.tape.shape(out)} has no batch axis. Allowed: functions of one sample",
                        path=entry.path,
                    )
        alone = len(given) == len(filler.sources) == 1 and not filler.arrays
        if op in _ALIASES and alone and not entry.no_grad and self._same_kind(given[0], outs[0]):
            self.made[outs[0].index] = filler.sources[0]
            return
        sample = [axes.sample_shape(out) for out in outs]
        layer: Any
        if op in _FLATTENING and in_axes == (0,) and out_axes == (0,) and len(sample[0]) == 1 and not filler.arrays:
            layer = snn.flatten()
        else:
            if op in ELEMENTWISE and filler.aligned(out_axes[0], len(network.runs.tape.shape(outs[0]))):
                in_axes, out_axes = (None,) * len(in_axes), (None,) * len(out_axes)
            detached = entry.no_grad
            layer = Call(tuple(filler.arrays), op, args, kwargs, in_axes, out_axes, detached)
        prefix = f"{entry.path}." if entry.path else ""
        name = self.node(prefix + op, layer, filler.sources)
        if len(outs) == 1 and not isinstance(entry.result, tuple | list):
            self.made[outs[0].index] = name
        else:
            for item, out in enumerate(outs):
                self.made[out.index] = self.node(f"{name}.{item}", _call("item", item), [name])

    def _same_kind(self, source: Ref, out: Ref) -> bool:
        kinds = [self.network.runs.tape.tensors[ref.index].dtype for ref in (source, out)]
        return kinds[0] == kinds[1] or all(kind.is_floating_point for kind in kinds)


def _call(op: str, *options: Any) -> Call:
    """A call of one input and options on one sample, without batch axis."""
    return Call((), op, Items((Input(0), *options)), (), (None,), (None,))


# Functions whose result is their input. Casts between floating point types are: values have the parameters' type.
_ALIASES = {"clone", "contiguous", "dropout", "float", "double", "to", "type", "type_as"}
_FLATTENING = {"flatten", "view", "reshape"}
_IGNORED = {"inplace", "device", "memory_format", "non_blocking", "copy", "_stacklevel", "layout", "pin_memory", "out"}


@dataclasses.dataclass(frozen=True)
class Twins:
    """The same call in all runs: as given, with another batch size, with another length."""

    entry: Entry
    other_batch: Entry | None
    other_length: Entry | None

    @property
    def op(self) -> str:
        op = op_name(base_name(self.entry.target))
        if op not in OPS:
            raise RecordingError(
                f"the function {function_name(self.entry.target)} cannot be converted\n  {self.entry.line}\n"
                f"Allowed: {', '.join(sorted(OPS))}",
                path=self.entry.path,
            )
        return op

    @property
    def rest(self) -> list[Entry]:
        return [self.other_batch or self.entry, self.other_length or self.entry]

    def others(self, field: str) -> Iterator[Any]:
        return (getattr(entry, field) for entry in self.rest)


class _Template:
    """Fills the arguments of a call with places for inputs and arrays; integers become those of one sample."""

    def __init__(self, builder: GraphBuilder, twins: Twins, source_of: Callable, elementwise: bool):
        self.builder = builder
        self.network = builder.network
        self.twins = twins
        self.source_of = source_of
        self.elementwise = elementwise
        self.sources: list[Any] = []
        self.in_axes: list[int | None] = []
        self.ranks: list[int] = []
        self.arrays: list[Any] = []
        self.array_ranks: list[int] = []
        self.place = 0

    def fill(self, a: Any, b: Any, c: Any) -> Any:
        if isinstance(a, Ref):
            return self._ref(a, c if isinstance(c, Ref) else a)
        if isinstance(a, list | tuple):
            sequence = self.network.step_list(a)
            if sequence is not None:
                return self._sequence(a, c)
            if not (isinstance(b, list | tuple) and isinstance(c, list | tuple) and len(a) == len(b) == len(c)):
                raise self._refuse(f"an argument has {len(a)} items here and another number at another length")
            return Items(tuple(self.fill(*items) for items in zip(a, b, c, strict=True)))
        if isinstance(a, slice):
            parts = [self.fill(*(getattr(each, part) for each in (a, b, c))) for part in ("start", "stop", "step")]
            return Slice(*parts)
        if isinstance(a, bool) or a is None or a is Ellipsis or isinstance(a, str):
            return a
        if isinstance(a, int | float):
            return self._number(a, b, c)
        if isinstance(a, torch.dtype | torch.device | torch.memory_format):
            return str(a)
        raise self._refuse(f"an argument is a {type(a).__name__}")

    def aligned(self, out_axis: int | None, out_rank: int) -> bool:
        """Whether an elementwise function needs no batch axis: it lies at the same place, counted from the end."""
        if out_axis is None:
            return True
        behind = out_rank - out_axis - 1
        batched = zip(self.in_axes, self.ranks, strict=True)
        return all(rank - axis - 1 == behind if axis is not None else rank <= behind for axis, rank in batched) and all(
            rank <= behind for rank in self.array_ranks
        )

    def _ref(self, ref: Ref, there: Ref) -> Any:
        place, self.place = self.place, self.place + 1
        network = self.network
        rank = len(network.runs.tape.shape(ref))
        if network.is_array(ref):
            self.arrays.append(network.array(ref))
            self.array_ranks.append(rank)
            return Held(len(self.arrays) - 1)
        return self._input(self.source_of(place, ref, there), network.axes.batch_axis(ref), rank)

    def _input(self, source: Any, axis: int | None, rank: int) -> Input:
        self.sources.append(source)
        self.in_axes.append(axis)
        self.ranks.append(rank)
        return Input(len(self.sources) - 1)

    def _sequence(self, a: Any, c: Any) -> Any:
        source, axis = self.builder.network.sequence_source(self.builder, a, c)
        self.place += len(a)
        rank = len(self.network.runs.tape.shape(a[0])) + 1
        return StepList(self._input(source, None if axis is None else axis + 1, rank).number)

    def _number(self, a: Any, b: Any, c: Any) -> Any:
        first, second = self.network.runs.batch_sizes
        if a != b:
            if self.elementwise or not isinstance(a, int) or a % first or a // first * second != b:
                raise self._refuse(f"a number depends on the batch size: {a} with {first} samples, {b} with {second}")
            a, c = a // first, c // first if isinstance(c, int) and c % first == 0 else c
        if a == c or self.twins.other_length is None:
            return a
        lengths = self.network.runs.lengths
        assert lengths is not None
        if isinstance(a, int) and isinstance(c, int):
            if a - lengths[0] == c - lengths[1]:
                return self._steps(1, a - lengths[0])
            if a * lengths[1] == c * lengths[0] and a % lengths[0] == 0:
                return self._steps(a // lengths[0], 0)
        raise self._refuse(f"a number depends on the length: {a} with {lengths[0]} steps, {c} with {lengths[1]}")

    def _steps(self, factor: int, offset: int) -> StepCount:
        source = self.builder.input("num_steps", "num_steps")
        return StepCount(self._input(source, None, 0).number, factor, offset)

    def _refuse(self, what: str) -> RecordingError:
        entry = self.twins.entry
        return RecordingError(
            f"{function_name(entry.target)}: {what}\n  {entry.line}\nAllowed: the same arguments whatever the batch "
            "size and the length, or sizes of the batch and of time",
            path=entry.path,
        )


class NetworkBuilder:
    """Builds the three graphs of a network: before the loop, one time step, after the loop."""

    def __init__(self, runs: Runs, body: Body, module: torch.nn.Module, weights: Weights, input_names: list[str]):
        self.runs = runs
        self.body = body
        self.axes = Axes(runs)
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.weights = weights
        self.input_names = input_names
        self.dtype = _floating_dtype(module, runs.tape)
        self.report: list[tuple[Entry, Any]] = []
        self.layers: dict[Any, Any] = {}
        self.arrays: dict[int, Any] = {}
        tape, loop = runs.tape, runs.loop
        self.maker = {
            ref.index: index
            for index, entry in enumerate(tape.entries)
            if not loop.start <= index < loop.stop
            for ref in [*outputs_of(entry), *entry.state_out]
        }
        self.produced = made_inside(tape, loop)
        # In the run of another length; the same where there is none.
        self.produced_there = made_inside(*runs.other_length) if runs.other_length else self.produced
        self.before = GraphBuilder(self)
        self.step = GraphBuilder(self)
        self.after = GraphBuilder(self)
        self.fixed: set[int] = set()
        self.sources: dict[Produced, Any] = {}
        self.recorded: dict[Produced, int] = {}
        self.neurons: dict[str, tuple[str, Leaf, int]] = {}
        self._build_step()

    # Values

    def is_array(self, ref: Ref) -> bool:
        """Whether a value is a parameter, a buffer or a constant."""
        if ref.index in self.fixed:
            return True
        if ref in self.runs.tape.inputs or ref.index in self.produced:
            return False
        return ref.index not in self.maker or self.runs.tape.is_constant(ref)

    def array(self, ref: Ref) -> Any:
        """The array of a parameter, buffer or constant; of one sample, where it spans the batch."""
        if ref.index not in self.arrays:
            tape = self.runs.tape
            name = tape.names.get(ref.index)
            if name is not None and name in self.weights.canonical and name in self.weights.keys:
                self.arrays[ref.index] = self.weights.parameter(name, exact=True)
            else:
                tensor = tape.tensors[ref.index].detach()
                axis = self.axes.batch_axis(ref)
                if axis is not None:
                    if not bool((tensor == tensor.narrow(axis, 0, 1)).all()):
                        raise RecordingError(
                            f"a constant {tuple(tensor.shape)} has another value for each sample of the batch. "
                            "Allowed: constants without batch axis, or equal along it. Pass it as an input"
                        )
                    tensor = tensor.narrow(axis, 0, 1)
                self.arrays[ref.index] = self.weights.constant(name or "constant", tensor, exact=True)
        return self.arrays[ref.index]

    def layer(self, entry: Entry, x: Ref, out: Ref) -> Any:
        """The native layer of a leaf module; one for all its calls of the same shape."""
        assert entry.leaf is not None
        site = Site(
            entry.path,
            self.modules[entry.path],
            self.axes.sample_shape(x),
            self.axes.batch_axis(x),
            self.axes.batch_axis(out),
            self.dtype,
            self.weights,
        )
        key = (entry.path, site.x_shape, site.batch_axis, site.out_axis)
        if key not in self.layers:
            self.layers[key] = entry.leaf.build(site.module, site)
            self.report.append((entry, self.layers[key]))
        return self.layers[key]

    def twins(self, index: int) -> Twins:
        """A call in all runs; inside the loop, that of the last time step."""
        runs, loop = self.runs, self.runs.loop
        other_length = None
        if runs.other_length is not None:
            tape, longer = runs.other_length
            if index >= loop.stop:
                index_there = index - loop.stop + longer.stop
            elif index >= loop.start:
                index_there = longer.index(longer.count - 1, (index - loop.start) % loop.period)
            else:
                index_there = index
            other_length = tape.entries[index_there]
        other_batch = None if runs.other_batch is None else runs.other_batch.entries[index]
        return Twins(runs.tape.entries[index], other_batch, other_length)

    # One time step

    def _build_step(self) -> None:
        # A feedback edge reads a call further down; it stays `Carried` until that call has its node.
        for position in range(len(self.body.entries)):
            if position in self.body.reads:
                self._read(position)
                continue
            if position in self.body.writes:
                continue  # what it writes is stacked after the loop
            entry = self.body.entries[position]
            if self._is_fixed(position):
                for item, out in enumerate(outputs_of(entry)):
                    self.fixed.add(out.index)
                    self.sources[Produced(position, item, False)] = Outer(out)
                continue

            def source_of(place: int, ref: Ref, there: Ref, position=position) -> Any:
                argument = self.body.arguments[position][place]
                return argument if isinstance(argument, Carried) else self._source(argument)

            if entry.leaf is not None and entry.leaf.split_call is not None:
                self._neuron(position, source_of)
            else:
                self.step.add(self.twins(self.runs.loop.index(self.runs.loop.count - 1, position)), source_of)
            for item, out in enumerate(outputs_of(entry)):
                if out.index in self.step.made:
                    self.sources[Produced(position, item, False)] = self.step.made[out.index]
        for sources in self.step.edges.values():
            sources[:] = [self._previous(each) if isinstance(each, Carried) else each for each in sources]

    def _is_fixed(self, position: int) -> bool:
        """Whether a call inside the loop makes the same constant at every step, such as `torch.zeros`."""
        entry = self.body.entries[position]
        if entry.leaf is not None:
            return False
        given = [argument.ref if isinstance(argument, Outer) else None for argument in self.body.arguments[position]]
        return entry.constant or all(ref is not None and self.runs.tape.is_constant(ref) for ref in given)

    def _source(self, argument: Any) -> Any:
        if isinstance(argument, Here):
            if argument.value.position in self.body.writes:
                entry = self.body.entries[argument.value.position]
                raise RecordingError(
                    f"the loop reads a tensor that it is filling step by step\n  {entry.line}\n"
                    "Allowed: reading it after the loop",
                    path=entry.path,
                )
            source = self.sources[argument.value]
            return self._source(source) if isinstance(source, Outer) else source
        if isinstance(argument, Outer):
            return self.step.outer(argument.ref)
        assert isinstance(argument, Sliced)
        return self.step.input(("sliced", argument), self._sequence_name(argument))

    def _sequence_name(self, sliced: Sliced) -> str:
        inputs = self.runs.tape.inputs
        return self.input_names[inputs.index(sliced.base)] if sliced.base in inputs else "sequence"

    def _read(self, position: int) -> None:
        sliced, rest = self.body.reads[position]
        source = self._source(sliced)
        entry = self.body.entries[position]
        (out,) = outputs_of(entry)
        if rest:
            axis = self.axes.batch_axis(sliced.base)
            if axis is not None and axis > sliced.axis:
                axis -= 1
            index = Items(tuple(Slice(i.start, i.stop, i.step) if isinstance(i, slice) else i for i in rest))
            call = Call((), "getitem", Items((Input(0), index)), (), (axis,), (self.axes.batch_axis(out),))
            source = self.step.node("getitem", call, [source])
        self.sources[Produced(position, 0, False)] = source

    def _neuron(self, position: int, source_of: SourceOf) -> None:
        entry = self.body.entries[position]
        assert entry.leaf is not None
        (x,) = (leaf for leaf in entry.args if isinstance(leaf, Ref))
        (out,) = outputs_of(entry)
        layer = self.layer(entry, x, out)
        states = self.body.states[position]
        if states is None:
            layer = Restart(layer)
        else:
            for field, state in enumerate(states):
                own = Produced(position, field, True)
                if isinstance(state, Carried) and state.value == own:
                    state = state.initial
                elif state is not None and not isinstance(state, Outer):
                    raise RecordingError(
                        f"the state of '{entry.path}' does not come from its own last step\n  {entry.line}\n"
                        "Allowed: a state that each call hands to the next one unchanged. Give each use of a neuron "
                        "a module of its own",
                        path=entry.path,
                    )
                else:
                    state = state.ref if isinstance(state, Outer) else None
                self._check_initial(state, entry)
        name = self.step.node(entry.path, layer, [source_of(0, x, x)])
        self.step.made[out.index] = self.step.detached(entry, name)
        for number, field in enumerate(entry.leaf.fields):
            source = self.step.detached(entry, snn.State(name, field))
            self.sources[Produced(position, number, True)] = source
        self.neurons[name] = (entry.path, entry.leaf, position)

    def _check_initial(self, initial: Any, entry: Entry) -> None:
        assert entry.leaf is not None
        if initial is None or (entry.leaf.starts_at_zero(entry.target) and self._is_zero(initial)):
            return
        raise RecordingError(
            f"the state of '{entry.path}' does not start from zero\n  {entry.line}\n"
            "Allowed: states that start at zero, or where the layer itself starts",
            path=entry.path,
        )

    def _is_zero(self, initial: Any) -> bool:
        return self.runs.tape.is_zero(initial) if isinstance(initial, Ref) else initial == 0

    def _previous(self, carried: Carried) -> Any:
        entry = self.body.entries[carried.value.position]
        if not self._is_zero(carried.initial):
            raise RecordingError(
                f"the value that {entry.name} hands to the next time step does not start from zero\n  {entry.line}\n"
                "Allowed: values that start at zero",
                path=entry.path,
            )
        source = self.sources[carried.value]
        if isinstance(source, Carried | snn.Previous):
            raise RecordingError(
                f"a value of {entry.name} is handed over two time steps\n  {entry.line}\nAllowed: one time step",
                path=entry.path,
            )
        made = entry.state_out if carried.value.is_state else outputs_of(entry)
        return snn.Previous(source, self.axes.sample_shape(made[carried.value.item]))

    # After the loop

    def step_list(self, items: Any, *, there: bool = False) -> list[tuple[int, Produced]] | None:
        """The steps and the value of a list of one value over time; None for any other list.

        `there` is for a list of the run of another length.
        """
        produced = self.produced_there if there else self.produced
        if len(items) < 2 or not all(isinstance(item, Ref) and item.index in produced for item in items):
            return None
        found = [produced[item.index] for item in items]
        steps = [step for step, _ in found]
        same = len({value for _, value in found}) == 1
        return found if same and steps == list(range(steps[0], steps[0] + len(steps))) else None

    def sequence_source(self, builder: GraphBuilder, items: Any, other: Any) -> tuple[Any, int | None]:
        """The source of a value over time, as a sequence, and the batch axis of one step of it."""
        found, there = self.step_list(items), self.step_list(other, there=True)
        assert found is not None
        if there is None:
            raise RecordingError(
                "a list of values over time is another list at another length. Allowed: the same value"
            )
        start = self._index(found[0][0], there[0][0])
        stop = self._index(found[-1][0] + 1, there[-1][0] + 1)
        source = self._recorded(builder, found[0][1])
        stop = None if stop in (0, self.runs.loop.count) else stop
        if (start, stop) != (0, None):
            source = builder.node("getitem", _call("getitem", Slice(start, stop, None)), [source])
        return source, self.axes.batch_axis(items[-1])

    def _index(self, step: int, there: int) -> int:
        """A time step as an index that holds at any length: counted from the start, or from the end where negative."""
        lengths = self.runs.lengths
        if lengths is None or step == there:
            return step
        if step - lengths[0] == there - lengths[1]:
            return step - lengths[0]
        raise RecordingError(
            f"what follows the loop reads time step {step} of {lengths[0]}, and {there} of {lengths[1]}. Allowed: "
            "steps counted from the start or from the end"
        )

    def _recorded(self, builder: GraphBuilder, value: Produced) -> str:
        """The sequence of a value of the step, as an input of what comes after the loop."""
        number = self.recorded.setdefault(value, len(self.recorded))
        return builder.input(("recorded", number), f"recorded{number}")

    def _written(self, builder: GraphBuilder, position: int, ref: Ref) -> str:
        """A tensor that the loop filled step by step: its values over time, stacked."""
        argument = self.body.arguments[position][1]
        entry = self.body.entries[position]
        if not isinstance(argument, Here):
            raise RecordingError(
                f"the loop writes a value that it does not compute\n  {entry.line}\nAllowed: values of the same step",
                path=entry.path,
            )
        source = self._recorded(builder, argument.value)
        axis = self.axes.batch_axis(entry.args[2])
        call = Call(
            (),
            "stack",
            Items((StepList(0), self.body.writes[position])),
            (),
            (None if axis is None else axis + 1,),
            (self.axes.batch_axis(ref),),
        )
        return builder.node("stack", call, [source])

    def result(self, builder: GraphBuilder, ref: Ref, there: Ref) -> Any:
        """The source, after the loop, of any value; `there` is the same value in the run of another length."""
        if ref.index in builder.made:
            return builder.made[ref.index]
        if ref.index in self.produced:
            step, value = self.produced[ref.index]
            if value.position in self.body.writes and step == self.runs.loop.count - 1:
                builder.made[ref.index] = self._written(builder, value.position, ref)
            else:
                index = self._index(step, self.produced_there[there.index][0])
                sequence = self._recorded(builder, value)
                name = "last" if index == -1 else "getitem"
                builder.made[ref.index] = builder.node(name, _call("getitem", index), [sequence])
            return builder.made[ref.index]
        index = self.maker.get(ref.index)
        if index is not None and index >= self.runs.loop.stop:
            builder.add(self.twins(index), lambda place, ref, there: self.result(builder, ref, there))
            return builder.made[ref.index]
        return builder.outer(ref)


def _floating_dtype(module: torch.nn.Module, tape: Tape) -> torch.dtype:
    candidates = [*module.parameters(), *(tape.tensors[ref.index] for ref in tape.inputs)]
    for tensor in candidates:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()
