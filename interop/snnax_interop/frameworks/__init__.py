"""One file or folder per source framework, the only importer of that framework.

A framework's file is loaded when a network holds one of its modules, and not before.
"""

import importlib

import torch

from ..converters.leaf import Registry


# The top-level package of a module's class, and the file here that knows it.
_FILES = {"torch": "pytorch", "snntorch": "snntorch", "norse": "norse", "spikingjelly": "spikingjelly"}


def registry_for(module: torch.nn.Module) -> Registry:
    """The leaves of PyTorch, and of the frameworks that the network uses (subclasses of their classes included)."""
    packages = {parent.__module__.split(".")[0] for child in module.modules() for parent in type(child).__mro__}
    leaves, recorded, hooks = {}, [], {}
    for package, file in _FILES.items():
        if package == "torch" or package in packages:
            framework = importlib.import_module(f".{file}", __name__)
            leaves |= framework.LEAVES
            recorded += getattr(framework, "RECORDED", [])
            hooks |= getattr(framework, "HOOKS", {})
    return Registry(leaves, recorded, hooks)
