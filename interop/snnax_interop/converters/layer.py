"""Converters of layers: functions of their inputs and parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from .base import ModuleCall, StepConverter


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerConverter(StepConverter):
    """How a layer is converted.

    - `inputs`: the names that the operation has for the arguments of `forward`, in order. Arguments behind these must
      be left out.
    - `acts_on`: what the layer acts on, where it does the same to everything else.
    - `draws`: whether the built layer draws random numbers, as the module does.
    - `run(module, *args, **kwargs)`: a call by torch itself.
    """

    inputs: tuple[str, ...] = ("input",)
    acts_on: Literal["elements", "last axis"] | None = None
    draws: bool = False
    run: Callable[..., Any] = lambda module, *args, **kwargs: module(*args, **kwargs)

    def split(self, module: Any, call: ModuleCall) -> None:
        del module, call
