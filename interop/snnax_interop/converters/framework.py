"""All that the bridge knows of a source framework."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .base import Converter


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedClasses:
    """The classes of a framework whose forward is recorded, like that of a user's module.

    - `takes`: whether a class is one of them.
    - `reset`: puts back to its beginning what a module of the framework, or of a user's subclass, keeps between calls.
    - `caveat`: what such a module does against expectation, and the conversion as well.
    """

    takes: Callable[[type], bool]
    reset: Callable[[torch.nn.Module], None] = lambda module: None
    caveat: Callable[[torch.nn.Module], str] = lambda module: ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurrogateOption:
    """Where the neurons of a framework keep their surrogate, and whether they spike at the threshold itself."""

    attribute: str
    spikes_at_threshold: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """A source framework.

    - `name`: its top-level package.
    - `converters`: of its classes that are converted as a whole, by class.
    - `recorded`: its classes that are made of others, or of tensor functions. All that is in neither is refused.
    - `gradient_hooks`: by the full name of a hook that it puts on the gradient of a parameter, a function of the
      parameter that has the same gradient.
    - `surrogate`: None where users cannot give neurons a function of their own.
    """

    name: str
    converters: Mapping[type, Converter]
    recorded: RecordedClasses | None = None
    gradient_hooks: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    surrogate: SurrogateOption | None = None


def by_class(*converters: Converter) -> dict[type, Converter]:
    """Converters by the class that they are of."""
    return {each.kind: each for each in converters}


def full_name(value: Any) -> str:
    """The name of a class or function with its module; of another object, that of its class."""
    named = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    return f"{named.__module__}.{named.__qualname__}"
