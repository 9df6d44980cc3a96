"""States of neurons to go on from: by module path, one array for each field, batch included."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import torch
from jaxtyping import Array

from .blueprint import Blueprint
from .frameworks import registry_for
from .transfer import to_jax


States = Mapping[str, Mapping[str, Any]]


def hidden_states(module: torch.nn.Module) -> dict[str, dict[str, Array]]:
    """The states that the neurons of a torch network keep at present, for `converted(..., states=...)`.

    snnTorch's neurons keep the state of their last call; one that has not been called yet has none, and is left out.

    **Returns:** the fields of the native states by module path, `(batch, ...)`, as copies without gradients.

    >>> import snntorch, torch
    >>> from snnax_interop import from_torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    >>> converted = from_torch(net, (torch.rand(2, 4) * 5,), loop="outside")
    >>> spikes = net(torch.rand(2, 4))
    >>> hidden_states(net)["1"]["v"].shape
    (2, 3)
    """
    found = {}
    paths = {id(child): path for path, child in module.named_modules()}
    for neuron, leaf in registry_for(module).neurons(module):
        kept = () if leaf.read_state is None else leaf.read_state(neuron)
        if kept and all(tensor.numel() for tensor in kept):
            arrays = (to_jax(tensor.detach(), copy="always") for tensor in kept)
            found[paths[id(neuron)]] = dict(zip(leaf.fields, arrays, strict=True))
    return found


def checked_states(states: States, blueprint: Blueprint, dtype: str) -> dict[str, dict[str, Array]]:
    """States to begin with, as floating point arrays.

    **Raises:** `ValueError` for neurons and fields that the network does not have, or whose state is handed on by
    `forward` in its own way.
    """
    known = {}
    for stage in blueprint.stages:
        for neuron in stage.neurons.values():
            known.setdefault(neuron.name, neuron)
    found = {}
    for name, fields in states.items():
        if name not in known:
            raise ValueError(f"the network has no neuron '{name}'. Allowed: {', '.join(known)}")
        wanted = [field for field, _, _ in known[name].fields]
        if sorted(fields) != sorted(wanted):
            raise ValueError(f"the state of '{name}' has the fields {', '.join(wanted)}, found {', '.join(fields)}")
        if any(own is None for _, own, _ in known[name].fields):
            raise ValueError(
                f"the state of '{name}' does not stay with it: forward changes it between steps, or steps it several "
                "times. Leave it out"
            )
        found[name] = {field: jnp.asarray(fields[field], dtype) for field in wanted}
    return found
