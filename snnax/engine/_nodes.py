"""What the engines know of a node: a layer with state, a container, a function of several inputs, a plain callable."""

import abc
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._wiring import Wiring


BATCHES = "models take one sample: batch them with jax.vmap(model, in_axes=(None, 0))"


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
    def pack_states(self, states: Mapping[Any, Any]) -> Any:
        """States by node name, and by `Previous.key` of the delayed sources -> what the user holds."""

    @abc.abstractmethod
    def unpack_states(self, states: Any) -> dict[Any, Any]:
        """The inverse of `pack_states`."""


@functools.cache
def _takes_key(kind: type) -> bool:
    # Not where `key` would only vanish in **kwargs: those of eqx.Partial or eqx.filter_jit go on to any function.
    return issubclass(kind, eqx.Module) and "key" in inspect.signature(kind.__call__).parameters


def call_stateless(node: Any, args: tuple[Any, ...], key: Any) -> Any:
    """Call a node without state; only Equinox modules that have a `key` argument get one."""
    if isinstance(node, AbstractFunction):
        return node(*args)
    x = add(args)
    if isinstance(node, eqx.nn.Linear):
        _check_features(node, x)
    return node(x, key=key) if _takes_key(type(node)) else node(x)


def _check_features(node: eqx.nn.Linear, x: Any) -> None:
    # A matrix would be multiplied as well: a batch that was not vmapped.
    expected = () if node.in_features == "scalar" else (node.in_features,)
    if jnp.shape(x) != expected:
        raise ValueError(f"found an input of shape {jnp.shape(x)}, expected {expected}; {BATCHES}")


def container_inputs(node: AbstractContainer, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a container reads: with one input the sum of its sources, as any node, with several one source each."""
    return (add(args),) if len(node.wiring.inputs) == 1 else args


def add(args: tuple[Any, ...]) -> Any:
    """The sum of a node's inputs, in the order of its edges.

    **Raises:** `ValueError` without any, and for arrays of different shapes: nothing is broadcast.
    """
    if not args:
        raise ValueError("a node that is no snn.Lambda or function needs at least one input")
    shapes = [jax.tree.map(jnp.shape, arg) for arg in args]
    if any(shape != shapes[0] for shape in shapes):
        found = ", ".join(map(str, shapes))
        raise ValueError(
            f"inputs are added and must have one shape, found {found}; broadcast one of them in a node of its own, or "
            "join them by snn.Lambda(lambda a, b: a + b)"
        )
    return args[0] if len(args) == 1 else functools.reduce(lambda a, b: jax.tree.map(_add, a, b), args)


def _add(a: Any, b: Any) -> Any:
    # Integers would wrap around and Booleans would be joined by `or`.
    exact = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in (a, b)]
    return a + b if any(exact) else jnp.asarray(a, float) + jnp.asarray(b, float)
