"""One time step of a snnTorch neuron from a given state, by the module itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...trace.isolation import preserved_attributes


Step = Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, ...]]]


def step_of(names: Sequence[str]) -> Step:
    """The step of neurons that keep their state in attributes of these names, in the order of `forward`."""

    def run(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        with preserved_attributes(module):
            for name in names:
                setattr(module, name, torch.zeros(0))
            given = () if state is None or any(each is None for each in state) else tuple(state)
            if given and module.init_hidden:
                for name, value in zip(names, given, strict=True):
                    setattr(module, name, value)
            result = module(x) if module.init_hidden else module(x, *given)
            after = tuple(getattr(module, name) for name in names)
        return result[0] if isinstance(result, tuple) else result, after

    return run


def delta_step(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The step of a `DeltaLeaky`."""
    with preserved_attributes(module):
        module.reset_mem()
        result = module(x, (torch.zeros_like(x) if state is None or state[0] is None else state[0],))
        return result[0], (module.mem,)


def leaky_parallel_step(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The step of a `LeakyParallel`: its recurrent layer on a sequence of one step."""
    before = None if state is None or state[0] is None else state[0].unsqueeze(0)
    hidden, last = module.rnn(x.unsqueeze(0), before)
    spikes = module.spike_grad(hidden[0] - module.threshold) * module.graded_spikes_factor
    return spikes, (last[0],)


def state_leaky_step(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The step of a `StateLeaky`, whose forward knows whole sequences only: the recurrence of its kernel."""
    mem = x if state is None or state[0] is None else torch.exp(-1 / module.tau) * state[0] + x
    return (module.fire(mem) * module.graded_spikes_factor if module.output else mem), (mem,)
