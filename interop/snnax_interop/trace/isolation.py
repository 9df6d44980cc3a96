"""What a recording must leave as it was: the module's attributes and buffers, and the global random numbers."""

import contextlib
import gc
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def preserved_random_numbers() -> Iterator[None]:
    """Whatever is drawn inside, the global generators go on as before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def advance_random_numbers() -> None:
    """Let what is drawn next be something else."""
    random.random()
    np.random.random()


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """All that a recording makes stays alive until its end: looking for garbage takes a fifth of the time in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# What every module holds: its parameters, buffers, children and hooks.
_TORCH = {key for key in torch.nn.Module().__dict__ if key.startswith("_")}


@contextlib.contextmanager
def preserved(module: torch.nn.Module) -> Iterator[None]:
    """Whatever happens to a module or the global random numbers inside, it is undone at the end."""
    saved: list[Any] = []
    contents: list[tuple[Any, Any]] = []
    # What is written into buffers goes into copies, so that gradients of the run still find what they saved.
    copies: dict[int, torch.Tensor] = {}
    for child in module.modules():
        buffers = dict(child._buffers)
        attributes = {key: value for key, value in child.__dict__.items() if key not in _TORCH}
        contents += [each for value in attributes.values() for each in _contents(value)]
        parameters = dict(child._parameters)
        gradients = {name: tensor.grad for name, tensor in parameters.items() if tensor is not None}
        saved.append((child, buffers, attributes, parameters, gradients))
        for name, tensor in buffers.items():
            if tensor is not None:
                child._buffers[name] = copies.setdefault(id(tensor), tensor.detach().clone())
    try:
        with preserved_random_numbers():
            yield
    finally:
        for child, buffers, attributes, parameters, gradients in saved:
            child._parameters.clear()
            child._parameters.update(parameters)
            child._buffers.clear()
            child._buffers.update(buffers)
            for key in [key for key in child.__dict__ if key not in _TORCH and key not in attributes]:
                del child.__dict__[key]
            child.__dict__.update(attributes)
            for name, gradient in gradients.items():
                parameters[name].grad = gradient
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


@contextlib.contextmanager
def preserved_attributes(module: torch.nn.Module) -> Iterator[None]:
    """Whatever one module itself is given or loses inside, it has its attributes and buffers at the end.

    A hundredth of the cost of `preserved`, for modules that only assign to their attributes.
    """
    attributes, buffers = dict(module.__dict__), dict(module._buffers)
    try:
        yield
    finally:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        module._buffers.clear()
        module._buffers.update(buffers)


def _contents(value: Any) -> list[tuple[Any, Any]]:
    """The lists and dicts in an attribute that a forward may write into, with copies of what they hold."""
    if type(value) is list:
        return [(value, list(value)), *(each for item in value for each in _contents(item))]
    if type(value) is dict:
        return [(value, dict(value)), *(each for item in value.values() for each in _contents(item))]
    return []
