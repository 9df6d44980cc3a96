"""Networks that are called once per time step, with the loop in the caller's code."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .unwrap import signature


def over_time(module: torch.nn.Module, count: int) -> Callable[..., Any]:
    """The loop that callers write: one call per entry of the inputs' first axis, outputs stacked on axis 0.

    Where forward takes further arguments that default to None and returns as many values behind its first, those are
    states: what a call returns is passed to the next one.
    """
    parameters = list(signature(module).parameters.values())[count:]
    optional = [each for each in parameters if each.default is None and each.kind is each.POSITIONAL_OR_KEYWORD]

    def call(*sequences: torch.Tensor) -> Any:
        outs = []
        states: tuple[Any, ...] = ()
        for step in range(sequences[0].shape[0]):
            out = module(*(sequence[step] for sequence in sequences), *states)
            # A module may go on writing into the list that it returned.
            out = pytree.tree_map(lambda x: x, out)
            if optional and type(out) is tuple and len(out) == 1 + len(optional):
                states = pytree.tree_map(lambda x: x, out[1:])
            outs.append(out)
        leaves, specs = zip(*(pytree.tree_flatten(out) for out in outs), strict=True)
        stacked = [
            torch.stack(each) if isinstance(each[0], torch.Tensor) else each[0] for each in zip(*leaves, strict=True)
        ]
        return pytree.tree_unflatten(stacked, specs[0])

    return call
