"""Options of modules as JSON has them, and back."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch

from ..errors import WeightMappingError


def as_settings(value: Any, keys: Mapping[int, str]) -> Any:
    """A value as JSON has it; tensors that `keys` names by their identity are references."""
    if isinstance(value, torch.Tensor):
        return {"parameter": keys[id(value)]} if id(value) in keys else value.detach().tolist()
    if is_named_tuple(value):
        return {name: as_settings(each, keys) for name, each in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [as_settings(each, keys) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.nn.Module):
        own = {name: each for name, each in vars(value).items() if not name.startswith("_") and name != "training"}
        return {"class": full_name(type(value)), **{name: as_settings(each, keys) for name, each in own.items()}}
    return full_name(value)


def full_name(value: Any) -> str:
    """The name of a class or function with its module; of another object, that of its class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def with_settings(old: Any, value: Any, keys: Mapping[int, str], where: str, live: bool) -> Any:
    """What stands in the place of `old` for a value from JSON; `live` is whether the module will look at it again.

    **Raises:** `WeightMappingError` where that was decided when the module was built.
    """
    if as_settings(old, keys) == value:
        return old
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if live and isinstance(old, torch.Tensor) and id(old) not in keys and (is_number or isinstance(value, list)):
        return torch.as_tensor(value, dtype=old.dtype)
    if live and is_named_tuple(old) and isinstance(value, Mapping) and set(value) == set(old._fields):
        fields = old._asdict().items()
        return old._replace(
            **{name: with_settings(each, value[name], keys, f"{where}.{name}", live) for name, each in fields}
        )
    if live and is_number and isinstance(old, int | float) and not isinstance(old, bool):
        return value
    if live and type(old) is type(value) and isinstance(value, str | bool):
        return value
    raise WeightMappingError(
        f"it is {as_settings(old, keys)!r} in the module and {value!r} in the file, and cannot be set after the module "
        "was built. Build it with that option",
        path=where,
    )


def is_named_tuple(value: Any) -> TypeGuard[Any]:
    return hasattr(value, "_field_defaults")
