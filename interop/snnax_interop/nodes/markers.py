"""Functions that stand on a tape for what hooks do."""

import torch


def off_diagonal_gradient(weight: torch.Tensor) -> None:
    """On a tape, a matrix whose diagonal has no gradient, as a hook leaves it."""
