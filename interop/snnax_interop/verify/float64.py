"""Both sides of a comparison in float64, though user code asks for float32."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..frameworks import registry_for
from ..nodes.dropout import DRAWING
from ..trace.caller_loop import over_time
from ..trace.isolation import preserved
from ..trace.record import record
from ..trace.tape import Tape


def record_double(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor], *, caller_loop: bool, inputs_require_grad: bool = False
) -> tuple[torch.nn.Module, Tape]:
    """A float64 copy of a module, and the tape of its run on `inputs`."""
    double = in_float64(module)
    doubled = tuple(x.detach().double() if x.is_floating_point() else x.detach() for x in inputs)
    registry = registry_for(double)
    # snnTorch's utils.reset reaches the neurons of all networks, those of the module too.
    with preserved(module), registry.listed(double), float_is_double():
        call = over_time(double, len(doubled)) if caller_loop else None
        return double, record(double, doubled, registry, call=call, inputs_require_grad=inputs_require_grad)


def in_float64(module: torch.nn.Module) -> torch.nn.Module:
    """A float64 copy; what the module's last run left behind is not copied."""
    with preserved(module):
        registry_for(module).reset_states(module)
        for child in module.modules():
            for key, value in list(child.__dict__.items()):
                if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                    child.__dict__[key] = value.detach()
        double = copy.deepcopy(module).double()
        for name, parameter in module.named_parameters():
            for hook in (parameter._backward_hooks or {}).values():
                double.get_parameter(name).register_hook(hook)  # copies lose them
    for child in double.modules():
        for key, value in child.__dict__.items():
            # Weights that are no parameters are left as they are.
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                child.__dict__[key] = value.detach().double().requires_grad_(value.requires_grad)
        if isinstance(child, torch.nn.modules.dropout._DropoutNd):
            child.eval()
    return double


_DROPOUTS = {getattr(torch.nn.functional, name) for name in DRAWING}


class _FloatIsDouble(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = torch.Tensor.double if func is torch.Tensor.float else func
        if func in _DROPOUTS:
            return args[0] if args else (kwargs or {})["input"]
        # No function takes a dtype inside of a list.
        result = func(*map(_doubled, args), **{name: _doubled(value) for name, value in (kwargs or {}).items()})
        if func is torch.Tensor.__getitem__ and result.dtype == torch.float32:
            return result.double()  # a part of a table that the network does not hold: levels of a quantiser
        return result


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextlib.contextmanager
def backward_float_is_double() -> Iterator[None]:
    """Let `.float()` follow the network in the backward of autograd functions too, which modes do not reach."""
    plain = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = plain  # type: ignore[method-assign]


@contextlib.contextmanager
def float_is_double() -> Iterator[None]:
    """Let torch code that says float32 follow the network: `.float()`, `dtype=torch.float32` and the default dtype.

    Functions that drop at random drop nothing. snnTorch casts spikes with `.float()`, and the layer behind them then
    refuses a float64 weight.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _FloatIsDouble():
            yield
    finally:
        torch.set_default_dtype(default)
