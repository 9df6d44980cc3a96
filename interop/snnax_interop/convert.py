"""`from_torch`: the list of passes.

trace -> detect loops -> roll -> unify sizes -> join loops -> take in layers -> prune -> drop the batch -> lower
-> verify

From *unify sizes* on, every pass takes a program and returns a program; what each returned is in `converted.passes`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch

from . import progress
from .converters.arrays import torch_dtype_name
from .converters.parameters import Weights
from .converters.registry import Registry
from .converters.surrogates import Surrogates, check_surrogates
from .errors import LengthError, RecordingError
from .frameworks import registry_for
from .ir.program import Program
from .ir.prune import prune
from .ir.refusal import Refusal, attempt
from .loops.first_step import restore_first_steps
from .loops.join import join_loops
from .loops.presence import nothing_found, runs_over_time
from .loops.run import Run, Runs
from .loops.take_in import take_in_layers
from .lower.assemble import assemble
from .lower.describe import conversion_report
from .lower.lowering import Lowering
from .runtime.converted import Converted
from .runtime.plan import InputSpec
from .symbols.batch_axes import drop_batch, mixes_samples
from .symbols.few_steps import FewSteps, few_steps
from .symbols.lengths import with_lengths
from .symbols.probe import OtherBatch, OtherLength, direct_time_axes, other_batches, other_length
from .symbols.unify import Length, unify
from .trace.caller_loop import over_time
from .trace.determinism import AttributeSnapshot, check_deterministic
from .trace.example import Example, batch_candidates, checked_inputs, few_samples, repeated
from .trace.isolation import preserved, without_collector
from .trace.record import run_once
from .trace.tape import Tape
from .verify.float64 import record_double
from .verify.on_example import holds_for_all_samples, verify


Candidate = TypeVar("Candidate")
LoopPlace = Literal["inside", "outside", "auto"]
Passes = Mapping[str, Program | Refusal]


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

    - `module`: of modules of snnTorch, Norse and SpikingJelly, torch layers and tensor functions, in evaluation mode
      where that matters.
    - `example_inputs`: what `module(*example_inputs)` takes; with `loop="outside"`, the inputs of one time step. At
      least two time steps, and inputs that make the network spike.
    - `loop`: `"inside"` where `forward` runs over time, `"outside"` where one call is one time step, `"auto"` to see.

    - `surrogates`: for functions whose gradient cannot be read off, such as `spike_grad=` of one's own, what they
      compute: `{function: snnax.surrogate.Relaxed(jnp.tanh)}`. Spikes and slopes are compared with the function.

    **Raises:** `UnsupportedModuleError`, `UnsupportedOptionError` or `RecordingError` with module path, source line and
    advice for what cannot be converted exactly; `EquivalenceError` when the result differs from the module.

    >>> import snntorch, torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    >>> converted = from_torch(net, (torch.rand(2, 4) * 5,), loop="outside")
    >>> print(converted.model[1].decay_mem.factor)
    0.9
    """
    registry, inputs, surrogates = checked(module, example_inputs, loop, surrogates)
    with without_collector(), progress.shown():
        for axes in batch_candidates(inputs):
            found = on_few_samples(module, inputs, axes, registry, surrogates, loop)
            if found is not None:
                return verify(*found)
        return verify(*converted(*traced(module, inputs, inputs, registry, surrogates, loop)))


def on_few_samples(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    axes: tuple[int, ...],
    registry: Registry,
    surrogates: Surrogates,
    loop: LoopPlace,
) -> tuple[Converted, Example] | None:
    """The conversion as a few samples show it; None where these axes of the inputs are not the batch."""
    few = few_samples(inputs, axes)
    try:
        example, run = traced(module, few, inputs, registry, surrogates, loop)
        caller_loop = example.call is not None
        # In calls for one step each, time comes before the batch.
        expected = [axis + 1 for axis in axes] if caller_loop else list(axes)
        if any(axis == direct_time_axes(run).get(number) for number, axis in enumerate(expected)):
            return None
        found, example = converted(example, run)
    except Exception:  # whatever happens with another batch size: all samples will show it
        return None
    is_batch = [spec.batch_axis for spec in found.plan.inputs] == expected
    return (found, example) if is_batch and holds_for_all_samples(found, example) else None


def converted(example: Example, run: Run) -> tuple[Converted, Example]:
    """The conversion of a trace, not yet verified, with the example that it is to be compared on."""
    refusals: list[Refusal] = []
    for found in mixing_last(_each_lowered(example, run, refusals), lambda found: mixes_samples(found[0].program)):
        return found
    raise refusals[0].error


def _each_lowered(example: Example, run: Run, refusals: list[Refusal]) -> Iterator[tuple[Converted, Example]]:
    """The conversion for each axis of the inputs that may be the batch; where there is none, why."""
    for sized in sized_programs(example, run):
        found = sized if isinstance(sized, Refusal) else attempt(_lowered, sized, refusals)
        if isinstance(found, Refusal):
            refusals.append(found)
        else:
            assert isinstance(sized, SizedProgram)
            yield found, sized.compared


def mixing_last(candidates: Iterable[Candidate], is_mixing: Callable[[Candidate], bool]) -> Iterator[Candidate]:
    """What mixes samples comes behind what does not: where both are possible, samples are along the other axis."""
    mixing = []
    for each in candidates:
        if is_mixing(each):
            mixing.append(each)
        else:
            yield each
    yield from mixing


# The passes from program to program

REWRITES: tuple[tuple[str, Callable[[Program], Program]], ...] = (
    ("join loops", join_loops),
    ("take in layers", take_in_layers),
    ("prune", prune),
    ("drop the batch", drop_batch),
)


def programs(
    module: torch.nn.Module, example_inputs: Sequence[torch.Tensor] | torch.Tensor, loop: LoopPlace = "auto"
) -> Passes:
    """What the passes return before anything is lowered: programs, without JAX, in the order of the passes.

    **Raises:** as `from_torch`, for what shows by then.
    """
    registry, inputs, surrogates = checked(module, example_inputs, loop)
    example, run = traced(module, inputs, inputs, registry, surrogates, loop)
    found = list(sized_programs(example, run))
    sized = [each for each in found if isinstance(each, SizedProgram)]
    for each in mixing_last(sized, lambda each: mixes_samples(each.program)):
        return each.passes
    raise next(each for each in found if isinstance(each, Refusal)).error


def checked(
    module: Any,
    example_inputs: Any,
    loop: Any,
    surrogates: Surrogates | None = None,
) -> tuple[Registry, tuple[torch.Tensor, ...], Surrogates]:
    """What is known of the module's framework, the inputs as a tuple, and the surrogates.

    **Raises:** for what cannot be converted whatever the module does.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, found {type(module).__name__}")
    if loop not in ("inside", "outside", "auto"):
        raise ValueError(f"loop must be 'inside', 'outside' or 'auto', found {loop!r}")
    registry = registry_for(module)
    inputs = checked_inputs(module, example_inputs, registry)
    surrogates = {} if surrogates is None else surrogates
    check_surrogates(module, surrogates, registry)
    return registry, inputs, surrogates


def traced(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    whole: tuple[torch.Tensor, ...],
    registry: Registry,
    surrogates: Surrogates,
    loop: LoopPlace,
) -> tuple[Example, Run]:
    """Trace the module on inputs, which may be a few samples of the whole example; detect and roll its loops."""
    progress.step("trace")
    if loop != "outside":
        with preserved(module):
            attributes = AttributeSnapshot(module, registry)
            run = Run.of(run_once(module, inputs, registry))
            inside = runs_over_time(run)
            if inside:
                progress.step("trace a second call")
                attributes.check_second_call(inputs, run.tape)
        if inside:
            return Example(module, inputs, whole, registry, surrogates), run
        if loop == "inside" or not registry.neurons(module):
            raise nothing_found(bool(registry.neurons(module)), len(run.tape.entries))
    call = over_time(module, len(inputs))
    sequences = tuple(map(repeated, inputs))
    every = sequences if inputs is whole else tuple(map(repeated, whole))
    example = Example(module, sequences, every, registry, surrogates, call)
    run = Run.of(example.record(example.inputs))
    if not any(loop.count > 1 for loop in run.loops):
        raise RecordingError(
            "the calls of forward at different time steps differ; see loop='inside'", framework="torch"
        )
    progress.step("trace a second call")
    check_deterministic(module, example.inputs, registry, call, run.tape)
    return example, run


@dataclasses.dataclass(frozen=True)
class SizedProgram:
    """A program, what the passes to it have returned, the runs that its sizes come from, and what it is compared on."""

    example: Example
    tape: Tape
    passes: Passes
    batch: OtherBatch
    length: OtherLength | None
    notes: tuple[str, ...]
    compared: Example

    @property
    def program(self) -> Program:
        return [each for each in self.passes.values() if isinstance(each, Program)][-1]


def sized_programs(example: Example, run: Run) -> Iterator[SizedProgram | Refusal]:
    """The program for each axis of the inputs that may be the batch: the likely one first."""
    progress.step("trace a few steps")
    few = few_steps(example, run)
    if few is not None:
        found = attempt(on_few_steps, few)
        if not isinstance(found, Refusal):
            yield from found
            return
    progress.step("trace another length")
    length, why = other_length(example.record, run, example.inputs)
    yield from _sized(example, run, length, why, _at_any_length)


def on_few_steps(few: FewSteps) -> list[SizedProgram]:
    """The programs as the first steps of the example show them.

    **Raises:** `RecordingError` where all steps will show more.
    """
    sized = list(_sized(few.example, few.run, few.length, "", _at_any_length))
    found = [each for each in sized if isinstance(each, SizedProgram) and each.length is not None]
    if len(found) < len(sized) or not all(few.hold_beyond(each.program) for each in found):
        raise RecordingError("the first steps of the example do not show what all of them do")
    return [dataclasses.replace(each, compared=few.compared(each.program)) for each in found]


def _sized(
    example: Example, run: Run, length: OtherLength | None, why: str, at_any_length: Callable[..., Program]
) -> Iterator[SizedProgram | Refusal]:
    axes = direct_time_axes(run) | ({} if length is None else length.axes)
    progress.step("trace another batch size")
    for batch in other_batches(example.record, run, example.inputs, axes):
        notes = [note for note in (batch.note, why, *_continuing(run.tape, example)) if note]
        yield attempt(_rewritten, example, run, batch, length, notes, at_any_length)


def _continuing(tape: Tape, example: Example) -> list[str]:
    """What to say of neurons that torch does not reset between calls."""
    if example.call is not None or not tape.continuing:
        return []
    return [
        f"{', '.join(tape.continuing)}: torch continues from the last membrane at the next call unless reset; the "
        "conversion starts anew"
    ]


def _rewritten(
    example: Example,
    run: Run,
    batch: OtherBatch,
    length: OtherLength | None,
    notes: list[str],
    at_any_length: Callable[..., Program],
) -> SizedProgram:
    """Unify the sizes of all runs, at any length or else at that of the example, and go through all rewrites."""
    passes: dict[str, Program | Refusal] = {}
    progress.step("unify sizes")
    program = passes["unify sizes"] = attempt(at_any_length, example, run, batch, length)
    if isinstance(program, Refusal):
        if not isinstance(program.error, LengthError):
            raise program.error
        notes, length = [*notes, f"converted for exactly this length: {program}"], None
        program = passes["unify sizes of the example"] = _unified(example, run, batch, None)
    if program.shortest > 1:
        notes = [*notes, f"for {program.shortest} time steps and more: with fewer, forward does something else"]
    for name, rewrite in REWRITES:
        progress.step(name)
        program = passes[name] = rewrite(program)
    return SizedProgram(example, run.tape, passes, batch, length, tuple(notes), example)


def _at_any_length(example: Example, run: Run, batch: OtherBatch, length: OtherLength | None) -> Program:
    """The program of two lengths, if the module computes the same at others."""
    program = _unified(example, run, batch, length)
    return program if length is None else with_lengths(program, example, length)


def _unified(example: Example, run: Run, batch: OtherBatch, length: OtherLength | None) -> Program:
    runs = Runs(run, batch.run, None, batch.sizes, None)
    if length is not None:
        runs = Runs(run, batch.run, length.run, batch.sizes, length.sizes, length.rounds, length.whole)
    axis = None if length is None else Length(*next(iter(length.axes.items())))
    keys = example.module.state_dict().keys()
    return unify(restore_first_steps(runs), type(example.module).__name__, example.names, keys, axis)


def _lowered(sized: SizedProgram, refusals: Sequence[Refusal]) -> Converted:
    """The native network of a program."""
    progress.step("lower")
    example, tape = sized.example, sized.tape
    module, caller_loop = example.module, example.call is not None
    free = {} if sized.length is None else sized.length.axes
    specs = tuple(
        InputSpec(name, tuple(tensor.shape), torch_dtype_name(tensor), axis, free.get(number), sized.program.shortest)
        for number, (name, tensor, axis) in enumerate(zip(example.names, example.whole, sized.batch.axes, strict=True))
    )
    network, passes = _network(sized)

    def run_in_float64() -> Tape | None:
        """The run in float64, if it makes the same calls."""
        double = record_double(module, example.inputs, caller_loop=caller_loop)[1]
        return double if tape.first_difference(double) is None else None

    notes = [*sized.notes, *(f"not converted with the batch elsewhere: {refusal}" for refusal in refusals)]
    report = functools.partial(conversion_report, module, network, called=tape.called, notes=notes)
    return assemble(module, network, run_in_float64, specs, tape, caller_loop, report, passes)


def _network(sized: SizedProgram) -> tuple[Lowering, Passes]:
    """The graphs of a program, and the passes to it. Which layers mix samples shows when they are built."""
    example = sized.example
    modules = dict(example.module.named_modules(remove_duplicate=False))
    caveats = {path: example.registry.caveat(child) for path, child in modules.items()}

    def lowered(program: Program) -> Lowering:
        weights = Weights(example.module)
        weights.caveats |= caveats
        return Lowering(program, modules, weights, example.surrogates)

    network = lowered(sized.program)
    if not network.calls.mixing:
        return network, sized.passes
    passes = dict(sized.passes)
    name = list(passes)[-1]
    passes[name] = program = drop_batch(sized.program, network.calls.mixing)
    return lowered(program), passes
