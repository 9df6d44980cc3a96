"""A native graph while it grows."""

import dataclasses
from typing import Any

from snnax import snn
from snnax.snn.containers import shared_by_caller

from ..ir.regions import Value
from ..nodes.batch import AllSamples, OwnSample
from ..nodes.call import call_of
from ..runtime.plan import Key


@dataclasses.dataclass
class GraphDraft:
    """Nodes, and the sources that each of them reads; inputs by the key of what they stand for.

    `made` holds the source of every value that the graph has already, of one sample; `whole` those of all samples.
    """

    nodes: dict[str, Any] = dataclasses.field(default_factory=dict)
    edges: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    inputs: dict[Key, str] = dataclasses.field(default_factory=dict)
    made: dict[Value, Any] = dataclasses.field(default_factory=dict)
    whole: dict[Value, Any] = dataclasses.field(default_factory=dict)

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        wanted = wanted or "module"
        taken = {*self.nodes, *self.inputs.values()}
        if wanted not in taken:
            return wanted
        number = 2
        while f"{wanted}_{number}" in taken:
            number += 1
        return f"{wanted}_{number}"

    def input(self, key: Key, wanted: str) -> str:
        if key not in self.inputs:
            self.inputs[key] = self.name(wanted)
        return self.inputs[key]

    def node(self, wanted: str, layer: Any, sources: list[Any]) -> str:
        name = self.name(wanted)
        self.nodes[name] = layer
        self.edges[name] = sources
        return name

    def of_all_samples(self, value: Value, source: Any) -> Any:
        """The source of a value of all samples, from that of one."""
        if value not in self.whole:
            axis = value.batch_axis
            self.whole[value] = source if axis is None else self.node("all_samples", AllSamples(axis), [source])
        return self.whole[value]

    def make_whole(self, value: Value, source: Any) -> None:
        """Note where a value of all samples is made, and take out the one of each."""
        if not value.has_batch:
            self.made[value] = source
            return
        self.whole[value] = source
        if value.batch_axis is not None:
            self.made[value] = self.node("own_sample", OwnSample(value.batch_axis), [source])

    def detached(self, source: Any) -> str:
        """A source without its gradient."""
        return self.node("detach", call_of("detach"), [source])

    def prune(self, kept: list[Any]) -> None:
        """Take out the nodes and inputs that nothing of what is kept depends on, but for those that keep statistics."""
        waiting = [origin(source) for source in kept]
        waiting += [name for name, node in self.nodes.items() if isinstance(node, snn.AbstractLayer)]
        needed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += [origin(source) for source in self.edges.get(name, [])]
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
        self.edges = {name: sources for name, sources in self.edges.items() if name in needed}
        self.inputs = {key: name for key, name in self.inputs.items() if name in needed}

    def graph(self, outputs: Any) -> snn.Graph:
        # All parameters are filled in at every run, those of one layer into each of its places.
        with shared_by_caller():
            return snn.Graph(self.nodes, self.edges, outputs, tuple(self.inputs.values()))


def origin(source: Any) -> str:
    """The node or input that a source reads."""
    source = source.source if isinstance(source, snn.Previous) else source
    return source.node if isinstance(source, snn.State) else source
