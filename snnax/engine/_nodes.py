"""What the engines know of a node: a layer with state, a container, a function of several inputs, a plain callable."""

import abc
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import equinox as eqx

from ._wiring import Wiring


class AbstractLayer(eqx.Module):
    """A layer with state: one time step on one sample. Batch it with `jax.vmap`.

    State is explicit: what `__call__` needs from the past comes in and goes out, nothing is stored on the layer.
    """

    @abc.abstractmethod
    def init_state(self, shape: tuple[int, ...] | None, *, key: Any = None) -> Any:
        """The state before the first time step, for inputs of `shape` (no time, no batch axis).

        `shape` is None where the caller does not know it; a layer that was not given its shape either raises
        `ValueError`.
        """

    @abc.abstractmethod
    def __call__(self, state: Any, x: Any, *, key: Any = None) -> tuple[Any, Any]:
        """One time step: `(state, input) -> (state, output)`."""


class AbstractLinearLayer(AbstractLayer):
    """A layer that can do without a loop over time where its state depends linearly on its input."""

    @property
    @abc.abstractmethod
    def is_linear(self) -> bool:
        """Whether this layer, with its options, is linear in time."""

    @abc.abstractmethod
    def apply_parallel(self, state: Any, xs: Any) -> tuple[Any, Any]:
        """All time steps at once, if `is_linear`: the states after each step and the outputs, `(time, ...)` both."""


class AbstractSequenceLayer(AbstractLayer):
    """A layer that knows more of a whole sequence than of its steps one after another.

    It may take its input projection out of the loop over time, bring an adjoint of its own, or need all steps together.
    """

    @property
    @abc.abstractmethod
    def needs_whole_sequence(self) -> bool:
        """Whether the layer cannot be stepped, nor be given a sequence in pieces: its `__call__` then raises."""

    @abc.abstractmethod
    def apply_sequence(self, state: Any, xs: Any, *, keys: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """A whole sequence: `(state, inputs) -> (state after the last step, outputs)`.

        `xs` is `(time, ...)`; `keys` is one key per step or None; steps where `mask` `(time,)` is False leave the state
        as it is. Equal to stepping, if the layer can be stepped.
        """


class AbstractFunction(eqx.Module):
    """A stateless node that takes its inputs as separate arguments; any other node gets their sum."""

    @abc.abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One time step: `inputs -> output`, with as many arguments as there are inputs and no others."""


class AbstractContainer(eqx.Module):
    """Nodes wired together; `wiring` says which node reads what."""

    wiring: eqx.AbstractVar[Wiring]

    @property
    @abc.abstractmethod
    def named_nodes(self) -> Mapping[str, Any]:
        """The nodes by name."""

    @abc.abstractmethod
    def pack_states(self, states: dict[str, Any]) -> Any:
        """States by node name (and by `str(Previous(...))`) -> what the user holds."""

    @abc.abstractmethod
    def unpack_states(self, states: Any) -> dict[str, Any]:
        """The inverse of `pack_states`."""


@functools.cache
def _takes_key(kind: type) -> bool:
    # Not where `key` would only vanish in **kwargs: those of eqx.Partial or eqx.filter_jit go on to any function.
    return issubclass(kind, eqx.Module) and "key" in inspect.signature(kind.__call__).parameters


def call_stateless(node: Any, args: tuple[Any, ...], key: Any) -> Any:
    """Call a node without state; only Equinox modules that have a `key` argument get one."""
    if isinstance(node, AbstractFunction):
        return node(*args)
    return node(add(args), key=key) if _takes_key(type(node)) else node(add(args))


def container_inputs(node: AbstractContainer, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a container reads: with one input the sum of its sources, as any node, with several one source each."""
    return (add(args),) if len(node.wiring.inputs) == 1 else args


def add(args: tuple[Any, ...]) -> Any:
    """The sum of a node's inputs, in the order of its edges."""
    if not args:
        raise ValueError("a node that is no snn.Lambda or function needs at least one input")
    return functools.reduce(lambda a, b: a + b, args)
