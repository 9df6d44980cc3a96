"""Modules around the user's module: compiled ones, which run eagerly here, and those that hand on their arguments."""

import contextlib
import inspect
import sys
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Inside, what `torch.compile` has wrapped runs as plain Python: a recording must see its calls."""
    if "torch._dynamo" not in sys.modules:  # loading it takes seconds, and without it nothing is compiled
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message="Using `torch.compile")  # about the recording's hooks
        yield


def signature(module: torch.nn.Module) -> inspect.Signature:
    """The arguments of the user's own forward."""
    wrapped = {"OptimizedModule": "_orig_mod", "DataParallel": "module"}
    while type(module).__module__.startswith("torch.") and type(module).__name__ in wrapped:
        module = getattr(module, wrapped[type(module).__name__])
    return inspect.signature(module.forward)
