"""The result of a conversion: a native model with torch's calling convention and torch's parameter names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from snnax import Repeat, snn

from .errors import WeightMappingError
from .progressions import Length
from .report import ConversionReport
from .rolling import Window
from .transfer import to_torch
from .weights import Frozen, Slot


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What an input must look like, batch included. `time_axis` is the axis that may have another length."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None
    time_axis: int | None


@dataclasses.dataclass(frozen=True)
class Neuron:
    """A neuron of a stage: its name among the calls of a step, the module's path, its state, its batch axis.

    `fields` says where each field of its state is: as a state of the node, or None and the output of another node.
    """

    name: str
    path: str
    fields: tuple[tuple[str, str | None, str], ...]
    batch_axis: int | None


@dataclasses.dataclass(frozen=True)
class Out:
    """In the structure of the outputs: output number `number`, as a list over time where `listed`."""

    number: int
    listed: bool = False


# Where an input of a graph, or the beginning of a state, comes from: ("static", number) is an input of the network,
# ("made", k, number) an output of the graph before stage k, ("recorded", k, number) a sequence that stage k made,
# ("final", k, node, field) a state after it, ("sliced", key, Window) a time step of a sequence, ("schedule", formula) a
# number at each step, ("number", value) a number, ("num_steps",) the length of the inputs.
Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """Calls that are no time steps: a graph without state."""

    graph: snn.Graph | None
    inputs: tuple[Key, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """So many time steps of a model, and what is computed before them.

    `initial` holds `(node, field, key)` for states that do not start by themselves; a delayed edge has no field.
    """

    before: Plain
    model: Any
    inputs: tuple[Key, ...]
    initial: tuple[tuple[str, str | None, Key], ...]
    num_steps: Length
    several_recorded: bool
    neurons: Mapping[str, Neuron]


@dataclasses.dataclass(frozen=True, eq=False)
class Blueprint:
    """All of a converted network but its arrays, whose places are held by `Slot`s. Compared by identity.

    `length` is the input and its axis that say how long the network runs; None where it runs as long as it always does.
    `fixed` holds values that are no array of the network, `wide` those that float64 knows more exactly.
    """

    stages: tuple[Stage, ...]
    after: Plain
    inputs: tuple[InputSpec, ...]
    result: Any
    out_axes: tuple[int | None, ...]
    length: tuple[int, int] | None
    keys: tuple[str, ...]
    canonical: Mapping[str, str]
    dtypes: Mapping[str, torch.dtype]
    fixed: Mapping[str, np.ndarray]
    wide: Mapping[str, np.ndarray]
    outside: bool
    report: ConversionReport

    @property
    def models(self) -> Any:
        """The model of the only stage, or the models of all stages."""
        models = tuple(stage.model for stage in self.stages)
        return models[0] if len(models) == 1 else models


class Converted(eqx.Module):
    """A torch network as native snnax, called as torch calls it.

    - `converted(*inputs)` takes and returns arrays in the torch layout, batch included.
    - `converted.model` is the network itself, an ordinary `snn.Sequential` or `snn.Graph` for one sample; of a network
      with several loops over time, the tuple of their models.
    - `converted.report` says how each module was converted.

    It is an Equinox module whose differentiable leaves are exactly the parameters that torch trains, by their torch
    names in `parameters`; buffers and frozen parameters take no part in gradients and optimiser updates.
    """

    parameters: dict[str, Array]
    buffers: dict[str, Frozen]
    blueprint: Blueprint = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    @property
    def model(self) -> Any:
        """The native model, with the present parameters; the models of all loops, where there are several."""
        return self._filled(self.blueprint.models)

    @property
    def report(self) -> ConversionReport:
        """What became of each module."""
        return self.blueprint.report

    def __repr__(self) -> str:
        count = sum(array.size for array in self.parameters.values() if array is not None)
        inputs = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.blueprint.inputs)
        kind = type(self.blueprint.models).__name__
        return f"Converted({kind} of {len(self.report)} modules, {count} trainable parameters, inputs: {inputs})"

    def __call__(self, *inputs: Any) -> Any:
        """Run the network as torch would.

        **Arguments:** `inputs` as for the torch module, as JAX or NumPy arrays, with any batch size, and any length
        where time comes from the input. Of a network converted with `loop="outside"`, inputs have a leading time axis.

        **Returns:** the structure that `forward` returns, with arrays in the place of tensors; with `loop="outside"`,
        every array has time as its first axis. States start from their beginning.

        **Raises:** `ValueError` for another number of inputs or another shape, `TypeError` for another dtype.
        """
        return self._run(inputs)[0]

    def final_states(self, *inputs: Any) -> dict[str, Any]:
        """The states of all neurons after the run, by module path, batch included.

        A module that is stepped twice in a time step has a second state under its path with `_2`.
        """
        return self._run(inputs)[1]

    def spikes(self, *inputs: Any) -> dict[str, Array]:
        """The output sequences of all neurons `(time, ...)`, by module path, batch included."""
        return self._run(inputs)[2]

    def num_steps(self, *inputs: Any) -> tuple[int, ...]:
        """How many time steps each model runs on these inputs."""
        length = _length(self.blueprint, inputs)
        return tuple(stage.num_steps(length) for stage in self.blueprint.stages)

    def astype(self, dtype: Any) -> "Converted":
        """The same network in another floating point type.

        **Raises:** `ValueError` for float64 where `jax_enable_x64` is off.
        """
        dtype = np.dtype(dtype)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(f"{dtype} needs jax_enable_x64")
        cast = {key: value.astype(dtype) for key, value in self.parameters.items()}
        return Converted(cast, self.buffers, self.blueprint, dtype.name)

    def with_model(self, model: Any) -> "Converted":
        """This network with the arrays of `model`, a native model of the same structure trained by itself.

        Parameters and buffers alike are taken over, and return to torch in `state_dict`.

        **Raises:** `WeightMappingError` when the structure is another, when an array that is used twice has two values,
        or when a value changed that torch keeps in no parameter or buffer.
        """
        slots, structure = jax.tree.flatten(self.blueprint.models)
        leaves, found = jax.tree.flatten(model)
        if structure != found:
            raise WeightMappingError(
                "the model has another structure than the converted one; expected its own, retrained"
            )
        parameters, buffers = dict(self.parameters), dict(self.buffers)
        taken: dict[str, Array] = {}
        for slot, leaf, present in zip(slots, leaves, jax.tree.leaves(self.model), strict=True):
            if not isinstance(slot, Slot):
                continue
            if leaf.shape != slot.shape:
                raise WeightMappingError(f"expected shape {slot.shape}, found {leaf.shape}", path=slot.key)
            if slot.key in taken and not bool((taken[slot.key].ravel() == leaf.ravel()).all()):
                raise WeightMappingError("the array is used twice, and has two values now; expected one", path=slot.key)
            taken[slot.key] = leaf
            if slot.key in parameters:
                parameters[slot.key] = leaf.reshape(parameters[slot.key].shape)
            elif not bool((leaf == present).all()):
                if slot.key in self.blueprint.fixed:
                    raise WeightMappingError(
                        "the value changed, and torch holds it in no floating point parameter or buffer; leave it out "
                        "of the optimiser",
                        path=slot.key,
                    )
                stored = self.buffers[slot.key]
                buffers[slot.key] = Frozen(leaf.astype(stored.dtype).reshape(stored.shape))
        return Converted(parameters, buffers, self.blueprint, self.dtype)

    def with_verification(self, verification: str) -> "Converted":
        """This network with the outcome of a comparison in its report."""
        report = dataclasses.replace(self.report, verification=verification)
        blueprint = dataclasses.replace(self.blueprint, report=report)
        return Converted(self.parameters, self.buffers, blueprint, self.dtype)

    def _filled(self, skeleton: Any) -> Any:
        def array(leaf):
            if not isinstance(leaf, Slot):
                return leaf
            if leaf.key in self.blueprint.fixed:
                values = self.blueprint.wide if self.dtype == "float64" else {}
                value = jnp.asarray(values.get(leaf.key, self.blueprint.fixed[leaf.key]))
            else:
                value = self.parameters[leaf.key] if leaf.key in self.parameters else self.buffers[leaf.key].value
            if not leaf.exact or jnp.issubdtype(value.dtype, jnp.inexact):
                value = value.astype(self.dtype)
            return value.reshape(leaf.shape)

        return jax.tree.map(array, skeleton)

    def _run(self, inputs: tuple[Any, ...]) -> tuple[Any, dict[str, Any], dict[str, Array]]:
        blueprint = self.blueprint
        arrays = _checked(inputs, blueprint.inputs, self.dtype)
        run = functools.partial(_run_sample, self, _length(blueprint, arrays))
        axes = tuple(spec.batch_axis for spec in blueprint.inputs)
        if any(axis is not None for axis in axes):
            neurons = [neuron for stage in blueprint.stages for neuron in stage.neurons.values()]
            states = {each.name: {field: each.batch_axis for field, _, _ in each.fields} for each in neurons}
            spikes = {each.name: None if each.batch_axis is None else each.batch_axis + 1 for each in neurons}
            run = jax.vmap(run, in_axes=axes, out_axes=(list(blueprint.out_axes), states, spikes))
        outs, states, spikes = run(*arrays)
        return _structured(blueprint.result, outs), states, spikes


def _checked(inputs: tuple[Any, ...], specs: tuple[InputSpec, ...], dtype: str) -> list[Array]:
    if len(inputs) != len(specs):
        raise ValueError(f"expected {len(specs)} inputs {[spec.name for spec in specs]}, found {len(inputs)}")
    arrays = []
    sizes: dict[str, int] = {}
    for value, spec in zip(inputs, specs, strict=True):
        if isinstance(value, torch.Tensor):
            raise TypeError(f"input '{spec.name}' is a torch tensor; convert it with snnax_interop.to_jax")
        if not isinstance(value, jax.Array | np.ndarray):
            raise TypeError(f"input '{spec.name}' must be a JAX or NumPy array, found {type(value).__name__}")
        free = {spec.batch_axis: "batch", spec.time_axis: "time"}
        expected = tuple(free.get(axis, size) for axis, size in enumerate(spec.shape))
        fits = len(value.shape) == len(expected) and all(
            isinstance(size, str) or size == found for size, found in zip(expected, value.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"input '{spec.name}' must have shape ({', '.join(map(str, expected))}), found {value.shape}"
            )
        for size, found in zip(expected, value.shape, strict=True):
            if isinstance(size, str) and sizes.setdefault(size, found) != found:
                raise ValueError(f"input '{spec.name}' has {found} along {size}, other inputs have {sizes[size]}")
        # Floats follow the network; torch's int64 is int32 in JAX (to_jax checks the range).
        kind = dtype if jnp.issubdtype(jnp.dtype(spec.dtype), jnp.floating) else spec.dtype
        wanted = jax.dtypes.canonicalize_dtype(jnp.dtype(kind))
        if value.dtype != wanted:
            raise TypeError(f"input '{spec.name}' must have dtype {wanted}, found {value.dtype}; cast it")
        arrays.append(jnp.asarray(value))
    return arrays


def _length(blueprint: Blueprint, inputs: Sequence[Any]) -> int:
    """The size of the inputs' time axis; 0 where the network runs as long as it always does."""
    return 0 if blueprint.length is None else inputs[blueprint.length[0]].shape[blueprint.length[1]]


def _run_sample(converted: Converted, length: int, *inputs: Array) -> tuple[list[Any], dict, dict]:
    """All outputs, and the final states and outputs of all neurons, for one sample."""
    blueprint = converted.blueprint
    values: dict[Key, Any] = {("static", number): x for number, x in enumerate(inputs)} | {("num_steps",): length}
    final: dict[str, Any] = {}
    spikes: dict[str, list[Array]] = {}
    for number, stage in enumerate(blueprint.stages):
        outs = _evaluate(converted, stage.before, values)
        values |= {("made", number, item): out for item, out in enumerate(outs)}
        model = converted._filled(stage.model)
        num_steps = stage.num_steps(length)
        xs = tuple(_model_input(converted, key, values, num_steps) for key in stage.inputs)
        # A model that reads nothing still has a length.
        xs = xs[0] if len(xs) == 1 else xs
        states = model.init_states(input_shape=_step_structs(xs), dtype=jnp.dtype(converted.dtype))
        states = model.pack_states(_started(model.unpack_states(states), stage, values))
        states, outs = model(states, xs)
        recorded = outs[-1] if stage.several_recorded else (outs[-1],)
        values |= {("recorded", number, item): out for item, out in enumerate(recorded)}
        after = model.unpack_states(states)
        values |= {
            ("final", number, node, field): value
            for node, state in after.items()
            if dataclasses.is_dataclass(state)
            for field, value in vars(state).items()
        }
        sequences = dict(zip((name for name, _ in model.wiring.sources), outs, strict=False))
        calls: dict[str, list[Array]] = {}
        for node, neuron in stage.neurons.items():
            calls.setdefault(neuron.name, []).append(sequences[node])
            final[neuron.name] = {
                field: sequences[where][-1] if own is None else getattr(after[where], own)
                for field, own, where in neuron.fields
            }
        for name, parts in calls.items():
            spikes.setdefault(name, []).append(interleaved(parts))
    results = _evaluate(converted, blueprint.after, values)
    return (
        results,
        final,
        {name: parts[0] if len(parts) == 1 else jnp.concatenate(parts) for name, parts in spikes.items()},
    )


def interleaved(parts: Sequence[Array]) -> Array:
    """Sequences of several values per time step as one sequence."""
    return parts[0] if len(parts) == 1 else jnp.stack(parts, 1).reshape(-1, *parts[0].shape[1:])


def _evaluate(converted: Converted, plain: Plain, values: Mapping[Key, Any]) -> list[Any]:
    """The outputs of a graph without state."""
    if plain.graph is None:
        return []
    inputs = [values[key] for key in plain.inputs]
    _, outs = converted._filled(plain.graph).step({}, inputs[0] if len(inputs) == 1 else tuple(inputs))
    return list(outs[-1])


def _started(states: dict[str, Any], stage: Stage, values: Mapping[Key, Any]) -> dict[str, Any]:
    """The states before the first time step, with those that do not start by themselves."""
    states = dict(states)
    for node, field, key in stage.initial:
        given = key[1] if key[0] == "number" else values[key]
        before = states[node] if field is None else getattr(states[node], field)
        value = jnp.broadcast_to(jnp.asarray(given, before.dtype), before.shape)
        states[node] = value if field is None else dataclasses.replace(states[node], **{field: value})
    return states


def _model_input(converted: Converted, key: Key, values: Mapping[Key, Any], num_steps: int) -> Any:
    if key[0] == "schedule":
        numbers = key[1](num_steps)
        return jnp.asarray(numbers, converted.dtype if numbers.dtype.kind == "f" else None)
    if key[0] == "sliced":
        return _windows(values[key[1]], key[2], num_steps)
    return Repeat(values[key], num_steps)


def _windows(sequence: Array, window: Window, num_steps: int) -> Array:
    """The parts of a sequence that the time steps read, `(time, ...)`."""
    size = sequence.shape[window.axis]
    start = window.start + size if window.start < 0 else window.start
    ends = (start, start + window.stride * (num_steps - 1))
    if num_steps and (min(ends) < 0 or max(ends) + (window.width or 1) > size):
        raise ValueError(f"the network runs {num_steps} time steps, but its input has {size} along time")
    moved = jnp.moveaxis(sequence, window.axis, 0)
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


def _structured(template: Any, outs: list[Any]) -> Any:
    if isinstance(template, Out):
        return list(outs[template.number]) if template.listed else outs[template.number]
    return map_structure(lambda item: _structured(item, outs), template)


def map_structure(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to the items of a list, tuple, named tuple or dict; anything else stays itself."""
    if isinstance(tree, dict):
        return {key: function(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return type(tree)(*map(function, tree))
    return type(tree)(map(function, tree)) if isinstance(tree, list | tuple) else tree


def state_dict(converted: Converted) -> dict[str, Any]:
    """The parameters and buffers under the module's own keys, as torch tensors of their own memory and torch's dtypes.

    `module.load_state_dict(state_dict(converted), strict=True)` takes the weights back. Of a gradient of a `Converted`
    (the result of `eqx.filter_grad`), it has the same keys and None where nothing is differentiable.

    **Raises:** `WeightMappingError` when an array has lost the shape that torch knows.
    """
    blueprint = converted.blueprint
    result: dict[str, Any] = {}
    for key in blueprint.keys:
        canonical = blueprint.canonical[key]
        frozen = converted.buffers.get(canonical)
        value = converted.parameters.get(canonical)
        if frozen is not None and frozen.bits is not None:
            value = blueprint.fixed.get(canonical, frozen.value)
        result[key] = None if value is None else to_torch(value, copy="always").to(blueprint.dtypes[canonical])
    return result
