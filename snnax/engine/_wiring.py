"""Which node reads what: named sources, the order of execution, and the cycles that must run step by step.

Only a `Previous` source reads the last time step, and it is always written out: which edge of a cycle is delayed
never depends on the order in which edges are listed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class State:
    """A source: field `field` of the state of `node`, after its update in the same time step.

    >>> str(State("lif", "v"))
    'lif.v'
    """

    node: str
    field: str

    def __str__(self) -> str:
        return f"{self.node}.{self.field}"


@dataclasses.dataclass(frozen=True)
class Previous:
    """A source: what `source` was in the previous time step, zeros in the first.

    `shape` (without time) is needed only where it cannot be inferred from the rest of the graph.
    """

    source: "str | State"
    shape: tuple[int, ...] | None = None

    @property
    def key(self) -> "Previous":
        """Under which the value is kept, whatever was said of its shape."""
        return Previous(self.source)

    def __str__(self) -> str:
        return f"previous({self.source})"


Source = str | State | Previous


def origin(source: Source) -> str:
    """The node or network input that a source reads."""
    if isinstance(source, Previous):
        source = source.source
    return source.node if isinstance(source, State) else source


@dataclasses.dataclass(frozen=True)
class Wiring:
    """The edges of a container, hashable. `sources` lists the nodes in execution order.

    `outputs` holds one source, or several (`several=True`: the network's output is then a tuple).
    """

    inputs: tuple[str, ...]
    sources: tuple[tuple[str, tuple[Source, ...]], ...]
    outputs: tuple[Source, ...]
    several: bool = False

    @functools.cached_property
    def previous(self) -> tuple[Previous, ...]:
        """The delayed sources, each once."""
        read = [source for _, sources in self.sources for source in sources] + list(self.outputs)
        return tuple(dict.fromkeys(source for source in read if isinstance(source, Previous)))

    @functools.cached_property
    def fields(self) -> Mapping[str, tuple[str, ...]]:
        """The state fields that are read, by node."""
        read = [source for _, sources in self.sources for source in sources]
        read += [*self.outputs, *(edge.source for edge in self.previous)]
        states = dict.fromkeys(source for source in read if isinstance(source, State))
        return {name: tuple(state.field for state in states if state.node == name) for name, _ in self.sources}

    @functools.cached_property
    def components(self) -> tuple[tuple[str, ...], ...]:
        """Strongly connected components in execution order; a component of one node without feedback is no cycle."""
        edges = {name: [origin(source) for source in sources] for name, sources in self.sources}
        return strongly_connected(edges)

    def is_cycle(self, component: tuple[str, ...]) -> bool:
        """Whether the nodes of a component depend on their own past."""
        first = component[0]
        return len(component) > 1 or any(origin(source) == first for source in dict(self.sources)[first])


def wire(
    names: Sequence[str],
    edges: Mapping[str, Source | Sequence[Source]],
    outputs: Source | Sequence[Source],
    inputs: Sequence[str],
) -> Wiring:
    """Check the edges of a graph and put its nodes into execution order.

    **Raises:** `ValueError` naming the node: an unknown or missing source, a name used twice, a cycle without a
    `Previous`.
    """
    known = {*names, *inputs}
    if len(known) != len(names) + len(inputs):
        raise ValueError(
            f"nodes and inputs must have different names, found nodes {list(names)}, inputs {list(inputs)}"
        )
    if extra := [name for name in edges if name not in names]:
        raise ValueError(f"edges are given for {extra}, which are no nodes; the nodes are {list(names)}")
    sources = {name: _as_tuple(edges.get(name, ())) for name in names}
    read = [(f"node '{name}'", source) for name in names for source in sources[name]]
    several = not isinstance(outputs, str | State | Previous)
    outputs = _as_tuple(outputs)
    read += [("outputs", source) for source in outputs]
    for reader, source in read:
        if origin(source) not in known:
            raise ValueError(
                f"{reader} reads '{source}', but there is no node or input of that name in {sorted(known)}"
            )
    if not outputs:
        raise ValueError("a graph needs at least one output")
    order = _execution_order(sources, set(inputs))
    keys = {source.key for _, source in read if isinstance(source, Previous)}
    texts = [*names, *map(str, keys)]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(f"the states of two sources would both be called {twice[0]!r}: give its node another name")
    return Wiring(tuple(inputs), tuple((name, sources[name]) for name in order), outputs, several)


def _as_tuple(sources: Source | Sequence[Source]) -> tuple[Source, ...]:
    return (sources,) if isinstance(sources, str | State | Previous) else tuple(sources)


def _execution_order(sources: Mapping[str, tuple[Source, ...]], ready: set[str]) -> list[str]:
    waiting = {
        name: {origin(source) for source in read if not isinstance(source, Previous)} for name, read in sources.items()
    }
    order: list[str] = []
    while len(order) < len(waiting):
        found = [name for name, needs in waiting.items() if name not in ready and needs <= ready]
        if not found:
            stuck = [name for name in waiting if name not in ready]
            raise ValueError(
                f"the nodes {stuck} wait for each other within one time step; "
                "read one of them through snn.Previous(...) to make it a feedback edge"
            )
        order += found
        ready.update(found)
    return order


def strongly_connected(edges: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Strongly connected components, those that are read before those that read them (Tarjan 1972, iterative)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    rank = {name: position for position, name in enumerate(edges)}
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            name, reads = work[-1]
            for read in reads:
                if read not in edges:
                    continue
                if read not in index:
                    index[read] = low[read] = len(index)
                    stack.append(read)
                    work.append((read, iter(edges[read])))
                    break
                if read not in done:
                    low[name] = min(low[name], index[read])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    cut = stack.index(name)
                    component = sorted(stack[cut:], key=rank.__getitem__)
                    del stack[cut:]
                    done.update(component)
                    found.append(tuple(component))
    return tuple(found)
