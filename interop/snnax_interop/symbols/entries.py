"""One call in all runs of a network."""

import dataclasses
import inspect
from typing import Any

from ..converters.neuron import NeuronConverter
from ..errors import RecordingError, UnsupportedOptionError
from ..loops.body import outputs_of
from ..ops import base_name, bind, op_name
from ..trace.tape import Entry, Ref, function_name


@dataclasses.dataclass(frozen=True)
class CallInRuns:
    """One call in all runs."""

    given: Entry
    batch: Entry
    length: Entry

    @property
    def op(self) -> str:
        return "" if self.given.converter is not None else op_name(base_name(self.given.target))

    @property
    def all(self) -> tuple[Entry, Entry, Entry]:
        return self.given, self.batch, self.length

    def results(self) -> list[tuple[Ref, Ref]]:
        """What the call makes, as given and at the other length; as many as both make."""
        return list(zip(outputs_of(self.given), outputs_of(self.length), strict=False))

    def states(self) -> list[tuple[Ref, Ref]]:
        return list(zip(self.given.state_out, self.length.state_out, strict=True))

    def refuse(self, what: str, kind: type[RecordingError] = RecordingError) -> RecordingError:
        entry = self.given
        return kind(
            f"{function_name(entry.target)}: {what}\n  {entry.line}\nAllowed: the same arguments whatever the batch "
            "size and the length, or sizes of the batch and of time",
            path=entry.path,
        )


def normal_form(entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and its arguments by name; of a function that is no known operation, as it is called.

    **Raises:** `UnsupportedOptionError` for a form that an operation does not take.
    """
    if entry.converter is not None:
        kind = entry.converter.kind
        if isinstance(entry.converter, NeuronConverter):
            return kind.__name__, {"input": args[0]}
        bound = inspect.signature(kind.forward).bind(None, *args, **kwargs).arguments
        return kind.__name__, dict(list(bound.items())[1:])
    try:
        return bind(entry.target, args, kwargs)
    except LookupError:
        return entry.kind[0], {**{str(place): each for place, each in enumerate(args)}, **kwargs}
    except TypeError as error:
        raise UnsupportedOptionError(
            f"{function_name(entry.target)} cannot be converted in this form: {error}\n  {entry.line}", path=entry.path
        ) from error
