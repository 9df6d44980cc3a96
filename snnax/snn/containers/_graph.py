"""Named layers wired freely."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx

from ...engine import AbstractContainer, AbstractFunction, AbstractLayer, Previous, Source, State, Wiring, wire
from ._model import AbstractModel
from ._nodes import check_states, tied, untied


class Graph(AbstractModel):
    """Named layers with fan-in, skip and feedback edges.

    `edges` says for each node where its input comes from: a node or network input by name, a state of a layer
    (`snn.State("lif", "v")`), or either of them one time step late (`snn.Previous("lif")`), which is what makes a
    feedback edge. Several sources are added; `snn.Lambda` gets them as separate arguments. A layer given under two
    names is one layer used twice, each with its own state.

    `states` is a dict by node name, with the delayed values under `"previous(...)"`. The outputs `outs` list every
    node in execution order, followed by the network's output where that is not simply the last node.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from snnax import snn
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> model = snn.Graph(
    ...     {"fc": eqx.nn.Linear(4, 3, key=k1), "rec": eqx.nn.Linear(3, 3, key=k2), "lif": snn.LIF(3, 0.9)},
    ...     {"fc": "input", "rec": snn.Previous("lif"), "lif": ["fc", "rec"]},
    ...     outputs="lif",
    ... )
    >>> states, outs = model(model.init_states(input_shape=(4,)), jnp.ones((10, 4)))
    >>> outs[-1].shape
    (10, 3)
    """

    nodes: dict[str, Any]
    wiring: Wiring = eqx.field(static=True)

    def __init__(
        self,
        nodes: Mapping[str, Any],
        edges: Mapping[str, Source | Sequence[Source]],
        outputs: Source | Sequence[Source],
        inputs: str | Sequence[str] = ("input",),
    ):
        """**Arguments:**

        - `nodes`: layers, functions or containers by name.
        - `edges`: the source or sources of each node; nodes that need none (`snn.Value`) may be left out.
        - `outputs`: one source, or several for a tuple of outputs.
        - `inputs`: the name or names of the network's inputs.

        **Raises:** `ValueError` naming the node for an unknown or missing source, a cycle without `snn.Previous`, or a
        layer that is used twice and not by this graph alone;
        `TypeError` for a node that cannot be called.
        """
        self.nodes = tied(nodes, "Graph")
        self.wiring = wire(list(nodes), edges, outputs, (inputs,) if isinstance(inputs, str) else inputs)
        _check_sources(self.named_nodes, self.wiring)

    @property
    def named_nodes(self) -> Mapping[str, Any]:
        return untied(self.nodes)

    def pack_states(self, states: Mapping[Any, Any]) -> dict[str, Any]:
        return {str(name): state for name, state in states.items() if state is not None}

    def unpack_states(self, states: Any) -> dict[Any, Any]:
        edges = {str(edge): edge.key for edge in self.wiring.previous}
        wanted = [name for name, node in self.named_nodes.items() if isinstance(node, AbstractLayer)]
        check_states(states, dict, f"a dict with {[*wanted, *edges]}")
        if missing := [name for name in (*wanted, *edges) if name not in states]:
            raise ValueError(f"the states of {missing} are missing; found those of {list(states)}")
        return {edges.get(name, name): state for name, state in states.items()}


def _check_sources(nodes: Mapping[str, Any], wiring: Wiring) -> None:
    """That every node has as many sources as it reads, and that states are read of layers that have one."""
    for name, sources in wiring.sources:
        node = nodes[name]
        inputs = node.wiring.inputs if isinstance(node, AbstractContainer) else ()
        if len(inputs) > 1 and len(sources) != len(inputs):
            raise ValueError(f"node '{name}' has the inputs {list(inputs)}, but {len(sources)} source(s) in edges")
        if not sources and (inputs or not isinstance(node, AbstractContainer | AbstractFunction)):
            raise ValueError(f"node '{name}' ({type(node).__name__}) has no source in edges")
    read = [source for _, sources in wiring.sources for source in sources] + list(wiring.outputs)
    for source in read:
        state = source.source if isinstance(source, Previous) else source
        if isinstance(state, State) and not isinstance(nodes.get(state.node), AbstractLayer):
            raise ValueError(f"'{source}' reads a state of '{state.node}', which is no layer with a state")
