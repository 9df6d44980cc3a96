"""Surrogate gradients that the user names for functions whose gradient cannot be read off."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from snnax.surrogate import AbstractSurrogate

from ..errors import UnsupportedOptionError
from .framework import SurrogateOption
from .registry import Registry


Surrogates = Mapping[Callable[..., Any], AbstractSurrogate]

# Distances from the threshold at which the two are compared, the threshold itself among them.
_DISTANCES = np.concatenate([np.linspace(-4, 4, 129), [-1e-3, 1e-3, -30.0, 30.0]])
_TOLERANCE = 1e-6


def check_surrogates(module: torch.nn.Module, surrogates: Surrogates, registry: Registry) -> None:
    """Refuse a surrogate that is not what its function computes, on both sides of the threshold and on it.

    **Raises:** `UnsupportedOptionError` for other spikes or another derivative; `ValueError` for a function that no
    neuron uses, `TypeError` for what is no surrogate.
    """
    for function, named in surrogates.items():
        shown = getattr(function, "__qualname__", repr(function))
        if not isinstance(named, AbstractSurrogate):
            raise TypeError(f"the surrogate of {shown} must be a snnax.surrogate, found {named!r}")
        option = _option_with(module, function, registry)
        if option is None:
            known = [each.surrogate.attribute for each in registry.frameworks if each.surrogate is not None]
            raise ValueError(f"no neuron of the network has {shown} as its {' or '.join(known) or 'surrogate'}")
        x = torch.tensor(_DISTANCES, requires_grad=True)
        spikes = function(x)
        slopes = torch.zeros_like(x)
        if spikes.requires_grad:
            (slopes,) = torch.autograd.grad(spikes.sum(), x)
        with jax.enable_x64(True):
            given = jnp.asarray(_DISTANCES)
            found, pull = jax.vjp(functools.partial(named, at_threshold=option.spikes_at_threshold), given)
            (ours,) = pull(jnp.ones_like(given))
        _check_equal(shown, "spike", spikes.detach().double().numpy(), np.asarray(found))
        _check_equal(f"{shown} and {named}", "slope", slopes.double().numpy(), np.asarray(ours))


def _option_with(module: torch.nn.Module, function: Callable[..., Any], registry: Registry) -> SurrogateOption | None:
    """The option that holds a function in one of the neurons; None where none uses it."""
    for framework in registry.frameworks:
        option = framework.surrogate
        own = [child for child in module.modules() if type(child) in framework.converters]
        if option is not None and any(getattr(child, option.attribute, None) is function for child in own):
            return option
    return None


def _check_equal(what: str, kind: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    different = ~np.isclose(theirs, ours, rtol=_TOLERANCE, atol=_TOLERANCE)
    if different.any():
        place = int(np.flatnonzero(different)[0])
        raise UnsupportedOptionError(
            f"{what}: the {kind} at a distance of {_DISTANCES[place]} from the threshold is {theirs[place]} in torch "
            f"and {ours[place]} here. Allowed: the same spikes, on the threshold too, and a surrogate with the same "
            "derivative. Pass another one, snnax.surrogate.Relaxed(function) for a derivative of your own",
            framework="torch",
        )
