"""What stands between a module and its plain forward and gradient; all of it is refused before anything runs."""

from collections.abc import Callable
from typing import Any

import torch

from ..errors import UnsupportedModuleError


def refuse_unseen(module: torch.nn.Module, hook_of: Callable[[torch.Tensor], Any]) -> None:
    """Refuse what a recording passes by: modules compiled by TorchScript, and hooks on the gradients of parameters.

    `hook_of` raises a `KeyError` for hooks that it does not know.

    **Raises:** `UnsupportedModuleError`.
    """
    for path, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                f"a TorchScript module ({type(child).__name__}) shows none of its calls. Allowed: modules as Python "
                "runs them. Pass the original module, from before torch.jit.script or torch.jit.trace",
                path=path,
                framework="torch",
            )
    for name, parameter in module.named_parameters():
        try:
            hook_of(parameter)
        except KeyError as error:
            raise UnsupportedModuleError(
                "the parameter has a gradient hook, which may change how it is trained. Allowed: plain gradients. "
                "Remove the hook (handle.remove()) before converting, and transform gradients in the optimiser instead",
                path=name,
                framework="torch",
            ) from error


def refuse_module_hooks(module: torch.nn.Module, path: str) -> None:
    """**Raises:** `UnsupportedModuleError` for hooks on what a module computes, or on its gradient."""
    forward = module._forward_hooks or module._forward_pre_hooks
    if not forward and not module._backward_hooks and not module._backward_pre_hooks:
        return
    kind, what = ("forward", "what it computes") if forward else ("backward", "its gradients")
    raise UnsupportedModuleError(
        f"the {type(module).__name__} has {kind} hooks, which may change {what}. Remove them "
        "(handle.remove()) before converting",
        path=path,
    )
