"""Modules as native layers, with the parameters of the network."""

from collections.abc import Mapping
from typing import Any

import torch

from snnax.domains import parameters_as_given

from ..converters.context import ConversionContext
from ..converters.parameters import Weights
from ..converters.surrogates import Surrogates
from ..ir.regions import Call, Value
from ..nodes.batch import BATCH
from ..nodes.call import Form


class Layers:
    """The native layer of each module: one for all its calls of the same form.

    `built` lists the calls that a layer was built for, with it.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        weights: Weights,
        dtype: torch.dtype,
        surrogates: Surrogates,
        length: int,
        *,
        has_batch: bool,
    ):
        self.modules = modules
        self.weights = weights
        self.dtype = dtype
        self.surrogates = surrogates
        self.length = length
        self.axis_name = BATCH if has_batch else None
        self.found: dict[Any, Any] = {}
        self.built: list[tuple[Call, Any]] = []

    def shape(self, value: Value) -> tuple[int, ...]:
        """The sizes of a value for one sample, at the example's length."""
        return tuple(size(self.length) for size in value.sample_shape)

    def layer(self, call: Call, x: Value, form: Form) -> Any:
        """The native layer of the module that is called; `x` is the first input."""
        shape = self.shape(x)
        key = (call.path, shape, form)
        if key not in self.found:
            context = ConversionContext(
                converter=call.converter,
                path=call.path,
                module=self.modules[call.path],
                x_shape=shape,
                form=form,
                dtype=self.dtype,
                weights=self.weights,
                axis_name=self.axis_name,
                folded=x.is_folded,
                surrogates=self.surrogates,
            )
            with parameters_as_given():
                self.found[key] = call.converter.build(context.module, context)
            self.built.append((call, self.found[key]))
        return self.found[key]
