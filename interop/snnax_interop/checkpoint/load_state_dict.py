"""Weights from a torch state_dict, or a file of one, into a network that is converted already.

Files are read as tensors and nothing else: no code of a file is ever executed.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import torch

from .._optional import require
from ..converters.arrays import exact_array, stored_array, to_numpy
from ..errors import WeightMappingError
from ..frameworks import KNOWN
from ..runtime.converted import Converted, checked_conversion, state_dict
from ..runtime.plan import ExecutionPlan
from ..runtime.slots import Frozen, Slot, place_holder


# What a training script puts a state_dict under, and what wrappers put before every key: DataParallel, torch.compile,
# Lightning modules.
_ENTRIES = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def load_state_dict(
    converted: Converted, source: Mapping[str, Any] | str | os.PathLike[str], *, version: str | None = None
) -> Converted:
    """A conversion with the values of a torch state_dict in the place of its own.

    It computes what the torch module computes after `module.load_state_dict(..., strict=True)`. The keys, shapes and
    kinds of dtype must be those of `state_dict(converted)`; numbers are cast to the dtype of the conversion. The
    report's verification stays that of the conversion; `check_equivalence` makes a new one.

    **Arguments:**

    - `converted`: the network that the weights are for.
    - `source`: tensors by key, of the shapes of the module's parameters and buffers; a dict that holds them under
        `"state_dict"`, `"model_state_dict"` or `"model"`; or the path of a file that `torch.save` wrote of either, or
        of a `.safetensors` file. A prefix of all keys that a wrapper added (`module.`, `_orig_mod.`, `model.`, `net.`)
        is left out.
    - `version`: the snnTorch release that trained the weights, such as `"0.9.4"`; asked for where the keys are those of
        an older one. States that snnTorch 0.8 saved are then left out, with a warning.

    **Returns:** the network with these values. `converted` keeps its own.

    **Raises:** `WeightMappingError` for a file that is damaged or holds more than tensors; for missing and unexpected
    keys, another shape or kind of dtype; for one tensor under several keys with several values; for a value that the
    conversion has been made with (an option that snnTorch keeps as a buffer, or a number that `forward` has read in
    Python); for snnTorch releases that computed a neuron differently. `MissingDependencyError` for a `.safetensors`
    file without safetensors, `OSError` for a file that is not there.

    **Example:**

    >>> import snntorch, torch
    >>> _ = torch.manual_seed(0)
    >>> from snnax_interop import from_torch, load_state_dict, state_dict
    >>> def build():
    ...     return torch.nn.Sequential(torch.nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    >>> converted = from_torch(build(), (torch.rand(2, 4) * 5,), loop="outside")
    >>> trained = build()
    >>> loaded = load_state_dict(converted, trained.state_dict())
    >>> torch.equal(state_dict(loaded)["0.weight"], trained[0].weight)
    True
    """
    own = state_dict(checked_conversion(converted, "load_state_dict"))
    if any(value is None for value in own.values()):
        raise TypeError("converted must be a whole network, found a gradient or a part of one")
    values = _without_prefixes(_tensors(_loaded(source)), own)
    for framework, known in KNOWN.items():
        if known.adapt_state_dict is not None:
            values = dict(known.adapt_state_dict(values, own, _classes(converted, framework), version))
    _check_fit(values, own)
    values = {key: values[key].detach().cpu() for key in own}
    cast = {key: value.to(own[key].dtype) for key, value in values.items()}
    _check_values(cast, own, converted.plan)
    return _with_arrays(converted, own, values, cast)


# Files


def _loaded(source: Mapping[str, Any] | str | os.PathLike[str]) -> Any:
    if isinstance(source, Mapping):
        return source
    path = os.fspath(source)
    safetensors = path.lower().endswith(".safetensors") and require("safetensors", "safetensors")
    with open(path, "rb") as file:
        try:
            if safetensors:
                return require("safetensors.torch", "safetensors").load(file.read())
            return torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # whatever a damaged or hostile file leads to
            raise WeightMappingError(
                f"the file '{path}' holds more than tensors, or is damaged ({type(error).__name__}). Objects with code "
                "of their own are never loaded. Write the weights alone: torch.save(module.state_dict(), path)"
            ) from error


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    """The state_dict itself, or the one under a well-known name."""
    if _is_state_dict(found):
        return dict(found)
    entries = found if isinstance(found, Mapping) else {}
    inner = [entries[name] for name in _ENTRIES if name in entries and _is_state_dict(entries[name])]
    if len(inner) == 1:
        return dict(inner[0])
    what = f"{type(found).__name__} of {_listed([repr(key) for key in entries])}" if entries else type(found).__name__
    raise WeightMappingError(
        f"found no state_dict but a {what}. Allowed: tensors by key, itself or under one of {', '.join(_ENTRIES)}. "
        "Pass the entry that holds the weights"
    )


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()
    )


def _without_prefixes(values: dict[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The values without what wrappers put before all keys; a key of the network itself stays."""
    while values and own.keys().isdisjoint(values):
        prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in values)), None)
        if prefix is None:
            break
        values = {key.removeprefix(prefix): value for key, value in values.items()}
    return values


# Checks


def _check_fit(values: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Refuse other keys, shapes and kinds than the network's own."""
    differing = [key for key in own if key in values and _difference(values[key], own[key])]
    faults = {
        "missing": [f"'{key}' {_shown(own[key])}" for key in own if key not in values],
        "unexpected": [f"'{key}' {_shown(values[key])}" for key in values if key not in own],
        "different": [
            f"'{key}' in {_difference(values[key], own[key])}, expected {_shown(own[key])}, found {_shown(values[key])}"
            for key in differing
        ],
    }
    if any(faults.values()):
        lines = [f"  {len(found)} {what}: {_listed(found, '; ')}" for what, found in faults.items() if found]
        raise WeightMappingError(
            "\n".join(["the state_dict does not fit the network", *lines])
            + "\nAllowed: the keys, shapes and kinds of dtype of state_dict(converted)"
        )


def _difference(value: torch.Tensor, own: torch.Tensor) -> str:
    if value.shape != own.shape:
        return "shape"
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return "layout"
    kinds = [(each.is_floating_point(), each.is_complex(), each.dtype == torch.bool) for each in (value, own)]
    if kinds[0] != kinds[1]:
        return "kind of dtype"
    exact = any(kinds[0]) or torch.equal(value.to(own.dtype).to(value.dtype), value)
    return "" if exact else "the range of integers"


def _shown(tensor: torch.Tensor) -> str:
    place = " without values" if tensor.is_meta else ""
    layout = "" if tensor.layout == torch.strided else f" {str(tensor.layout).removeprefix('torch.')}"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{layout}{place}"


def _check_values(cast: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], plan: ExecutionPlan) -> None:
    """Refuse two values of one tensor, and other values than those that the conversion has been made with."""
    first: dict[str, str] = {}
    read = _read_in_conversion(plan)
    for key, value in cast.items():
        canonical = plan.canonical[key]
        other = first.setdefault(canonical, key)
        if not _same(value, cast[other]):
            raise WeightMappingError(
                f"has another value than '{other}', and both are one tensor in the network; expected one value",
                path=key,
            )
        if canonical in read and not _same(value, own[key]):
            raise WeightMappingError(
                f"found {_content(value)}, expected {_content(own[key])}, with which the network was converted: what "
                "it computes was chosen by it. Build the module with the other value, and convert that",
                path=key,
            )


def _read_in_conversion(plan: ExecutionPlan) -> set[str]:
    """Keys whose values went into the conversion as something else than an array that could be replaced.

    Those that `forward` has read in Python, and those of converted modules that no array of the network belongs to: the
    reset mechanism of a neuron, a factor of 1 that is left out. Counts of batches are for training only.
    """
    between = [plan.after, *(loop.before for loop in plan.loops)]
    graphs = [*(each.graph for each in between), *(loop.model for loop in plan.loops)]
    placed = {leaf.key for leaf in jax.tree.leaves(graphs) if isinstance(leaf, Slot)}
    for each in (*between, *plan.loops):
        placed |= {key for statistics in each.statistics for key in (statistics.mean, statistics.var, statistics.count)}
    inside = tuple(f"{module.path}." if module.path else "" for module in plan.modules)
    absent = {key for key in set(plan.canonical.values()) - placed if key.startswith(inside)}
    return {*plan.read, *(key for key in absent if not key.endswith("num_batches_tracked"))}


def _classes(converted: Converted, framework: str) -> dict[str, str]:
    """The names of the classes of a framework's modules, by each of the paths that they have."""
    kinds = {each.path: each.kind for each in converted.plan.modules if each.framework == framework}
    paths = {key.rpartition(".")[0]: name.rpartition(".")[0] for key, name in converted.plan.canonical.items()}
    return {path: kinds[first] for path, first in paths.items() if first in kinds} | kinds


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _content(tensor: torch.Tensor) -> str:
    return str(tensor.tolist()) if tensor.numel() <= 4 else _shown(tensor)


def _listed(items: list[str], separator: str = ", ") -> str:
    rest = [f"and {len(items) - 10} more"] if len(items) > 10 else []
    return separator.join([*items[:10], *rest])


# Arrays


def _with_arrays(
    converted: Converted,
    own: Mapping[str, torch.Tensor],
    values: Mapping[str, torch.Tensor],
    cast: Mapping[str, torch.Tensor],
) -> Converted:
    """The network with other arrays. What JAX cannot hold is in the plan, which stays the same one otherwise."""
    plan, fixed = converted.plan, {}
    parameters, buffers = dict(converted.parameters), dict(converted.buffers)
    for key in own:
        name = plan.canonical[key]
        if name in parameters:
            # Not from `cast`: a float64 conversion of a float32 module takes float64 values as they are.
            parameters[name] = stored_array(values[key]).astype(parameters[name].dtype)
        elif name not in plan.fixed and (array := exact_array(cast[key])) is not None:
            buffers[name] = Frozen(array)
        elif not _same(cast[key], own[key]):
            fixed[name], buffers[name] = to_numpy(cast[key]), place_holder()
    if fixed:
        plan = dataclasses.replace(plan, fixed={**plan.fixed, **fixed})
    return Converted(parameters, buffers, plan, converted.dtype)
