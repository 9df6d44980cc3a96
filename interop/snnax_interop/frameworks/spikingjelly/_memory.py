"""What modules of SpikingJelly keep between calls: the memories of `MemoryModule`."""

import copy
from typing import Any

import torch
from spikingjelly.activation_based import base


class _Untouched(float):
    """The number in a memory that no call and no reset has touched since the recording began."""


def reset(module: torch.nn.Module) -> None:
    """Put the memories of a module back to their beginning, without writing into the tensors that it keeps."""
    if not isinstance(module, base.MemoryModule):
        return
    for name, value in module._memories_rv.items():
        module._memories[name] = _Untouched(value) if isinstance(value, float) else copy.deepcopy(value)
    for name in ("v_seq", "state_seqs"):
        if name in module.__dict__:
            module.__dict__[name] = None


def read(module: Any, names: tuple[str, ...]) -> tuple[torch.Tensor, ...] | None:
    """The memories of a neuron, numbers as tensors without axes.

    Nothing of a neuron at its beginning; None where the network has put it back there by itself.
    """
    values = [module._memories[name] for name in names]
    if not any(isinstance(value, torch.Tensor) for value in values):
        if all(isinstance(value, _Untouched) for value in values):
            return ()
        if values == [module._memories_rv[name] for name in names]:
            return None
    return tuple(
        value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64) for value in values
    )


def taken(kept: tuple[torch.Tensor, ...] | None, x: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    """The state that a neuron goes on from for an input of one time step; None where it begins anew.

    Where the shape of the input is another one than that of its memories, a neuron silently begins anew.
    """
    if not kept or any(tensor.ndim and tensor.shape != x.shape for tensor in kept):
        return None
    return tuple(tensor if tensor.shape == x.shape else torch.full_like(x, float(tensor)) for tensor in kept)
