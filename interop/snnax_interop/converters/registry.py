"""The converter of every class that a network may hold."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.parametrize import is_parametrized

from ..errors import UnsupportedModuleError
from .base import Converter
from .framework import Framework, full_name
from .hooks import refuse_module_hooks
from .neuron import NeuronConverter, neuron_of


class Registry:
    """What is known of the frameworks that a network uses.

    `libraries` are the top-level packages of all frameworks, used or not: what is called in them is no user's code, and
    a class of theirs that is not known is refused.
    """

    def __init__(self, frameworks: Sequence[Framework], libraries: Sequence[str]):
        self.frameworks = tuple(frameworks)
        self.libraries = tuple(libraries)
        self.converters = {kind: each for framework in frameworks for kind, each in framework.converters.items()}
        self._recorded = [each.recorded for each in frameworks if each.recorded is not None]
        self._hooks = {name: hook for framework in frameworks for name, hook in framework.gradient_hooks.items()}

    def hook_of(self, parameter: torch.Tensor) -> Callable[..., Any] | None:
        """What a hook does to the gradient of a parameter; None without hooks.

        **Raises:** `KeyError` for hooks that are not known.
        """
        found = list((parameter._backward_hooks or {}).values())
        if getattr(parameter, "_post_accumulate_grad_hooks", None) or len(found) > 1:
            raise KeyError(f"{len(found)} hooks")
        return self._hooks[full_name(found[0])] if found else None

    def find(self, module: torch.nn.Module, path: str) -> Converter | None:
        """The converter of a module; None where its forward is to be recorded. The exact class decides.

        **Raises:** `UnsupportedModuleError` for a library class that is not known, a subclass of a neuron, or a module
        with hooks.
        """
        kind = type(module)
        refuse_module_hooks(module, path)
        if kind in self.converters:
            return self.converters[kind]
        if self._is_recorded(kind):
            return None
        if is_parametrized(module):
            # torch makes a subclass whose parameters are computed: the layer's own forward is recorded.
            kind = type(module).__mro__[1]
            parent = self.converters.get(kind)
            if (parent is not None and neuron_of(parent) is None) or (parent is None and self._is_recorded(kind)):
                return None
        library = kind.__module__.split(".")[0]
        if library in self.libraries:
            known = sorted(each.__name__ for each in self.converters if each.__module__.split(".")[0] == library)
            raise UnsupportedModuleError(
                f"{library}'s {kind.__name__} cannot be converted. Allowed of {library}: {', '.join(known)}. "
                "Use one of these, or write what it does as tensor functions in forward",
                path=path,
                framework=library,
            )
        for parent in kind.__mro__[1:]:
            neuron = neuron_of(self.converters.get(parent))
            if neuron is not None and neuron.memory is not None:
                raise UnsupportedModuleError(
                    f"{kind.__name__} is a subclass of the neuron {parent.__name__}, which may compute something else. "
                    f"Use {parent.__name__} itself",
                    path=path,
                    framework=neuron.framework,
                )
        return None

    def _is_recorded(self, kind: type) -> bool:
        return any(each.takes(kind) for each in self._recorded)

    def caveat(self, module: torch.nn.Module) -> str:
        """What a module whose forward is recorded does against expectation; converters say it themselves."""
        if type(module) in self.converters:
            return ""
        return next((each.caveat(module) for each in self._recorded if each.takes(type(module))), "")

    def neurons(self, module: torch.nn.Module) -> list[tuple[torch.nn.Module, NeuronConverter]]:
        """The modules with state inside a network."""
        found = ((child, neuron_of(self.converters.get(type(child)))) for child in module.modules())
        return [(child, converter) for child, converter in found if converter is not None]

    @contextlib.contextmanager
    def listed(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside, the neurons of a copied network are in the lists of their framework, as if they were built there."""
        with contextlib.ExitStack() as stack:
            for neuron, converter in self.neurons(module):
                instances = [] if converter.memory is None else converter.memory.instances()
                if not any(each is neuron for each in instances):
                    instances.append(neuron)
                    stack.callback(_remove, instances, neuron)
            yield

    def reset_states(self, module: torch.nn.Module) -> None:
        """Put everything that keeps a state back to its beginning."""
        for neuron, converter in self.neurons(module):
            if converter.memory is not None:
                converter.memory.reset(neuron)
        for child in module.modules():
            for each in self._recorded:
                each.reset(child)


def _remove(instances: list[Any], neuron: Any) -> None:
    instances[:] = [each for each in instances if each is not neuron]
