"""What a state_dict does not hold of a network: time constants, thresholds, rules of its neurons, as a JSON file.

Norse and SpikingJelly keep these in attributes, so that weights alone do not make a network again.
"""

import copy
import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from ..converters.neuron import neuron_of
from ..converters.options_json import option_as_json, option_from_json
from ..errors import WeightMappingError
from ..frameworks import registry_for
from ..runtime.converted import Converted, checked_conversion


_FORMAT = "snnax hyperparameters 1"


def hyperparameters(converted: Converted) -> dict[str, Any]:
    """The options of all neurons of a converted network, as JSON has them.

    Together with `state_dict(converted)` this is everything that the neurons compute with:

        {"format": "snnax hyperparameters 1",
         "modules": {"lif": {"class": "norse.LIFCell", "options": {"dt": 0.001, "p": {"v_th": 1.0, ...}}}}}

    By the path of each module: its class, and its options by their names. Tensors are numbers or nested lists, named
    tuples are objects of their fields, functions their full names, and parameters that the state_dict holds
    `{"parameter": "its key"}`.
    """
    neurons = [each for each in checked_conversion(converted, "hyperparameters").plan.modules if each.options]
    rows = {each.path: {"class": each.source, "options": copy.deepcopy(dict(each.options))} for each in neurons}
    return {"format": _FORMAT, "modules": rows}


def save_hyperparameters(path: str | os.PathLike[str], converted: Converted) -> None:
    """Write `hyperparameters(converted)` to a JSON file."""
    content = hyperparameters(converted)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")


def load_hyperparameters(module: torch.nn.Module, source: Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Give the neurons of a torch module the options of a file, or of `hyperparameters(converted)`.

    What a neuron reads at every call, such as the parameters of Norse's, is set; all that was decided when the module
    was built is compared. The module is changed only when everything fits.

    **Raises:** `WeightMappingError` for modules that are missing, of another class, or built with other options;
    `ValueError` for a file that is none of these.
    """
    content: Any = source
    if isinstance(source, str | os.PathLike):
        with open(source, encoding="utf-8") as file:
            content = json.load(file)
    modules = content.get("modules") if isinstance(content, Mapping) else None
    if not isinstance(modules, Mapping) or content.get("format") != _FORMAT:
        raise ValueError(f"no file of hyper-parameters: its 'format' must be {_FORMAT!r}, with an object 'modules'")
    registry = registry_for(module)
    found = {
        path: (child, registry.converters[type(child)])
        for path, child in module.named_modules()
        if type(child) in registry.converters
    }
    keys = {id(tensor): key for key, tensor in (*module.named_buffers(), *module.named_parameters())}
    changes: list[tuple[torch.nn.Module, str, Any]] = []
    for path, row in modules.items():
        if path not in found:
            raise WeightMappingError(
                f"the file has options of a {row['class']} at '{path}', where the module has no neuron. Build the "
                "network of the file",
                path=path,
            )
        child, converter = found[path]
        if row["class"] != converter.name:
            raise WeightMappingError(f"found a {converter.name}, and a {row['class']} in the file", path=path)
        neuron = neuron_of(converter)
        for name, value in row["options"].items():
            old = getattr(child, name, None)
            if option_as_json(old, keys) != value:
                read = neuron is not None and name in neuron.read_every_call
                changes.append((child, name, option_from_json(old, value, keys, f"{path}.{name}", read)))
    for child, name, value in changes:
        setattr(child, name, value)
