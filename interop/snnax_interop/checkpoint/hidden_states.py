"""The states that a torch network keeps at present, for a conversion to go on from."""

import torch
from jaxtyping import Array

from ..frameworks import registry_for
from ..transfer.trees import to_jax


def hidden_states(module: torch.nn.Module) -> dict[str, dict[str, Array]]:
    """The states that the neurons of a torch network keep at present, for `converted(..., states=...)`.

    snnTorch's neurons keep the state of their last call; one that has not been called yet has none, and is left out.

    **Returns:** the fields of the native states by module path, `(batch, ...)`, as copies without gradients.

    >>> import snntorch, torch
    >>> _ = torch.manual_seed(0)
    >>> from snnax_interop import from_torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    >>> converted = from_torch(net, (torch.rand(2, 4) * 5,), loop="outside")
    >>> spikes = net(torch.rand(2, 4))
    >>> hidden_states(net)["1"]["v"].shape
    (2, 3)
    """
    found = {}
    paths = {id(child): path for path, child in module.named_modules()}
    for neuron, converter in registry_for(module).neurons(module):
        state = () if converter.memory is None else converter.memory.read(neuron)
        if state and all(tensor.numel() for tensor in state):
            arrays = (to_jax(tensor.detach(), copy="always") for tensor in state)
            found[paths[id(neuron)]] = dict(zip(converter.fields, arrays, strict=True))
    return found
