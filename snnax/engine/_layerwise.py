"""Layer by layer over the whole sequence: stateless nodes see all time steps at once, only cycles are stepped.

A linear layer or convolution becomes one large matrix product or convolution over time instead of one small one per
step, also inside nested containers and beside feedback loops; what reads only `Repeat` inputs is computed once.

`_Run` goes through the strongly connected components of a container: a node alone is computed for the whole sequence,
by the `Plan`; the nodes of a `_Cycle`, and layers that know nothing better, are scanned over time.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._chunked import scan_chunks
from ._errors import of_node
from ._nodes import (
    AbstractContainer,
    AbstractFunction,
    AbstractLayer,
    AbstractLinearLayer,
    AbstractSequenceLayer,
    call_stateless,
)
from ._sequence import (
    Carry,
    Repeat,
    as_sequence,
    as_sequences,
    input_sequences,
    keep,
    last_counting,
    repeated,
    step_keys,
    step_mask,
    varying_as,
    zeroed,
)
from ._step import advance, field_of, node_outputs, packed, remember, unpacked
from ._wiring import Previous, Source, State, origin


Method = Literal["sequential", "parallel", "checkpointed"]


def layerwise(
    model: AbstractContainer,
    states: Any,
    xs: Any,
    *,
    key: Any = None,
    mask: Any = None,
    methods: Mapping[str, Method] | None = None,
) -> tuple[Any, list[Any]]:
    """Run a model layer by layer; equal to `stepwise` in outputs, final states and gradients.

    Arguments and returns as for `stepwise`. `methods` says for layers by name (`"lif1"`, `"block.0"` in a nested
    container) how they run over time: `"sequential"`, the default; `"parallel"`, for a recurrence that is linear
    (`snn.LI`, neurons with `reset="none"`); `"checkpointed"`, in chunks that are computed again in the backward pass.

    **Raises:** `ValueError` for a method of a layer that does not exist or cannot do it.
    """
    return run_layerwise(model, states, xs, key, mask, methods, "sequential")


def parallel(
    model: AbstractContainer,
    states: Any,
    xs: Any,
    *,
    key: Any = None,
    mask: Any = None,
    methods: Mapping[str, Method] | None = None,
) -> tuple[Any, list[Any]]:
    """`layerwise`, with every linear recurrence computed in O(log time) passes instead of a loop.

    Arguments and returns as for `layerwise`; layers that are not linear, or sequences with a `mask`, are looped over.
    """
    return run_layerwise(model, states, xs, key, mask, methods, "parallel")


def checkpointed(
    model: AbstractContainer,
    states: Any,
    xs: Any,
    *,
    key: Any = None,
    mask: Any = None,
    chunk: int | None = None,
    methods: Mapping[str, Method] | None = None,
) -> tuple[Any, list[Any]]:
    """Run a model layer by layer over chunks of time that are computed again in the backward pass.

    Arguments and returns as for `layerwise`. `chunk` is the number of time steps in one of them, by default the square
    root of all: the gradient then needs memory for O(sqrt(time)) states, for any number of steps, and takes one more
    forward pass.

    **Raises:** `ValueError` also for a layer that needs the whole sequence at once.
    """
    _check_methods(model, methods)
    if whole := [name for name, node in walk(model) if _needs_whole_sequence(node)]:
        raise ValueError(f"the layers {whole} need the whole sequence at once; run the model with engine.layerwise")
    inputs, num_steps = input_sequences(xs, model.wiring.inputs)
    constant = {name: x.value for name, x in inputs.items() if isinstance(x, Repeat)}
    varying = {name: x for name, x in inputs.items() if name not in constant}
    mask = step_mask(mask, num_steps)

    def run(carry, pieces, steps):
        inputs, keys, mask = pieces
        inputs = inputs | {name: Repeat(value, steps) for name, value in constant.items()}
        carry, outs = _run(model, carry, inputs, keys, Plan(steps, mask, methods or {}))
        return carry, as_sequences(outs)

    pieces = *repeated(mask, varying, step_keys(key, num_steps)), mask
    model, states = varying_as((model, states), (pieces, constant))
    carry, outs = scan_chunks(run, Carry.first(states, mask), pieces, num_steps, chunk)
    return carry.states, zeroed(mask, outs)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a model runs: over how many steps, which of them count, and by which method at which path."""

    num_steps: int
    mask: Array | None
    methods: Mapping[str, Method]
    default: Method = "sequential"
    path: str = ""

    def inside(self, name: str) -> "Plan":
        return dataclasses.replace(self, path=f"{self.path}{name}.")

    def method(self, name: str, node: Any) -> Method:
        chosen = self.methods.get(self.path + name, self.default)
        # Where steps may be left out, the decay is not the same at every step.
        can = isinstance(node, AbstractLinearLayer) and node.is_linear and self.mask is None
        return "sequential" if chosen == "parallel" and not can else chosen


def run_layerwise(model, states, xs, key, mask, methods, default: Method) -> tuple[Any, list[Any]]:
    _check_methods(model, methods)
    inputs, num_steps = input_sequences(xs, model.wiring.inputs)
    mask = step_mask(mask, num_steps)
    inputs, keys = repeated(mask, inputs, step_keys(key, num_steps))
    plan = Plan(num_steps, mask, methods or {}, default)
    model, states = varying_as((model, states), (inputs, keys, mask))
    carry, outs = _run(model, Carry.first(states, mask), inputs, keys, plan)
    return carry.states, zeroed(mask, as_sequences(outs))


def walk(model: AbstractContainer, path: str = "") -> list[tuple[str, Any]]:
    """All nodes of a model and of the containers in it, by path."""
    found = []
    for name, node in model.named_nodes.items():
        found.append((path + name, node))
        if isinstance(node, AbstractContainer):
            found += walk(node, f"{path}{name}.")
    return found


def _check_methods(model: AbstractContainer, methods: Mapping[str, Method] | None) -> None:
    nodes = dict(walk(model)) if methods else {}
    for name, method in (methods or {}).items():
        if method not in get_args(Method):
            raise ValueError(f"methods['{name}'] must be one of {get_args(Method)}, found {method!r}")
        if name not in nodes:
            raise ValueError(f"methods names '{name}', but the model has the layers {list(nodes)}")
        node = nodes[name]
        if not isinstance(node, AbstractLayer):
            raise ValueError(f"methods names '{name}' ({type(node).__name__}), which is no layer with a state")
        if method == "parallel" and not (isinstance(node, AbstractLinearLayer) and node.is_linear):
            raise ValueError(
                f"'{name}' ({type(node).__name__}) is no linear recurrence and cannot run in parallel: "
                "neurons need reset='none' and no adaptation"
            )


def _needs_whole_sequence(node: Any) -> bool:
    return isinstance(node, AbstractSequenceLayer) and node.needs_whole_sequence


def _run(
    model: AbstractContainer, carry: Carry, inputs: dict[str, Any], keys: Any, plan: Plan
) -> tuple[Carry, list[Any]]:
    """A container over a whole sequence: the states after it, and the output sequences as `node_outputs` lists them."""
    run = _Run(model, unpacked(model, carry, plan.mask), inputs, keys, plan)
    for component in model.wiring.components:
        run.compute(component)
    return packed(model, run.final_states(), plan.mask), node_outputs(model.wiring, run.sequences, run.read)


class _Run:
    """How far a container is computed.

    Components come in execution order, so that everything one reads from outside of itself is already there:
    `sequences` has the inputs of the container and, of all nodes computed so far, the outputs and those state fields
    that are read over time. `after` has the states after the last step, by node and by delayed edge.
    """

    def __init__(self, model: AbstractContainer, before: dict[Any, Carry], inputs: Any, keys: Any, plan: Plan):
        self.wiring, self.nodes = model.wiring, model.named_nodes
        self.sources = dict(model.wiring.sources)
        self.before, self.keys, self.plan = before, keys, plan
        self.sequences: dict[Source, Any] = {**inputs}
        self.after: dict[Any, Carry] = {}

    def compute(self, component: tuple[str, ...]) -> None:
        """Compute the nodes of one component: together step by step if they are a cycle, else the one that it is."""
        name = component[0]
        if len(component) > 1:
            self._scan(component)
            return
        node = self.nodes[name]
        with jax.named_scope(name), of_node(name, node):
            if self.wiring.is_cycle(component):
                self._scan(component)
            elif isinstance(node, AbstractLayer):
                self._run_layer(name, node)
            elif isinstance(node, AbstractContainer):
                self._run_container(name, node)
            else:
                args = tuple(map(self.read, self.sources[name]))
                self.sequences[name] = _map_over_time(node, args, self._keys_of(name), self.plan.num_steps)

    def final_states(self) -> dict[Any, Carry]:
        """The states after the last step, also of the delayed edges that are in no cycle."""
        for edge in self.wiring.previous:
            if edge.key not in self.after:
                self.after[edge.key] = _after(self.before[edge.key], self.read(edge.source), self.plan.mask)
        return self.after

    def read(self, source: Source) -> Any:
        """A source as a sequence."""
        if isinstance(source, Previous):
            return _shifted(self.before[source.key], self.read(source.source), self.plan.mask)
        return self.sequences[source]

    def _read_sum(self, name: str) -> Any:
        args = tuple(map(self.read, self.sources[name]))
        return args[0] if len(args) == 1 else _map_over_time(_identity, args, None, self.plan.num_steps)

    def _keys_of(self, name: str) -> Any:
        index = list(self.sources).index(name)
        return None if self.keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.keys, index)

    def _run_layer(self, name: str, layer: AbstractLayer) -> None:
        method, fields = self.plan.method(name, layer), self.wiring.fields[name]
        if method == "parallel":
            assert isinstance(layer, AbstractLinearLayer)
            states, outs = layer.apply_parallel(self.before[name].states, as_sequence(self._read_sum(name)))
            self.after[name], self.sequences[name] = _after(self.before[name], states, None), outs
            self.sequences.update({State(name, field): field_of(states, State(name, field)) for field in fields})
        elif isinstance(layer, AbstractSequenceLayer) and not fields and method == "sequential":
            xs, keys = as_sequence(self._read_sum(name)), self._keys_of(name)
            state, self.sequences[name] = layer.apply_sequence(
                self.before[name].states, xs, keys=keys, mask=self.plan.mask
            )
            self.after[name] = Carry.first(state, self.plan.mask)
        else:
            # A layer with state is a cycle of one node: it reads its own past.
            self._scan((name,))

    def _run_container(self, name: str, container: AbstractContainer) -> None:
        names = container.wiring.inputs
        args = (self._read_sum(name),) if len(names) == 1 else tuple(map(self.read, self.sources[name]))
        inputs = dict(zip(names, args, strict=True))
        self.after[name], outs = _run(container, self.before[name], inputs, self._keys_of(name), self.plan.inside(name))
        self.sequences[name] = as_sequences(outs[-1]) if container.wiring.several else outs[-1]

    def _scan(self, component: tuple[str, ...]) -> None:
        """Step the nodes of one component through time."""
        members = set(component)
        reads = {name: sources for name, sources in self.wiring.sources if name in members}
        read = dict.fromkeys(source for sources in reads.values() for source in sources)
        outside = {source: self.read(source) for source in read if origin(source) not in members}
        varying = {source: value for source, value in outside.items() if not isinstance(value, Repeat)}
        delayed = tuple(edge for edge in self.wiring.previous if edge in read and origin(edge) in members)
        carry: dict[Any, Carry] = {name: self.before.get(name, Carry(None)) for name in reads}
        carry |= {edge.key: self.before[edge.key] for edge in delayed}
        cycle = _Cycle(
            nodes={name: self.nodes[name] for name in reads},
            reads=reads,
            delayed=delayed,
            fields={name: self.wiring.fields[name] for name in reads},
            constant={source: value.value for source, value in outside.items() if isinstance(value, Repeat)},
            varying=tuple(varying),
            keys=tuple(carry),
        )

        sequences = tuple(varying.values()), {name: self._keys_of(name) for name in component}, self.plan.mask
        checkpointed = any(self.plan.method(name, node) == "checkpointed" for name, node in cycle.nodes.items())
        final, found = cycle.scan(tuple(carry.values()), sequences, self.plan.num_steps, checkpointed)
        self.after.update(zip(carry, final, strict=True))
        self.sequences.update(zip(cycle.found, found, strict=True))


@dataclasses.dataclass(frozen=True)
class _Cycle:
    """Nodes that depend on each other's past, or one that depends on its own, and how they take a time step together.

    **Arguments:** `nodes`: in execution order; `reads`: the sources of each; `delayed`: the sources among them that
    are one step late within the cycle; `fields`: the state fields that are read of each. Sources from outside are
    `constant`, with their values, or `varying`: these come with each step. `keys`: what the states of a carry are of.
    """

    nodes: Mapping[str, Any]
    reads: Mapping[str, tuple[Source, ...]]
    delayed: tuple[Previous, ...]
    fields: Mapping[str, tuple[str, ...]]
    constant: Mapping[Source, Any]
    varying: tuple[Source, ...]
    keys: tuple[Any, ...]

    @property
    def found(self) -> tuple[Source, ...]:
        """What a step finds: the outputs of all nodes, and their fields that are read."""
        return (*self.nodes, *(State(name, field) for name in self.nodes for field in self.fields[name]))

    def scan(self, carry: Any, sequences: Any, num_steps: int, checkpointed: bool) -> tuple[Any, Any]:
        """All time steps: the states after the last one, and what `found` lists as sequences."""
        if not checkpointed:
            return jax.lax.scan(self.step, carry, sequences, length=num_steps)
        chunk = lambda carry, piece, steps: jax.lax.scan(self.step, carry, piece, length=steps)  # noqa: E731
        return scan_chunks(chunk, carry, sequences, num_steps, None)

    def step(self, carries: tuple[Carry, ...], inputs: Any) -> tuple[tuple[Carry, ...], tuple[Any, ...]]:
        """One time step: the states of nodes and delayed edges -> these after it, and what `found` lists."""
        varying, keys, counts = inputs
        carry = dict(zip(self.keys, carries, strict=True))
        now = {**self.constant, **dict(zip(self.varying, varying, strict=True))}
        now |= {edge: carry[edge.key].start(counts) for edge in self.delayed}
        new: dict[Any, Carry] = {}
        for name, node in self.nodes.items():
            # The loop of a node alone has its name already.
            alone = len(self.nodes) == 1
            scope = contextlib.nullcontext() if alone else jax.named_scope(name)
            with scope, contextlib.nullcontext() if alone else of_node(name, node):
                args = tuple(now[source] for source in self.reads[name])
                new[name], now[name] = advance(node, carry[name], args, keys[name], counts)
            read = [State(name, field) for field in self.fields[name]]
            now |= {source: field_of(new[name].states, source) for source in read}
        for edge in self.delayed:
            late = carry[edge.key]
            new[edge.key] = late.after(counts, remember(late.states, now[edge.source]))
        return tuple(new[key] for key in self.keys), tuple(now[source] for source in self.found)


def _map_over_time(node: Any, args: tuple[Any, ...], keys: Any, num_steps: int) -> Any:
    repeated = all(isinstance(arg, Repeat) for arg in args)
    if repeated and (keys is None or _is_deterministic(node)):
        return Repeat(call_stateless(node, tuple(arg.value for arg in args), None), num_steps)
    # vmap broadcasts what does not change over time by itself.
    axes = tuple(None if isinstance(arg, Repeat) else 0 for arg in args)
    plain = tuple(arg.value if isinstance(arg, Repeat) else arg for arg in args)

    def call(key, *args):
        return call_stateless(node, args, key)

    return jax.vmap(call, in_axes=(None if keys is None else 0, *axes), axis_size=num_steps)(keys, *plain)


def _is_deterministic(node: Any) -> bool:
    """Whether a stateless node surely draws no random numbers, although it is handed a key."""
    known = (AbstractFunction, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.Pool, eqx.nn.LayerNorm, eqx.nn.Lambda)
    return isinstance(node, known) or not isinstance(node, eqx.Module)


def _shifted(before: Carry, sequence: Any, mask: Array | None) -> Any:
    """A sequence one time step late, in the dtype of the state that comes first."""
    sequence = remember(before.states, as_sequence(sequence))
    if mask is None:
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b])[: b.shape[0]], before.states, sequence)
    # By step, where its value is below: 0 and 1 are those that come in, 0 for steps that repeat one of an earlier call.
    counted = jax.lax.cummax(jnp.where(mask, jnp.arange(mask.shape[0]), -1))
    late = 2 + jnp.concatenate([jnp.full(1, -1), counted])[:-1]
    place = jnp.where(counted < 0, 0, late[counted])
    return jax.tree.map(
        lambda a, b, c: jnp.concatenate([a[None], b[None], c])[place], before.earlier, before.states, sequence
    )


def _after(before: Carry, sequence: Any, mask: Array | None) -> Carry:
    """What of a sequence of states is left after the last step."""
    if isinstance(sequence, Repeat) and mask is None:
        return Carry(remember(before.states, sequence.value) if sequence.num_steps else before.states)
    late = None if mask is None else _shifted(before, sequence, mask)
    sequence = remember(before.states, as_sequence(sequence))
    if mask is None:
        return Carry(jax.tree.map(lambda a, b: b[-1] if b.shape[0] else a, before.states, sequence))
    if mask.shape[0] == 0:
        return before
    last = last_counting(mask)[-1]
    states = keep(mask.any(), jax.tree.map(lambda x: x[last], sequence), before.states)
    return Carry(states, jax.tree.map(lambda x: x[-1], late))


def _identity(x: Any) -> Any:
    return x
