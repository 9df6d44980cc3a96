"""Graphs: construction, names of states and outputs, shapes, tied layers, saving."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnax import engine, snn


def recurrent(getkey, size=3):
    return snn.Graph(
        {
            "fc": eqx.nn.Linear(4, size, key=getkey()),
            "rec": eqx.nn.Linear(size, size, key=getkey()),
            "lif": snn.LIF(size, [0.9, 0.8], 0.3),
            "readout": snn.LI(None, 0.8),
        },
        {"fc": "input", "rec": snn.Previous("lif"), "lif": ["fc", "rec"], "readout": snn.State("lif", "v")},
        outputs=["lif", "readout"],
    )


def test_states_are_named_like_the_nodes_and_the_delayed_sources(getkey):
    model = recurrent(getkey)
    states = model.init_states(getkey(), input_shape=(4,))
    assert set(states) == {"lif", "readout", "previous(lif)"}
    after, _ = model(states, jnp.ones((5, 4)))
    assert jax.tree.structure(after) == jax.tree.structure(states)
    assert states["readout"].v.shape == (3,)
    np.testing.assert_array_equal(states["previous(lif)"], jnp.zeros(3))


def test_outputs_are_all_nodes_and_then_the_output_of_the_network(getkey):
    model, xs = recurrent(getkey), jax.random.normal(getkey(), (5, 4))
    _, outs = model(model.init_states(input_shape=(4,)), xs)
    names = [name for name, _ in model.wiring.sources]
    assert len(outs) == len(names) + 1
    assert [out.shape for out in outs[:-1]] == [(5, 3)] * 4
    lif, readout = outs[-1]
    np.testing.assert_array_equal(lif, outs[names.index("lif")])
    np.testing.assert_array_equal(readout, outs[names.index("readout")])
    last = snn.Graph({"a": jnp.tanh, "b": jnp.sin}, {"a": "input", "b": "a"}, "b")
    assert len(last(last.init_states(), xs)[1]) == 2  # the last node is the output
    first = snn.Graph({"a": jnp.tanh, "b": jnp.sin}, {"a": "input", "b": "a"}, "a")
    outs = first(first.init_states(), xs)[1]
    assert len(outs) == 3
    np.testing.assert_array_equal(outs[-1], jnp.tanh(xs))


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_recurrence_is_the_equation_step_by_step(x64, getkey, run):
    model, xs = recurrent(getkey), jax.random.normal(getkey(), (7, 4))
    _, outs = model(model.init_states(input_shape=(4,)), xs, engine=run)
    fc, rec = model.nodes["fc"], model.nodes["rec"]
    v = i = z = out = np.zeros(3)
    for t in range(7):
        x = np.asarray(fc.weight) @ xs[t] + fc.bias + np.asarray(rec.weight) @ z + rec.bias
        i = 0.8 * i + x
        v = 0.9 * v + i
        z = (v > 0.3).astype(float)
        v = v - 0.3 * z
        out = 0.8 * out + v
        np.testing.assert_array_equal(outs[-1][0][t], z)
        np.testing.assert_allclose(outs[-1][1][t], out, rtol=1e-12)
    assert 0 < outs[-1][0].sum() < outs[-1][0].size


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_only_a_feedback_edge_takes_time(run):
    xs = jnp.arange(1.0, 6.0)
    nodes = {"a": eqx.nn.Identity(), "b": eqx.nn.Identity(), "late": eqx.nn.Identity(), "later": eqx.nn.Identity()}
    edges = {"a": "input", "b": "a", "late": snn.Previous("b"), "later": snn.Previous("late")}
    model = snn.Graph(nodes, edges, ["b", "late", "later", snn.Previous("input")])
    _, outs = model(model.init_states(input_shape=()), xs, engine=run)
    b, late, later, before = (out.tolist() for out in outs[-1])
    assert b == [1, 2, 3, 4, 5]
    assert late == before == [0, 1, 2, 3, 4]
    assert later == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_a_running_sum_needs_nothing_but_a_feedback_edge(run):
    model = snn.Graph({"sum": eqx.nn.Identity()}, {"sum": ["input", snn.Previous("sum")]}, "sum")
    states, outs = model(model.init_states(input_shape=(2,)), jnp.ones((4, 2)), engine=run)
    assert outs[-1][:, 0].tolist() == [1, 2, 3, 4]
    assert states["previous(sum)"].tolist() == [4, 4]


def test_tied_layers_are_one_layer_with_two_states(getkey):
    layer, lif = eqx.nn.Linear(3, 3, key=getkey()), snn.LIF(3, 0.9, 0.2)
    model = snn.Graph(
        {"first": layer, "a": lif, "second": layer, "b": lif},
        {"first": "input", "a": "first", "second": "a", "b": "second"},
        "b",
    )
    copies = snn.Sequential(layer, lif, *jax.tree.map(jnp.copy, (layer, lif)))
    xs = jax.random.normal(getkey(), (6, 3))
    assert len(jax.tree.leaves(model)) * 2 == len(jax.tree.leaves(copies))
    assert model.named_nodes["second"] is model.named_nodes["first"] is layer
    states, outs = model(model.init_states(), xs)
    np.testing.assert_array_equal(outs[-1], copies(copies.init_states(), xs)[1][-1])
    assert set(states) == {"a", "b"}
    assert jnp.any(states["a"].v != states["b"].v)

    @eqx.filter_grad
    def gradient(model):
        return model(model.init_states(), xs)[1][-1].sum()

    separate = gradient(copies).layers
    np.testing.assert_allclose(
        gradient(model).nodes["first"].weight, separate[0].weight + separate[2].weight, rtol=1e-5, atol=1e-6
    )


def test_equal_functions_are_no_tied_layers():
    model = snn.Graph({"a": jnp.tanh, "b": jnp.tanh}, {"a": "input", "b": "a"}, "b")
    assert model.nodes == {"a": jnp.tanh, "b": jnp.tanh}


@pytest.mark.parametrize(
    "input_shape",
    [((2,), (2, 1)), [(2,), [2, 1]], (jax.ShapeDtypeStruct((2,), jnp.float32), (2, 1))],
    ids=["tuples", "lists", "structs"],
)
def test_every_input_has_its_shape(input_shape):
    nodes = {"flat": snn.flatten(), "a": snn.LI(None, 0.9), "b": snn.LI(None, 0.9)}
    model = snn.Graph(nodes, {"a": "x", "flat": "y", "b": ["flat", "a"]}, "b", inputs=("x", "y"))
    states = model.init_states(input_shape=input_shape)
    assert states["a"].v.shape == states["b"].v.shape == (2,)
    _, outs = model(states, (jnp.ones((3, 2)), jnp.ones((3, 2, 1))))
    assert outs[-1].shape == (3, 2)


def test_scalar_inputs_have_a_shape_too():
    model = snn.Graph({"a": snn.LI(None, 0.9)}, {"a": ["x", "y"]}, "a", inputs=("x", "y"))
    assert model.init_states(input_shape=((), ()))["a"].v.shape == ()


def test_the_dtype_of_an_input_reaches_what_is_delayed():
    model = snn.Graph({"a": eqx.nn.Identity()}, {"a": snn.Previous("input")}, "a")
    struct = jax.ShapeDtypeStruct((2,), jnp.int32)
    states, outs = model(model.init_states(input_shape=struct), jnp.arange(6).reshape(3, 2))
    assert states["previous(input)"].dtype == outs[-1].dtype == jnp.int32
    assert outs[-1].tolist() == [[0, 0], [0, 1], [2, 3]]


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_what_is_delayed_keeps_the_dtype_of_its_state(run):
    nodes = {"lif": snn.LIF(2, 0.9), "after": eqx.nn.Identity()}
    model = snn.Graph(nodes, {"lif": "input", "after": snn.Previous("lif")}, "after")
    states, outs = model(model.init_states(input_shape=(2,)), jnp.ones((3, 2), jnp.bfloat16) * 2, engine=run)
    assert outs[0].dtype == jnp.bfloat16
    assert outs[-1].dtype == states["previous(lif)"].dtype == jnp.float32
    assert outs[-1].tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_feedback_shape_is_inferred_given_or_asked_for():
    def loop(previous):
        return snn.Graph({"lif": snn.LIF(3, 0.9)}, {"lif": ["input", previous]}, "lif")

    assert loop(snn.Previous("lif")).init_states(input_shape=(3,))["previous(lif)"].shape == (3,)
    assert loop(snn.Previous("lif", shape=(3,))).init_states()["previous(lif)"].shape == (3,)
    with pytest.raises(ValueError, match=r"the shape of previous\(lif\) is not known: pass input_shape, or"):
        loop(snn.Previous("lif")).init_states()


def test_a_feedback_shape_is_given_once():
    edges = {"lif": ["input", snn.Previous("lif")], "late": snn.Previous("lif", shape=(3,))}
    model = snn.Graph({"lif": snn.LIF(3, 0.9), "late": eqx.nn.Identity()}, edges, "late")
    assert model.init_states()["previous(lif)"].shape == (3,)


def test_a_loop_whose_shapes_nothing_determines_asks_for_one():
    edges = {"a": snn.Previous("b"), "b": "a"}
    model = snn.Graph({"a": jnp.tanh, "b": jnp.sin}, edges, "b", inputs=("unused",))
    with pytest.raises(ValueError, match=r"nodes \['a', 'b'\] cannot be inferred: give snn\.Previous"):
        model.init_states(input_shape=(2,))


def test_dropout_and_random_states_are_no_obstacle_to_shapes():
    class Noisy(engine.AbstractLayer):
        def init_state(self, shape, *, key=None):
            assert shape is not None
            return jax.random.normal(key, shape)

        def __call__(self, state, x, *, key=None):
            return state, x + state

    model = snn.Sequential(eqx.nn.Dropout(0.5), Noisy(), snn.LI(None, 0.9))
    states = model.init_states(jax.random.key(0), input_shape=(3,))
    assert states[0] is None
    assert jnp.all(states[1] != 0)
    assert jnp.any(states[1] != model.init_states(jax.random.key(1), input_shape=(3,))[1])


@pytest.mark.parametrize(
    ("xs", "message"),
    [
        ((jnp.ones((3, 2)),), r"expected a tuple of 2 inputs \['x', 'y'\], found 1"),
        (jnp.ones((2, 3)), r"expected a tuple of 2 inputs \['x', 'y'\], found"),
        ((jnp.ones((3, 2)), jnp.ones((4, 2))), r"same number of time steps, found \{'x': 3, 'y': 4\}"),
        ((jnp.ones((3, 2)), jnp.float32(1)), r"input 'y' must be time-major"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(xs, message):
    model = snn.Graph({"a": snn.LI(2, 0.9)}, {"a": ["x", "y"]}, "a", inputs=("x", "y"))
    with pytest.raises(ValueError, match=message):
        model(model.init_states(), xs)


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_a_graph_without_nodes_hands_its_input_through(run):
    model = snn.Graph({}, {}, "input")
    states, outs = model(model.init_states(), jnp.arange(3.0), engine=run)
    assert states == {}
    assert outs[-1].tolist() == [0, 1, 2]


def test_a_graph_can_be_pickled_and_serialised(getkey, tmp_path):
    model, xs = recurrent(getkey), jax.random.normal(getkey(), (5, 4))
    expected = model(model.init_states(input_shape=(4,)), xs)
    copy = pickle.loads(pickle.dumps(model))
    assert eqx.tree_equal(copy(copy.init_states(input_shape=(4,)), xs), expected)
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", recurrent(getkey))
    assert eqx.tree_equal(loaded(loaded.init_states(input_shape=(4,)), xs), expected)


def test_a_graph_can_be_built_abstractly_and_in_batches(getkey):
    def build(key):
        keys = iter(jax.random.split(key, 2))
        return recurrent(lambda: next(keys))

    struct = eqx.filter_eval_shape(build, getkey())
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(struct))
    models = eqx.filter_vmap(build)(jax.random.split(getkey(), 3))
    states = eqx.filter_vmap(lambda model: model.init_states(input_shape=(4,)))(models)
    _, outs = eqx.filter_vmap(lambda model, states: model(states, jnp.ones((5, 4))))(models, states)
    assert outs[-1][0].shape == (3, 5, 3)


def test_training_a_graph_compiles_once_and_lowers_the_loss(getkey):
    traces, optimiser = 0, optax.adam(1e-2)
    xs = jax.random.normal(getkey(), (8, 4))

    @eqx.filter_jit
    def train(model, opt_state):
        nonlocal traces
        traces += 1

        @eqx.filter_value_and_grad
        def loss(model):
            return jnp.mean((model(model.init_states(input_shape=(4,)), xs)[1][-1][1] - 1.0) ** 2)

        value, gradients = loss(model)
        updates, opt_state = optimiser.update(gradients, opt_state)
        return value, eqx.apply_updates(model, updates), opt_state

    model, losses = recurrent(getkey), []
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optimiser.init(eqx.filter(model, eqx.is_array))
        for _ in range(10):
            value, model, opt_state = train(model, opt_state)
            losses.append(float(value))
    assert traces == 1
    assert losses[-1] < losses[0]


def test_one_input_may_be_named_by_a_plain_string():
    graph = snn.Graph({"lif": snn.LIF(3, 0.9)}, {"lif": "image"}, "lif", inputs="image")
    assert graph.wiring.inputs == ("image",)


def test_states_that_are_missing_are_named():
    graph = snn.Graph({"lif": snn.LIF(3, 0.9)}, {"lif": ["input", snn.Previous("lif", (3,))]}, "lif")
    states = graph.init_states()
    with pytest.raises(ValueError, match=r"states of \['lif'\] are missing"):
        graph({key: state for key, state in states.items() if key != "lif"}, jnp.ones((2, 3)))
