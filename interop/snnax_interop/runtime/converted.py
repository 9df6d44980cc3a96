"""The result of a conversion: a native model with torch's calling convention and torch's parameter names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

from ..errors import WeightMappingError
from ..ir.program import Program
from ..ir.refusal import Refusal
from ..ir.sizes import Size
from ..nodes.batch import BATCH
from ..ops import floats_are
from ..transfer.trees import to_torch
from .execute import Results, length_of, run_sample
from .inputs import batch_axis, check_repeated, checked_inputs, size_along
from .plan import ExecutionPlan, Out
from .report import ConversionReport
from .slots import Frozen, Slot
from .states import States, checked_states


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
    plan: ExecutionPlan = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    @property
    def model(self) -> Any:
        """The native model, with the present parameters; the models of all loops, where there are several."""
        return self._filled(self.plan.models)

    @property
    def report(self) -> ConversionReport:
        """What became of each module."""
        return self.plan.report

    @property
    def passes(self) -> Mapping[str, Program | Refusal]:
        """What each pass of the conversion returned, in order: a program, or why there is none.

        Empty in a network that was pickled: a program refers to functions of the torch network.
        """
        return self.plan.passes

    @property
    def program(self) -> Program:
        """The program that was lowered to the native model; `print(converted.program)` shows it.

        **Raises:** `AttributeError` in a network that was pickled.
        """
        programs = [each for each in self.passes.values() if isinstance(each, Program)]
        if not programs:
            raise AttributeError("a conversion that was pickled has no program. Convert the torch network again")
        return programs[-1]

    def __repr__(self) -> str:
        count = sum(array.size for array in self.parameters.values() if array is not None)
        inputs = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.plan.inputs)
        kind = type(self.plan.models).__name__
        return f"Converted({kind} of {len(self.report)} modules, {count} trainable parameters, inputs: {inputs})"

    def __call__(
        self,
        *inputs: Any,
        key: Array | None = None,
        states: States | None = None,
        engine: Callable | None = None,
        **others: Any,
    ) -> Any:
        """Run the network as torch would.

        **Arguments:**

        - `inputs` as for the torch module, as JAX or NumPy arrays, with any batch size, and any length where time comes
          from the input. Of a network converted with `loop="outside"`, inputs have a leading time axis. In the place of
          an input that is the same at every time step, `snnax.Repeat(x, num_steps)` of one time step, batch included:
          what depends on nothing else is computed once.
        - `key`: for dropout in training, which draws anew for every sample, call and time step.
        - `states`: of neurons by module path, to go on from, as `run`, `final_states` or `hidden_states(module)` give
          them, batch included. Neurons that are left out start from their beginning.
        - `engine`: how the models run over time, such as `snnax.engine.checkpointed`, for long sequences on little
          memory; as for a call of `converted.model`, by default `snnax.engine.layerwise`.
        - `others`: refused. `mask` and `burnin` are arguments of the models, which take one sample.

        **Returns:** the structure that `forward` returns, with arrays in the place of tensors; with `loop="outside"`,
        every array has time as its first axis.

        **Raises:** `ValueError` for another number of inputs, another shape, a missing key, or states that the network
        does not have; `TypeError` for another dtype, or another argument.
        """
        _refuse(others)
        return self._run(inputs, key, states, engine)[0]

    def run(
        self,
        *inputs: Any,
        key: Array | None = None,
        states: States | None = None,
        engine: Callable | None = None,
        **others: Any,
    ) -> tuple[Any, dict[str, dict[str, Array]]]:
        """The outputs, and the states after the last time step to go on from; arguments as for a call.

        A long sequence in pieces, with truncated gradients:

        `outputs, states = converted.run(piece, states=jax.lax.stop_gradient(states))`
        """
        _refuse(others)
        return self._run(inputs, key, states, engine)[:2]

    def call_and_update(
        self, *inputs: Any, key: Array | None = None, engine: Callable | None = None
    ) -> tuple[Any, "Converted"]:
        """Run the network as torch does in training mode: the outputs, and the network with new running statistics.

        Of a network without batch normalisation in training mode, the second is the network itself.
        """
        results = self._results(inputs, key, engine=engine)
        buffers = dict(self.buffers)
        for name, value in results.statistics.items():
            before = buffers[name].value
            grows = jnp.issubdtype(before.dtype, jnp.integer)
            buffers[name] = Frozen((before + value if grows else value).astype(before.dtype).reshape(before.shape))
        updated = Converted(self.parameters, buffers, self.plan, self.dtype)
        return _structured(self.plan.result, results.outputs, self._sizes(inputs)), updated

    def inference_mode(self) -> "Converted":
        """The network as after `module.eval()`: dropout off, batch normalisation by running statistics.

        What was in evaluation mode when it was converted stays so.
        """
        return self._with_plan(self.plan.in_inference_mode())

    def without_dropout(self) -> "Converted":
        """The network with every dropout off, and batch normalisation as it is."""
        return self._with_plan(self.plan.without_dropout())

    def _with_plan(self, plan: ExecutionPlan) -> "Converted":
        return Converted(self.parameters, self.buffers, plan, self.dtype)

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
        length = length_of(self.plan, inputs)
        return tuple(loop.num_steps(length) for loop in self.plan.loops)

    def astype(self, dtype: Any) -> "Converted":
        """The same network in another floating point type.

        **Raises:** `ValueError` for float64 where `jax_enable_x64` is off.
        """
        dtype = np.dtype(dtype)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(f"{dtype} needs jax_enable_x64")
        cast = {key: value.astype(dtype) for key, value in self.parameters.items()}
        return Converted(cast, self.buffers, self.plan, dtype.name)

    def with_model(self, model: Any) -> "Converted":
        """This network with the arrays of `model`, a native model of the same structure trained by itself.

        Parameters and buffers alike are taken over, and return to torch in `state_dict`.

        **Raises:** `WeightMappingError` when the structure is another, when an array that is used twice has two values,
        or when a value changed that torch keeps in no parameter or buffer.
        """
        slots, structure = jax.tree.flatten(self.plan.models)
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
                if slot.key in self.plan.fixed:
                    raise WeightMappingError(
                        "the value changed, and torch holds it in no floating point parameter or buffer; leave it out "
                        "of the optimiser",
                        path=slot.key,
                    )
                stored = self.buffers[slot.key]
                buffers[slot.key] = Frozen(leaf.astype(stored.dtype).reshape(stored.shape))
        return Converted(parameters, buffers, self.plan, self.dtype)

    def with_verification(self, verification: str) -> "Converted":
        """This network with the outcome of a comparison in its report."""
        report = dataclasses.replace(self.report, verification=verification)
        return self._with_plan(dataclasses.replace(self.plan, report=report))

    def _filled(self, skeleton: Any) -> Any:
        def array(leaf):
            if not isinstance(leaf, Slot):
                return leaf
            if leaf.key in self.plan.fixed:
                values = self.plan.float64_constants if self.dtype == "float64" else {}
                value = jnp.asarray(values.get(leaf.key, self.plan.fixed[leaf.key]))
            else:
                value = self.parameters[leaf.key] if leaf.key in self.parameters else self.buffers[leaf.key].value
            if not leaf.exact or jnp.issubdtype(value.dtype, jnp.inexact):
                value = value.astype(self.dtype)
            return value.reshape(leaf.shape)

        return jax.tree.map(array, skeleton)

    def _run(
        self, inputs: tuple[Any, ...], key: Any = None, states: States | None = None, engine: Callable | None = None
    ) -> tuple[Any, dict[str, Any], dict[str, Array]]:
        results = self._results(inputs, key, states, engine)
        return _structured(self.plan.result, results.outputs, self._sizes(inputs)), results.states, results.spikes

    def _sizes(self, inputs: tuple[Any, ...]) -> tuple[int, int]:
        """The batch size and the length of inputs."""
        given = zip(inputs, self.plan.inputs, strict=True)
        sizes = (size_along(x, spec, spec.batch_axis) for x, spec in given if spec.batch_axis is not None)
        batch = next(sizes, 1)
        return batch, length_of(self.plan, inputs)

    def _results(
        self, inputs: tuple[Any, ...], key: Any = None, states: States | None = None, engine: Callable | None = None
    ) -> Results:
        plan = self.plan
        arrays = checked_inputs(inputs, plan.inputs, self.dtype)
        if key is None and plan.draws:
            raise ValueError(
                "the network was converted in training mode and has dropout: pass key=jax.random.key(...), or take "
                "converted.inference_mode()"
            )
        length = length_of(plan, arrays)
        for array, spec in zip(arrays, plan.inputs, strict=True):
            check_repeated(array, spec, [loop.num_steps(length) for loop in plan.loops])
        axes = tuple(map(batch_axis, arrays, plan.inputs))
        batched = {self._sizes(tuple(arrays))[0]} if any(axis is not None for axis in axes) else set()
        run = functools.partial(run_sample, plan, self._filled, self.dtype, length, engine)
        start = {} if states is None else checked_states(states, plan, self.dtype)
        if not batched:
            with floats_are(self.dtype):
                return run(key, start, *arrays)
        neurons = [neuron for loop in plan.loops for neuron in loop.neurons.values()]
        final = {each.name: {field: each.batch_axis for field, _, _ in each.fields} for each in neurons}
        spikes = {each.name: None if each.batch_axis is None else each.batch_axis + 1 for each in neurons}
        [size] = batched
        keys = None if key is None else jax.random.split(key, size)
        start_axes = {name: final[name] for name in start}
        batch = jax.vmap(
            run,
            in_axes=(None if key is None else 0, start_axes, *axes),
            out_axes=Results(list(plan.out_axes), final, spikes, None),
            axis_name=BATCH,
        )
        with floats_are(self.dtype):
            return batch(keys, start, *arrays)


def _refuse(others: dict[str, Any]) -> None:
    """Arguments that a model takes, and a conversion does not."""
    allowed = "allowed: key, states, engine"
    where = {
        "mask": "a mask is for the model, which takes one sample: converted.model(states, xs, mask=mask), under "
        "jax.vmap; or leave the outputs of those steps out of the loss",
        "burnin": "run the first steps by themselves: _, states = converted.run(first), then "
        "converted(rest, states=jax.lax.stop_gradient(states))",
    }
    for name in others:
        do = where.get(name, "inputs are given by their position, in the order of forward")
        raise TypeError(f"a conversion has no argument '{name}'; {allowed}; {do}")


def _structured(structure: Any, outs: list[Any], sizes: tuple[int, int]) -> Any:
    """The structure that forward returns, for a batch size and a length."""
    if isinstance(structure, Out):
        return list(outs[structure.number]) if structure.listed else outs[structure.number]
    if isinstance(structure, Size):
        return structure.at(*sizes)
    return map_structure(lambda item: _structured(item, outs, sizes), structure)


def map_structure(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to the items of a list, tuple, named tuple or dict; anything else stays itself."""
    if isinstance(tree, dict):
        return {key: function(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return type(tree)(*map(function, tree))
    return type(tree)(map(function, tree)) if isinstance(tree, list | tuple) else tree


def checked_conversion(found: Any, function: str) -> Converted:
    """What a function was given as a conversion.

    **Raises:** `TypeError` for a native model, a torch module and anything else, with what to do.
    """
    if isinstance(found, Converted):
        return found
    what = f"a {type(found).__name__}"
    if isinstance(found, torch.nn.Module):
        what = f"the torch module {type(found).__name__}"
        do = "convert it with from_torch(module, example_inputs); its own weights are module.state_dict()"
    elif isinstance(found, eqx.Module | tuple | list):
        do = (
            "the native model of a conversion, trained by itself, goes back with converted.with_model(model). A model "
            "that was not converted has no names in torch: to_torch_module makes a torch module of it, "
            "snnax.serialisation.save a file"
        )
    else:
        do = "pass what from_torch returned"
    raise TypeError(f"{function}: expected a Converted, as from_torch returns it, found {what}; {do}")


def state_dict(converted: Converted) -> dict[str, Any]:
    """The parameters and buffers under the module's own keys, as torch tensors of their own memory and torch's dtypes.

    `module.load_state_dict(state_dict(converted), strict=True)` takes the weights back. Of a gradient of a `Converted`
    (the result of `eqx.filter_grad`), it has the same keys and None where nothing is differentiable.

    **Raises:** `WeightMappingError` when an array has lost the shape that torch knows; `TypeError` for another model.
    """
    plan = checked_conversion(converted, "state_dict").plan
    result: dict[str, Any] = {}
    for key in plan.keys:
        canonical = plan.canonical[key]
        frozen = converted.buffers.get(canonical)
        value = converted.parameters.get(canonical)
        if frozen is not None and frozen.bits is not None:
            value = plan.fixed.get(canonical, frozen.value)
        result[key] = None if value is None else to_torch(value, copy="always").to(plan.dtypes[canonical])
    return result
