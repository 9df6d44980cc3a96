"""Layers without state: those of torch with a step mode, and others like them."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import torch
from jaxtyping import Array
from spikingjelly.activation_based import layer
from torch import nn

from snnax import snn

from ...converters.base import ModuleCall
from ...converters.context import ConversionContext
from ...converters.framework import by_class
from ...converters.layer import LayerConverter
from ...converters.sequence import FoldedCall, SequenceCall, SequenceConverter, SequencePart
from ..pytorch import LAYERS
from ._neuron import in_both_modes


def layer_converter(
    kind: type,
    options: str,
    build: Callable[[Any, ConversionContext], Any],
    acts_on: Literal["elements", "last axis"] | None = None,
) -> SequenceConverter:
    """The converter of a layer that in step mode 'm' does the same to every time step `x[t]`."""

    def split(module: Any, call: ModuleCall) -> SequenceCall | FoldedCall | None:
        x = call.argument()
        if module.step_mode == "s" or not _is_sequence(module, x):
            return None
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats):
            return FoldedCall(x=x, converter=step, result=call.result)
        part = SequencePart(converter=step, module=module, outs=call.result)
        return SequenceCall(x=x, parts=(part,), results=((call.result, None),))

    step = LayerConverter(
        kind=kind,
        framework="spikingjelly",
        options=tuple(options.split()),
        build=build,
        acts_on=acts_on,
        run=_run_at_one_step,
    )
    return in_both_modes(step, split)


def _run_at_one_step(module: Any, *args: Any, **kwargs: Any) -> Any:
    """A call on one time step."""
    mode = module.step_mode
    if "s" not in module.supported_step_mode():
        x, *others = args
        return module(x.unsqueeze(0), *others, **kwargs).squeeze(0)
    try:
        module.step_mode = "s"
        return module(*args, **kwargs)
    finally:
        module.step_mode = mode


def _is_sequence(module: Any, x: torch.Tensor) -> bool:
    """Whether an input has time as its first axis: a linear layer takes any, those of one step too."""
    return not isinstance(module, nn.Linear) or x.ndim > 2


def _like_torch(kind: type, parent: type, *missing: str) -> SequenceConverter:
    """The converter of a layer that is torch's but for its step mode; `missing`: options of torch's that it lacks."""
    theirs = LAYERS[parent]
    options = " ".join(name for name in theirs.options if name not in missing)
    return layer_converter(kind, f"{options} step_mode", theirs.build, theirs.acts_on)


def _spatial(name: str, *missing: str) -> list[SequenceConverter]:
    return [_like_torch(getattr(layer, f"{name}{n}d"), getattr(nn, f"{name}{n}d"), *missing) for n in (1, 2, 3)]


class Voting(snn.AbstractFunction):
    """`VotingLayer`: the mean of every `voting_size` neurons that follow each other."""

    voting_size: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        votes = x.shape[-1] // self.voting_size
        return jnp.mean(x[..., : votes * self.voting_size].reshape(*x.shape[:-1], votes, self.voting_size), -1)


def _build_voting(module: Any, context: ConversionContext) -> Voting:
    return Voting(module.voting_size)


def _build_threshold_dependent(module: Any, context: ConversionContext) -> Any:
    if not module.track_running_stats or module.momentum is None:
        raise context.refuse(
            "momentum", module.momentum, allowed="a number, with track_running_stats=True",
            advice="Keep running statistics",
        )  # fmt: skip
    return LAYERS[nn.BatchNorm1d].build(module, context)


def _refuse_dropout(module: Any, context: ConversionContext) -> Any:
    raise context.refuse(
        "training", module.training, allowed="evaluation mode",
        advice="Its mask stays until reset_net, over several calls; call module.eval() before converting",
    )  # fmt: skip


def _identity(module: Any, context: ConversionContext) -> Any:
    return eqx.nn.Identity()


CONVERTERS = by_class(
    _like_torch(layer.Linear, nn.Linear),
    *_spatial("Conv"),
    *_spatial("ConvTranspose"),
    *_spatial("MaxPool"),
    *_spatial("AvgPool"),
    *_spatial("AdaptiveAvgPool"),
    *_spatial("BatchNorm", "bias"),
    _like_torch(layer.GroupNorm, nn.GroupNorm, "bias"),
    _like_torch(layer.Upsample, nn.Upsample),
    _like_torch(layer.Flatten, nn.Flatten),
    layer_converter(layer.VotingLayer, "voting_size step_mode", _build_voting),
    *(
        layer_converter(
            getattr(layer, f"ThresholdDependentBatchNorm{n}d"), "alpha v_th args kwargs", _build_threshold_dependent
        )
        for n in (1, 2, 3)
    ),
    *(
        LayerConverter(kind=kind, framework="spikingjelly", options=("p", "step_mode"), build=_refuse_dropout)
        for kind in (layer.Dropout, layer.Dropout2d)
    ),
    LayerConverter(kind=layer.PrintShapeModule, framework="spikingjelly", options=("ext_str",), build=_identity),
)
