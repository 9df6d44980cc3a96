"""Options of modules as JSON has them, and back."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch

from ..errors import WeightMappingError
from .framework import full_name


def option_as_json(value: Any, keys: Mapping[int, str]) -> Any:
    """A value as JSON has it; tensors that `keys` names by their identity are references."""
    if isinstance(value, torch.Tensor):
        return {"parameter": keys[id(value)]} if id(value) in keys else value.detach().tolist()
    if is_named_tuple(value):
        return {name: option_as_json(each, keys) for name, each in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [option_as_json(each, keys) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.nn.Module):
        own = {name: each for name, each in vars(value).items() if not name.startswith("_") and name != "training"}
        return {"class": full_name(type(value)), **{name: option_as_json(each, keys) for name, each in own.items()}}
    return full_name(value)


def option_from_json(old: Any, value: Any, keys: Mapping[int, str], where: str, read_every_call: bool) -> Any:
    """What stands in the place of `old` for a value from JSON.

    `read_every_call` is whether the module will look at it again.

    **Raises:** `WeightMappingError` where it was decided when the module was built.
    """
    if option_as_json(old, keys) == value:
        return old
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if read_every_call:
        if isinstance(old, torch.Tensor) and id(old) not in keys and (is_number or isinstance(value, list)):
            return torch.as_tensor(value, dtype=old.dtype)
        if is_named_tuple(old) and isinstance(value, Mapping) and set(value) == set(old._fields):
            fields = old._asdict().items()
            return old._replace(
                **{name: option_from_json(each, value[name], keys, f"{where}.{name}", True) for name, each in fields}
            )
        if is_number and isinstance(old, int | float) and not isinstance(old, bool):
            return value
        if type(old) is type(value) and isinstance(value, str | bool):
            return value
    raise WeightMappingError(
        f"it is {option_as_json(old, keys)!r} in the module and {value!r} in the file, and cannot be set after the "
        "module was built. Build it with that option",
        path=where,
    )


def is_named_tuple(value: Any) -> TypeGuard[Any]:
    """Whether a value is of a class that `typing.NamedTuple` or `collections.namedtuple` has made."""
    return isinstance(value, tuple) and isinstance(getattr(type(value), "_field_defaults", None), dict)
