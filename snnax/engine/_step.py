"""One time step of a container, and the states before the first."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from ._errors import NodeError, of_node
from ._nodes import (
    AbstractContainer,
    AbstractFunction,
    AbstractLayer,
    AbstractSequenceLayer,
    add,
    call_stateless,
    container_inputs,
)
from ._sequence import Carry, varying_as
from ._wiring import Previous, Source, State, Wiring


def apply(node: Any, state: Any, args: tuple[Any, ...], key: Any) -> tuple[Any, Any]:
    """One time step of any node: `(state, inputs) -> (state, output)`; stateless nodes have the state None."""
    carry, out = advance(node, Carry(state), args, key, None)
    return carry.states, out


def step(model: AbstractContainer, states: Any, x: Any, key: Any = None) -> tuple[Any, list[Any]]:
    """One time step of a container: its states, and the output of every node with the network's last.

    **Raises:** `NodeError` naming the node that does not take its input, and `ValueError` for inputs or states that are
    not those of the container.
    """
    inputs = (x,) if len(model.wiring.inputs) == 1 else x
    carry, outs = advance_container(model, Carry(states), inputs, key, None)
    return carry.states, outs


def advance(node: Any, carry: Carry, args: tuple[Any, ...], key: Any, counts: Any) -> tuple[Carry, Any]:
    """One time step of any node, whose states stay as they are where it does not count (`counts` is False)."""
    if isinstance(node, AbstractLayer):
        x = add(args)
        if counts is not None and isinstance(node, AbstractSequenceLayer) and not node.needs_whole_sequence:
            # The layer has to know: statistics of a batch go on with the samples for which the step counts.
            keys = None if key is None else key[None]
            state, outs = node.apply_sequence(carry.states, x[None], keys=keys, mask=counts[None])
            state = varying_as(state, carry.states)
            return Carry(state, state), outs[0]
        start = carry.start(counts)
        new, out = node(start, x, key=key)
        check_state(node, new, start)
        return carry.after(counts, new), out
    if isinstance(node, AbstractContainer):
        carry, outs = advance_container(node, carry, container_inputs(node, args), key, counts)
        return carry, outs[-1]
    return carry, call_stateless(node, args, key)


def advance_container(
    model: AbstractContainer, carry: Carry, inputs: tuple[Any, ...], key: Any, counts: Any
) -> tuple[Carry, list[Any]]:
    """`advance` for a container, with the outputs of all nodes."""
    wiring = model.wiring
    before = unpacked(model, carry, counts)
    values = dict(zip(wiring.inputs, inputs, strict=True))
    after: dict[Any, Carry] = {}

    def read(source: Source) -> Any:
        if isinstance(source, Previous):
            return before[source.key].start(counts)
        return field_of(after[source.node].states, source) if isinstance(source, State) else values[source]

    nodes = model.named_nodes
    for index, (name, sources) in enumerate(wiring.sources):
        node_key = None if key is None else jax.random.fold_in(key, index)
        with jax.named_scope(name), of_node(name, nodes[name]):
            args = tuple(map(read, sources))
            after[name], values[name] = advance(nodes[name], before.get(name, Carry(None)), args, node_key, counts)
    for edge in wiring.previous:
        late = before[edge.key]
        after[edge.key] = late.after(counts, remember(late.states, read(edge.source)))
    return packed(model, after, counts), node_outputs(wiring, values, read)


def unpacked(model: AbstractContainer, carry: Carry, mask: Any) -> dict[Any, Carry]:
    """The states of a container by node and delayed edge."""
    states = model.unpack_states(carry.states)
    if mask is None:
        return {name: Carry(state) for name, state in states.items()}
    earlier = model.unpack_states(carry.earlier)
    return {name: Carry(state, earlier[name]) for name, state in states.items()}


def packed(model: AbstractContainer, carries: Mapping[Any, Carry], mask: Any) -> Carry:
    """The inverse of `unpacked`."""
    states = model.pack_states({name: carry.states for name, carry in carries.items()})
    if mask is None:
        return Carry(states)
    return Carry(states, model.pack_states({name: carry.earlier for name, carry in carries.items()}))


def field_of(state: Any, source: State) -> Any:
    """A field of the state of a layer.

    **Raises:** `ValueError` for a field that it does not have.
    """
    fields = [field.name for field in dataclasses.fields(state)] if dataclasses.is_dataclass(state) else []
    found = getattr(state, source.field, None)
    if found is None:
        known = [name for name in fields if getattr(state, name) is not None]
        raise ValueError(
            f"'{source}' reads '{source.field}' of the state of '{source.node}', a {type(state).__name__} with {known}"
        )
    return found


def check_state(node: AbstractLayer, new: Any, old: Any) -> None:
    """**Raises:** `ValueError` where a layer returns something else than its state first."""
    shown = lambda tree: eqx.tree_pformat(tree, short_arrays=True)  # noqa: E731
    same = jax.tree.structure(new) == jax.tree.structure(old)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (new, old)]
    if not same or shapes[0] != shapes[1]:
        raise ValueError(
            f"a layer returns (state, output), the state as it was given: found {shown(new)}, expected {shown(old)}"
        )


def remember(before: Any, value: Any) -> Any:
    """A value as the state that the next time step reads; states keep their dtype."""
    return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), before, value)


def node_outputs(wiring: Wiring, values: Mapping[Any, Any], read: Callable[[Source], Any]) -> list[Any]:
    """The output of every node in execution order; the network's own is last."""
    outputs = tuple(map(read, wiring.outputs))
    outs = [values[name] for name, _ in wiring.sources]
    if wiring.several or wiring.outputs != tuple(name for name, _ in wiring.sources[-1:]):
        outs.append(outputs if wiring.several else outputs[0])
    return outs


def init_states(model: AbstractContainer, key: Any, input_shape: Any) -> Any:
    """The states before the first time step; `input_shape` None: from the shapes that the layers were given."""
    nodes = model.named_nodes
    if input_shape is None:
        shapes = dict.fromkeys(nodes)
        # Where one edge is read several times, it is enough to give its shape once.
        edges = sorted(model.wiring.previous, key=lambda edge: edge.shape is not None)
        previous = {edge.key: edge.shape for edge in edges}
    else:
        shapes, _, previous = infer_shapes(model, input_shape)
    states = {}
    for index, (name, node) in enumerate(nodes.items()):
        node_key = None if key is None else jax.random.fold_in(key, index)
        shape = shapes[name]
        with of_node(name, node):
            if isinstance(node, AbstractContainer):
                states[name] = init_states(node, node_key, shape)
            elif isinstance(node, AbstractLayer):
                states[name] = _first_state(node, node_key, shape)
    for edge, shape in previous.items():
        if shape is None:
            raise ValueError(f"the shape of {edge} is not known: pass input_shape, or snn.Previous(..., shape=...)")
        shape = (
            shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        )
        states[edge] = jnp.zeros(shape.shape, shape.dtype)
    return model.pack_states(states)


def _first_state(layer: AbstractLayer, key: Any, shape: Any) -> Any:
    try:
        state = layer.init_state(_summed_shape(shape), key=key)
    except TypeError as error:
        if shape is not None:
            raise
        raise ValueError(f"init_state(None) failed, pass input_shape to init_states: {error}") from error
    # States own their memory: donated, they take nothing of the model with them.
    return jax.tree.map(lambda x: x if isinstance(x, Tracer) else jnp.array(x), state)


def infer_shapes(model: AbstractContainer, input_shape: Any) -> tuple[dict[str, Any], dict[str, Any], dict[Any, Any]]:
    """Shapes by abstract evaluation: of the inputs and of the output of every node, and of the delayed sources.

    A node that reads a delayed source whose shape is not known yet is evaluated on what is known, if that is summed.
    """
    wiring = model.wiring
    nodes = model.named_nodes
    values = dict(zip(wiring.inputs, _input_structs(input_shape, len(wiring.inputs)), strict=True))
    inputs: dict[str, Any] = {}
    states: dict[str, Any] = {}

    def read(source: Source) -> Any:
        if isinstance(source, Previous):
            if source.shape is not None:
                return jax.ShapeDtypeStruct(source.shape, jnp.result_type(float))
            source = source.source
        if isinstance(source, State):
            return field_of(states[source.node], source) if source.node in states else None
        return values.get(source)

    waiting = [name for name, _ in wiring.sources]
    sources = dict(wiring.sources)
    while waiting:
        found = []
        for name in waiting:
            node = nodes[name]
            args = tuple(map(read, sources[name]))
            known = tuple(arg for arg in args if arg is not None)
            if len(known) == len(args) or (known and _is_summed(node)):
                states[name], values[name] = _evaluate(name, node, known)
                inputs[name] = known
                if isinstance(node, AbstractContainer):
                    inputs[name] = jax.eval_shape(functools.partial(container_inputs, node), known)
                found.append(name)
        if not found:
            raise ValueError(
                f"the input shapes of the nodes {waiting} cannot be inferred: give snn.Previous(..., shape=...)"
            )
        waiting = [name for name in waiting if name not in found]
    return inputs, {name: values[name] for name in nodes}, {edge.key: read(edge) for edge in wiring.previous}


def _is_summed(node: Any) -> bool:
    """Whether a node gets the sum of its sources, so that one of them tells its input shape."""
    if isinstance(node, AbstractContainer):
        return len(node.wiring.inputs) == 1
    return not isinstance(node, AbstractFunction)


def _evaluate(name: str, node: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    # Statistics of a batch or of a whole sequence cannot be had here; they do not change shapes.
    node = eqx.nn.inference_mode(node)

    def run(args):
        key = jax.random.key(0)  # dropout and random initial states need one
        if isinstance(node, AbstractLayer):
            return apply(node, node.init_state(_summed_shape(args), key=key), args, key)
        if isinstance(node, AbstractContainer):
            inputs = container_inputs(node, args)
            shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs)
            return apply(node, init_states(node, key, shapes), inputs, key)
        return apply(node, None, args, key)

    with of_node(name, node):
        try:
            return eqx.filter_eval_shape(run, args)
        except NodeError:
            raise
        except (TypeError, ValueError) as error:
            found = ", ".join(str(arg) for arg in args)
            raise ValueError(f"does not take an input of shape {found}: {error}") from error


def _summed_shape(args: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    return None if args is None else jnp.broadcast_shapes(*(arg.shape for arg in args))


def _input_structs(input_shape: Any, count: int) -> tuple[Any, ...]:
    def struct(shape):
        return shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(shape, jnp.result_type(float))

    several = isinstance(input_shape, tuple | list) and all(
        isinstance(shape, tuple | list | jax.ShapeDtypeStruct) for shape in input_shape
    )
    shapes = tuple(input_shape) if several and input_shape else (input_shape,)
    if len(shapes) != count:
        raise ValueError(f"input_shape must give {count} shape(s), found {input_shape}")
    return tuple(struct(shape) for shape in shapes)
