"""Whether a network computes the same when it is called again: the conversion does."""

from collections.abc import Callable
from typing import Any

import torch

from ..converters.registry import Registry
from ..errors import RecordingError
from .isolation import advance_random_numbers, preserved_random_numbers
from .record import record, run_again, run_once
from .tape import Ref, Tape, base_name, leaves_of, refs


class AttributeSnapshot:
    """What a forward could write on the modules that it runs through, as it is before its first call."""

    def __init__(self, module: torch.nn.Module, registry: Registry):
        self.module = module
        self.registry = registry
        self.before = _attributes(module, registry)

    def check_second_call(self, inputs: tuple[torch.Tensor, ...], first: Tape) -> None:
        """Refuse a network that does something else than `first` the second time, on the same inputs.

        Neurons are reset between; what the first call has left on the modules must still be there.

        **Raises:** `RecordingError` that names what forward keeps on `self`, or the random numbers.
        """
        before, after = self.before, _attributes(self.module, self.registry)
        changed = [name for name in after if name not in before or _differs(before[name], after[name])]
        for name in changed:
            _check_buffer(name, first)
        if not changed and not first.draws and self.repeats(inputs, first):
            return
        numbers = [name for name in changed if type(after[name][0]) in (int, float)]
        try:
            second = run_once(self.module, inputs, self.registry)
        except Exception as error:
            if not changed:
                raise
            where = str(error).splitlines()
            raise _keeps(changed, f"raises {type(error).__name__}: {where[0]}", "".join(where[1:2])) from error
        _compare(first, second, changed)
        if numbers and not first.draws:
            self._check_numbers(inputs, first, numbers)

    def _check_numbers(self, inputs: tuple[torch.Tensor, ...], first: Tape, names: list[str]) -> None:
        """Refuse numbers that calls change and that other calls read: far from now they may mean something else.

        They are made large, and matter if the module then computes something else.
        """
        modules = dict(self.module.named_modules())
        for name in names:
            path, _, key = name.rpartition(".")
            setattr(modules[path], key, getattr(modules[path], key) + 1000)
        if not self.repeats(inputs, first):
            shown = ", ".join(f"self.{name}" for name in names)
            raise RecordingError(
                f"forward changes {shown} from call to call, and computes something else where that is large\nAllowed: "
                "attributes that forward only reads, or sets before it reads them. Initialise them in __init__, or "
                "pass what changes to forward"
            )

    def repeats(self, inputs: tuple[torch.Tensor, ...], first: Tape) -> bool:
        """Whether a call that is not recorded gives the same results, spikes and states.

        If not, a recorded one may say why.
        """
        try:
            result, calls = run_again(self.module, inputs, self.registry)
        except Exception:  # the recorded call raises it with its place
            return False
        paths = {id(child): path for path, child in reversed(list(self.module.named_modules()))}
        neurons = [entry for entry in first.entries if entry.is_neuron]
        returned = leaves_of(result, torch.Tensor)
        expected = [first.tensors[ref.index] for ref in refs(first.result)]
        return (
            [entry.path for entry in neurons] == [paths[id(child)] for child, _ in calls]
            and len(returned) == len(expected)
            and all(map(_are_close, returned, expected))
            and all(
                any(_are_close(value, first.tensors[ref.index]) for ref in entry.made)
                for entry, (_, values) in zip(neurons, calls, strict=True)
                for value in values
            )
        )


def check_deterministic(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], registry: Registry, call: Callable[..., Any], first: Tape
) -> None:
    """Refuse a network, called by `call`, that does something else from the same state on.

    **Raises:** `RecordingError`.
    """
    with preserved_random_numbers():
        advance_random_numbers()
        second = record(module, inputs, registry, call=call)
    _compare(first, second, [])


def _compare(first: Tape, second: Tape, changed: list[str]) -> None:
    """Refuse two runs that differ; `changed` are the attributes that the first has changed."""
    entry = first.first_difference(second)
    if entry is not None:
        what = f"does something else at {entry.name}"
        raise _keeps(changed, what, entry.line) if changed else _varies(what, entry.line)
    if not first.draws and not _same_values(first, second):
        line = _other_value(first, second)
        raise _keeps(changed, "computes other values", line) if changed else _varies("gives other values", line)


def _keeps(names: list[str], what: str, line: str) -> RecordingError:
    shown = ", ".join(f"self.{name}" for name in names)
    return RecordingError(
        f"forward keeps something from call to call, and the second call on the same inputs {what}; changed by the "
        f"first: {shown}\n  {line.strip()}\nAllowed: attributes that forward only reads, or sets before it reads them. "
        "Initialise what changes at the beginning of forward"
    )


def _varies(what: str, line: str) -> RecordingError:
    return RecordingError(
        f"forward {what} when it is called again on the same inputs\n  {line}\nAllowed: deterministic forwards. Draw "
        "random numbers (random, numpy.random) outside of the network, and pass them as inputs"
    )


def _attributes(module: torch.nn.Module, registry: Registry) -> dict[str, Any]:
    """What forward could write on the modules that it runs through, by name; converters look after theirs."""
    found = {}
    for path, child in module.named_modules():
        if type(child) not in registry.converters:
            values = {key: value for key, value in child.__dict__.items() if not key.startswith("_")} | child._buffers
            for key, value in values.items():
                found[f"{path}.{key}" if path else key] = (value, _content(value))
    return found


def _content(value: Any) -> Any:
    """The items of a container as they are now; a list that grows stays the same list."""
    if isinstance(value, dict):
        return [*value, *map(id, value.values())]
    return list(map(id, value)) if isinstance(value, list | set) else None


def _differs(before: tuple[Any, Any], after: tuple[Any, Any]) -> bool:
    (old, old_items), (new, new_items) = before, after
    is_scalar = isinstance(new, bool | int | float | str) and type(new) is type(old)
    return old_items != new_items or (new != old if is_scalar else new is not old)


def _check_buffer(name: str, tape: Tape) -> None:
    """Refuse a buffer that is read and then replaced: the next call reads what this one has left there."""
    indices = {index for index, found in tape.names.items() if found == name}
    for entry in tape.entries:
        if not entry.constant and indices & {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}:
            raise RecordingError(
                f"the buffer '{name}' is changed inside forward, so the next call reads another value at {entry.name}\n"
                f"  {entry.line}\nAllowed: buffers that forward only reads, or sets before it reads them. Keep the "
                "changing value in a variable of forward, or pass it in and return it"
            )


def _same_values(first: Tape, second: Tape) -> bool:
    """Whether results and spikes agree; what lies between may hold uninitialised memory."""
    pairs = list(zip(refs(first.result), refs(second.result), strict=True))
    for a, b in zip(first.entries, second.entries, strict=True):
        if a.is_neuron:
            pairs += zip(a.made, b.made, strict=True)
    return all(_same(first, a, second, b) for a, b in pairs)


def _other_value(first: Tape, second: Tape) -> str:
    """The line of the first call with another argument or result."""
    for a, b in zip(first.entries, second.entries, strict=True):
        values = zip([*refs((a.args, a.kwargs)), *a.made], [*refs((b.args, b.kwargs)), *b.made], strict=True)
        if "empty" not in base_name(a.target) and not all(_same(first, x, second, y) for x, y in values):
            return a.line
    return ""


def _same(first: Tape, a: Ref, second: Tape, b: Ref) -> bool:
    return _are_close(first.tensors[a.index], second.tensors[b.index])


def _are_close(x: torch.Tensor, y: torch.Tensor) -> bool:
    x, y = x.detach(), y.detach()
    return x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=1e-5, atol=1e-8, equal_nan=True)
