"""What is said of every class that is converted as a whole, and not by recording its forward."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UnsupportedOptionError


_ABSENT = object()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleCall:
    """A call of a module: its arguments, what the module kept from its last call (see `Memory`), and its result."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    kept: Any
    result: Any

    def arguments(self, *names: str) -> dict[str, Any]:
        """The arguments by the names that `forward` has for them, as far as they are given."""
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}

    def argument(self) -> Any:
        """The only argument."""
        (value,) = (*self.args, *self.kwargs.values())
        return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converter(abc.ABC):
    """How modules of exactly one class are converted.

    - `kind`: the class; `framework`: the name of its framework.
    - `options`: the constructor's arguments that the conversion deals with; a test compares them with the installed
      class.
    - `may_change`: options that `forward` may set, since what is built does not depend on them.
    """

    kind: type
    framework: str
    options: tuple[str, ...]
    may_change: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The class with its framework."""
        return f"{self.framework}.{self.kind.__name__}"

    @property
    @abc.abstractmethod
    def at_one_step(self) -> "StepConverter | None":
        """What converts a call on one time step; None where every call is on a whole sequence."""

    @abc.abstractmethod
    def split(self, module: Any, call: ModuleCall) -> Any:
        """A call as tensors: a `NeuronCall`, `SequenceCall` or `FoldedCall`.

        None for a layer, of which a call is nothing but its arguments and its result.
        """

    def kept_options(self, module: Any) -> dict[str, Any]:
        """Those of the options that a module keeps as attributes of the same name."""
        found = {name: getattr(module, name, _ABSENT) for name in self.options}
        return {name: value for name, value in found.items() if value is not _ABSENT}

    def refuse(self, path: str, option: str, found: Any, *, allowed: str, advice: str) -> UnsupportedOptionError:
        """The error for a value of an option that cannot be converted exactly."""
        return UnsupportedOptionError(
            f"{self.kind.__name__}({option}={found!r}) has no exact counterpart. Allowed: {allowed}. {advice}",
            path=path,
            framework=self.framework,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConverter(Converter):
    """A converter of what a module does at one time step.

    - `build(module, context)` returns the native layer for one sample. It raises `UnsupportedOptionError` for a value
      of an option that has no exact counterpart.
    - `caveat`: what the module does against expectation, and the conversion as well: a warning, and a line of the
      report.
    """

    build: Callable[[Any, Any], Any]
    caveat: Callable[[Any], str] = lambda module: ""

    @property
    def at_one_step(self) -> "StepConverter":
        return self
