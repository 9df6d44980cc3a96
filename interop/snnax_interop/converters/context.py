"""Where a module is converted: its path, how it is called, and its parameters."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Array

from ..errors import UnsupportedOptionError
from ..nodes.call import Call, Form
from .base import Converter
from .parameters import Weights
from .surrogates import Surrogates


def neuron_shape(value: torch.Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a neuron parameter without its leading axes of length 1 where torch has the batch.

    None when it does not broadcast to neurons of `shape` without enlarging them.
    """
    extra = max(value.ndim - len(shape), 0)
    leading, own = tuple(value.shape[:extra]), tuple(value.shape[extra:])
    pairs = zip(reversed(own), reversed(shape), strict=False)
    broadcasts = all(size == 1 for size in leading) and all(size in (1, found) for size, found in pairs)
    return own if broadcasts else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionContext:
    """Where a module is converted: its path, how it is called, and its parameters.

    `x_shape` is the shape of the first input without batch, `batch_axis` where torch had the batch in it (None:
    nowhere, or, where `folded`, as a part of the first axis). `axis_name` is the name of the batch, where there is one,
    `surrogates` what the user has named.
    """

    converter: Converter
    path: str
    module: torch.nn.Module
    x_shape: tuple[int, ...]
    form: Form
    dtype: torch.dtype
    weights: Weights
    axis_name: str | None = None
    folded: bool = False
    surrogates: Surrogates = dataclasses.field(default_factory=dict)

    @property
    def batch_axis(self) -> int | None:
        return self.form.in_axes[0]

    def within(self, name: str, module: torch.nn.Module, converter: Converter, form: Form) -> "ConversionContext":
        """Where a submodule is converted that is given the same input."""
        return dataclasses.replace(self, path=self.key(name), module=module, converter=converter, form=form)

    def with_shape(self, *x_shape: int) -> "ConversionContext":
        """The same with inputs of another shape, such as of the neurons behind weights."""
        return dataclasses.replace(self, x_shape=x_shape)

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def parameter(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """A parameter or buffer of the module."""
        return self.weights.parameter(self.key(name), shape)

    def neuron_parameter(self, name: str) -> Array:
        """A parameter with at most one value per neuron."""
        return self.parameter(name, neuron_shape(getattr(self.module, name), self.x_shape))

    def constant(self, name: str, tensor: torch.Tensor) -> Array:
        """A value that the module computes with and that its state_dict does not hold."""
        return self.weights.constant(self.key(name), tensor)

    def learns(self, name: str) -> bool:
        """Whether the module trains this parameter."""
        return self.weights.canonical[self.key(name)] in self.weights.trainable

    def call(self, op: str, *names: str, **options: Any) -> Call:
        """The module as a function of its inputs, with those of the named parameters that it has."""
        arguments = {name: self.parameter(name) for name in names if getattr(self.module, name) is not None}
        return Call.of_form(op, self.form, {**arguments, **options})

    def refuse(self, option: str, found: Any, *, allowed: str, advice: str) -> UnsupportedOptionError:
        """The error for a value of an option that cannot be converted exactly."""
        return self.converter.refuse(self.path, option, found, allowed=allowed, advice=advice)
