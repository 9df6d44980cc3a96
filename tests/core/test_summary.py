"""The table of a model: every node once, with the shapes that it has when the model runs, and all parameters."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from snnax import snn

from .layers import leaves


def linear(getkey, inputs=3, outputs=3):
    return eqx.nn.Linear(inputs, outputs, key=getkey())


def table(model, *arguments):
    """The rows as `(layer, class, output, state, parameters)`, cut where the heading begins its columns; the total."""
    heading, rule, *rows, last_rule, total = model.summary(*arguments).split("\n")
    starts = [heading.index(name) for name in ("layer", "class", "output", "state")]
    starts.append(heading.index("state") + max(len("state"), *(len(cell) for cell in states(rows, starts[3]))))
    assert set(rule) == set(last_rule) == {"-"}
    assert {len(row) for row in rows} == {len(heading)} == {len(rule)}
    cut = [tuple(row[a:b].rstrip() for a, b in zip(starts, [*starts[1:], None], strict=True)) for row in rows]
    return [(*row[:-1], row[-1].strip()) for row in cut], total


def states(rows, start):
    return [found[0] for row in rows if (found := re.match(r"(\([\d, ]*\)( \([\d, ]*\))*)?", row[start:]))]


def test_a_row_has_name_class_shapes_and_parameters(getkey):
    conv = eqx.nn.Conv2d(1, 4, 3, padding=1, key=getkey())
    model = snn.Sequential(conv, snn.LIF(None, [0.9, 0.8]), snn.MaxPool(2), snn.flatten, linear(getkey, 64, 20))
    rows, total = table(model, (1, 8, 8))
    assert rows == [
        ("0", "Conv2d", "(4, 8, 8)", "", "40"),
        ("1", "LIF", "(4, 8, 8)", "(4, 8, 8)", "3"),
        ("2", "MaxPool", "(4, 4, 4)", "", "0"),
        ("3", "flatten", "(64,)", "", "0"),
        ("4", "Linear", "(20,)", "", "1,300"),
    ]
    assert total == "1,343 parameters"


def nested(getkey):
    inner = snn.Graph({"fc": linear(getkey), "lif": snn.LIF(3, 0.9)}, {"fc": "input", "lif": "fc"}, "lif")
    return snn.Sequential(snn.Residual(inner, shortcut=snn.LI(3, 0.5)), snn.Sequential(snn.Sequential(jnp.tanh)))


def test_the_nodes_of_containers_are_below_them_and_indented(getkey):
    rows, total = table(nested(getkey), (3,))
    assert [(name, kind) for name, kind, *_ in rows] == [
        ("0", "Residual"),
        ("  0", "Graph"),
        ("    fc", "Linear"),
        ("    lif", "LIF"),
        ("  1", "LI"),
        ("  join", "_Joined"),
        ("1", "Sequential"),
        ("  0", "Sequential"),
        ("    0", "tanh"),
    ]
    assert {output for *_, output, _, _ in rows} == {"(3,)"}
    containers = [row for row in rows if row[1] in ("Residual", "Graph", "Sequential")]
    assert {row[3:] for row in containers} == {("", "")}, "what a container holds is counted below it"
    assert total == "15 parameters"


@pytest.mark.parametrize("shape", [(3,), None])
def test_the_rows_add_up_to_the_total_and_the_total_to_the_model(getkey, shape):
    model = nested(getkey)
    rows, total = table(model, shape)
    expected = sum(leaf.size for leaf in leaves(model))
    assert sum(int(row[-1] or 0) for row in rows) == expected > 0
    assert total == f"{expected} parameters"


def test_shapes_are_those_of_a_run(getkey):
    key = getkey()
    model = snn.Sequential(
        snn.SLSTM(3, 5, key=key), snn.Delay(jnp.array([1, 0, 2, 1, 1])), snn.DelayedLinear(5, 2, 3, key=key)
    )
    found, _ = table(model, (3,))
    after, outs = model(model.init_states(input_shape=(3,)), jnp.ones((4, 3)))
    assert [output for _, _, output, _, _ in found] == [str(out.shape[1:]) for out in outs]
    shapes = [{str(leaf.shape) for leaf in jax.tree.leaves(state)} for state in after]
    assert [set(re.findall(r"\(.*?\)", state)) for *_, state, _ in found] == shapes
    assert all(shapes)


def test_a_state_shows_each_of_its_shapes_once():
    rows, _ = table(snn.Sequential(snn.LIF(3, [0.9, 0.8]), snn.BatchNorm(3)), (3,))
    assert [row[3] for row in rows] == ["(3,)", "(3,) ()"]


def test_running_statistics_are_no_parameters():
    rows, total = table(snn.Sequential(snn.BatchNorm(3)), (3,))
    assert rows[0][-1] == "6" and total == "6 parameters"


def test_without_an_input_shape_states_are_shown_where_the_layers_know_them(getkey):
    rows, total = table(snn.Sequential(linear(getkey), snn.LIF(3, 0.9)))
    assert rows == [("0", "Linear", "", "", "12"), ("1", "LIF", "", "(3,)", "2")]
    assert total == "14 parameters"


def test_a_graph_of_several_inputs_takes_a_shape_for_each(getkey):
    nodes = {"left": linear(getkey, 2), "right": linear(getkey, 4), "lif": snn.LIF(None, 0.9)}
    model = snn.Graph(nodes, {"left": "a", "right": "b", "lif": ["left", "right"]}, ["lif", "left"], inputs=("a", "b"))
    expected = [
        ("left", "Linear", "(3,)", "", "9"),
        ("right", "Linear", "(3,)", "", "15"),
        ("lif", "LIF", "(3,)", "(3,)", "2"),
    ]
    assert table(model, ((2,), (4,)))[0] == expected
    assert table(model, (jax.ShapeDtypeStruct((2,), "float32"), (4,)))[0] == expected
    pairs = {"pair": model, "end": snn.Lambda(lambda both: both[0])}
    outer = snn.Graph(pairs, {"pair": ["x", "y"], "end": "pair"}, "end", inputs=("x", "y"))
    rows, _ = table(outer, ((2,), (4,)))
    assert rows[0][:2] == ("pair", "Graph")
    assert [(name.strip(), *rest) for name, *rest in rows[1:4]] == expected


def test_feedback_needs_no_row_of_its_own(getkey):
    nodes = {"rec": linear(getkey), "lif": snn.LIF(None, 0.9)}
    model = snn.Graph(nodes, {"rec": snn.Previous("lif"), "lif": ["input", "rec"]}, "lif")
    rows, _ = table(model, (3,))
    assert rows == [("rec", "Linear", "(3,)", "", "12"), ("lif", "LIF", "(3,)", "(3,)", "2")]


def test_what_a_graph_uses_twice_is_counted_once(getkey):
    shared, block = linear(getkey), snn.Sequential(linear(getkey), snn.LIF(3, 0.9))
    nodes = {"first": shared, "block": block, "again": shared, "block again": block}
    model = snn.Graph(nodes, {"first": "input", "block": "first", "again": "block", "block again": "again"}, "again")
    rows, total = table(model, (3,))
    assert [row[-1] for row in rows] == ["12", "", "12", "2", "0", "", "0", "0"]
    assert total == f"{12 + 12 + 2} parameters"


def test_what_a_chain_holds_twice_learns_once_and_is_counted_once(getkey):
    shared = linear(getkey)
    model = snn.Sequential(shared, jnp.tanh, shared)
    gradients = eqx.filter_grad(lambda model: model.step(model.init_states(), jnp.ones(3))[1][-1].sum())(model)
    assert gradients[0] is gradients[2]
    rows, total = table(model, (3,))
    assert [row[-1] for row in rows] == ["12", "0", "0"]
    assert total == "12 parameters"


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (
            lambda key: snn.Sequential(snn.LIF(None, 0.9)),
            None,
            r"node '0' \(LIF\): the layer was built without a shape",
        ),
        (lambda key: snn.Sequential(linear(key)), (4,), r"node '0' \(Linear\): does not take an input of shape"),
        (lambda key: snn.Graph({"a": jnp.add}, {"a": ["x", "y"]}, "a", ("x", "y")), (3,), "must give 2 shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(getkey, build, shape, message):
    with pytest.raises(ValueError, match=message):
        build(getkey).summary(shape)
