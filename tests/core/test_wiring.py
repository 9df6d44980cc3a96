"""Order of execution, cycles, and the mistakes that are found before anything runs."""

import itertools
import re

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn
from snnax.engine._wiring import strongly_connected, wire


def relay(x):
    return x


def order(edges, outputs):
    return [name for name, _ in wire(list(edges), edges, outputs, ("input",)).sources]


def test_sources_print_as_they_are_read():
    assert str(snn.State("lif", "v")) == "lif.v"
    assert str(snn.Previous("lif")) == "previous(lif)"
    assert str(snn.Previous(snn.State("lif", "v"), shape=(3,))) == "previous(lif.v)"


def test_nodes_run_after_what_they_read():
    edges = {"d": ["b", "c"], "c": snn.State("a", "v"), "b": "a", "a": "input"}
    found = order(edges, "d")
    assert found.index("a") < min(found.index("b"), found.index("c")) < max(found.index("b"), found.index("c")) < 3
    assert found[3] == "d"


@pytest.mark.parametrize("names", list(itertools.permutations("abc")), ids="".join)
def test_a_previous_source_never_decides_the_order(names):
    edges = {"a": ["input", snn.Previous("c")], "b": "a", "c": "b"}
    assert order({name: edges[name] for name in names}, "c") == ["a", "b", "c"]


def test_the_components_are_the_cycles_and_come_in_order():
    edges = {
        "in": "input",
        "a": ["in", snn.Previous("b")],
        "b": "a",
        "loop": ["b", snn.Previous("loop")],
        "late": snn.Previous("in"),
    }
    wiring = wire(list(edges), edges, ["loop", "late"], ("input",))
    assert set(wiring.components) == {("in",), ("a", "b"), ("loop",), ("late",)}
    position = {name: k for k, component in enumerate(wiring.components) for name in component}
    assert position["in"] < position["a"] < position["loop"]
    assert position["in"] < position["late"]
    assert {component for component in wiring.components if wiring.is_cycle(component)} == {("a", "b"), ("loop",)}


def reachable(edges):
    """Who depends on whom, by repeated squaring of the adjacency matrix."""
    names = list(edges)
    reads = np.eye(len(names), dtype=int)
    for row, name in enumerate(names):
        for read in edges[name]:
            reads[row, names.index(read)] = 1
    for _ in names:
        reads = np.minimum(reads @ reads, 1)
    return reads.astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_strongly_connected_components_are_those_of_mutual_reach(seed):
    random = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(9)]
    edges = {name: [read for read in names if random.random() < 0.13] for name in names}
    reach = reachable(edges)
    components = strongly_connected(edges)
    assert sorted(itertools.chain(*components)) == names
    mutual = {
        frozenset(names[k] for k in np.flatnonzero(row & column)) for row, column in zip(reach, reach.T, strict=True)
    }
    assert {frozenset(component) for component in components} == mutual
    position = {name: k for k, component in enumerate(components) for name in component}
    assert all(position[read] <= position[name] for name in names for read in edges[name])
    assert all(list(component) == sorted(component) for component in components)


def test_a_long_chain_does_not_exhaust_the_stack():
    names = [str(k) for k in range(3000)]
    edges = dict(zip(names, [["input"], *([name] for name in names)], strict=False))
    assert len(strongly_connected(edges)) == 3000


def test_a_wiring_is_hashable_and_equal_to_itself():
    first, second = (wire(["a"], {"a": ["input", snn.Previous("a")]}, "a", ("input",)) for _ in range(2))
    assert first.components
    assert hash(first) == hash(second)
    assert first == second


INNER = snn.Graph({"add": snn.Lambda(jnp.add)}, {"add": ["x", "y"]}, "add", inputs=("x", "y"))


@pytest.mark.parametrize(
    ("nodes", "edges", "outputs", "message"),
    [
        (
            {"a": relay},
            {"a": "inptu"},
            "a",
            r"node 'a' reads 'inptu', but there is no node or input .* \['a', 'input'\]",
        ),
        ({"a": relay}, {"a": snn.Previous("b")}, "a", r"node 'a' reads 'previous\(b\)', but there is no"),
        ({"a": relay}, {"a": snn.State("b", "v")}, "a", r"node 'a' reads 'b\.v', but there is no"),
        ({"a": relay}, {"a": "input"}, "b", "outputs reads 'b', but there is no node"),
        ({"a": relay}, {"a": "input"}, [], "a graph needs at least one output"),
        ({"a": relay}, {"a": "input", "b": "a"}, "a", r"edges are given for \['b'\], which are no nodes"),
        ({"input": relay}, {"input": "input"}, "input", "nodes and inputs must have different names"),
        ({"a": relay}, {"a": "a"}, "a", r"\['a'\] wait for each other within one time step; .*snn\.Previous"),
        ({"a": relay, "b": relay}, {"a": "b", "b": "a"}, "a", r"\['a', 'b'\] wait for each other"),
        ({"a": relay}, {}, "a", r"node 'a' \(function\) has no source in edges"),
        ({"a": snn.LIF(3, 0.9)}, {}, "a", r"node 'a' \(LIF\) has no source in edges"),
        ({"a": snn.Sequential(relay)}, {"a": ()}, "a", r"node 'a' \(Sequential\) has no source in edges"),
        ({"a": INNER}, {"a": "input"}, "a", r"node 'a' has the inputs \['x', 'y'\], but 1 source\(s\) in edges"),
        ({"a": relay}, {"a": "input"}, snn.State("a", "v"), r"'a\.v' reads a state of 'a', which is no layer"),
        (
            {"a": relay},
            {"a": ["input", snn.Previous(snn.State("a", "v"))]},
            "a",
            r"'previous\(a\.v\)' reads a state of",
        ),
        ({"a": relay}, {"a": snn.State("input", "v")}, "a", r"'input\.v' reads a state of 'input', which is no layer"),
    ],
)
def test_a_graph_that_cannot_run_is_refused_by_name(nodes, edges, outputs, message):
    with pytest.raises(ValueError, match=message):
        snn.Graph(nodes, edges, outputs)


def test_a_node_that_cannot_be_called_is_refused_by_name():
    with pytest.raises(TypeError, match="node 'a' of a Graph must be a layer or a function, found 3"):
        snn.Graph({"a": 3}, {"a": "input"}, "a")


def test_the_exported_sources_are_those_of_the_engine():
    assert (snn.Previous, snn.State) == (engine.Previous, engine.State)


@pytest.mark.parametrize("run", [engine.stepwise, engine.layerwise])
def test_states_are_kept_by_source_and_not_by_text(run):
    nodes = {"a": snn.LIF(2, 0.9), "a.v": snn.LI(2, 0.5), "previous(b)": eqx.nn.Identity(), "b": snn.LI(2, 0.9)}
    edges = {"a": "input", "a.v": "input", "previous(b)": "input", "b": ["previous(b)", snn.Previous("a.v")]}
    model = snn.Graph(nodes, edges, ["b", snn.State("a", "v"), "a.v"])
    states, outs = model(model.init_states(input_shape=(2,)), jnp.full((3, 2), 0.3), engine=run)
    assert set(states) == {"a", "a.v", "b", "previous(a.v)"}
    np.testing.assert_allclose(outs[-1][1][:, 0], [0.3, 0.57, 0.813], rtol=1e-6)
    np.testing.assert_allclose(outs[-1][2][:, 0], [0.3, 0.45, 0.525], rtol=1e-6)
    np.testing.assert_allclose(states["previous(a.v)"], 0.525, rtol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "edges", "name"),
    [
        (["a", "a.v", "b"], {"b": [snn.Previous("a.v"), snn.Previous(snn.State("a", "v"))]}, "previous(a.v)"),
        (["previous(b)", "b"], {"b": snn.Previous("b")}, "previous(b)"),
    ],
)
def test_two_states_of_one_name_are_refused(nodes, edges, name):
    layers = {node: snn.LIF(2, 0.9) for node in nodes}
    with pytest.raises(ValueError, match=rf"would both be called {re.escape(repr(name))}: give its node another name"):
        snn.Graph(layers, dict.fromkeys(nodes, "input") | edges, nodes[-1])
