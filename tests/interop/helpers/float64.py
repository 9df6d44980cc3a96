"""torch modules in float64: a copy, and code that says float32 follows it. Nothing here is the bridge's own."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import snntorch
import torch
from torch import nn
from torch.overrides import TorchFunctionMode


DROPOUTS = {getattr(nn.functional, name) for name in ("dropout", "dropout1d", "dropout2d", "dropout3d")}


def doubled(module: nn.Module) -> nn.Module:
    """A float64 copy without dropout; what the module's last run left behind is copied as values."""
    held = [value for child in module.modules() for value in vars(child).values() if isinstance(value, torch.Tensor)]
    double = copy.deepcopy(module, {id(value): value.detach() for value in held if value.grad_fn is not None}).double()
    for name, parameter in module.named_parameters():
        for hook in (parameter._backward_hooks or {}).values():
            double.get_parameter(name).register_hook(hook)  # copies lose them
    for child in double.modules():
        for key, value in vars(child).items():
            # Weights that are no parameters are left as they are by `double`.
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                vars(child)[key] = value.detach().double().requires_grad_(value.requires_grad)
        if isinstance(child, nn.modules.dropout._DropoutNd):
            child.eval()
    return double


def _wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


class _FloatIsDouble(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        func = torch.Tensor.double if func is torch.Tensor.float else func
        result = func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        if func is torch.Tensor.__getitem__ and result.dtype == torch.float32:
            return result.double()  # a part of a table that the network does not hold
        return result


@contextlib.contextmanager
def float_is_double(module: nn.Module | None = None) -> Iterator[None]:
    """Inside, `.float()`, `dtype=torch.float32` and the default dtype are float64, and nothing is dropped at random.

    The neurons of `module`, a copy, are in the list that `snntorch.utils.reset` goes through.
    """
    default, instances = torch.get_default_dtype(), snntorch.SpikingNeuron.instances
    before = list(instances)
    neurons = [] if module is None else [each for each in module.modules() if isinstance(each, snntorch.SpikingNeuron)]
    instances += [each for each in neurons if not any(each is other for other in before)]
    torch.set_default_dtype(torch.float64)
    try:
        with _FloatIsDouble():
            yield
    finally:
        torch.set_default_dtype(default)
        instances[:] = before
