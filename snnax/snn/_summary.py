"""A model as a table."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import engine
from ..engine import AbstractContainer, AbstractLayer


def summary(model: AbstractContainer, input_shape: Any = None) -> str:
    """All nodes of a model with the shapes of their outputs and states and the number of their parameters."""
    rows = [("layer", "class", "output", "state", "parameters")]
    structs = _input_structs(model, input_shape)
    _add_rows(rows, model, structs, "")
    total = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(row: tuple[str, ...]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        return "  ".join([*cells, row[-1].rjust(widths[-1])])

    return "\n".join([line(rows[0]), rule, *map(line, rows[1:]), rule, f"{total:,} parameters"])


def _input_structs(model: AbstractContainer, input_shape: Any) -> tuple[Any, ...] | None:
    if input_shape is None:
        return None
    several = len(model.wiring.inputs) > 1
    shapes = tuple(input_shape) if several else (input_shape,)
    dtype = jnp.result_type(float)
    return tuple(
        shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(tuple(shape), dtype)
        for shape in shapes
    )


def _add_rows(
    rows: list[tuple[str, ...]], model: AbstractContainer, structs: tuple[Any, ...] | None, indent: str
) -> None:
    nodes = model.named_nodes
    outputs: dict[str, Any] = {}
    inputs: dict[str, Any] = dict.fromkeys(nodes)
    if structs is not None:
        inputs, outputs, _ = engine.infer_shapes(model, structs)
    states = model.unpack_states(eqx.filter_eval_shape(engine.init_states, model, None, structs))
    counted: set[int] = set()
    for name, _ in model.wiring.sources:
        node = nodes[name]
        is_container = isinstance(node, AbstractContainer)
        state = states.get(name) if isinstance(node, AbstractLayer) else None
        own = eqx.filter(node, eqx.is_inexact_array)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(own)) if id(node) not in counted else 0
        counted.add(id(node))
        kind = type(node).__name__ if isinstance(node, eqx.Module) else getattr(node, "__name__", type(node).__name__)
        shown = "" if is_container else f"{parameters:,}"
        rows.append((indent + name, kind, _shapes(outputs.get(name)), _shapes(state), shown))
        if is_container:
            _add_rows(rows, node, inputs[name], indent + "  ")


def _shapes(tree: Any) -> str:
    """The shapes of all arrays of a tree, each different one once."""
    found = dict.fromkeys(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(tree))
    return " ".join(found)
