"""Running a converted network on one sample: its loops one after the other."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from snnax import Repeat

from ..nodes.wrappers import with_field
from .inputs import Constant, of_sample, size_along, whole
from .plan import (
    Emitted,
    ExecutionPlan,
    FinalState,
    Fixed,
    Given,
    InputLength,
    Key,
    Made,
    PlannedLoop,
    Schedule,
    Statistics,
    Steps,
    StraightLine,
    Window,
)


class Results(NamedTuple):
    """What a run gives: all outputs, final states and output sequences of all neurons by name, running statistics."""

    outputs: list[Any]
    states: dict[str, Any]
    spikes: dict[str, Any]
    statistics: Any


def length_of(plan: ExecutionPlan, inputs: Sequence[Any]) -> int:
    """The size of the inputs' time axis; 0 where the network runs as long as it always does."""
    if plan.length is None:
        return 0
    number, axis = plan.length
    return size_along(inputs[number], plan.inputs[number], axis)


def run_sample(
    plan: ExecutionPlan,
    fill: Callable[[Any], Any],
    dtype: str,
    length: int,
    engine: Callable | None,
    key: Any,
    start: Mapping[str, Mapping[str, Array]],
    *inputs: Any,
) -> Results:
    """Run all loops on one sample. `fill` puts arrays into a graph, `start` has states of neurons to begin with."""
    options = {} if engine is None else {"engine": engine}
    values: dict[Key, Any] = {InputLength(): length}
    values |= {
        Given(number): of_sample(x, spec) for number, (x, spec) in enumerate(zip(inputs, plan.inputs, strict=True))
    }
    final: dict[str, Any] = {}
    spikes: dict[str, list[Array]] = {}
    statistics: dict[str, Array] = {}
    keys = itertools.repeat(None) if key is None else iter(jax.random.split(key, 2 * len(plan.loops) + 1))
    for number, loop in enumerate(plan.loops):
        outs = _evaluate(fill, loop.before, values, next(keys), statistics)
        values |= {Made(number, item): out for item, out in enumerate(outs)}
        model = fill(loop.model)
        num_steps = loop.num_steps(length)
        xs = tuple(_model_input(dtype, key, values, num_steps) for key in loop.inputs)
        xs = xs[0] if len(xs) == 1 else xs
        states = _initial_states(model, xs, jnp.dtype(dtype))
        started = _started(model.unpack_states(states), loop, values)
        for neuron in loop.neurons.values():
            # Later loops go on from this one.
            for field, own, where in neuron.fields if neuron.name in start and neuron.name not in final else ():
                assert own is not None
                value = start[neuron.name][field].astype(getattr(started[where], own).dtype)
                started[where] = with_field(started[where], own, value)
        states = model.pack_states(started)
        states, outs = model(states, xs, next(keys), **options)
        recorded = outs[-1] if loop.several_recorded else (outs[-1],)
        values |= {Emitted(number, item): out for item, out in enumerate(recorded)}
        after = model.unpack_states(states)
        statistics |= _counted(loop.statistics, after)
        values |= {
            FinalState(number, where, own): getattr(after[where], own)
            for neuron in loop.neurons.values()
            for _, own, where in neuron.fields
            if own is not None
        }
        sequences = dict(zip((name for name, _ in model.wiring.sources), outs, strict=False))
        calls: dict[str, list[Array]] = {}
        for node, neuron in loop.neurons.items():
            calls.setdefault(neuron.name, []).append(sequences[node])
            final[neuron.name] = {
                field: sequences[where][-1] if own is None else getattr(after[where], own)
                for field, own, where in neuron.fields
            }
        for name, parts in calls.items():
            spikes.setdefault(name, []).append(interleaved(parts))
    outs = _evaluate(fill, plan.after, values, next(keys), statistics)
    joined = {name: parts[0] if len(parts) == 1 else jnp.concatenate(parts) for name, parts in spikes.items()}
    return Results(outs, final, joined, statistics)


def _initial_states(model: Any, xs: Any, dtype: Any) -> Any:
    """The states of a model whose layers mostly know their shapes; inference takes a trace of each of them."""
    try:
        return model.init_states(dtype=dtype)
    except ValueError:
        return model.init_states(input_shape=_step_structs(xs), dtype=dtype)


def interleaved(parts: Sequence[Array]) -> Array:
    """Sequences of several values per time step as one sequence."""
    return parts[0] if len(parts) == 1 else jnp.stack(parts, 1).reshape(-1, *parts[0].shape[1:])


def _evaluate(
    fill: Callable[[Any], Any], line: StraightLine, values: Mapping[Key, Any], key: Any, statistics: dict[str, Array]
) -> list[Any]:
    """The outputs of a graph that is evaluated once."""
    if line.graph is None:
        return []
    graph = fill(line.graph)
    inputs = [whole(values[each]) for each in line.inputs]
    # Only batch normalisations have a state here, which depends on no shape.
    states = {each.node: graph.named_nodes[each.node].init_state() for each in line.statistics}
    states, outs = graph.step(states, inputs[0] if len(inputs) == 1 else tuple(inputs), key=key)
    statistics |= _counted(line.statistics, graph.unpack_states(states))
    return list(outs[-1])


def _counted(counted: Sequence[Statistics], states: Mapping[Any, Any]) -> dict[str, Array]:
    """The running statistics in states, by the keys of their buffers; for the count, how much it has grown."""
    found = {}
    for each in counted:
        state = states[each.node]
        found |= {each.mean: state.mean, each.var: state.var, each.count: state.step}
    return found


def _started(states: Mapping[Any, Any], loop: PlannedLoop, values: Mapping[Key, Any]) -> dict[Any, Any]:
    """The states before the first time step, with those that do not start by themselves."""
    states, names = dict(states), {str(name): name for name in states}
    for node, field, key in loop.initial:
        name = names[node]
        given = key.number if isinstance(key, Fixed) else whole(values[key])
        before = states[name] if field is None else getattr(states[name], field)
        value = jnp.broadcast_to(jnp.asarray(given, before.dtype), before.shape)
        states[name] = value if field is None else with_field(states[name], field, value)
    return states


def _model_input(dtype: str, key: Key, values: Mapping[Key, Any], num_steps: int) -> Any:
    if isinstance(key, Schedule):
        numbers = key.formula(num_steps)
        return jnp.asarray(numbers, dtype if numbers.dtype.kind == "f" else None)
    if isinstance(key, Steps):
        return _windows(values[key.sequence], key.window, num_steps)
    return Repeat(whole(values[key]), num_steps)


def _windows(sequence: Array | Constant, window: Window, num_steps: int) -> Array | Repeat:
    """The parts of a sequence that the time steps read, `(time, ...)`."""
    constant = sequence if isinstance(sequence, Constant) and sequence.axis == window.axis else None
    constant = constant if window.width is None else None
    size = whole(sequence).shape[window.axis] if constant is None else constant.num_steps
    start = window.start + size if window.start < 0 else window.start
    ends = (start, start + window.stride * (num_steps - 1))
    if num_steps and (min(ends) < 0 or max(ends) + (window.width or 1) > size):
        raise ValueError(f"the network runs {num_steps} time steps, but its input has {size} along time")
    if constant is not None:
        return Repeat(constant.value, num_steps)
    moved = jnp.moveaxis(whole(sequence), window.axis, 0)
    if window.width is not None:
        places = start + window.stride * np.arange(num_steps)[:, None] + np.arange(window.width)
        return jnp.moveaxis(moved[places], 1, 1 + window.axis)
    if window.stride < 0:
        return jnp.flip(moved[ends[1] : start + 1 : -window.stride], 0)
    return moved[start : ends[1] + 1 : window.stride]


def _step_structs(xs: Any) -> Any:
    def struct(x):
        if isinstance(x, Repeat):
            return jax.ShapeDtypeStruct(jnp.shape(x.value), jnp.result_type(x.value))
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)

    return tuple(map(struct, xs)) if isinstance(xs, tuple) else struct(xs)
