"""`from_torch`: record, re-roll, build, transfer weights, verify."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .converters.arrays import is_held, torch_dtype_name
from .converters.hooks import refuse_unseen
from .converters.parameters import Weights
from .converters.registry import Registry
from .converters.surrogates import Surrogates, check_surrogates
from .errors import EquivalenceError, LengthError, RecordingError, TransferError
from .frameworks import registry_for
from .ir.program import Program
from .ir.prune import prune
from .ir.refusal import Refusal, attempt
from .loops.first_step import restore_first_steps
from .loops.join import join_loops
from .loops.run import Run, Runs
from .loops.take_in import take_in_layers
from .lower.assemble import assemble
from .lower.describe import conversion_report
from .lower.lowering import Lowering
from .runtime.converted import Converted
from .runtime.plan import InputSpec
from .symbols.batch_axes import drop_batch
from .symbols.probe import OtherBatch, OtherLength, direct_time_axes, other_batches, other_length
from .symbols.unify import Length, unify
from .trace.caller_loop import outside_call
from .trace.determinism import Kept, check_deterministic
from .trace.isolation import preserved
from .trace.recorder import record, run_once
from .trace.tape import Tape
from .trace.unwrap import signature
from .verify.equivalence import check_equivalence, record_double


LoopPlace = Literal["inside", "outside", "auto"]

# A loop shows itself at two steps; the third shows that the second was not special.
_OUTSIDE_STEPS = 3


def from_torch(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor] | torch.Tensor,
    loop: LoopPlace = "auto",
    *,
    surrogates: Surrogates | None = None,
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

    - `surrogates`: for functions whose gradient cannot be read off, such as `spike_grad=` of one's own, what they
      compute: `{function: snnax.surrogate.Relaxed(jnp.tanh)}`. Spikes and slopes are compared with the function.

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
    surrogates = {} if surrogates is None else surrogates
    check_surrogates(module, surrogates, registry)
    if loop != "outside":
        with preserved(module):
            kept = Kept(module, registry)
            run = Run.of(run_once(module, inputs, registry))
            inside = _runs_over_time(run)
            if inside:
                kept.check_second_call(inputs, run.tape)
        if inside:
            return _verified(module, _convert(_Example(module, inputs, names, surrogates), registry, run), inputs)
        if loop == "inside" or not registry.neurons(module):
            raise _nothing_found(bool(registry.neurons(module)), len(run.tape.entries))
    call = outside_call(module, len(inputs))
    inputs = tuple(_repeated(tensor) for tensor in inputs)
    run = Run.of(record(module, inputs, registry, call=call))
    if not any(segment.count > 1 for segment in run.segments):
        raise RecordingError(
            "the calls of forward at different time steps differ; see loop='inside'", framework="torch"
        )
    check_deterministic(module, inputs, registry, call, run.tape)
    return _verified(module, _convert(_Example(module, inputs, names, surrogates, call), registry, run), inputs)


def _nothing_found(neurons: bool, calls: int) -> RecordingError:
    """What was looked for, in vain."""
    what = "no time loop" if neurons else "no neuron that is stepped through time"
    return RecordingError(
        f"{what} was found in forward. Looked for, among its {calls} calls: the same lines running at least twice in a "
        "row with a neuron among them, or reading another time step each time; and states that one call of a neuron "
        "hands to the next. Allowed: a loop of at least two time steps; pass a longer example, or loop='outside' if "
        "one call is one time step",
        framework="torch",
    )


def _runs_over_time(run: Run) -> bool:
    """Whether a forward owns its time: it repeats steps of neurons, or hands their states from one to the next."""
    tape, segments = run.tape, run.segments
    stepped = [any(tape.entries[index].is_neuron for index in range(each.start, each.stop)) for each in segments]
    if not any(stepped):
        return any(each.count > 1 for each in segments)
    if any(each.count > 1 and neurons for each, neurons in zip(segments, stepped, strict=True)):
        return True
    return any(
        ref.index in run.moments and run.moments[ref.index].segment != number
        for number, segment in enumerate(segments)
        for entry in tape.entries[segment.start : segment.stop]
        for ref in entry.state_in or ()
    )


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
    refuse_unseen(module, registry_for(module).hook_of)
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
        if tensor.layout != torch.strided:
            raise ValueError(f"example input {number} is sparse ({tensor.layout}); pass a dense tensor, x.to_dense()")
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
        for each in signature(module).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[:count] if len(parameters) >= count else [f"input{number}" for number in range(count)]


def _repeated(tensor: torch.Tensor) -> torch.Tensor:
    """An input of one time step as a sequence, with other values at its second step where there are several samples."""
    flipped = tensor.flip(0) if tensor.ndim else tensor
    return torch.stack([flipped if step == 1 else tensor for step in range(_OUTSIDE_STEPS)])


@dataclasses.dataclass(frozen=True)
class _Example:
    """A module with inputs and their names; `call` runs it over time where its own forward does not."""

    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    names: list[str]
    surrogates: Surrogates
    call: Callable[..., Any] | None = None


# The passes, each from a program to a program

PASSES: tuple[tuple[str, Callable[[Program], Program]], ...] = (
    ("join loops", join_loops),
    ("take in layers", take_in_layers),
    ("prune", prune),
    ("drop the batch", drop_batch),
)


def _convert(example: _Example, registry: Registry, given: Run) -> Converted:
    """The network that runs the same at any length and batch size, as far as other runs of the module show."""

    def run(inputs: tuple[torch.Tensor, ...]) -> Tape:
        return record(example.module, inputs, registry, call=example.call)

    length, why = other_length(run, given, example.inputs)
    time_axes = direct_time_axes(given) | ({} if length is None else length.axes)
    refusals: list[Refusal] = []
    for batch in other_batches(run, given, example.inputs, time_axes):  # the axes that may be the batch
        notes = [note for note in (batch.note, why, *_continuing(given.tape, example.call is not None)) if note]
        notes += [f"not converted with the batch elsewhere: {refusal}" for refusal in refusals]
        found = attempt(_at_sizes, example, registry, given, batch, length, notes)
        if isinstance(found, Converted):
            return found
        refusals.append(found)
    raise refusals[0].error


def _continuing(tape: Tape, outside: bool) -> list[str]:
    """What to say of neurons that torch does not reset between calls."""
    if outside or not tape.continuing:
        return []
    return [
        f"{', '.join(tape.continuing)}: torch continues from the last membrane at the next call unless reset; the "
        "conversion starts anew"
    ]


def _at_sizes(
    example: _Example,
    registry: Registry,
    given: Run,
    batch: OtherBatch,
    length: OtherLength | None,
    notes: list[str],
) -> Converted:
    """Unify the runs at any length, or else at that of the example, and take the program through all passes."""
    passes: dict[str, Program | Refusal] = {}
    runs = restore_first_steps(_runs(given, batch, length))
    program = attempt(_unified, example, runs, length)
    passes["unify sizes"] = program
    if isinstance(program, Refusal):
        if not isinstance(program.error, LengthError):
            raise program.error
        notes = [*notes, f"converted for exactly this length: {program}"]
        runs, length = restore_first_steps(_runs(given, batch, None)), None
        program = passes["unify sizes of the example"] = _unified(example, runs, None)
    for name, rewrite in PASSES:
        program = passes[name] = rewrite(program)
    return _lowered(example, registry, given.tape, program, batch, length, notes, passes)


def _runs(given: Run, batch: OtherBatch, length: OtherLength | None) -> Runs:
    if length is None:
        return Runs(given, batch.run, None, batch.sizes, None)
    return Runs(given, batch.run, length.run, batch.sizes, length.sizes, length.rounds, length.whole)


def _unified(example: _Example, runs: Runs, length: OtherLength | None) -> Program:
    axis = None if length is None else Length(*next(iter(length.axes.items())))
    keys = example.module.state_dict().keys()
    return unify(runs, type(example.module).__name__, example.names, keys, axis)


def _lowered(
    example: _Example,
    registry: Registry,
    tape: Tape,
    program: Program,
    batch: OtherBatch,
    length: OtherLength | None,
    notes: list[str],
    passes: dict[str, Program | Refusal],
) -> Converted:
    """The native network of a program."""
    module, outside = example.module, example.call is not None
    free = {} if length is None else length.axes
    specs = tuple(
        InputSpec(name, tuple(tensor.shape), torch_dtype_name(tensor), axis, free.get(number))
        for number, (name, tensor, axis) in enumerate(zip(example.names, example.inputs, batch.axes, strict=True))
    )
    weights = Weights(module)
    modules = dict(module.named_modules(remove_duplicate=False))
    weights.caveats |= {path: registry.caveat(child) for path, child in modules.items()}
    network = Lowering(program, modules, weights, example.surrogates)

    def run_in_float64() -> Tape | None:
        """The run in float64, if it makes the same calls."""
        wide = record_double(module, example.inputs, outside=outside)[1]
        return wide if tape.first_difference(wide) is None else None

    report = functools.partial(conversion_report, module, network, called=tape.called, notes=notes)
    return assemble(module, network, run_in_float64, specs, tape, outside, report, passes)


def _verified(module: torch.nn.Module, converted: Converted, inputs: tuple[torch.Tensor, ...]) -> Converted:
    """The conversion with its verification in the report.

    **Raises:** `EquivalenceError` when it differs from the module.
    """
    given = tuple(_with_variation(x, spec) for x, spec in zip(inputs, converted.plan.inputs, strict=True))
    checked = check_equivalence(module, converted, given, gradients=False)
    if checked.failed:
        _check_double(module, inputs, converted.plan.outside)
        raise EquivalenceError(
            f"the conversion differs from the module on the example, or on other values; please report this\n{checked}",
            report=checked,
        )
    for path, caveat in converted.plan.caveats.items():
        warnings.warn(f"at '{path}': {caveat}", UserWarning, stacklevel=3)
    return converted.with_verification(str(checked))


def _with_variation(tensor: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """An input with further samples of other values: an example may be silent, or alone, where it matters."""
    if spec.batch_axis is None:
        return tensor
    others = tensor.flip([axis for axis in range(tensor.ndim) if axis != spec.batch_axis])
    if not tensor.is_floating_point():
        return torch.cat([tensor, others, tensor], spec.batch_axis)
    return torch.cat([tensor, others * 1.5, tensor * 0.6], spec.batch_axis)


def _check_double(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], outside: bool) -> None:
    """Whether the module does something else in float64, where it is compared.

    **Raises:** `EquivalenceError` that names the line.
    """
    call = outside_call(module, len(inputs)) if outside else None
    single = record(module, inputs, registry_for(module), call=call)
    entry = single.first_difference(record_double(module, inputs, outside=outside)[1])
    if entry is not None:
        raise EquivalenceError(
            f"forward does something else in float64, where the conversion is compared with it: at {entry.name}\n"
            f"  {entry.line}\nAllowed: the same calls in every precision. Do not branch on the dtype of a tensor",
            path=entry.path,
        )
