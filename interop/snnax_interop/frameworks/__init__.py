"""One file or folder per source framework, the only importer of that framework.

A framework's file holds its `FRAMEWORK`. It is loaded when a network holds one of its modules, and not before.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping

import torch

from ..converters.framework import Framework
from ..converters.registry import Registry
from .snntorch_releases import as_present


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a framework before it is loaded, and where it is not installed.

    - `module`: here, with its `FRAMEWORK`.
    - `adapt_state_dict`: a state_dict that another release has written as the present one would write it, of the
      state_dict, that of the network, the class names of the framework's modules by path, and the release.
    """

    module: str
    adapt_state_dict: Callable[..., Mapping[str, torch.Tensor]] | None = None


# By top-level package.
KNOWN = {
    "torch": Known(module=".pytorch"),
    "snntorch": Known(module=".snntorch", adapt_state_dict=as_present),
    "norse": Known(module=".norse"),
    "spikingjelly": Known(module=".spikingjelly"),
}
# Packages whose modules cannot be converted.
_UNCONVERTED = ("sinabs",)


def registry_for(module: torch.nn.Module) -> Registry:
    """What is known of PyTorch, and of the frameworks that a network uses (subclasses of their classes included)."""
    packages = {parent.__module__.split(".")[0] for child in module.modules() for parent in type(child).__mro__}
    used = [name for name in KNOWN if name == "torch" or name in packages]
    return Registry([_load(KNOWN[name].module) for name in used], [*KNOWN, *_UNCONVERTED])


def _load(module: str) -> Framework:
    return importlib.import_module(module, __name__).FRAMEWORK
