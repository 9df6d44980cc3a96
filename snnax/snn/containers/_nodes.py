"""What containers hold: layers and functions, the same layer more than once, and the states of all."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from ...engine import AbstractContainer


class Tied(eqx.Module):
    """In the place of a layer that a container already holds under the name `node`: the same parameters, another
    state."""

    node: str = eqx.field(static=True)


_shared_by_caller = contextvars.ContextVar("shared_by_caller", default=False)


@contextlib.contextmanager
def shared_by_caller() -> Iterator[None]:
    """Layers may be in several containers within: whoever builds them sees to it that their parameters stay one."""
    token = _shared_by_caller.set(True)
    try:
        yield
    finally:
        _shared_by_caller.reset(token)


def numbered(layers: tuple[Any, ...]) -> dict[str, Any]:
    """Layers by their position."""
    return {str(index): layer for index, layer in enumerate(layers)}


def tied(nodes: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Nodes in which a layer that is there before is `Tied` to it.

    **Raises:** `TypeError` for a node that cannot be called; `ValueError` for a layer that is also within another one,
    where it cannot be tied.
    """
    names: dict[int, str] = {}
    found: dict[str, Any] = {}
    for name, node in nodes.items():
        _check_node(node, f"node '{name}' of a {kind}")
        first = names.setdefault(id(node), name) if isinstance(node, eqx.Module) else name
        found[name] = node if first == name else Tied(first)
    if not _shared_by_caller.get():
        _check_shared(found)
    return found


def untied(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """All nodes, the tied ones as the layer that they are."""
    return {name: nodes[node.node] if isinstance(node, Tied) else node for name, node in nodes.items()}


def _check_node(node: Any, where: str) -> None:
    if isinstance(node, type):
        raise TypeError(f"{where} is the class {node.__name__}, expected a layer: call it with its arguments")
    if not callable(node) and not isinstance(node, AbstractContainer):
        raise TypeError(f"{where} must be a layer or a function, found {node!r}")


def _check_shared(nodes: Mapping[str, Any]) -> None:
    paths: dict[int, str] = {}
    for name, node in nodes.items():
        for path, module in _modules(node, name):
            first = paths.setdefault(id(module), path)
            if first != path and jax.tree.leaves(eqx.filter(module, eqx.is_array)):
                raise ValueError(
                    f"'{first}' and '{path}' are one {type(module).__name__}, and would be two that learn apart: a "
                    "layer can be used twice in one container only, where both are nodes of it"
                )


def _modules(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A node and all that can be called within it, by path."""
    if not isinstance(node, eqx.Module):
        return
    if callable(node) or isinstance(node, AbstractContainer):
        yield path, node
    inside, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node and isinstance(x, eqx.Module)
    )
    for keys, child in inside:
        if child is not node:
            yield from _modules(child, path + jax.tree_util.keystr(keys))


def check_states(states: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """**Raises:** `ValueError` for something else than the states of a container."""
    if not isinstance(states, kind):
        raise ValueError(
            f"found {type(states).__name__} in the place of states, expected {expected}, as from model.init_states()"
        )
