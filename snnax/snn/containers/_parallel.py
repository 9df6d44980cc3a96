"""Branches side by side, and around a block."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ... import engine
from ...engine import AbstractFunction, Wiring
from ._model import AbstractModel
from ._nodes import check_states, numbered, tied, untied
from ._sequential import Sequential


Join = Literal["sum", "concatenate"] | Callable


class _Joined(AbstractFunction):
    join: Join = eqx.field(static=True)

    def __call__(self, *xs: Array) -> Any:
        if self.join == "concatenate":
            return jnp.concatenate(xs, axis=0)
        return engine.add(xs) if self.join == "sum" else self.join(*xs)


class _AbstractBranches(AbstractModel):
    """Containers whose nodes are `branches` and, after them, `join`; states are a list with one entry per branch."""

    branches: eqx.AbstractVar[tuple[Any, ...]]
    join: eqx.AbstractVar[Join]

    @property
    def named_nodes(self) -> Mapping[str, Any]:
        return untied(numbered(self.branches)) | {"join": _Joined(self.join)}

    def pack_states(self, states: Mapping[Any, Any]) -> list[Any]:
        return [states.get(str(index)) for index in range(len(self.branches))]

    def unpack_states(self, states: Any) -> dict[Any, Any]:
        check_states(states, (list, tuple), f"a list for {len(self.branches)} branches")
        if len(states) != len(self.branches):
            raise ValueError(f"expected the states of {len(self.branches)} branches, found {len(states)}")
        return {str(index): state for index, state in enumerate(states)}

    def __len__(self) -> int:
        return len(self.branches)

    def __getitem__(self, index: int) -> Any:
        return tuple(untied(numbered(self.branches)).values())[index]


class Parallel(_AbstractBranches):
    """Branches that read the same input; their outputs are added, concatenated along the first axis, or joined by a
    function.

    `states` is a list with one entry per branch, `outs` lists the outputs of the branches and last their join.

    >>> import equinox as eqx, jax
    >>> from snnax import snn
    >>> slow, fast = snn.LI(3, 0.95), snn.LI(3, 0.5)
    >>> model = snn.Parallel(slow, fast, join="concatenate")
    >>> _, outs = model(model.init_states(), jnp.ones((10, 3)))
    >>> outs[-1].shape
    (10, 6)
    """

    branches: tuple[Any, ...]
    join: Join = eqx.field(static=True)

    def __init__(self, *branches: Any, join: Join = "sum"):
        """**Arguments:** `branches`: layers, functions or containers; `join`: `"sum"`, `"concatenate"`, or a function
        of as many arrays as there are branches.

        **Raises:** `ValueError` without branches or for an unknown join, `TypeError` for a branch that cannot be
        called.
        """
        if not branches:
            raise ValueError("a Parallel needs at least one branch")
        self.branches = tuple(tied(numbered(branches), "Parallel").values())
        self.join = _checked_join(join)

    @property
    def wiring(self) -> Wiring:  # pyright: ignore[reportIncompatibleVariableOverride]
        names = [str(index) for index in range(len(self.branches))]
        return Wiring(("input",), (*((name, ("input",)) for name in names), ("join", tuple(names))), ("join",))


class Residual(_AbstractBranches):
    """A chain of layers with a shortcut around it: `join(x, f(x))`.

    The shortcut sees the same time step, so that it delays nothing. Adding spikes to spikes gives integers (SEW
    ResNet's ADD, Fang et al. 2021, arXiv:2102.04159); its AND and IAND are `join=jnp.multiply` and
    `join=lambda x, y: x * (1 - y)`.

    >>> import equinox as eqx, jax
    >>> from snnax import snn
    >>> model = snn.Residual(eqx.nn.Linear(3, 3, key=jax.random.key(0)), snn.LIF(3, 0.9))
    >>> _, outs = model(model.init_states(), jnp.ones((10, 3)))
    >>> outs[-1].shape
    (10, 3)
    """

    branches: tuple[Any, ...]
    join: Join = eqx.field(static=True)

    def __init__(self, *layers: Any, shortcut: Any = None, join: Join = "sum"):
        """**Arguments:** `layers`: the chain; `shortcut`: a layer on the other way, such as a convolution that changes
        the shape, or None; `join`: as for `Parallel`, of shortcut and chain in this order.

        **Raises:** as `Parallel`.
        """
        if not layers:
            raise ValueError("a Residual needs at least one layer")
        chain = layers[0] if len(layers) == 1 else Sequential(*layers)
        branches = (chain,) if shortcut is None else (chain, shortcut)
        self.branches = tuple(tied(numbered(branches), "Residual").values())
        self.join = _checked_join(join)

    @property
    def wiring(self) -> Wiring:  # pyright: ignore[reportIncompatibleVariableOverride]
        names = [str(index) for index in range(len(self.branches))]
        read = ("input" if len(names) == 1 else names[1], names[0])
        return Wiring(("input",), (*((name, ("input",)) for name in names), ("join", read)), ("join",))


def _checked_join(join: Join) -> Join:
    if join not in ("sum", "concatenate") and not callable(join):
        raise ValueError(f"join must be 'sum', 'concatenate' or a function, found {join!r}")
    return join
