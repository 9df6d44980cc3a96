"""Proof that a converted network computes what the torch module computes: both run in float64, every value compared."""

import concurrent.futures
import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..converters.neuron import NeuronConverter
from ..errors import EquivalenceError
from ..frameworks import registry_for
from ..runtime.converted import Converted
from ..trace.autograd_functions import makes_spikes
from ..trace.caller_loop import over_time
from ..trace.isolation import preserved
from ..trace.tape import Entry, Ref, Tape
from ..trace.unwrap import eager
from .float64 import backward_float_is_double, float_is_double, record_double
from .report import Comparison, EquivalenceReport
from .sides import checked_sides


# In float64 both sides differ by the order of sums only; a wrong equation is off by far more than either bound.
VALUE_TOLERANCE = 1e-10
GRADIENT_TOLERANCE = 1e-8
_NO_GRADIENT = 1e-6  # of the largest gradient: smaller ones are compared as if they were of this size


def check_equivalence(
    module: torch.nn.Module,
    converted: Converted,
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    gradients: bool = True,
) -> EquivalenceReport:
    """Compare a torch module and its conversion on `inputs`, in float64.

    Compared are the spikes of every neuron at every time step (exactly), the outputs and final states, and, with
    `gradients`, the gradients of a linear function of the outputs with respect to all parameters and inputs.
    The module itself is not changed; states start from their beginning on both sides, and dropout is off on both.

    **Arguments:** `inputs`: torch tensors as for `converted` (for `loop="outside"`, with a leading time axis).

    **Returns:** a report. It is not `ok` when no neuron spikes or all gradients are zero: such a run shows nothing, and
    there is a warning.

    **Raises:** `TypeError` for arguments of the other side, or in another order; `WeightMappingError` for a module with
    other parameters than the one that was converted, `EquivalenceError` for one that calls its neurons less often; what
    either side raises on these inputs.
    """
    report = compare(module, converted, checked_sides(module, converted, inputs), gradients)
    if report.vacuous:
        warnings.warn(f"check_equivalence shows nothing: {report.vacuous}", UserWarning, stacklevel=2)
    return report


def compare(
    module: torch.nn.Module, converted: Converted, inputs: tuple[torch.Tensor, ...], gradients: bool
) -> EquivalenceReport:
    """The comparison itself."""
    converted = converted.without_dropout()  # each side draws other numbers
    with jax.enable_x64(True):
        arrays = tuple(jnp.asarray(x.detach().double() if x.is_floating_point() else x) for x in inputs)
        given = (converted.astype("float64"), arrays)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            # XLA leaves Python alone for as long as it compiles.
            program: Any = eqx.filter_jit(_results_and_gradients if gradients else _results)
            compiled = pool.submit(program.lower(given).compile)
            double, tape = record_double(
                module, inputs, caller_loop=converted.plan.caller_loop, inputs_require_grad=gradients
            )
            alone = _alone(module, double, inputs, tape, converted)
        (outputs, states, spikes), weights, found = compiled.result()(given)
        calls = _neuron_calls(tape, converted, arrays)
        comparisons = _compare_spikes(calls, tape, spikes)
        of_outputs = _compare_trees("output", structure_leaves(tape.result), structure_leaves(outputs), tape)
        comparisons += [*of_outputs, *_compare_states(calls, tape, states)]
        zero = False
        if gradients and not any(each.detail for each in of_outputs):  # outputs of other shapes have other weights
            compared, zero = _compare_gradients(converted, double, tape, weights, *found)
            comparisons += compared
    counted = _count_spikes(calls, tape)
    silent = tuple(path for path, count in counted.items() if count == 0)
    vacuous = ""
    if counted and not any(counted.values()):
        vacuous = "no neuron spikes on these inputs; use inputs or weights that make the network spike"
    elif zero:
        vacuous = "all gradients are zero on these inputs"
    return EquivalenceReport(tuple(comparisons), sum(counted.values()), silent, vacuous, alone)


def _alone(
    module: torch.nn.Module, double: torch.nn.Module, inputs: Sequence[torch.Tensor], tape: Tape, converted: Converted
) -> str:
    """What a module does otherwise with the first sample alone than with all of them, on `tape`; "" where nothing.

    Samples that depend on each other are not compared.
    """
    plan = converted.plan
    first: list[torch.Tensor] = []
    for x, spec in zip(inputs, plan.inputs, strict=True):
        if spec.batch_axis is None or x.shape[spec.batch_axis] == 1 or plan.mixes_samples:
            return ""
        sample = x.detach().narrow(spec.batch_axis, 0, 1).clone()
        first.append(sample.double() if sample.is_floating_point() else sample)
    registry = registry_for(double)
    call = over_time(double, len(first)) if plan.caller_loop else double
    try:
        with (
            preserved(module),
            preserved(double),
            registry.listed(double),
            eager(),
            float_is_double(),
            torch.no_grad(),
        ):
            registry.reset_states(double)
            result = call(*first)
    except Exception as error:  # whatever user code raises on a batch size that it was not written for
        return f"raises {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    for (name, ref), (_, found) in zip(structure_leaves(tape.result), structure_leaves(result), strict=False):
        if isinstance(ref, Ref) and isinstance(found, torch.Tensor):
            several = tape.tensors[ref.index].detach()
            sizes = zip(several.shape, found.shape, strict=False)
            changed = [axis for axis, (size, size_alone) in enumerate(sizes) if size != size_alone]
            expected = several.narrow(changed[0], 0, 1) if len(changed) == 1 else several
            where = f"outputs{name.removeprefix('outputs')}"
            if expected.shape != found.shape:
                return f"returns {where} of shape {tuple(found.shape)}, and {tuple(several.shape)} for several"
            if not _compare("output", name, _numpy(expected), _numpy(found), VALUE_TOLERANCE).ok:
                return f"returns {where} of other values"
    return ""


def structure_leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """The leaves of lists, tuples and dicts in order, with their paths; dicts by their keys, as JAX orders them."""
    if isinstance(tree, dict):
        keys = sorted(tree, key=str)
        return [leaf for key in keys for leaf in structure_leaves(tree[key], f"{path}[{key!r}]")]
    if isinstance(tree, list | tuple):
        return [leaf for index, item in enumerate(tree) for leaf in structure_leaves(item, f"{path}[{index}]")]
    return [(path or "outputs", tree)]


def _neuron_calls(tape: Tape, converted: Converted, arrays: tuple) -> dict[str, list[Entry]]:
    """The calls of each neuron over time, by its name in the converted network."""
    waiting: dict[str, list[Entry]] = {}
    for entry in tape.entries:
        if entry.is_neuron:
            waiting.setdefault(entry.path, []).append(entry)
    calls: dict[str, list[Entry]] = {}
    for loop, num_steps in zip(converted.plan.loops, converted.num_steps(*arrays), strict=True):
        names: dict[str, list[str]] = {}
        for neuron in loop.neurons.values():
            names.setdefault(neuron.path, []).append(neuron.name)
        for path, each in names.items():
            count = num_steps * len(each)
            if len(waiting.get(path, ())) < count:
                raise EquivalenceError(
                    f"the module calls this neuron {len(waiting.get(path, ()))} times on these inputs, the conversion "
                    f"{count} times. Pass the module that was converted, or convert this one",
                    path=path,
                )
            of_loop, waiting[path] = waiting[path][:count], waiting[path][count:]
            for entry, name in zip(of_loop, itertools.cycle(each), strict=False):
                calls.setdefault(name, []).append(entry)
    return calls


def _neuron(entry: Entry) -> NeuronConverter:
    assert isinstance(entry.converter, NeuronConverter)
    return entry.converter


def _count_spikes(calls: dict[str, list[Entry]], tape: Tape) -> dict[str, int]:
    counted = {}
    for path, entries in calls.items():
        if _neuron(entries[0]).spikes:
            counted[path] = sum(int((tape.tensors[entry.result.index] != 0).sum()) for entry in entries)
    for entry in tape.entries:
        if makes_spikes(entry):
            name = ".".join(filter(None, (entry.path, entry.kwargs["function"].name)))
            counted[name] = counted.get(name, 0) + int(tape.tensors[entry.result.index].sum())
    return counted


def _compare_spikes(calls: dict[str, list[Entry]], tape: Tape, spikes: dict[str, Any]) -> list[Comparison]:
    comparisons = []
    for path, entries in calls.items():
        expected = np.stack([_numpy(tape.tensors[entry.result.index]) for entry in entries])
        found = np.asarray(spikes[path])
        if not _neuron(entries[0]).spikes:
            comparisons.append(_compare("membrane", path, expected, found, VALUE_TOLERANCE))
            continue
        comparison = _compare("spikes", path, expected, found, 0.0)
        if not comparison.ok and expected.shape == found.shape:
            different = expected != found
            step = int(np.flatnonzero(different.reshape(len(different), -1).any(1))[0])
            detail = f" in {different.sum()} of {different.size} places, first at time step {step}"
            comparison = dataclasses.replace(comparison, detail=detail)
        comparisons.append(comparison)
    return comparisons


def _compare_states(calls: dict[str, list[Entry]], tape: Tape, states: dict[str, Any]) -> list[Comparison]:
    comparisons = []
    for path, entries in calls.items():
        last = entries[-1]
        for field, ref in zip(_neuron(last).fields, last.state_out, strict=True):
            expected, found = _numpy(tape.tensors[ref.index]), np.asarray(states[path][field])
            comparisons.append(_compare("final state", f"{path}.{field}", expected, found, VALUE_TOLERANCE))
    return comparisons


def _compare_trees(kind: str, expected: list, found: list, tape: Tape) -> list[Comparison]:
    comparisons = []
    for (name, value), (_, other) in zip(expected, found, strict=True):
        if isinstance(value, Ref):
            comparisons.append(
                _compare(kind, name, _numpy(tape.tensors[value.index]), np.asarray(other), VALUE_TOLERANCE)
            )
    return comparisons


def _compare(
    kind: str, name: str, expected: np.ndarray, found: np.ndarray, tolerance: float, floor: float = 1e-12
) -> Comparison:
    """The largest difference, relative to the largest magnitude, which counts as `floor` at least."""
    if expected.shape != found.shape:
        return Comparison(kind, name, float("inf"), tolerance, f": shape {expected.shape} in torch, {found.shape} here")
    if not expected.size:
        return Comparison(kind, name, 0.0, tolerance)
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    difference = np.zeros(expected.shape)
    difference[~same] = np.abs(expected[~same] - found[~same])  # and not infinity minus infinity
    finite = np.abs(expected[np.isfinite(expected)])
    scale = 1.0 if kind == "spikes" else max(float(finite.max(initial=0.0)), floor)
    largest = float(np.nan_to_num(difference, nan=np.inf).max()) / scale
    return Comparison(kind, name, largest, tolerance)


Given = tuple[Converted, tuple[Any, ...]]


def _results(given: Given) -> tuple[Any, list[Any], None]:
    """Outputs, states and spikes of a network; no weights and gradients, which `_results_and_gradients` has."""
    converted, arrays = given
    return converted._run(arrays), [], None


def _results_and_gradients(given: Given) -> tuple[Any, list[Any], Given]:
    """Outputs, states and spikes; weights of the outputs; and the gradients of the sum of the outputs so weighted."""

    def loss(given: Given) -> tuple[Any, tuple[Any, list[Any]]]:
        results = _results(given)[0]
        leaves = [leaf for _, leaf in structure_leaves(results[0]) if isinstance(leaf, jax.Array)]
        weights = _weights([leaf.shape for leaf in leaves])
        terms = [
            jnp.sum(leaf * weight)
            for leaf, weight in zip(leaves, weights, strict=True)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return sum(terms, jnp.zeros(())), (results, weights)

    found, (results, weights) = eqx.filter_grad(loss, has_aux=True)(given)
    return results, weights, found


def _weights(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Fixed random numbers, constants of the program."""
    random = np.random.default_rng(0)
    return [random.normal(size=shape) for shape in shapes]


def _compare_gradients(
    converted: Converted, module: torch.nn.Module, tape: Tape, weights: list[Any], model: Converted, arrays: tuple
) -> tuple[list, bool]:
    """Gradients of the sum of all floating outputs, each weighted by `weights`, with those that JAX found."""
    tensors = [tape.tensors[leaf.index] for _, leaf in structure_leaves(tape.result) if isinstance(leaf, Ref)]
    terms = [
        (tensor * torch.from_numpy(np.array(weight))).sum()
        for tensor, weight in zip(tensors, weights, strict=True)
        if tensor.is_floating_point()
    ]
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    inputs = {number: tape.tensors[ref.index] for number, ref in enumerate(tape.inputs)}
    inputs = {number: each for number, each in inputs.items() if each.requires_grad}
    wanted = [*named.values(), *inputs.values()]
    total = sum(terms, torch.zeros((), dtype=torch.float64))
    if total.requires_grad and wanted:
        with float_is_double(), backward_float_is_double():
            found = torch.autograd.grad(total, wanted, allow_unused=True)
    else:
        found = (None,) * len(wanted)
    keys = [converted.plan.canonical[name] for name in named]
    places = [("gradient", name, model.parameters[key]) for name, key in zip(named, keys, strict=True)]
    places += [("input gradient", f"input {number}", arrays[number]) for number in inputs]
    # A gradient that is zero but for rounding, as that of a bias before a normalisation, has no scale of its own.
    sizes = (each.abs().nan_to_num(0.0, posinf=0.0) for each in found if each is not None and each.numel())
    largest = max((float(each.max()) for each in sizes), default=0.0)
    floor = max(_NO_GRADIENT * largest, 1e-12)
    comparisons = []
    for (kind, name, other), tensor, gradient in zip(places, wanted, found, strict=True):
        expected = np.zeros(tuple(tensor.shape)) if gradient is None else _numpy(gradient)
        comparisons.append(_compare(kind, name, expected, np.asarray(other), GRADIENT_TOLERANCE, floor))
    zero = bool(wanted) and all(gradient is None or not bool(gradient.any()) for gradient in found)
    return comparisons, zero


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
