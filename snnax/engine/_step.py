"""One time step of a container, and the states before the first."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._nodes import (
    AbstractContainer,
    AbstractFunction,
    AbstractLayer,
    AbstractSequenceLayer,
    add,
    call_stateless,
    container_inputs,
)
from ._sequence import keep
from ._wiring import Previous, Source, State, Wiring


def apply(node: Any, state: Any, args: tuple[Any, ...], key: Any, counts: Any = None) -> tuple[Any, Any]:
    """One time step of any node: `(state, inputs) -> (state, output)`; stateless nodes have the state None.

    Where the time step does not count (`counts` is False), the state stays as it is.
    """
    if isinstance(node, AbstractLayer):
        x = add(args)
        if counts is not None and isinstance(node, AbstractSequenceLayer) and not node.needs_whole_sequence:
            # The layer has to know: statistics of a batch go on with the samples for which the step counts.
            state, outs = node.apply_sequence(
                state, x[None], keys=None if key is None else key[None], mask=counts[None]
            )
            return state, outs[0]
        new, out = node(state, x, key=key)
        return keep(counts, new, state), out
    if isinstance(node, AbstractContainer):
        inputs = container_inputs(node, args)
        states, outs = step(node, state, inputs[0] if len(inputs) == 1 else inputs, key, counts)
        return states, outs[-1]
    return None, call_stateless(node, args, key)


def step(model: AbstractContainer, states: Any, x: Any, key: Any = None, counts: Any = None) -> tuple[Any, list[Any]]:
    """One time step of a container: its states, and the output of every node with the network's last.

    Where the time step does not count (`counts` is False), the states stay as they are.
    """
    wiring = model.wiring
    before = model.unpack_states(states)
    values = dict(zip(wiring.inputs, (x,) if len(wiring.inputs) == 1 else x, strict=True))
    after: dict[str, Any] = {}
    read = reader(values, after, before)
    nodes = model.named_nodes
    for index, (name, sources) in enumerate(wiring.sources):
        node_key = None if key is None else jax.random.fold_in(key, index)
        args = tuple(map(read, sources))
        with jax.named_scope(name):
            after[name], values[name] = apply(nodes[name], before.get(name), args, node_key, counts)
    for edge in wiring.previous:
        late = before[str(edge)]
        after[str(edge)] = keep(counts, remember(late, read(edge.source)), late)
    return model.pack_states(after), node_outputs(wiring, values, read)


def reader(values: dict[str, Any], after: dict[str, Any], before: dict[str, Any]) -> Callable[[Source], Any]:
    """How a source is read within one time step."""

    def read(source: Source) -> Any:
        if isinstance(source, Previous):
            return before[str(source)]
        if isinstance(source, State):
            return getattr(after[source.node], source.field)
        return values[source]

    return read


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
        previous = {str(edge): edge.shape for edge in edges}
    else:
        shapes, _, previous = infer_shapes(model, input_shape)
    states = {}
    for index, (name, node) in enumerate(nodes.items()):
        node_key = None if key is None else jax.random.fold_in(key, index)
        shape = shapes[name]
        try:
            if isinstance(node, AbstractContainer):
                states[name] = init_states(node, node_key, shape)
            elif isinstance(node, AbstractLayer):
                states[name] = node.init_state(_summed_shape(shape), key=node_key)
        except ValueError as error:
            raise ValueError(f"node '{name}': {error}") from error
    for edge, shape in previous.items():
        if shape is None:
            raise ValueError(f"the shape of {edge} is not known: pass input_shape, or snn.Previous(..., shape=...)")
        shape = (
            shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        )
        states[edge] = jnp.zeros(shape.shape, shape.dtype)
    return model.pack_states(states)


def infer_shapes(model: AbstractContainer, input_shape: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
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
            return getattr(states[source.node], source.field) if source.node in states else None
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
    return inputs, {name: values[name] for name in nodes}, {str(edge): read(edge) for edge in wiring.previous}


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

    try:
        return eqx.filter_eval_shape(run, args)
    except (TypeError, ValueError) as error:
        found = ", ".join(str(arg) for arg in args)
        raise ValueError(
            f"node '{name}' ({type(node).__name__}) does not take an input of shape {found}: {error}"
        ) from error


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
