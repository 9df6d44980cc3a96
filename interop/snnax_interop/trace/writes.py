"""A call that writes into its arguments, on its way to the tape."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils import _pytree as pytree

from .aliasing import Aliases, Writer
from .functional import RESHAPING_IN_PLACE, Functional, functional, may_differ, overwritten
from .tape import Entry, Ref, leaves_of


@runtime_checkable
class _Recorder(Writer, Protocol):
    """What writes calls down."""

    aliases: Aliases

    def ref(self, tensor: torch.Tensor) -> Ref: ...

    def add(self, target: Any, path: str, before: Any, outcome: Any) -> Entry: ...

    def current_path(self) -> str: ...

    def prepare_write(self, tensor: torch.Tensor, name: str) -> None: ...


class Write:
    """One such call: made before it runs, and written down, as functions, by `done` when it has run."""

    def __init__(
        self,
        recorder: _Recorder,
        function: Callable[..., Any],
        name: str,
        given: tuple[tuple[Any, ...], dict[str, Any]],
        before: tuple[tuple[Any, ...], dict[str, Any]],
        targets: list[torch.Tensor],
    ):
        self.recorder = recorder
        self.name = name
        self.before = before
        self.source = overwritten(name, *given)
        self.value = overwritten(name, *before)
        self.form = functional(function, name, *before)
        self.shapes = {id(tensor): tensor.shape for tensor in targets}
        for tensor in targets:
            recorder.prepare_write(tensor, name)
        self.old = [recorder.ref(tensor) for tensor in targets]
        self.targets = targets
        self.shown: list[torch.Tensor] = []
        if name in RESHAPING_IN_PLACE:
            self.shown = [tensor.detach() for tensor in targets]
        # What the function makes, where it is not known to be like what is written into.
        self.loose: Any = None
        if self.form is not None and self.source is None and may_differ(name, given, targets):
            call = functional(function, name, *given)
            assert call is not None
            with torch.no_grad():
                self.loose = call()

    def done(self, result: Any, written: list[torch.Tensor]) -> None:
        """Write the call down; `written` are the arguments that it has written into."""
        recorder, aliases = self.recorder, self.recorder.aliases
        if any(tensor.shape != self.shapes[id(tensor)] for tensor in written) and not self.shown:
            raise recorder.refuse(
                f"{self.name} makes the tensor that it writes into longer or shorter",
                advice="Allowed: writes that leave the shape of a tensor as it is. Compute a new tensor.",
            )
        if self.shown:
            self._reshaped(written[0])
        elif self.value is not None:
            aliases.overwrite(written[0], self._cast(written[0]), self.name)
        elif self.form is None:
            raise recorder.refuse(
                f"{self.name} writes into a tensor as no function of torch does",
                advice="Allowed: in-place calls with an out-of-place form, such as add_ and masked_fill_, index "
                "assignment, copy_, fill_ and zero_. Use tensor functions that return a new tensor.",
            )
        else:
            self._computed(self.form, result, written)
            for tensor, before in zip(self.targets, self.old, strict=True):
                if any(tensor is each for each in written):
                    aliases.keep_gradient(tensor, before)
                    aliases.write_back(tensor, self.name)

    def _reshaped(self, tensor: torch.Tensor) -> None:
        """A tensor that has another shape, in memory that nothing was written into."""
        recorder, form = self.recorder, self.form
        assert form is not None
        taken = recorder.ref(tensor)
        made = recorder.value(tensor)
        recorder.assign(tensor, made)
        entry = recorder.add(form.target, recorder.current_path(), (form.args, form.kwargs), made)
        recorder.aliases.reshaped(tensor, self.shown[0], entry, taken)

    def _cast(self, tensor: torch.Tensor) -> Any:
        """What is written all over a tensor, in its dtype."""
        assert self.source is not None and self.value is not None
        (source,), (value,) = self.source, self.value
        if not isinstance(source, torch.Tensor) or source.dtype == tensor.dtype:
            return value
        with torch.no_grad():
            cast = self.recorder.value(source.to(tensor.dtype))
        self.recorder.derive(torch.Tensor.to, (value, tensor.dtype), {}, cast)
        return cast

    def _computed(self, form: Functional, result: Any, written: list[torch.Tensor]) -> None:
        recorder = self.recorder
        made = [recorder.value(tensor) for tensor in written]
        loose = leaves_of(self.loose, torch.Tensor) or written
        values = [
            ref if _same_kind(source, tensor) else recorder.value(source)
            for ref, source, tensor in zip(made, loose, written, strict=True)
        ]
        for tensor, ref in zip(written, made, strict=True):
            recorder.aliases.write(tensor, ref)
        # A call that returns nothing (index assignment) has what it wrote into as result.
        structure = pytree.tree_structure(result if leaves_of(result, torch.Tensor) else written[0])
        outcome: Any = pytree.tree_unflatten(values, structure)
        recorder.add(form.target, recorder.current_path(), (form.args, form.kwargs), outcome)
        for tensor, ref, value, source in zip(written, made, values, loose, strict=True):
            if value != ref:
                self._like(tensor, ref, value, source)

    def _like(self, tensor: torch.Tensor, ref: Ref, value: Ref, source: torch.Tensor) -> None:
        """Give a value the dtype and the layout of the tensor that it is written into, where it may be viewed so."""
        changed_layout = tensor.is_contiguous() and not source.is_contiguous()
        if source.dtype != tensor.dtype:
            cast = self.recorder.value(tensor) if changed_layout else ref
            self.recorder.derive(torch.Tensor.to, (value, tensor.dtype), {}, cast)
            value = cast
        if changed_layout:
            self.recorder.derive(torch.Tensor.contiguous, (value,), {}, ref)


def _same_kind(source: torch.Tensor, target: torch.Tensor) -> bool:
    return source.dtype == target.dtype and (source.is_contiguous() or not target.is_contiguous())
