"""A tape of one real run of a torch module.

The module runs once on real tensors; every call of a module whose class has a converter, and every tensor function
outside of these modules is written down with the identities of its tensors. Python control flow just happens.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..converters.registry import Registry
from .autograd_functions import seen_autograd_functions
from .isolation import preserved, without_collector
from .module_calls import ModuleCalls
from .recorder import Recorder
from .store_forwarding import forward_stores, without_unused
from .tape import Tape, leaves_of
from .unwrap import eager


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: "Recorder"):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.recorder.paused:  # most calls are made inside of converted modules
            return func(*args, **(kwargs or {}))
        with self.recorder.one_call():
            return self.recorder.call_function(func, args, kwargs or {})


def record(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    registry: Registry,
    *,
    call: Callable[..., Any] | None = None,
    inputs_require_grad: bool = False,
) -> Tape:
    """Run `module(*inputs)`, or `call(*inputs)` that calls the module, once and write down what it does.

    The module is left as it was found: states, buffers, attributes, gradients and random numbers.

    **Raises:** `RecordingError`, `UnsupportedModuleError`, `UnsupportedOptionError` with the module path and source
    line; what the module itself raises comes through.
    """
    with preserved(module):
        return run_once(module, inputs, registry, call=call, inputs_require_grad=inputs_require_grad)


def run_once(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    registry: Registry,
    *,
    call: Callable[..., Any] | None = None,
    inputs_require_grad: bool = False,
) -> Tape:
    """`record` that leaves on the module what the run left there. Neurons start from their beginning."""
    inputs = _copied(inputs)
    for tensor in inputs:
        tensor.requires_grad_(inputs_require_grad and tensor.is_floating_point())
    hooks = torch.nn.modules.module
    with contextlib.ExitStack() as stack:
        stack.enter_context(_as_recorded())
        recorder = Recorder(module, registry, sys._getframe())
        input_refs = tuple(recorder.new(tensor) for tensor in inputs)
        recorder.dependent.update(ref.index for ref in input_refs)
        recorder.learning.update(ref.index for ref in input_refs)
        modules = ModuleCalls(recorder, module)
        registry.reset_states(module)
        found = registry.neurons(module)
        neurons = [(child, converter.memory.read) for child, converter in found if converter.memory is not None]
        modules.beginnings = {id(child): read(child) for child, read in neurons}
        for child, converter in found:
            names = converter.attributes
            if names is not None:
                for name, watched in ((names.start, modules.started), (names.step, modules.stepped)):
                    function = getattr(child, name)
                    stack.callback(setattr, child, name, function)
                    setattr(child, name, watched(child, converter, function))
        before = hooks.register_module_forward_pre_hook(modules.enter)
        stack.callback(before.remove)
        after = hooks.register_module_forward_hook(
            lambda module, args, kwargs, result: modules.left(module, args, kwargs, result), with_kwargs=True
        )
        stack.callback(after.remove)
        stack.enter_context(seen_autograd_functions(recorder.call_autograd_function))
        stack.enter_context(without_collector())
        stack.enter_context(_Functions(recorder))
        result = (module if call is None else call)(*inputs)
    with recorder.one_call():
        returned = recorder.replace(result)
    left = {recorder.paths[id(child)] for child, read in neurons if any(bool(x.any()) for x in read(child) or ())}
    tape = Tape(
        recorder.entries,
        input_refs,
        returned,
        recorder.tensors,
        recorder.names,
        recorder.dependent,
        recorder.parametric,
        recorder.names_read(),
        recorder.shapes,
        recorder.called,
        tuple(path for path, continues in modules.continues.items() if continues and path in left),
        recorder.draws,
    )
    return without_unused(forward_stores(tape))


def run_again(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], registry: Registry
) -> tuple[Any, list[tuple[torch.nn.Module, list[torch.Tensor]]]]:
    """`run_once` without a tape, at a fraction of the cost.

    **Returns:** what forward returns, and for each call of a neuron, in order, what it returns and keeps.
    """
    calls: list[tuple[torch.nn.Module, list[torch.Tensor]]] = []
    neurons = {id(child): converter for child, converter in registry.neurons(module)}

    def called(child: torch.nn.Module, args: Any, result: Any) -> None:
        if id(child) in neurons:
            memory = neurons[id(child)].memory
            kept = () if memory is None else memory.read(child)
            calls.append((child, leaves_of((result, kept), torch.Tensor)))

    with _as_recorded():
        registry.reset_states(module)
        with torch.nn.modules.module.register_module_forward_hook(called):
            return module(*_copied(inputs)), calls


@contextlib.contextmanager
def _as_recorded() -> Iterator[None]:
    with eager(), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        yield


def _copied(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.detach().clone() for tensor in inputs)
