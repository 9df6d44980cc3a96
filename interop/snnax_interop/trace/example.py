"""A module with the inputs that it is recorded on."""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from ..converters.arrays import is_held
from ..converters.hooks import refuse_unseen
from ..converters.registry import Registry
from ..converters.surrogates import Surrogates
from ..errors import TransferError
from ..ir.evaluator import evaluate
from ..ir.program import Program
from .isolation import preserved
from .record import record
from .tape import Tape, leaves_of
from .unwrap import signature


# A loop shows itself at two steps; the third shows that the second was not special.
_CALLER_STEPS = 3

# What a network does shows itself on two samples; more of them only take longer to record.
FEW_SAMPLES = 2
_MANY_SAMPLES = 8


Outcome = Literal["equal", "different", "module raises", "program raises", "both raise"]


@dataclasses.dataclass(frozen=True)
class Example:
    """A module with inputs and their names; `call` runs it over time where its own forward does not.

    `inputs` may be a few samples of `whole`, which the user has given.
    """

    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    whole: tuple[torch.Tensor, ...]
    registry: Registry
    surrogates: Surrogates
    call: Callable[..., Any] | None = None

    @property
    def is_whole(self) -> bool:
        return all(few is every for few, every in zip(self.inputs, self.whole, strict=True))

    @property
    def names(self) -> list[str]:
        return input_names(self.module, len(self.inputs))

    def record(self, inputs: tuple[torch.Tensor, ...]) -> Tape:
        """A tape of a run on other inputs."""
        return record(self.module, inputs, self.registry, call=self.call)

    def is_computed_by(self, program: Program, inputs: tuple[torch.Tensor, ...], *, or_raises: bool = False) -> bool:
        """Whether the module computes what a program does with these inputs: both are run by torch.

        With `or_raises`, also where the module raises an error.
        """
        outcome = self.outcome(program, inputs)
        return outcome == "equal" or (or_raises and outcome in ("module raises", "both raise"))

    def outcome(self, program: Program, inputs: tuple[torch.Tensor, ...]) -> Outcome:
        """What comes out when torch runs the module, and a program, on these inputs."""
        found = expected = None
        with (
            warnings.catch_warnings(action="ignore"),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            preserved(self.module),
        ):
            self.registry.reset_states(self.module)
            with contextlib.suppress(Exception):  # whatever user code raises on sizes that it was not written for
                given = (x.clone() for x in inputs)  # forward may write into them
                expected = leaves_of((self.call or self.module)(*given), torch.Tensor)
            with contextlib.suppress(Exception):  # sizes that the program does not take
                found = leaves_of(evaluate(program, self.module, *inputs), torch.Tensor)
        if found is None or expected is None:
            return "module raises" if found is not None else "both raise" if expected is None else "program raises"
        equal = len(found) == len(expected) and all(map(_is_close, found, expected))
        return "equal" if equal else "different"


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def checked_inputs(module: Any, example_inputs: Any, registry: Registry) -> tuple[torch.Tensor, ...]:
    """The inputs as a tuple.

    **Raises:** `TypeError`, `ValueError` or `TransferError` for what cannot be an example.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(tensor, torch.Tensor) for tensor in inputs):
        kinds = [type(tensor).__name__ for tensor in inputs]
        raise TypeError(
            f"example_inputs must be a tuple of torch tensors, as for module(*example_inputs), found {kinds}"
        )
    refuse_unseen(module, registry.hook_of)
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


def batch_candidates(inputs: Sequence[torch.Tensor]) -> Iterator[tuple[int, ...]]:
    """Where the batch may be, as an axis for each input, if it has so many samples that a few should do.

    Sequences have time first most often.
    """
    axes = [(1, 0) if tensor.ndim > 2 else (0, 1)[: tensor.ndim] for tensor in inputs]
    for each in itertools.product(*axes):
        sizes = {tensor.shape[axis] for tensor, axis in zip(inputs, each, strict=True)}
        if len(sizes) == 1 and min(sizes) > _MANY_SAMPLES:
            yield each


def few_samples(inputs: Sequence[torch.Tensor], axes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The inputs with the samples that are most active, along the batch axis of each."""
    activity = sum(_activity(tensor, axis) for tensor, axis in zip(inputs, axes, strict=True))
    assert isinstance(activity, torch.Tensor)
    chosen = activity.topk(FEW_SAMPLES).indices.sort().values
    return tuple(tensor.detach().index_select(axis, chosen) for tensor, axis in zip(inputs, axes, strict=True))


def _activity(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """How much each sample holds, in relation to the others: a silent one shows little of what a network does."""
    size = tensor.detach().movedim(axis, 0).flatten(1).double().abs().sum(1)
    return size / size.max().clamp(min=1e-30)


def input_names(module: torch.nn.Module, count: int) -> list[str]:
    parameters = [
        each.name
        for each in signature(module).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[:count] if len(parameters) >= count else [f"input{number}" for number in range(count)]


def repeated(tensor: torch.Tensor) -> torch.Tensor:
    """An input of one time step as a sequence, with other values at its second step where there are several samples."""
    flipped = tensor.flip(0) if tensor.ndim else tensor
    return torch.stack([flipped if step == 1 else tensor for step in range(_CALLER_STEPS)])
