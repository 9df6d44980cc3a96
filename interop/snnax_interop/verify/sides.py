"""The two sides of a comparison: the torch module with its inputs, and its conversion."""

from typing import Any

import jax
import numpy as np
import torch

from ..errors import WeightMappingError
from ..runtime.converted import Converted, checked_conversion


def checked_sides(module: Any, converted: Any, inputs: Any) -> tuple[torch.Tensor, ...]:
    """The inputs as a tuple.

    **Raises:** `TypeError` for arguments of the other side, or in another order; `WeightMappingError` for a module with
    other parameters than the one that was converted.
    """
    if isinstance(module, Converted) and isinstance(converted, torch.nn.Module):
        raise TypeError(
            "check_equivalence: found the conversion first; expected check_equivalence(module, converted, inputs)"
        )
    checked_conversion(converted, "check_equivalence")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"check_equivalence: expected the torch module that was converted, found a {type(module).__name__}"
        )
    inputs = (inputs,) if isinstance(inputs, torch.Tensor | jax.Array | np.ndarray) else tuple(inputs)
    kinds = [type(each).__name__ for each in inputs if not isinstance(each, torch.Tensor)]
    if kinds:
        raise TypeError(
            f"check_equivalence: inputs must be a tuple of torch tensors, as for the module, found {kinds}; take them "
            "over with snnax_interop.to_torch"
        )
    _check_parameters(module, converted)
    return inputs


def _check_parameters(module: torch.nn.Module, converted: Converted) -> None:
    """Whether a module has the trainable parameters of the one that was converted, with their shapes."""
    own = {key: tuple(array.shape) for key, array in converted.parameters.items()}
    canonical = converted.plan.canonical
    found = {canonical.get(name, name): tuple(each.shape) for name, each in module.named_parameters()}
    unexpected = sorted(found.keys() - set(canonical.values()))
    missing = sorted(own.keys() - found.keys())
    shapes = [f"'{key}' {found[key]} and not {own[key]}" for key in own.keys() & found.keys() if own[key] != found[key]]
    if unexpected or missing or shapes:
        differences = {"unexpected": unexpected, "missing": missing, "of other shapes": sorted(shapes)}
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in differences.items() if names)
        raise WeightMappingError(
            f"check_equivalence: the module is not the one that was converted. Parameters {listed}. Pass that module, "
            "or convert this one"
        )
