"""The finished network: its graphs, what goes into them, and what became of each module."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import torch

from snnax import snn
from snnax.snn.containers import shared_by_caller

from ..converters.arrays import torch_dtype_name
from ..converters.parameters import Weights
from ..errors import UnsupportedOptionError
from ..ir.program import Program
from ..ir.regions import Entries, Value, map_leaves
from ..nodes.wrappers import ChannelsSecond
from ..runtime.converted import Converted
from ..runtime.plan import (
    Emitted,
    ExecutionPlan,
    FinalState,
    InputLength,
    InputSpec,
    Key,
    Neuron,
    Out,
    PlannedLoop,
    Statistics,
    Steps,
    StraightLine,
)
from ..runtime.report import ConversionReport
from ..trace.tape import Tape
from .describe import caveats_of, converted_modules
from .draft import GraphDraft
from .loop_body import LoopBody
from .lowering import Lowering, Region, check_outputs


def assemble(
    module: torch.nn.Module,
    network: Lowering,
    run_in_float64: Callable[[], Tape | None],
    specs: tuple[InputSpec, ...],
    tape: Tape,
    caller_loop: bool,
    report: Callable[..., ConversionReport],
    passes: Mapping[str, Any],
) -> Converted:
    """Put together what a program was lowered to.

    `run_in_float64` records the run of `tape` in float64; None where that does something else. `report` is made of the
    finished loops, the converted modules and the caveats.
    """
    program = network.program
    keys = [key for region in network.regions for key in region.draft.inputs]
    check_outputs(program, any(isinstance(key, Emitted | FinalState) for key in keys))
    weights = network.layers.weights
    network.arrays.take_float64(run_in_float64)
    assembly = _Assembly(network, weights)
    loops = tuple(map(assembly.loop, network.bodies))
    after = assembly.straight_line(network.regions[-1])
    outputs = _Outputs(program, network)
    parameters, buffers, fixed = weights.arrays()
    modules, caveats = converted_modules(network), caveats_of(network, tape.called)
    plan = ExecutionPlan(
        loops=loops,
        after=after,
        inputs=specs,
        result=outputs.result,
        out_axes=tuple(outputs.axes),
        length=program.length,
        keys=tuple(weights.keys),
        canonical={key: weights.canonical[key] for key in weights.keys} | {
            name: weights.canonical[name] for name, _ in module.named_parameters()
        },
        dtypes={key: tensor.dtype for key, tensor in weights.tensors.items()},
        fixed=fixed,
        float64_constants=dict(weights.float64_constants),
        read=frozenset(weights.canonical[name] for name in tape.read),
        caller_loop=caller_loop,
        modules=modules,
        caveats=caveats,
        report=report(loops, modules, caveats),
        passes=passes,
    )  # fmt: skip
    return Converted(parameters, buffers, plan, torch_dtype_name(torch.empty(0, dtype=network.dtype)))


class _Outputs:
    """The structure that forward returns, with the number of an output in the place of each tensor."""

    def __init__(self, program: Program, network: Lowering):
        self.network = network
        self.axes: list[int | None] = []
        self.result = map_leaves(self._placed, program.outputs)

    def _placed(self, leaf: Any) -> Any:
        if not isinstance(leaf, Value | Entries):
            return leaf
        value = leaf.value if isinstance(leaf, Entries) else leaf
        made, axis = self.network.export_output(value)
        if made.number == len(self.axes):
            self.axes.append(axis)
        return Out(made.number, isinstance(leaf, Entries))


class _Assembly:
    """Finished graphs, with slots in the place of arrays. `renamed` are the names of nodes in the loops before."""

    def __init__(self, network: Lowering, weights: Weights):
        self.network = network
        self.weights = weights
        self.renamed: list[Mapping[str, str]] = []
        self.normalised: set[str] = set()

    def loop(self, body: LoopBody) -> PlannedLoop:
        """A finished loop; how its model renames nodes joins that of the loops before it."""
        before = self.straight_line(self.network.regions[body.number])
        draft = body.draft
        # A model that nothing is read of but its final states still has an output.
        recorded = [draft.made[value] for value in body.recorded] or [
            next(iter(body.neurons), None) or list(draft.nodes)[-1]
        ]
        draft.prune([*recorded, *body.neurons])
        if not draft.inputs:
            draft.input(InputLength(), "num_steps")  # what runs without an input still runs over time
        model, names = _model(draft, recorded)
        initial = tuple(
            (names.get(name, name), field, self.keys([key])[0]) for (name, field), key in body.initial.items()
        )
        found = PlannedLoop(
            before=before,
            model=self.skeleton(model),
            inputs=self.keys(draft.inputs),
            initial=initial,
            num_steps=body.loop.count,
            several_recorded=len(recorded) > 1,
            neurons=_neurons(body, names),
            statistics=self.statistics(draft, names),
        )
        self.renamed.append(names)
        return found

    def straight_line(self, region: Region) -> StraightLine:
        """A finished graph that is evaluated once."""
        draft = region.draft
        draft.prune(region.outputs)
        if not region.outputs:
            return StraightLine(None, ())
        graph = self.skeleton(draft.graph(region.outputs))
        return StraightLine(graph, self.keys(draft.inputs), self.statistics(draft, {}))

    def statistics(self, draft: GraphDraft, names: Mapping[str, str]) -> tuple[Statistics, ...]:
        """The batch normalisations in training of a graph.

        **Raises:** `UnsupportedOptionError` for one that is called several times in a row.
        """
        found = []
        for name, node in draft.nodes.items():
            layer = node.layer if isinstance(node, ChannelsSecond) else node
            if isinstance(layer, snn.BatchNorm):
                mean, var = (self.weights.slot(array).key for array in (layer.mean, layer.var))
                path = mean.removesuffix("running_mean")
                if path in self.normalised:
                    raise UnsupportedOptionError(
                        "a batch normalisation in training mode is called several times per time step, or in several "
                        "loops. Allowed: one call per time step. Give each call a layer of its own, or call "
                        "module.eval()",
                        path=path.removesuffix("."),
                    )
                self.normalised.add(path)
                count = self.weights.canonical[f"{path}num_batches_tracked"]
                found.append(Statistics(names.get(name, name), mean, var, count))
        return tuple(found)

    def keys(self, keys: Iterable[Key]) -> tuple[Key, ...]:
        """Keys with the names that nodes have in the finished models."""

        def renamed(key: Key) -> Key:
            if isinstance(key, Steps):
                return dataclasses.replace(key, sequence=renamed(key.sequence))
            if isinstance(key, FinalState):
                return dataclasses.replace(key, node=self.renamed[key.loop].get(key.node, key.node))
            return key

        return tuple(map(renamed, keys))

    def skeleton(self, graph: Any) -> Any:
        return jax.tree.map(self.weights.slot, graph)


def _neurons(body: LoopBody, renamed: Mapping[str, str]) -> dict[str, Neuron]:
    """The neurons of a loop. Uses of a module with states of their own are told apart by a number.

    Uses that hand one state to each other are one neuron, stepped several times.
    """
    found: dict[str, Neuron] = {}
    uses: dict[str, int] = {}
    for node, neuron in body.neurons.items():
        if neuron.keeps_state:
            uses[neuron.path] = uses.get(neuron.path, 0) + 1
        use = uses.get(neuron.path, 1)
        name = neuron.path if use == 1 else f"{neuron.path}_{use}"
        fields = tuple(
            (field, *_field(state, renamed))
            for field, state in zip(neuron.converter.fields, neuron.states, strict=True)
        )
        found[renamed.get(node, node)] = Neuron(name, neuron.path, fields, neuron.out.batch_axis)
    return found


def _field(state: Any, renamed: Mapping[str, str]) -> tuple[str | None, str]:
    """Where a field of a state is: of which node's state, or else the output of which node."""
    if isinstance(state, snn.State):
        return state.field, renamed.get(state.node, state.node)
    return None, state


def _model(draft: GraphDraft, recorded: list[Any]) -> tuple[Any, dict[str, str]]:
    """A `Sequential` where the step is a chain with one output, else a `Graph`; and how that renames the nodes."""
    graph = draft.graph(recorded if len(recorded) > 1 else recorded[0])
    names = [name for name, _ in graph.wiring.sources]
    previous = [next(iter(draft.inputs.values()), None), *names[:-1]]
    chain = all(list(sources) == [before] for (_, sources), before in zip(graph.wiring.sources, previous, strict=True))
    if chain and len(draft.inputs) == 1 and recorded == [names[-1]] and not _is_tied(graph):
        with shared_by_caller():
            return snn.Sequential(*map(graph.nodes.__getitem__, names)), {name: str(i) for i, name in enumerate(names)}
    return graph, {}


def _is_tied(graph: snn.Graph) -> bool:
    return any(graph.named_nodes[name] is not node for name, node in graph.nodes.items())
