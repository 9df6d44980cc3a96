"""The finished network: its graphs, what goes into them, and what became of each module."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import torch

from snnax import snn

from ..converters.arrays import torch_dtype_name
from ..converters.parameters import Weights
from ..errors import RecordingError, UnsupportedOptionError
from ..nodes.wrappers import ChannelsSecond
from ..runtime.converted import Converted, map_structure
from ..runtime.plan import Blueprint, InputSpec, Key, Neuron, Out, Plain, Stage, Statistics
from ..trace.tape import Ref, Tape
from .calls import GraphBuilder
from .describe import caveats_of, conversion_report, converted_modules
from .loop_body import StageBuilder
from .lowering import NetworkBuilder


def assemble(
    module: torch.nn.Module,
    builder: NetworkBuilder,
    double: Callable[[], Tape | None],
    specs: tuple[InputSpec, ...],
    length: tuple[int, int] | None,
    notes: list[str],
    outside: bool,
) -> Converted:
    """Put together what a builder has built.

    `double` records the run of the builder's tape in float64; None where that does something else. `length` is the
    input and its axis that say how long the network runs.
    """
    tape = builder.runs.tape
    results = _Results(builder)
    result = results.place(tape.result, builder.runs.there.tape.result)
    if not results.sources:
        raise RecordingError("forward returns no tensor. Allowed: a tensor, or tuples, lists and dicts of tensors")
    if not any(key[0] in ("recorded", "final") for plain in builder.plain for key in plain.inputs):
        raise RecordingError("what forward returns does not depend on the time loop. Return spikes or membranes")
    weights = builder.weights
    if builder.rounds:
        wide = double()
        if wide is not None:
            builder.widen(wide)
    renamed: list[Mapping[str, str]] = []
    stages = tuple(_stage(builder, stage, renamed) for stage in builder.stages)
    after = _plain(builder, builder.after, results.sources, renamed)
    parameters, buffers, fixed = weights.arrays()
    modules, caveats = converted_modules(builder), caveats_of(builder)
    blueprint = Blueprint(
        stages=stages,
        after=after,
        inputs=specs,
        result=result,
        out_axes=tuple(results.axes),
        length=length,
        keys=tuple(weights.keys),
        canonical={key: weights.canonical[key] for key in weights.keys} | {
            name: weights.canonical[name] for name, _ in module.named_parameters()
        },
        dtypes={key: tensor.dtype for key, tensor in weights.tensors.items()},
        fixed=fixed,
        wide=dict(weights.wide),
        read=frozenset(weights.canonical[name] for name in tape.read),
        outside=outside,
        modules=modules,
        caveats=caveats,
        report=conversion_report(module, builder, stages, modules, caveats, notes),
    )  # fmt: skip
    return Converted(parameters, buffers, blueprint, torch_dtype_name(torch.empty(0, dtype=builder.dtype)))


class _Results:
    """The structure that forward returns, with the number of an output in the place of each tensor."""

    def __init__(self, builder: NetworkBuilder):
        self.builder = builder
        self.sources: list[Any] = []
        self.axes: list[int | None] = []

    def place(self, item: Any, there: Any) -> Any:
        builder = self.builder
        if isinstance(item, Ref):
            if builder.axes.is_folded(item):
                raise RecordingError(
                    f"forward returns a tensor of shape {builder.runs.tape.shape(item)} whose batch is folded into "
                    "another axis. Allowed: the batch as an axis of its own. Unfold it with view before returning"
                )
            return self._add(builder.after.value(item, there), builder.axes.batch_axis(item))
        if isinstance(item, list | tuple) and builder.is_series(item, builder.after.number):
            source, axis = builder.after.sequence(item, there)
            return self._add(source, None if axis is None else axis + 1, listed=True)
        if isinstance(item, list | tuple | dict):
            if len(item) != len(there):
                raise RecordingError(f"forward returns {len(item)} values here, and {len(there)} at another length")
            others = iter(there.values() if isinstance(there, dict) else there)
            return map_structure(lambda each: self.place(each, next(others)), item)
        return item

    def _add(self, source: Any, axis: int | None, listed: bool = False) -> Out:
        self.sources.append(source)
        self.axes.append(axis)
        return Out(len(self.sources) - 1, listed)


def _stage(builder: NetworkBuilder, stage: StageBuilder, renamed: list[Mapping[str, str]]) -> Stage:
    """A finished stage; how its model renames nodes joins that of the stages before it."""
    number = stage.number
    before = _plain(builder, builder.plain[number], builder.outputs[number], renamed)
    # A model that nothing is read of but its final states still has an output.
    recorded = [stage.sources[value] for value in stage.recorded] or [next(iter(stage.neurons), None) or _last(stage)]
    stage.step.prune([*recorded, *stage.neurons])
    if not stage.step.inputs:
        stage.step.input(("num_steps",), "num_steps")  # what runs without an input still runs over time
    model, names = _model(stage, recorded)
    initial = tuple(
        (names.get(name, name), field, _keys([key], renamed)[0]) for (name, field), key in stage.initial.items()
    )
    found = Stage(
        before=before,
        model=_skeleton(model, builder.weights),
        inputs=_keys(stage.step.inputs, renamed),
        initial=initial,
        num_steps=builder.length(number),
        several_recorded=len(recorded) > 1,
        neurons=_neurons(builder, stage, names),
        statistics=_statistics(builder, stage.step, names),
    )
    renamed.append(names)
    return found


def _plain(builder: NetworkBuilder, graph: GraphBuilder, outputs: list[Any], renamed: list[Mapping[str, str]]) -> Plain:
    """A finished graph that is evaluated once."""
    graph.prune(outputs)
    if not outputs:
        return Plain(None, ())
    skeleton = _skeleton(graph.graph(outputs), builder.weights)
    return Plain(skeleton, _keys(graph.inputs, renamed), _statistics(builder, graph, {}))


def _statistics(builder: NetworkBuilder, graph: GraphBuilder, renamed: Mapping[str, str]) -> tuple[Statistics, ...]:
    """The batch normalisations in training of a graph.

    **Raises:** `UnsupportedOptionError` for one that is called several times in a row.
    """
    found = []
    for name, node in graph.nodes.items():
        layer = node.layer if isinstance(node, ChannelsSecond) else node
        if isinstance(layer, snn.BatchNorm):
            mean, var = (builder.weights.slot(array).key for array in (layer.mean, layer.var))
            path = mean.removesuffix("running_mean")
            if path in builder.normalised:
                raise UnsupportedOptionError(
                    "a batch normalisation in training mode is called several times per time step, or in several "
                    "loops. Allowed: one call per time step. Give each call a layer of its own, or call module.eval()",
                    path=path.removesuffix("."),
                )
            builder.normalised.add(path)
            count = builder.weights.canonical[f"{path}num_batches_tracked"]
            found.append(Statistics(renamed.get(name, name), mean, var, count))
    return tuple(found)


def _keys(keys: Iterable[Key], renamed: list[Mapping[str, str]]) -> tuple[Key, ...]:
    """Keys with the names that nodes have in the finished models."""

    def final(key: Key) -> Key:
        if key[0] == "sliced":
            return ("sliced", final(key[1]), key[2])
        if key[0] != "final":
            return key
        _, number, node, field = key
        return ("final", number, renamed[number].get(node, node), field)

    return tuple(map(final, keys))


def _last(stage: StageBuilder) -> str:
    return list(stage.step.nodes)[-1]


def _neurons(builder: NetworkBuilder, stage: StageBuilder, renamed: Mapping[str, str]) -> dict[str, Neuron]:
    """The neurons of a stage. Uses of a module with states of their own are told apart by a number.

    Uses that hand one state to each other are one neuron, stepped several times.
    """
    found: dict[str, Neuron] = {}
    uses: dict[str, int] = {}
    for node, neuron in stage.neurons.items():
        if neuron.keeps_state:
            uses[neuron.path] = uses.get(neuron.path, 0) + 1
        use = uses.get(neuron.path, 1)
        name = neuron.path if use == 1 else f"{neuron.path}_{use}"
        fields = tuple(
            (field, *_field(state, renamed))
            for field, state in zip(neuron.converter.fields, neuron.states, strict=True)
        )
        found[renamed.get(node, node)] = Neuron(name, neuron.path, fields, builder.axes.batch_axis(neuron.out))
    return found


def _field(state: Any, renamed: Mapping[str, str]) -> tuple[str | None, str]:
    """Where a field of a state is: of which node's state, or else the output of which node."""
    if isinstance(state, snn.State):
        return state.field, renamed.get(state.node, state.node)
    return None, state


def _model(stage: StageBuilder, recorded: list[Any]) -> tuple[Any, dict[str, str]]:
    """A `Sequential` where the step is a chain with one output, else a `Graph`; and how that renames the nodes."""
    step = stage.step
    graph = step.graph(recorded if len(recorded) > 1 else recorded[0])
    names = [name for name, _ in graph.wiring.sources]
    previous = [next(iter(step.inputs.values()), None), *names[:-1]]
    chain = all(list(sources) == [before] for (_, sources), before in zip(graph.wiring.sources, previous, strict=True))
    if chain and len(step.inputs) == 1 and recorded == [names[-1]] and not _is_tied(graph):
        return snn.Sequential(*(graph.nodes[name] for name in names)), {name: str(i) for i, name in enumerate(names)}
    return graph, {}


def _is_tied(graph: snn.Graph) -> bool:
    return any(graph.named_nodes[name] is not node for name, node in graph.nodes.items())


def _skeleton(graph: Any, weights: Weights) -> Any:
    return jax.tree.map(weights.slot, graph)
