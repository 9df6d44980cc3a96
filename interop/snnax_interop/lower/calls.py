"""Calls as nodes of a native graph for one sample, without a batch axis."""

import dataclasses
import difflib
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from snnax import snn

from ..converters.layer import LayerConverter
from ..errors import InteropError, LengthError, RecordingError, UnsupportedModuleError
from ..ir.sizes import Size, SizeRatio
from ..loops.roll import StepNumbers, moving_subscript, outputs_of
from ..nodes.call import Call, Form, Held, Input, Items, LengthValue, Slice, StepList
from ..nodes.dropout import DRAWING, dropout_layer
from ..nodes.wrappers import ChannelsSecond
from ..ops import ELEMENTWISE, OPS, op_name
from ..trace.autograd_functions import CustomFunction
from ..trace.tape import Entry, Ref, base_name, function_name, refs


if TYPE_CHECKING:
    from .lowering import NetworkBuilder


# The source of an argument of a call, from its number, its value, and its value in the run of another length.
SourceOf = Callable[[int, Ref, Ref], Any]


@dataclasses.dataclass
class GraphBuilder:
    """Nodes and edges of one native graph while it grows. Inputs are keyed by what they stand for.

    It is of the calls before the segment `number` (of all segments: after the last), or, with `is_step`, of one time
    step of that segment.
    """

    network: "NetworkBuilder"
    number: int
    is_step: bool = False
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

    def prune(self, kept: list[Any]) -> None:
        """Take out the nodes and inputs that nothing of what is kept depends on, but for those that keep statistics."""
        waiting = [_origin(source) for source in kept]
        waiting += [name for name, node in self.nodes.items() if isinstance(node, snn.AbstractLayer)]
        needed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += [_origin(source) for source in self.edges.get(name, [])]
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
        self.edges = {name: sources for name, sources in self.edges.items() if name in needed}
        self.inputs = {key: name for key, name in self.inputs.items() if name in needed}

    def graph(self, outputs: Any) -> snn.Graph:
        return snn.Graph(self.nodes, self.edges, outputs, tuple(self.inputs.values()))

    # Values that do not change from step to step

    def value(self, ref: Ref, there: Ref) -> Any:
        """The source of a value made outside of this graph's segment, adding the calls that it takes.

        `there` is the same value in the run of another length.
        """
        if ref.index in self.made:
            return self.made[ref.index]
        source = self._found(ref, there)
        if source is not None:
            self.made[ref.index] = source
        return self.made[ref.index]

    def _found(self, ref: Ref, there: Ref) -> Any:
        """The source of a value; None where adding its call put it among those that are made."""
        network = self.network
        given = network.runs.given
        if ref in given.tape.inputs:
            number = given.tape.inputs.index(ref)
            return self.input(("static", number), network.input_names[number])
        if network.is_array(ref, there):
            source = self.node(given.tape.names.get(ref.index, "constant"), snn.Value(network.array(ref)), [])
            axis = network.axes.batch_axis(ref)
            return source if axis is None else self.node("squeeze", call_of("squeeze", axis), [source])
        if self.is_step and ref.index in network.stepped:
            return self.input(network.output(self.number, ref, there), "context")
        if ref.index in given.moments:
            return network.moment(self, ref, there)
        piece = given.pieces[ref.index]
        if piece < self.number and not self.is_step:
            return self.input(network.output(piece, ref, there), "before")
        twins = network.twins(network.maker[ref.index])
        if twins.op_or_none == "unbind":
            return self._unbound(twins, ref, there)
        self.add(twins, lambda place, ref, there: self.value(ref, there))
        return None

    def _unbound(self, twins: "Twins", ref: Ref, there: Ref) -> str:
        """One part of a sequence that was cut along an axis, at any length."""
        axes = self.network.axes
        here, other = (outputs_of(entry) for entry in (twins.entry, twins.rest[1]))
        place = self.network.place(here.index(ref), other.index(there), (len(here), len(other)))
        base, base_there = (refs(entry.args)[0] for entry in (twins.entry, twins.rest[1]))
        dim = {**dict(zip(("input", "dim"), twins.entry.args, strict=False)), **twins.entry.kwargs}.get("dim", 0)
        arguments = Items((Input(0), dim, place))
        call = Call((), "select", arguments, (), (axes.batch_axis(base),), (axes.batch_axis(ref),))
        return self.node("select", call, [self.value(base, base_there)])

    def sequence(self, items: Any, there: Any) -> tuple[Any, int | None]:
        """The source of a list of one value over time, as a sequence, and the batch axis of its items."""
        axis = self.network.axes.batch_axis(items[-1])
        if self.is_step:
            return self.input(self.network.sequence_output(self.number, items, there), "sequence"), axis
        return self.network.sequence(self, items, there), axis

    # Calls

    def add(self, twins: "Twins", source_of: SourceOf) -> None:
        """Add the node of one call; its results are found in `made` afterwards."""
        entry = twins.entry
        try:
            if entry.converter is not None:
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
        return self.node("detach", call_of("detach"), [source])

    def _add_module(self, twins: "Twins", source_of: SourceOf) -> None:
        entry, network = twins.entry, self.network
        converter = entry.converter
        assert isinstance(converter, LayerConverter)
        filler = _Template(self, twins, source_of, holds_arrays=False)
        args, kwargs = filler.arguments()
        signature = inspect.signature(converter.kind.forward)
        named = signature.bind(None, *args.items, **kwargs).arguments
        names = dict(itertools.zip_longest(list(signature.parameters)[1:], converter.inputs))
        given = {name: value for name, value in named.items() if name in names and value is not None}
        if any(names[name] is None for name in given):
            raise UnsupportedModuleError(
                f"{converter.kind.__name__} is called with the arguments {list(given)}. Allowed: the first "
                f"{len(converter.inputs)}",
                path=entry.path,
            )
        outs = outputs_of(entry)
        (x, *others) = (ref for ref in filler.refs if ref is not None)
        arguments = tuple((names[name], value) for name, value in given.items())
        out_axes = tuple(network.axes.batch_axis(out) for out in outs)
        layer = network.layer(entry, x, Form(arguments, tuple(filler.in_axes), out_axes))
        self._check_keeping(entry, layer)
        if isinstance(layer, Call):
            self._check_work(entry, layer, filler.refs)
        elif others:
            raise UnsupportedModuleError(f"{converter.kind.__name__} is called with several tensors", path=entry.path)
        self._check_batch(entry)
        self._hand_out(entry, self.node(entry.path, layer, filler.sources))
        for out in outs:
            self.made[out.index] = self.detached(entry, self.made[out.index])

    def _check_keeping(self, entry: Entry, layer: Any) -> None:
        """Refuse a layer whose state is its own, such as a delay, where it is not called once in every step."""
        if not isinstance(layer, snn.AbstractLayer) or isinstance(layer, snn.BatchNorm | ChannelsSecond):
            return
        if not self.is_step or entry.path in self.network.keeping:
            raise RecordingError(
                f"'{entry.path}' keeps what it was given from call to call. Allowed: one call in every time step of "
                "one loop. Give each loop a layer of its own",
                path=entry.path,
            )
        self.network.keeping.add(entry.path)

    def _add_function(self, twins: "Twins", source_of: SourceOf) -> None:
        entry, network = twins.entry, self.network
        op = twins.op
        outs = outputs_of(entry)
        axes = network.axes
        filler = _Template(self, twins, source_of, elementwise=op in ELEMENTWISE)
        args, kwargs = filler.arguments()
        if op == "squeeze":
            squeezed = args.items[0] if args.items else kwargs["input"]
            args, kwargs = Items((squeezed, Items(self._squeezed(entry)))), {}
        call = Call(tuple(filler.arrays), op, args, tuple(kwargs.items()), tuple(filler.in_axes), (), entry.no_grad)
        self._check_work(entry, call, filler.refs)
        self._check_batch(entry)
        given = self._dependent(refs((entry.args, entry.kwargs)))
        out_axes = tuple(axes.batch_axis(out) for out in outs)
        if op in DRAWING and (p := self._drawn_share(entry)):
            if DRAWING[op] and call.in_axes != (0,):
                raise RecordingError(f"{entry.name} drops channels. Allowed: inputs whose first axis is the batch")
            self._hand_out(entry, self.node(op, dropout_layer(op, p), filler.sources))
            return
        alone = len(given) == len(filler.sources) == 1 and not filler.arrays
        if op in _ALIASES and alone and not entry.no_grad and self._same_kind(given[0], outs[0]):
            self.made[outs[0].index] = filler.sources[0]
            return
        sample = [axes.sample_shape(out) for out in outs]
        layer: Any
        if op in _FLATTENING and call.in_axes == out_axes == (0,) and len(sample[0]) == 1 and not filler.arrays:
            layer = snn.flatten()
        elif op in ELEMENTWISE and filler.aligned(out_axes[0], len(network.runs.tape.shape(outs[0]))):
            nowhere = (None,) * len(call.in_axes)
            layer = dataclasses.replace(call, in_axes=nowhere, out_axes=(None,) * len(out_axes))
        else:
            layer = dataclasses.replace(call, out_axes=out_axes)
        prefix = f"{entry.path}." if entry.path else ""
        self._hand_out(entry, self.node(prefix + op, layer, filler.sources))

    def _squeezed(self, entry: Entry) -> tuple[int, ...]:
        """The axes that a squeeze takes out; the batch is of length one here, and may not be in torch."""
        given = dict(zip(("input", "dim"), entry.args, strict=False)) | entry.kwargs
        shape = self.network.runs.tape.shape(given["input"])
        dims = given.get("dim", given.get("axis"))
        named = range(len(shape)) if dims is None else dims if isinstance(dims, list | tuple) else (dims,)
        return tuple(dim % len(shape) for dim in named if shape[dim] == 1)

    def _drawn_share(self, entry: Entry) -> float:
        """The share that a dropout function drops; 0 where it is off."""
        given = dict(zip(("input", "p", "training"), entry.args, strict=False)) | entry.kwargs
        return given.get("p", 0.5) if given.get("training", given.get("train", True)) else 0.0

    def _hand_out(self, entry: Entry, name: str) -> None:
        """Note where the results of a call are found: in its node, or each in an item of it."""
        outs = outputs_of(entry)
        if len(outs) == 1 and isinstance(entry.result, Ref):
            self.made[outs[0].index] = name
        else:
            for item, out in enumerate(outs):
                self.made[out.index] = self.node(f"{name}.{item}", call_of("item", item), [name])

    def _dependent(self, values: list[Ref]) -> list[Ref]:
        return [ref for ref in values if ref.index in self.network.runs.tape.dependent]

    def _check_work(self, entry: Entry, call: Call, values: list[Ref | None]) -> None:
        """Refuse an operation that works along the batch axis of one of its inputs, and leaves it in the result."""
        axes, tape = self.network.axes, self.network.runs.tape
        ranks = [0 if ref is None else len(tape.shape(ref)) for ref in values]
        for number, worked in call.worked_axes(ranks).items():
            ref = values[number]
            if ref is not None and axes.grows(ref, worked):
                raise RecordingError(
                    f"{entry.name} mixes the samples of a batch: it works along the batch axis of a tensor of shape "
                    f"{tape.shape(ref)}. Allowed: functions of one sample",
                    path=entry.path,
                )

    def _check_batch(self, entry: Entry) -> None:
        """Refuse a call that loses the batch axis."""
        axes, tape = self.network.axes, self.network.runs.tape
        if any(axes.is_batched(ref) for ref in self._dependent(refs((entry.args, entry.kwargs)))):
            for out in self._dependent(outputs_of(entry)):
                if not axes.is_batched(out):
                    raise RecordingError(
                        f"{entry.name} mixes the samples of a batch: its result of shape {tape.shape(out)} has no "
                        "batch axis. Allowed: functions of one sample",
                        path=entry.path,
                    )

    def _same_kind(self, source: Ref, out: Ref) -> bool:
        kinds = [self.network.runs.tape.tensors[ref.index].dtype for ref in (source, out)]
        return kinds[0] == kinds[1] or all(kind.is_floating_point for kind in kinds)


def _similar(name: str) -> list[str]:
    """Known functions with a name like this one, or some of them."""
    return difflib.get_close_matches(name, OPS, 5) or ["add", "cat", "mean", "view", "where"]


def _origin(source: Any) -> str:
    """The node or input that a source reads."""
    source = source.source if isinstance(source, snn.Previous) else source
    return source.node if isinstance(source, snn.State) else source


def call_of(op: str, *options: Any) -> Call:
    """A call of one input and options on one sample, without batch axis."""
    return Call((), op, Items((Input(0), *options)), (), (None,), (None,))


# Functions whose result is their input. Casts between floating point types are: values have the parameters' type.
_ALIASES = {"clone", "contiguous", "dropout", "float", "double", "to", "type", "type_as"}
_FLATTENING = {"flatten", "view", "reshape"}
# torch takes NumPy's names of arguments as well.
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
_IGNORED = {"inplace", "device", "memory_format", "non_blocking", "copy", "_stacklevel", "layout", "pin_memory", "out"}


@dataclasses.dataclass(frozen=True)
class Twins:
    """The same call in all runs: as given, with another batch size, with another length."""

    entry: Entry
    other_batch: Entry | None
    other_length: Entry | None

    @property
    def op_or_none(self) -> str | None:
        """The operation; None of a module."""
        return None if self.entry.converter is not None else op_name(base_name(self.entry.target))

    @property
    def op(self) -> str:
        op = op_name(base_name(self.entry.target))
        if op not in OPS:
            raise RecordingError(
                f"the function {function_name(self.entry.target)} cannot be converted\n  {self.entry.line}\n"
                f"Allowed: the {len(OPS)} functions of snnax_interop.ops.OPS, such as {', '.join(_similar(op))}",
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

    def __init__(
        self,
        builder: GraphBuilder,
        twins: Twins,
        source_of: Callable,
        *,
        elementwise: bool = False,
        holds_arrays: bool = True,
    ):
        self.builder = builder
        self.network = builder.network
        self.twins = twins
        self.source_of = source_of
        self.elementwise = elementwise
        self.holds_arrays = holds_arrays
        self.sources: list[Any] = []
        self.refs: list[Ref | None] = []
        self.in_axes: list[int | None] = []
        self.ranks: list[int] = []
        self.arrays: list[Any] = []
        self.array_ranks: list[int] = []
        self.place = 0

    def arguments(self) -> tuple[Items, dict[str, Any]]:
        """All arguments of the call, filled."""
        entry = self.twins.entry
        args = self._items(*self._places_from_the_end())
        kwargs = {
            _NUMPY_NAMES.get(name, name): self.fill(value, *(other.kwargs[name] for other in self.twins.rest))
            for name, value in entry.kwargs.items()
            if name not in _IGNORED
        }
        return args, kwargs

    def _places_from_the_end(self) -> list[Any]:
        """The positional arguments in all runs; an index that is as far from the end at any length is negative."""
        entries = [self.twins.entry, *self.twins.rest]
        rows = [entry.args for entry in entries]
        if self.twins.op_or_none != "getitem" or not isinstance(rows[0][0], Ref):
            return rows
        tapes = (self.network.runs.tape, self.network.runs.there.tape)
        here, there = (tape.shape(entry.args[0]) for tape, entry in zip(tapes, entries[::2], strict=True))
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
            return self._ref(a, c if isinstance(c, Ref) else a)
        if isinstance(a, StepNumbers):
            return self._per_step(a, b, c)
        if isinstance(a, list | tuple):
            if self.network.is_series(a, self.builder.number):
                return self._sequence(a, c)
            return self._items(a, b, c)
        if isinstance(a, slice):
            parts = [self.fill(*(getattr(each, part) for each in (a, b, c))) for part in ("start", "stop", "step")]
            return Slice(*parts)
        if isinstance(a, bool) or a is None or a is Ellipsis or isinstance(a, str | CustomFunction):
            return a
        if isinstance(a, np.generic):
            return self.fill(*(each.item() for each in (a, b, c)))
        if isinstance(a, int | float):
            return self._number(a, b, c)
        if isinstance(a, torch.dtype | torch.device | torch.memory_format):
            return str(a)
        raise self._refuse(f"an argument is a {type(a).__name__}")

    def _items(self, a: Any, b: Any, c: Any) -> Items:
        if not (isinstance(b, list | tuple) and isinstance(c, list | tuple) and len(a) == len(b) == len(c)):
            raise self._refuse(f"an argument has {len(a)} items here and another number at another length", LengthError)
        return Items(tuple(self.fill(*items) for items in zip(a, b, c, strict=True)))

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
        if self.holds_arrays and network.is_array(ref, there):
            self.arrays.append(network.array(ref))
            self.array_ranks.append(rank)
            return Held(len(self.arrays) - 1)
        return self._input(self.source_of(place, ref, there), network.axes.batch_axis(ref), rank, ref)

    def _input(self, source: Any, axis: int | None, rank: int, ref: Ref | None = None) -> Input:
        self.sources.append(source)
        self.refs.append(ref)
        self.in_axes.append(axis)
        self.ranks.append(rank)
        return Input(len(self.sources) - 1)

    def _sequence(self, a: Any, c: Any) -> Any:
        source, axis = self.builder.sequence(a, c)
        self.place += len(a)
        rank = len(self.network.runs.tape.shape(a[0])) + 1
        return StepList(self._input(source, None if axis is None else axis + 1, rank).number)

    def _number(self, a: Any, b: Any, c: Any) -> Any:
        first, second = self.network.runs.batch_sizes
        if a != b:
            if self.elementwise or not isinstance(a, int) or a % first or a // first * second != b:
                raise self._refuse(f"a number depends on the batch size: {a} with {first} samples, {b} with {second}")
            a, c = a // first, c // first if isinstance(c, int) and c % first == 0 else c
        lengths = self.network.runs.lengths
        if a == c or lengths is None:
            return a
        kind = Size if isinstance(a, int) and isinstance(c, int) else SizeRatio
        formula = kind.fit((a, c), lengths)
        if formula is None:
            what = f"a number depends on the length: {a} with {lengths[0]} steps, {c} with {lengths[1]}"
            raise self._refuse(what, LengthError)
        source = self.builder.input(("num_steps",), "num_steps")
        return LengthValue(self._input(source, None, 0).number, formula)

    def _per_step(self, a: StepNumbers, b: Any, c: Any) -> Input:
        if a != b:
            raise self._refuse(f"numbers depend on the batch size: {a.values[:3]} and {getattr(b, 'values', b)[:3]}")
        key = self.network.schedule(a.values, c.values if isinstance(c, StepNumbers) else ())
        return self._input(self.builder.input(key, "schedule"), None, 0)

    def _refuse(self, what: str, kind: type[RecordingError] = RecordingError) -> RecordingError:
        entry = self.twins.entry
        return kind(
            f"{function_name(entry.target)}: {what}\n  {entry.line}\nAllowed: the same arguments whatever the batch "
            "size and the length, or sizes of the batch and of time",
            path=entry.path,
        )
