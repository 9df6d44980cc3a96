"""Networks with one neuron each as one network: all options of a class are converted, compiled and compared at once."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import nn


TOGETHER = 8  # a program of more neurons is not cheaper


class SideBySide(nn.Module):
    """Networks by name, on the same input: the outputs of all.

    Networks that are `in_steps` share one loop over time: `start(x)` makes a state, `step(x, state)` returns a tuple of
    outputs and the next state, and `finish(outputs, state)` what comes out. The others are called on the sequence.

    Each has a gain of one for its input: its gradient shows whether that of the input comes from this network too.
    """

    def __init__(self, nets: Mapping[str, nn.Module], time_axis: int = 0):
        super().__init__()
        self.nets = nn.ModuleDict(nets)
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(())) for _ in nets])
        self.time_axis = time_axis

    def forward(self, x):
        inputs = [x * gain for gain in self.gains] if x.is_floating_point() else [x for _ in self.gains]
        nets = list(zip(self.nets.values(), inputs, strict=True))
        stepped = [(net, given) for net, given in nets if net.in_steps]
        states = [net.start(given) for net, given in stepped]
        records = [[] for _ in stepped]
        for t in range(x.shape[self.time_axis]) if stepped else ():
            for number, (net, given) in enumerate(stepped):
                outs, states[number] = net.step(given.select(self.time_axis, t), states[number])
                records[number].append(outs)
        outs = [[torch.stack(each) for each in zip(*record, strict=True)] for record in records]
        whole = [net(given) for net, given in nets if not net.in_steps]
        return [net.finish(*each) for (net, _), *each in zip(stepped, outs, states, strict=True)] + whole


def first_of_each(cases: Mapping[str, Any], kind: Callable[[str], Hashable]) -> list[str]:
    """The first case of each kind."""
    return list({kind(name): name for name in reversed(cases)}.values())[::-1]


def groups(cases: Iterable[str], kind: Callable[[str], Hashable]) -> list[tuple[str, ...]]:
    """All cases, those of a kind together."""
    of_kind: dict[Hashable, list[str]] = {}
    for name in cases:
        of_kind.setdefault(kind(name), []).append(name)
    return [
        tuple(names[start : start + TOGETHER]) for names in of_kind.values() for start in range(0, len(names), TOGETHER)
    ]


def by_group(found: list[tuple[str, ...]]) -> pytest.MarkDecorator:
    """A test for each group, in `make test` only."""
    named = {f"{names[0]} and {len(names) - 1} more": names for names in found}
    return pytest.mark.parametrize(
        "names", [pytest.param(names, marks=pytest.mark.full, id=id) for id, names in named.items()]
    )
