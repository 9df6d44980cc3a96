"""A chain of layers."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ...engine import Wiring
from ._model import AbstractModel
from ._nodes import check_states, numbered, tied, untied


class Sequential(AbstractModel):
    """Layers one after another. Layers of `equinox.nn`, plain functions and other containers work unchanged.

    Each layer sees the output of its predecessor of the same time step. `states` is a list with one entry per layer,
    None for stateless ones. A layer given twice is one layer used twice, each time with its own state.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from snnax import snn
    >>> key = jax.random.key(0)
    >>> model = snn.Sequential(eqx.nn.Linear(4, 3, key=key), snn.LIF(3, 0.9))
    >>> states, outs = model(model.init_states(key), jnp.ones((10, 4)))
    >>> outs[-1].shape
    (10, 3)
    """

    layers: tuple[Any, ...]

    def __init__(self, *layers: Any):
        """**Arguments:** `layers` in order.

        **Raises:** `ValueError` without layers, `TypeError` for a layer that cannot be called.
        """
        if not layers:
            raise ValueError("a Sequential needs at least one layer")
        self.layers = tuple(tied(numbered(layers), "Sequential").values())

    @property
    def wiring(self) -> Wiring:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _chain(len(self.layers))

    @property
    def named_nodes(self) -> Mapping[str, Any]:
        return untied(numbered(self.layers))

    def pack_states(self, states: Mapping[Any, Any]) -> list[Any]:
        return [states.get(str(index)) for index in range(len(self.layers))]

    def unpack_states(self, states: Any) -> dict[Any, Any]:
        check_states(states, (list, tuple), f"a list for {len(self.layers)} layers")
        if len(states) != len(self.layers):
            raise ValueError(f"expected the states of {len(self.layers)} layers, found {len(states)}")
        return {str(index): state for index, state in enumerate(states)}

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.named_nodes.values())

    def __getitem__(self, index: int | slice) -> Any:
        """A layer, or the chain of a slice."""
        layers = tuple(self)[index]
        return Sequential(*layers) if isinstance(index, slice) else layers


@functools.cache
def _chain(length: int) -> Wiring:
    names = [str(index) for index in range(length)]
    sources = zip(names, [("input",), *((name,) for name in names)], strict=False)
    return Wiring(("input",), tuple(sources), (names[-1],))
