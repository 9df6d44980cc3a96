"""Layer by layer over the whole sequence: stateless nodes see all time steps at once, only cycles are stepped.

A linear layer or convolution becomes one large matrix product or convolution over time instead of one small one per
step, also inside nested containers and beside feedback loops; what reads only `Repeat` inputs is computed once.
"""

from typing import Any

import equinox as eqx
import jax

from ._contract import AbstractContainer, AbstractFunction, AbstractLayer, call_stateless
from ._sequence import Repeat, as_sequence, as_sequences, input_sequences, step_keys
from ._step import apply, node_outputs, remember
from ._wiring import Previous, Source, State, Wiring, origin


def layerwise(model: AbstractContainer, states: Any, xs: Any, *, key: Any = None) -> tuple[Any, list[Any]]:
    """Run a model layer by layer; equal to `stepwise` in outputs, final states and gradients.

    Arguments and returns as for `stepwise`.
    """
    inputs, num_steps = input_sequences(xs, model.wiring.inputs)
    states, outs = _run(model, states, inputs, step_keys(key, num_steps), num_steps)
    return states, as_sequences(outs)


def _run(model: AbstractContainer, states: Any, values: dict[str, Any], keys: Any, num_steps: int):
    wiring = model.wiring
    nodes = model.named_nodes
    before = model.unpack_states(states)
    after: dict[str, Any] = {}
    trajectories: dict[State, Any] = {}
    index = {name: position for position, (name, _) in enumerate(wiring.sources)}
    sources = dict(wiring.sources)

    def read(source: Source) -> Any:
        if isinstance(source, Previous):
            return _shifted(before[str(source)], read(source.source))
        return trajectories[source] if isinstance(source, State) else values[source]

    def node_keys(name: str) -> Any:
        return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index[name])

    for component in wiring.components:
        name = component[0]
        node = nodes[name]
        # A layer with state is a cycle of one node: it reads its own past.
        if wiring.is_cycle(component) or isinstance(node, AbstractLayer):
            _scan_cycle(wiring, component, nodes, before, after, values, trajectories, read, node_keys, num_steps)
        elif isinstance(node, AbstractContainer):
            args = tuple(map(read, sources[name]))
            if len(node.wiring.inputs) == 1 and len(args) > 1:
                args = (_map_over_time(_identity, args, None, num_steps),)
            inputs = dict(zip(node.wiring.inputs, args, strict=True))
            after[name], outs = _run(node, before[name], inputs, node_keys(name), num_steps)
            values[name] = as_sequences(outs[-1]) if node.wiring.several else outs[-1]
        else:
            values[name] = _map_over_time(node, tuple(map(read, sources[name])), node_keys(name), num_steps)
    for edge in wiring.previous:
        if str(edge) not in after:
            after[str(edge)] = _last(before[str(edge)], read(edge.source))
    return model.pack_states(after), node_outputs(wiring, values, read)


def _scan_cycle(wiring: Wiring, component, nodes, before, after, values, trajectories, read, node_keys, num_steps):
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
        sequences, step_key = inputs
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
            new[name], outputs[name] = apply(nodes[name], carry[name], args, step_key[name])
        for edge in delayed:
            new[str(edge)] = remember(carry[str(edge)], read_step(edge.source))
        fields = {name: {field: getattr(new[name], field) for field in wiring.fields[name]} for name in component}
        return new, (outputs, fields)

    final, (outputs, fields) = jax.lax.scan(body, carry, (tuple(varying.values()), keys), length=num_steps)
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


def _shifted(first: Any, sequence: Any) -> Any:
    """A sequence one time step late, in the dtype of the state that comes first."""
    sequence = remember(first, as_sequence(sequence))
    return jax.tree.map(lambda a, b: jax.numpy.concatenate([a[None], b])[: b.shape[0]], first, sequence)


def _last(first: Any, sequence: Any) -> Any:
    if isinstance(sequence, Repeat):
        return remember(first, sequence.value) if sequence.num_steps else first
    return remember(first, jax.tree.map(lambda a, b: b[-1] if b.shape[0] else a, first, sequence))


def _identity(x: Any) -> Any:
    return x
