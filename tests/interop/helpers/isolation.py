"""Whether a module is left as it was found."""

from typing import Any

import snntorch
import torch
from torch import nn


def photograph(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a conversion might leave changed."""
    return {
        "state": {key: value.clone() for key, value in module.state_dict().items()},
        "neurons": {path: child.mem for path, child in module.named_modules() if isinstance(child, snntorch.Leaky)},
        "values": {
            path: child.mem.detach().clone()
            for path, child in module.named_modules()
            if isinstance(child, snntorch.Leaky)
        },
        "gradients": {key: (value.grad, value.requires_grad) for key, value in module.named_parameters()},
        "training": [child.training for child in module.modules()],
        "attributes": [{key: id(value) for key, value in vars(child).items()} for child in module.modules()],
        "hooks": [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules()],
        "random": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "float": torch.Tensor.float,
    }


def assert_unchanged(before: dict[str, Any], module: nn.Module) -> None:
    after = photograph(module)
    for key in ("state", "values"):
        assert before[key].keys() == after[key].keys()
        assert all(torch.equal(value, after[key][name]) for name, value in before[key].items())
    assert all(mem is after["neurons"][path] for path, mem in before["neurons"].items())
    for name, (gradient, required) in before["gradients"].items():
        assert gradient is after["gradients"][name][0] and required == after["gradients"][name][1]
    assert torch.equal(before["random"], after["random"])
    for key in ("training", "attributes", "hooks", "dtype", "grad mode", "float"):
        assert before[key] == after[key], key
