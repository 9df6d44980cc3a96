"""`from_torch`: record, re-roll, build, transfer weights, verify."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import torch

from snnax import snn
from snnax.surrogate import AbstractSurrogate

from .building import NetworkBuilder, Runs
from .converted import Blueprint, Converted, InputSpec, Neuron, Out, map_structure
from .equivalence import check_equivalence
from .errors import EquivalenceError, InteropError, RecordingError, TransferError
from .frameworks import registry_for
from .leaf import Registry
from .outside import outside_call
from .recording import Entry, Ref, Tape, record, refs
from .report import ConversionReport, ConvertedModule
from .restart import Restart
from .rolling import Body, Loop, Sliced, analyse, find_loop
from .weights import Weights, is_held, torch_dtype_name


LoopPlace = Literal["inside", "outside", "auto"]

# A loop shows itself at two steps; the third shows that the second was not special.
_OUTSIDE_STEPS = 3


def from_torch(
    module: torch.nn.Module, example_inputs: Sequence[torch.Tensor] | torch.Tensor, loop: LoopPlace = "auto"
) -> Converted:
    """Convert a torch network to a native snnax model that computes the same.

    The module is run on the example, and on variations of it with another batch size and another length; what it does
    is recorded, rolled back into one time step, and rebuilt from native layers that hold copies of its weights. The
    result is compared with the module in float64. The module is left as it was.

    **Arguments:**

    - `module`: of snnTorch or Norse modules, torch layers and tensor functions, in evaluation mode where that matters.
    - `example_inputs`: what `module(*example_inputs)` takes; with `loop="outside"`, the inputs of one time step. At
      least two time steps, and inputs that make the network spike.
    - `loop`: `"inside"` where `forward` runs over time, `"outside"` where one call is one time step, `"auto"` to see.

    **Raises:** `UnsupportedModuleError`, `UnsupportedOptionError` or `RecordingError` with module path, source line and
    advice for what cannot be converted exactly; `EquivalenceError` when the result differs from the module.

    >>> import snntorch, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    >>> converted = from_torch(net, (torch.rand(2, 4) * 5,), loop="outside")
    >>> print(converted.model[1].decay_mem.factor)
    0.9
    """
    inputs = _checked_arguments(module, example_inputs, loop)
    registry = registry_for(module)
    names = _input_names(module, len(inputs))
    if loop != "outside":
        tape = record(module, inputs, registry)
        found = find_loop(tape)
        if found is not None:
            return _verified(module, _convert(module, inputs, registry, names, tape, found, None), inputs)
        if loop == "inside" or not registry.neurons(module):
            what = "no time loop" if registry.neurons(module) else "no neuron that is stepped through time"
            raise RecordingError(
                f"{what} was found in forward. Allowed: a loop of at least two time steps; pass a longer example, or "
                "loop='outside' if one call is one time step",
                framework="torch",
            )
    call = outside_call(module, len(inputs))
    inputs = tuple(_repeated(tensor) for tensor in inputs)
    tape = record(module, inputs, registry, call=call)
    found = find_loop(tape)
    if found is None:
        raise RecordingError(
            "the calls of forward at different time steps differ; see loop='inside'", framework="torch"
        )
    return _verified(module, _convert(module, inputs, registry, names, tape, found, call), inputs)


def _checked_arguments(module: Any, example_inputs: Any, loop: str) -> tuple[torch.Tensor, ...]:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, found {type(module).__name__}")
    if loop not in ("inside", "outside", "auto"):
        raise ValueError(f"loop must be 'inside', 'outside' or 'auto', found {loop!r}")
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
        kinds = [type(tensor).__name__ for tensor in inputs]
        raise TypeError(
            f"example_inputs must be a tuple of torch tensors, as for module(*example_inputs), found {kinds}"
        )
    tensors = {**dict(module.named_parameters()), **{f"input {number}": tensor for number, tensor in enumerate(inputs)}}
    for name, tensor in tensors.items():
        if not is_held(tensor.dtype):
            raise TransferError(
                f"'{name}' is float64, which JAX holds only with jax.config.update('jax_enable_x64', True). Allowed "
                "without: float32. Enable it, or convert module.float()",
                path=name,
            )
        if tensor.device.type != "cpu":
            raise TransferError(f"'{name}' is on {tensor.device}. Allowed: cpu. Use module.cpu() to convert", path=name)
    for number, tensor in enumerate(inputs):
        if not tensor.numel():
            raise ValueError(
                f"example input {number} is empty, of shape {tuple(tensor.shape)}; pass at least one sample"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"example input {number} holds NaN or infinity; pass finite numbers")
    return inputs


def _input_names(module: torch.nn.Module, count: int) -> list[str]:
    parameters = [
        each.name
        for each in inspect.signature(module.forward).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[:count] if len(parameters) >= count else [f"input{number}" for number in range(count)]


def _repeated(tensor: torch.Tensor) -> torch.Tensor:
    """An input of one time step as a sequence, with other values at its second step where there are several samples."""
    flipped = tensor.flip(0) if tensor.ndim else tensor
    return torch.stack([flipped if step == 1 else tensor for step in range(_OUTSIDE_STEPS)])


def _convert(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    registry: Registry,
    names: list[str],
    tape: Tape,
    loop: Loop,
    call: Callable[..., Any] | None,
) -> Converted:
    body = analyse(tape, loop)

    def run(inputs: tuple[torch.Tensor, ...]) -> Tape:
        return record(module, inputs, registry, call=call)

    length, other_length = _other_length(run, tape, loop, body, inputs)
    time_axes = {tape.inputs.index(each.base): each.axis for each in _slices(body) if each.base in tape.inputs}
    time_axes |= {number: axis for number, axis, _ in length}
    batch_axes, other_batch, batch_sizes, note = _other_batch(run, tape, inputs, time_axes)
    weights = Weights(module)
    runs = Runs(tape, loop, other_batch, other_length, batch_sizes)
    builder = NetworkBuilder(runs, body, module, weights, names)
    specs = tuple(
        InputSpec(name, tuple(tensor.shape), torch_dtype_name(tensor), axis, time_axes.get(number) if length else None)
        for number, (name, tensor, axis) in enumerate(zip(names, inputs, batch_axes, strict=True))
    )
    return _assemble(module, builder, specs, length, note, call is not None)


def _other_length(run: Callable, tape: Tape, loop: Loop, body: Body, inputs: tuple[torch.Tensor, ...]):
    """The inputs with a free time axis as `(number, axis, steps - size)`, and the tape of a longer run."""
    bases = _slices(body)
    if not bases:
        return [], None
    candidates: list[dict[int, int]] = []
    direct = {tape.inputs.index(each.base): each.axis for each in bases if each.base in tape.inputs}
    if all(each.base in tape.inputs for each in bases):
        candidates.append(direct)
    else:
        sizes = {tape.shape(each.base)[each.axis] for each in bases}
        for number, tensor in enumerate(inputs):
            candidates += [{**direct, number: axis} for axis, size in enumerate(tensor.shape) if size in sizes]
    # More than twice as long, so that a limit beyond the example shows itself; one step longer where that is too long.
    for candidate, extend in itertools.product(candidates, (_doubled, _extended)):
        longer = tuple(extend(x, candidate[number]) if number in candidate else x for number, x in enumerate(inputs))
        try:
            other = run(longer)
            found = find_loop(other)
            if found is not None and found.count != loop.count and _reads(analyse(other, found)) != _reads(body):
                raise RecordingError(
                    "the time steps read other values at another length. Allowed: the same at any length"
                )
        except InteropError as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in longer)
            error.add_note(f"This was found in a run that is longer than the example, on inputs of shape {shapes}.")
            raise
        except Exception:  # whatever user code raises on a length that it was not written for
            continue
        if found is None or found.count == loop.count or _difference(tape, loop, other, found):
            continue
        length = [(number, axis, loop.count - inputs[number].shape[axis]) for number, axis in candidate.items()]
        if all(longer[number].shape[axis] + difference == found.count for number, axis, difference in length):
            return length, (other, found)
    return [], None


def _reads(body: Body) -> list[Any]:
    """Where the arguments of a time step come from, but for values made before the loop."""
    seen = [(row, state or []) for row, state in zip(body.arguments, body.states, strict=True)]
    kinds = [[_place(argument) for argument in [*row, *state]] for row, state in seen]
    reads = {position: (_place(sliced), rest) for position, (sliced, rest) in body.reads.items()}
    return [kinds, reads, body.writes]


def _place(argument: Any) -> tuple[Any, ...]:
    fields = ("value", "axis", "start", "stride")
    return (type(argument), *(getattr(argument, field, None) for field in fields))


def _slices(body: Body) -> list[Sliced]:
    found = [sliced for sliced, _ in body.reads.values()]
    return found + [argument for row in body.arguments for argument in row if isinstance(argument, Sliced)]


def _extended(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """One more entry along an axis, and the others in reverse order: another size and other values."""
    return torch.cat([tensor.flip(axis), tensor.narrow(axis, 0, 1)], axis)


def _doubled(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """All entries along an axis once more behind those of `_extended`."""
    return torch.cat([_extended(tensor, axis), tensor], axis)


def _other_batch(run: Callable, tape: Tape, inputs: tuple[torch.Tensor, ...], time_axes: dict[int, int]):
    """The batch axes of the inputs, and the tape of a run with one more sample."""
    axes = [0 if time_axes.get(number) != 0 else 1 for number in range(len(inputs))]
    fits = all(axis < tensor.ndim for axis, tensor in zip(axes, inputs, strict=True))
    sizes = {tensor.shape[axis] for axis, tensor in zip(axes, inputs, strict=True)} if fits else set()
    none = [None] * len(inputs)
    if len(sizes) != 1:
        return none, None, (1, 1), "converted without a batch axis: the inputs have none in common"
    (size,) = sizes
    try:
        other = run(tuple(_extended(tensor, axis) for tensor, axis in zip(inputs, axes, strict=True)))
    except InteropError:
        raise
    except Exception as error:  # whatever user code raises on a batch size that it was not written for
        first = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {first[0] if first else ''}"
        return none, None, (1, 1), f"converted for exactly this batch: with another batch size, forward raises {why}"
    entry = _first_difference(tape.entries, other.entries)
    if entry is None:
        # The same calls in the same order number their values alike.
        pairs = zip(tape.entries, other.entries, strict=True)
        entry = next((a for a, b in pairs if _values(a) != _values(b)), None)
    if entry is not None:
        raise RecordingError(
            f"forward does something else with another batch size or other values: at {entry.name}\n  {entry.line}\n"
            "Allowed: control flow on settings and lengths. Use torch.where or masks for decisions on values",
            path=entry.path,
        )
    return axes, other, (size, size + 1), ""


def _first_difference(first: list[Entry], second: list[Entry]) -> Entry | None:
    for a, b in zip(first, second, strict=False):
        if a.signature != b.signature:
            return a
    if len(first) != len(second):
        return max(first, second, key=len)[min(len(first), len(second))]
    return None


def _values(entry: Entry) -> list[Ref]:
    """The values that a call reads."""
    return refs((entry.args, entry.kwargs, entry.state_in))


def _difference(tape: Tape, loop: Loop, other: Tape, found: Loop) -> Entry | None:
    """Where a longer run does something else than more of the same steps."""
    pairs = [
        (tape.entries[: loop.start + loop.period], other.entries[: found.start + found.period]),
        (tape.entries[loop.stop :], other.entries[found.stop :]),
    ]
    return next((entry for a, b in pairs if (entry := _first_difference(a, b)) is not None), None)


def _assemble(
    module: torch.nn.Module,
    builder: NetworkBuilder,
    specs: tuple[InputSpec, ...],
    length: list[tuple[int, int, int]],
    note: str,
    outside: bool,
) -> Converted:
    tape = builder.runs.tape
    outputs: list[Any] = []
    out_axes: list[int | None] = []

    def place(item: Any, there: Any) -> Any:
        if isinstance(item, Ref):
            if builder.axes.is_folded(item):
                raise RecordingError(
                    f"forward returns a tensor of shape {tape.shape(item)} whose batch is folded into another axis. "
                    "Allowed: the batch as an axis of its own. Unfold it with view before returning"
                )
            outputs.append(builder.result(builder.after, item, there))
            out_axes.append(builder.axes.batch_axis(item))
            return Out(len(outputs) - 1)
        if isinstance(item, list | tuple) and builder.step_list(item) is not None:
            source, axis = builder.sequence_source(builder.after, item, there)
            outputs.append(source)
            out_axes.append(None if axis is None else axis + 1)
            return Out(len(outputs) - 1, listed=True)
        if isinstance(item, list | tuple | dict):
            if len(item) != len(there):
                raise RecordingError(f"forward returns {len(item)} values here, and {len(there)} at another length")
            others = iter(there.values() if isinstance(there, dict) else there)
            return map_structure(lambda each: place(each, next(others)), item)
        return item

    longer = builder.runs.other_length
    result = place(tape.result, tape.result if longer is None else longer[0].result)
    if not outputs:
        raise RecordingError("forward returns no tensor. Allowed: a tensor, or tuples, lists and dicts of tensors")
    recorded = [builder.sources[value] for value in builder.recorded]
    if not recorded:
        raise RecordingError("what forward returns does not depend on the time loop. Return spikes or membranes")
    before_outputs: list[Any] = []
    model_inputs = tuple(_input_key(builder, key, before_outputs) for key in builder.step.inputs)
    model, renamed = _model(builder, recorded)
    before = builder.before.graph(before_outputs) if before_outputs else None
    after = builder.after.graph(outputs)
    weights = builder.weights
    parameters, buffers, fixed = weights.arrays()
    blueprint = Blueprint(
        before=_skeleton(before, weights),
        model=_skeleton(model, weights),
        after=_skeleton(after, weights),
        inputs=specs,
        before_inputs=tuple(_graph_key(builder, key) for key in builder.before.inputs),
        model_inputs=model_inputs,
        after_inputs=tuple(_graph_key(builder, key) for key in builder.after.inputs),
        several_recorded=len(recorded) > 1,
        result=result,
        out_axes=tuple(out_axes),
        fixed_steps=None if length else builder.runs.loop.count,
        length=length[0] if length else None,
        keys=tuple(weights.keys),
        canonical={key: weights.canonical[key] for key in weights.keys} | {
            name: weights.canonical[name] for name, _ in module.named_parameters()
        },
        dtypes={key: tensor.dtype for key, tensor in weights.tensors.items()},
        fixed=fixed,
        neurons={
            renamed.get(name, name): Neuron(name, path, leaf.fields, builder.axes.batch_axis(_out(builder, position)))
            for name, (path, leaf, position) in builder.neurons.items()
        },
        outside=outside,
        report=_report(module, builder, note),
    )  # fmt: skip
    return Converted(parameters, buffers, blueprint, torch_dtype_name(torch.empty(0, dtype=builder.dtype)))


def _out(builder: NetworkBuilder, position: int) -> Ref:
    return builder.body.entries[position].result


def _input_key(builder: NetworkBuilder, key: tuple, before_outputs: list[Any]) -> tuple:
    """What an input of the model is made of; values made before the loop become outputs of `before`."""
    if key[0] != "sliced":
        return _graph_key(builder, key)
    sliced = key[1]
    inputs = builder.runs.tape.inputs
    axis = builder.axes.batch_axis(sliced.base)
    moved = sliced.axis - 1 if axis is not None and axis < sliced.axis else sliced.axis
    of_sample = Sliced(sliced.base, moved, sliced.start, sliced.stride)
    if sliced.base in inputs:
        return ("sliced", ("static", inputs.index(sliced.base)), of_sample)
    source = builder.before.outer(sliced.base)
    if source not in before_outputs:
        before_outputs.append(source)
    return ("sliced", ("before", before_outputs.index(source)), of_sample)


def _graph_key(builder: NetworkBuilder, key: Any) -> tuple:
    if key == "num_steps":
        return ("num_steps",)
    return ("static", builder.runs.tape.inputs.index(key[1])) if key[0] == "static" else key


def _model(builder: NetworkBuilder, recorded: list[Any]) -> tuple[Any, dict[str, str]]:
    """A `Sequential` where the step is a chain with one output, else a `Graph`; and how that renames the nodes."""
    step = builder.step
    graph = step.graph(recorded if len(recorded) > 1 else recorded[0])
    names = [name for name, _ in graph.wiring.sources]
    previous = [next(iter(step.inputs.values()), None), *names[:-1]]
    chain = all(list(sources) == [before] for (_, sources), before in zip(graph.wiring.sources, previous, strict=True))
    if chain and len(step.inputs) == 1 and recorded == [names[-1]] and not _is_tied(graph):
        return snn.Sequential(*(graph.nodes[name] for name in names)), {name: str(i) for i, name in enumerate(names)}
    return graph, {}


def _is_tied(graph: snn.Graph) -> bool:
    return any(graph.named_nodes[name] is not node for name, node in graph.nodes.items())


def _skeleton(graph: Any, weights: Weights) -> Any:
    return jax.tree.map(weights.slot, graph)


def _report(module: torch.nn.Module, builder: NetworkBuilder, note: str) -> ConversionReport:
    rows = []
    restarted = {
        path for name, (path, _, _) in builder.neurons.items() if isinstance(builder.step.nodes[name], Restart)
    }
    for entry, layer in builder.report:
        assert entry.leaf is not None
        source = f"{entry.leaf.framework}.{entry.leaf.kind.__name__}"
        target = f"Call({layer.op})" if hasattr(layer, "op") else type(layer).__name__
        remark = "starts anew at every time step" if entry.path in restarted else ""
        options = _options(builder.modules[entry.path], entry.leaf.options)
        if isinstance(layer, snn.LIF):
            options.append(f"surrogate={_shown(layer.firing.surrogate)}")
        rows.append(ConvertedModule(entry.path, source, target, ", ".join(options), remark))
    leaves = [path for path, child in module.named_modules() if path and not list(child.children())]
    unused = [path for path in leaves if path not in builder.runs.tape.called]
    notes = [note] if note else []
    if unused:
        notes.append(f"never called, kept for state_dict only: {', '.join(unused)}")
    if not builder.runs.lengths:
        notes.append(f"runs exactly {builder.runs.loop.count} time steps, as forward does")
    return ConversionReport(tuple(rows), tuple(notes))


def _shown(surrogate: AbstractSurrogate) -> str:
    """A surrogate with its parameters, on one line."""
    fields = [f"{each.name}={getattr(surrogate, each.name)}" for each in dataclasses.fields(surrogate)]
    return f"{type(surrogate).__name__}({', '.join(fields)})"


def _options(module: torch.nn.Module, names: tuple[str, ...]) -> list[str]:
    """The options of a module that are not at their defaults."""
    parameters = inspect.signature(type(module)).parameters
    shown = []
    for name in names:
        value = getattr(module, name, None)
        default = parameters[name].default if name in parameters else None
        if isinstance(value, torch.Tensor):
            if isinstance(default, bool):
                continue  # `bias=True` made a parameter of this name
            value = round(value.item(), 6) if value.ndim == 0 else f"{list(value.shape)}"
        plain = all(
            isinstance(item, bool | int | float | str) for item in (value if type(value) is tuple else (value,))
        )
        if plain and value != default:
            shown.append(f"{name}={value}")
    return shown


def _verified(module: torch.nn.Module, converted: Converted, inputs: tuple[torch.Tensor, ...]) -> Converted:
    """The conversion with its verification in the report.

    **Raises:** `EquivalenceError` when it differs from the module.
    """
    checked = check_equivalence(module, converted, inputs, gradients=False)
    if checked.failed:
        raise EquivalenceError(
            f"the conversion differs from the module on the example; please report this\n{checked}", report=checked
        )
    return converted.with_verification(str(checked))
