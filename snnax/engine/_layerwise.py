"""Layer by layer over the whole sequence: stateless nodes see all time steps at once, only cycles are stepped.

A linear layer or convolution becomes one large matrix product or convolution over time instead of one small one per
step, also inside nested containers and beside feedback loops; what reads only `Repeat` inputs is computed once.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._chunked import scan_chunks
from ._nodes import (
    AbstractContainer,
    AbstractFunction,
    AbstractLayer,
    AbstractLinearLayer,
    AbstractSequenceLayer,
    call_stateless,
)
from ._sequence import (
    Repeat,
    as_sequence,
    as_sequences,
    input_sequences,
    keep,
    step_keys,
    step_mask,
    zeroed,
)
from ._step import apply, node_outputs, remember
from ._wiring import Previous, Source, State, Wiring, origin


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

    def run(states, pieces, steps):
        inputs, keys, mask = pieces
        inputs = inputs | {name: Repeat(value, steps) for name, value in constant.items()}
        states, outs = _run(model, states, inputs, keys, Plan(steps, mask, methods or {}))
        return states, as_sequences(outs)

    pieces = zeroed(mask, varying), step_keys(key, num_steps), mask
    states, outs = scan_chunks(run, states, pieces, num_steps, chunk)
    return states, zeroed(mask, outs)


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
    if mask is not None:
        inputs = {name: x if isinstance(x, Repeat) else zeroed(mask, x) for name, x in inputs.items()}
    plan = Plan(num_steps, mask, methods or {}, default)
    states, outs = _run(model, states, inputs, step_keys(key, num_steps), plan)
    return states, zeroed(mask, as_sequences(outs))


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


def _run(model: AbstractContainer, states: Any, values: dict[str, Any], keys: Any, plan: Plan):
    wiring = model.wiring
    nodes = model.named_nodes
    before = model.unpack_states(states)
    after: dict[str, Any] = {}
    trajectories: dict[State, Any] = {}
    index = {name: position for position, (name, _) in enumerate(wiring.sources)}
    sources = dict(wiring.sources)

    def read(source: Source) -> Any:
        if isinstance(source, Previous):
            return _shifted(before[str(source)], read(source.source), plan.mask)
        return trajectories[source] if isinstance(source, State) else values[source]

    def node_keys(name: str) -> Any:
        return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index[name])

    def read_sum(name: str) -> Any:
        args = tuple(map(read, sources[name]))
        return args[0] if len(args) == 1 else _map_over_time(_identity, args, None, plan.num_steps)

    for component in wiring.components:
        name = component[0]
        node = nodes[name]
        if wiring.is_cycle(component):
            _scan_cycle(wiring, component, nodes, before, after, values, trajectories, read, node_keys, plan)
        elif isinstance(node, AbstractLayer):
            method = plan.method(name, node)
            if method == "parallel":
                assert isinstance(node, AbstractLinearLayer)
                states_over_time, values[name] = node.apply_parallel(before[name], as_sequence(read_sum(name)))
                after[name] = _last(before[name], states_over_time, None)
                fields = wiring.fields[name]
                trajectories.update({State(name, field): getattr(states_over_time, field) for field in fields})
            elif isinstance(node, AbstractSequenceLayer) and not wiring.fields[name] and method == "sequential":
                xs = as_sequence(read_sum(name))
                after[name], values[name] = node.apply_sequence(before[name], xs, keys=node_keys(name), mask=plan.mask)
            else:
                # A layer with state is a cycle of one node: it reads its own past.
                _scan_cycle(wiring, component, nodes, before, after, values, trajectories, read, node_keys, plan)
        elif isinstance(node, AbstractContainer):
            args = (read_sum(name),) if len(node.wiring.inputs) == 1 else tuple(map(read, sources[name]))
            inputs = dict(zip(node.wiring.inputs, args, strict=True))
            after[name], outs = _run(node, before[name], inputs, node_keys(name), plan.inside(name))
            values[name] = as_sequences(outs[-1]) if node.wiring.several else outs[-1]
        else:
            values[name] = _map_over_time(node, tuple(map(read, sources[name])), node_keys(name), plan.num_steps)
    for edge in wiring.previous:
        if str(edge) not in after:
            after[str(edge)] = _last(before[str(edge)], read(edge.source), plan.mask)
    return model.pack_states(after), node_outputs(wiring, values, read)


def _scan_cycle(
    wiring: Wiring, component, nodes, before, after, values, trajectories, read, node_keys, plan: Plan
) -> None:
    """Step the nodes of one component through time; everything they read from outside is already a sequence."""
    members = set(component)
    reads = [(name, sources) for name, sources in wiring.sources if name in members]
    inside = {source for _, sources in reads for source in sources if origin(source) in members}
    outside = dict.fromkeys(s for _, sources in reads for s in sources if s not in inside)
    external = {source: read(source) for source in outside}
    constant = {source: value.value for source, value in external.items() if isinstance(value, Repeat)}
    varying = {source: value for source, value in external.items() if not isinstance(value, Repeat)}
    delayed = [edge for edge in wiring.previous if edge in inside]
    carry = {name: before.get(name) for name, _ in reads} | {str(edge): before[str(edge)] for edge in delayed}
    keys = {name: node_keys(name) for name in component}

    def body(carry, inputs):
        sequences, step_key, counts = inputs
        sequences = dict(zip(varying, sequences, strict=True))
        new: dict[str, Any] = {}
        outputs: dict[str, Any] = {}

        def read_step(source):
            if source in constant:
                return constant[source]
            if source in sequences:
                return sequences[source]
            if isinstance(source, Previous):
                return carry[str(source)]
            return getattr(new[source.node], source.field) if isinstance(source, State) else outputs[source]

        for name, sources in reads:
            args = tuple(map(read_step, sources))
            new[name], outputs[name] = apply(nodes[name], carry[name], args, step_key[name], counts)
        for edge in delayed:
            late = carry[str(edge)]
            new[str(edge)] = keep(counts, remember(late, read_step(edge.source)), late)
        fields = {name: {field: getattr(new[name], field) for field in wiring.fields[name]} for name in component}
        return new, (outputs, fields)

    sequences = (tuple(varying.values()), keys, plan.mask)
    if any(plan.method(name, nodes[name]) == "checkpointed" for name in component):

        def chunk(carry, sequences, steps):
            return jax.lax.scan(body, carry, sequences, length=steps)

        final, (outputs, fields) = scan_chunks(chunk, carry, sequences, plan.num_steps, None)
    else:
        final, (outputs, fields) = jax.lax.scan(body, carry, sequences, length=plan.num_steps)
    after.update(final)
    values.update(outputs)
    trajectories.update({State(name, field): x for name in fields for field, x in fields[name].items()})


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


def _shifted(first: Any, sequence: Any, mask: Array | None) -> Any:
    """A sequence one time step late, in the dtype of the state that comes first."""
    sequence = remember(first, as_sequence(sequence))
    late = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b])[: b.shape[0]], first, sequence)
    if mask is None:
        return late
    # What comes late is the last step that counts; 0 stands for the state that comes first.
    steps = jnp.arange(1, mask.shape[0] + 1)
    last = jnp.concatenate([jnp.zeros(1, steps.dtype), jax.lax.cummax(jnp.where(mask, steps, 0))])[:-1]
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b])[last], first, sequence)


def _last(first: Any, sequence: Any, mask: Array | None) -> Any:
    if isinstance(sequence, Repeat):
        last = remember(first, sequence.value) if sequence.num_steps else first
        return last if mask is None else keep(mask.any(), last, first)
    if mask is not None and mask.shape[0]:
        position = mask.shape[0] - 1 - jnp.argmax(mask[::-1])
        return keep(mask.any(), remember(first, jax.tree.map(lambda x: x[position], sequence)), first)
    return remember(first, jax.tree.map(lambda a, b: b[-1] if b.shape[0] else a, first, sequence))


def _identity(x: Any) -> Any:
    return x
