"""A model as a table."""

import collections
from typing import Any

import equinox as eqx
import jax

from ... import engine
from ...engine import AbstractContainer, AbstractLayer
from ._trainable import trainable


def summary(model: AbstractContainer, input_shape: Any = None) -> str:
    """All nodes of a model with the shapes of their outputs and states and the number of their parameters.

    These are the float arrays that learn, as `snn.trainable` has them: without running statistics.
    """
    rows = [("layer", "class", "output", "state", "parameters")]
    parameters = jax.tree.leaves(eqx.filter(model, trainable(model)))
    _add_rows(rows, model, input_shape, "", collections.Counter(map(id, parameters)))
    total = sum(leaf.size for leaf in parameters)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(row: tuple[str, ...]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        return "  ".join([*cells, row[-1].rjust(widths[-1])])

    return "\n".join([line(rows[0]), rule, *map(line, rows[1:]), rule, f"{total:,} parameters"])


def _add_rows(
    rows: list[tuple[str, ...]],
    model: AbstractContainer,
    input_shape: Any,
    indent: str,
    uncounted: collections.Counter[int],
) -> None:
    """`uncounted`: how often the model still holds each parameter; a graph holds what it uses twice only once."""
    nodes = model.named_nodes
    outputs: dict[str, Any] = {}
    inputs: dict[str, Any] = dict.fromkeys(nodes)
    if input_shape is not None:
        inputs, outputs, _ = engine.infer_shapes(model, input_shape)
    # Not an argument: Equinox would trace the shapes.
    init = lambda model: engine.init_states(model, None, input_shape)  # noqa: E731
    states = model.unpack_states(eqx.filter_eval_shape(init, model))
    for name, _ in model.wiring.sources:
        node = nodes[name]
        is_container = isinstance(node, AbstractContainer)
        state = states.get(name) if isinstance(node, AbstractLayer) else None
        kind = type(node).__name__ if isinstance(node, eqx.Module) else getattr(node, "__name__", type(node).__name__)
        shown = "" if is_container else f"{_count(node, uncounted):,}"
        rows.append((indent + name, kind, _shapes(outputs.get(name)), _shapes(state), shown))
        if is_container:
            _add_rows(rows, node, inputs[name], indent + "  ", uncounted)


def _count(node: Any, uncounted: collections.Counter[int]) -> int:
    size = 0
    for leaf in jax.tree.leaves(eqx.filter(node, eqx.is_inexact_array)):
        if uncounted[id(leaf)]:
            uncounted[id(leaf)] -= 1
            size += leaf.size
    return size


def _shapes(tree: Any) -> str:
    """The shapes of all arrays of a tree, each different one once."""
    found = dict.fromkeys(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(tree))
    return " ".join(found)
