"""Layers without state: those of torch with a step mode, and others like them."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import torch
from jaxtyping import Array
from spikingjelly.activation_based import layer
from torch import nn

from snnax import snn

from ...converters.context import Site
from ...converters.leaf import FoldedCall, Leaf, Part, SequenceCall
from ..pytorch import LEAVES as LAYERS


def layer_leaf(kind: type, options: str, build: Callable[[Any, Site], Any], **others: Any) -> Leaf:
    """The leaf of a layer that in step mode 'm' does the same to every time step `x[t]`."""

    def split(
        module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any
    ) -> SequenceCall | FoldedCall | None:
        (x,) = (*args, *kwargs.values())
        if module.step_mode == "s" or not _is_sequence(module, x):
            return None
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats):
            return FoldedCall(x, step, result)
        return SequenceCall(x, (Part(step, module, "", result),), ((result, None),))

    step = Leaf(
        kind,
        "spikingjelly",
        tuple(options.split()),
        build,
        split_sequence=split,
        free=("step_mode",),
        run=_run,
        **others,
    )
    return step


def _run(module: Any, *args: Any, **kwargs: Any) -> Any:
    """A call on one time step."""
    mode = module.step_mode
    try:
        module.step_mode = "s"
        return module(*args, **kwargs)
    finally:
        module.step_mode = mode


def _is_sequence(module: Any, x: torch.Tensor) -> bool:
    """Whether an input has time as its first axis: a linear layer takes any, those of one step too."""
    return not isinstance(module, nn.Linear) or x.ndim > 2


def _like_torch(kind: type, parent: type, *missing: str) -> Leaf:
    """The leaf of a layer that is torch's but for its step mode; `missing` are options of torch's that it lacks."""
    theirs = LAYERS[parent]
    options = " ".join(name for name in theirs.options if name not in missing)
    return layer_leaf(kind, f"{options} step_mode", theirs.build, acts_on=theirs.acts_on)


def _spatial(name: str, *missing: str) -> list[Leaf]:
    return [_like_torch(getattr(layer, f"{name}{n}d"), getattr(nn, f"{name}{n}d"), *missing) for n in (1, 2, 3)]


class Voting(snn.AbstractFunction):
    """`VotingLayer`: the mean of every `voting_size` neurons that follow each other."""

    voting_size: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        votes = x.shape[-1] // self.voting_size
        return jnp.mean(x[..., : votes * self.voting_size].reshape(*x.shape[:-1], votes, self.voting_size), -1)


def _build_voting(module: Any, site: Site) -> Voting:
    return Voting(module.voting_size)


def _build_threshold_dependent(module: Any, site: Site) -> Any:
    leaf = LEAVES[type(module)]
    if not module.track_running_stats or module.momentum is None:
        raise leaf.refuse(
            site.path, "momentum", module.momentum, allowed="a number, with track_running_stats=True",
            advice="Keep running statistics",
        )  # fmt: skip
    return LAYERS[nn.BatchNorm1d].build(module, site)


def _build_dropout(module: Any, site: Site) -> Any:
    raise LEAVES[type(module)].refuse(
        site.path, "training", module.training, allowed="evaluation mode",
        advice="Its mask stays until reset_net, over several calls; call module.eval() before converting",
    )  # fmt: skip


def _identity(module: Any, site: Site) -> Any:
    return eqx.nn.Identity()


LEAVES = {
    leaf.kind: leaf
    for leaf in (
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
        layer_leaf(layer.VotingLayer, "voting_size step_mode", _build_voting),
        *(
            layer_leaf(getattr(layer, f"ThresholdDependentBatchNorm{n}d"), "alpha v_th args kwargs",
                       _build_threshold_dependent)
            for n in (1, 2, 3)
        ),
        *(Leaf(kind, "spikingjelly", ("p", "step_mode"), _build_dropout) for kind in (layer.Dropout, layer.Dropout2d)),
        Leaf(layer.PrintShapeModule, "spikingjelly", ("ext_str",), _identity),
    )
}  # fmt: skip
