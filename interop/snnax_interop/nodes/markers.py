"""Functions that stand on a tape for what no function of torch does: hooks, and writes that autograd does not see."""

import torch


def off_diagonal_gradient(weight: torch.Tensor) -> torch.Tensor:
    """A matrix whose diagonal has no gradient, as a hook leaves it."""
    diagonal = torch.eye(*weight.shape, dtype=torch.bool, device=weight.device)
    return torch.where(diagonal, weight.detach(), weight)


def unseen_write(input: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What a tensor is after a write under `no_grad`, or through `detach()`: the new values, and its own gradient."""
    return _UnseenWrite.apply(input, value)


class _UnseenWrite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None
