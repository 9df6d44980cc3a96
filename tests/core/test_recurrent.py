"""Recurrent connections: the wiring with a delayed edge written out, in outputs, states and gradients; and NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .layers import weighted


pytestmark = pytest.mark.full


SIZE, IMAGE, NUM_STEPS = 5, (2, 4, 4), 9
RTOL, ATOL = 1e-10, 1e-12
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]


def linear(getkey, inputs=SIZE, outputs=SIZE):
    return eqx.nn.Linear(inputs, outputs, key=getkey())


def feedback_graph(getkey):
    nodes = {"fc": linear(getkey), "li": snn.LI(SIZE, 0.6)}
    return snn.Graph(nodes, {"fc": ["z", snn.Previous("li")], "li": "fc"}, "li", "z")


CONNECTIONS = {
    "dense": linear,
    "convolutional": lambda getkey: eqx.nn.Conv2d(2, 2, 3, padding=1, key=getkey()),
    "one to one": lambda getkey: snn.OneToOne(jnp.linspace(-0.9, 0.8, SIZE)),
    "one weight for all": lambda getkey: snn.OneToOne(-0.7),
    "delayed": lambda getkey: snn.Delay(jnp.array([0, 1, 2, 3, 1])),
    "with delays to learn": lambda getkey: snn.Delay(jnp.array([0.3, 1.6, 2.0, 0.9, 2.7]), 3),
    "dense with delays": lambda getkey: snn.DelayedLinear(SIZE, SIZE, 3, key=getkey()),
    "a chain": lambda getkey: snn.Sequential(linear(getkey, SIZE, 4), snn.LI(4, 0.5), linear(getkey, 4, SIZE)),
    "a graph": feedback_graph,
    "a layer with state": lambda getkey: snn.LI(SIZE, 0.8),
    "a function": lambda getkey: lambda z: -0.5 * z,
    "a lambda node": lambda getkey: snn.Lambda(jnp.negative),
}
NEURONS = {
    "membrane": lambda shape: snn.LIF(shape, 0.8, detach_reset=False),
    "synapse": lambda shape: snn.LIF(shape, [0.8, 0.6], 1.5, "zero", reset_delay=True, keep_input=False),
    "refractory": lambda shape: snn.Refractory(snn.IF(shape, 1.3), 2.0),
}


def build(name, getkey, neuron="membrane"):
    shape = IMAGE if name == "convolutional" else (SIZE,)
    return NEURONS[neuron](shape), CONNECTIONS[name](getkey), shape


def uniform(getkey, *shape):
    return jax.random.uniform(getkey(), shape, minval=-0.5, maxval=1.8)


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL, err_msg=jax.tree_util.keystr(path))


def started(state):
    """Not at rest, so that the gradient of the first state is not trivial."""
    return jax.tree.map(lambda x: x + 0.1 if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


@pytest.mark.parametrize(
    ("name", "neuron"), [*((name, "membrane") for name in CONNECTIONS), ("dense", "synapse"), ("dense", "refractory")]
)
def test_a_recurrent_layer_is_the_graph_with_a_delayed_edge(x64, getkey, name, neuron):
    cell, connection, shape = build(name, getkey, neuron)
    xs = uniform(getkey, NUM_STEPS, *shape)
    graph = snn.Graph(
        {"back": connection, "neuron": cell}, {"back": snn.Previous("neuron"), "neuron": ["input", "back"]}, "neuron"
    )
    layer = snn.Recurrent(cell, connection)
    first = started(layer.init_state())

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def recurrent(arguments):
        layer, state, xs = arguments
        (state,), outs = snn.Sequential(layer)([state], xs)
        return weighted((state.neuron, state.z, state.connection, outs[-1])), (state, outs[-1])

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def written_out(arguments):
        graph, state, xs = arguments
        states = {"neuron": state.neuron, "back": state.connection, "previous(neuron)": state.z}
        states, outs = graph(states, xs)
        state = snn.RecurrentState(states["neuron"], states["previous(neuron)"], states.get("back"))
        return weighted((state.neuron, state.z, state.connection, outs[-1])), (state, outs[-1])

    (_, found), gradients = recurrent((layer, first, xs))
    (_, expected), expected_gradients = written_out((graph, first, xs))
    assert_close(found, expected)
    np.testing.assert_array_equal(found[1], expected[1])
    nodes = expected_gradients[0].nodes
    assert_close((gradients[0].neuron, gradients[0].connection), (nodes["neuron"], nodes["back"]))
    assert_close(gradients[1:], expected_gradients[1:])
    assert 0 < found[1].sum() < found[1].size, "a silent or saturated layer"
    for path, leaf in jax.tree.leaves_with_path(gradients[0].connection):
        assert jnp.any(leaf != 0), jax.tree_util.keystr(path)
    alone = snn.Sequential(cell)([first.neuron], xs)[1][-1]
    assert jnp.any(alone != found[1]), "the connection plays no part"


def test_dense_recurrence_follows_the_equations_in_numpy(x64):
    random = np.random.default_rng(2)
    weight, xs = random.normal(size=(SIZE, SIZE)), random.uniform(-0.2, 1.2, (12, SIZE))
    dense = eqx.nn.Linear(SIZE, SIZE, use_bias=False, key=jax.random.key(0))
    dense = eqx.tree_at(lambda layer: layer.weight, dense, jnp.asarray(weight))
    model = snn.Sequential(snn.Recurrent(snn.LIF(SIZE, 0.9), dense))
    states, outs = model(model.init_states(), jnp.asarray(xs))
    v, z, expected = np.zeros(SIZE), np.zeros(SIZE), []
    for x in xs:
        v = 0.9 * v + x + weight @ z
        z = (v > 1).astype(float)
        v = v - z
        expected.append(z)
    np.testing.assert_array_equal(outs[-1], expected)
    np.testing.assert_allclose(states[0].v, v, rtol=RTOL, atol=ATOL)
    np.testing.assert_array_equal(states[0].z, z)
    assert 0 < np.sum(expected) < np.size(expected)


def test_the_connection_reads_the_last_step_and_not_this_one():
    layer = snn.Recurrent(snn.IF(2), snn.OneToOne(jnp.array([-2.0, 0.0])))
    model = snn.Sequential(layer)
    _, outs = model(model.init_states(), jnp.full((3, 2), 1.5))
    assert outs[-1].tolist() == [[1, 1], [0, 1], [1, 1]]


def test_a_delayed_connection_reads_as_many_steps_further_back():
    layer = snn.Recurrent(snn.LIF(2, snn.Factor(0.0)), snn.Sequential(snn.Delay(jnp.array([0, 2])), snn.OneToOne(2.0)))
    pulse = jnp.zeros((7, 2)).at[0].set(1.5)
    model = snn.Sequential(layer)
    _, outs = model(model.init_states(), pulse)
    assert outs[-1].T.tolist() == [[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("run", ENGINES[1:])
@pytest.mark.parametrize("name", ["with delays to learn", "a chain"])
def test_all_engines_agree_around_and_within_containers(x64, getkey, name, run):
    inner = snn.Sequential(snn.Recurrent(*build(name, getkey)[:2]), linear(getkey))
    nodes = {"fc": linear(getkey, 3), "block": snn.Residual(inner), "out": snn.LI(SIZE, 0.9)}
    model = snn.Graph(nodes, {"fc": "input", "block": "fc", "out": ["block", "fc"]}, "out")
    states, xs = model.init_states(input_shape=(3,)), 3 * uniform(getkey, NUM_STEPS, 3)

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def value(model, run):
        results = model(states, xs, engine=run)
        return weighted(results), results

    (_, found), gradients = value(model, run)
    (_, expected), expected_gradients = value(model, engine.stepwise)
    assert_close(found, expected)
    assert_close(gradients, expected_gradients)
    state = found[0]["block"][0][0]
    assert isinstance(state, snn.RecurrentState)
    assert jnp.any(state.z), "a silent layer"
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients))


def test_a_recurrent_layer_may_be_the_neuron_of_another(x64, getkey):
    inner = snn.Recurrent(snn.LIF(SIZE, 0.8), snn.OneToOne(0.3))
    outer = snn.Recurrent(inner, snn.OneToOne(-0.5))
    both = snn.Recurrent(snn.LIF(SIZE, 0.8), snn.OneToOne(0.3 - 0.5))
    xs = uniform(getkey, NUM_STEPS, SIZE)
    found, expected = (snn.Sequential(layer)([layer.init_state()], xs) for layer in (outer, both))
    np.testing.assert_array_equal(found[1][-1], expected[1][-1])
    np.testing.assert_allclose(found[0][0].v, expected[0][0].v, rtol=RTOL)
    assert 0 < found[1][-1].sum() < found[1][-1].size


@pytest.mark.parametrize("field", ["v", "i", "z"])
def test_a_graph_reads_the_states_of_a_recurrent_layer(getkey, field):
    rec = snn.Recurrent(snn.LIF(SIZE, [0.8, 0.6], 1.5), linear(getkey))
    state = snn.State("rec", field)
    nodes = {"rec": rec, "li": snn.LI(SIZE, 0.5)}
    model = snn.Graph(nodes, {"rec": "input", "li": state}, [state, "li", snn.Previous(state)])
    xs = uniform(getkey, NUM_STEPS, SIZE)
    first = model.init_states(input_shape=(SIZE,))
    _, outs = eqx.filter_jit(model)(first, xs)
    read, li, late = outs[-1]
    layer_state, expected = first["rec"], []
    step = eqx.filter_jit(rec)
    for x in xs:
        layer_state, _ = step(layer_state, x)
        expected.append(getattr(layer_state, field))
    np.testing.assert_allclose(read, jnp.stack(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(late, jnp.concatenate([jnp.zeros((1, SIZE)), read[:-1]]))
    np.testing.assert_allclose(li[1], 0.5 * read[0] + read[1], rtol=1e-5)
    assert jnp.any(read != 0)


def test_the_adaptation_of_the_neuron_is_a_state_too():
    layer = snn.Recurrent(snn.ALIF(3, 0.9, 0.8), snn.OneToOne(0.1))
    state, _ = layer(layer.init_state(), jnp.full(3, 2.0))
    np.testing.assert_array_equal(state.a, state.neuron.a)
    assert jnp.all(state.a > 0)


def test_random_connections_draw_anew_at_every_step_and_need_a_key(getkey):
    layer = snn.Recurrent(snn.LIF(64, snn.Factor(0.0), 0.5), snn.Sequential(eqx.nn.Dropout(0.5), snn.OneToOne(1.0)))
    model, xs, key = snn.Sequential(layer), jnp.full((5, 64), 0.3), getkey()
    states = [eqx.tree_at(lambda state: state.z, layer.init_state(), jnp.ones(64))]
    _, outs = model(states, xs, key)
    alive = outs[-1].sum(1)
    assert alive[0] > alive[1] > alive[3], "spikes are lost at one step only"
    assert 0 < alive[1] < alive[0] < 64
    other = model(states, xs, getkey())[1][-1]
    assert jnp.any(other != outs[-1])
    for run in ENGINES[:2]:
        np.testing.assert_array_equal(model(states, xs, key, engine=run)[1][-1], outs[-1])
    with pytest.raises(RuntimeError, match="key"):
        model(states, xs)


def test_the_batch_axis_is_known_to_the_connection(getkey):
    connection = snn.Sequential(linear(getkey), snn.BatchNorm(SIZE, axis_name="batch"))
    model = snn.Sequential(snn.Recurrent(snn.LIF(SIZE, 0.8), connection))
    states = model.init_states(input_shape=(SIZE,))
    xs = 2 * uniform(getkey, 3, NUM_STEPS, SIZE)
    after, outs = jax.vmap(model, in_axes=(None, 0), axis_name="batch")(states, xs)
    assert 0 < outs[-1].sum() < outs[-1].size
    assert jnp.all(after[0].connection[1].mean[0] == after[0].connection[1].mean[1])


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (lambda key: eqx.nn.Linear(3, 4, key=key), r"the connection gives \(4,\) for neurons of shape \(3,\)"),
        (lambda key: eqx.nn.Linear(4, 3, key=key), r"does not take the output of the neurons, \(3,\)"),
        (lambda key: snn.Lambda(jnp.sum), r"the connection gives \(\) for neurons of shape \(3,\)"),
        (lambda key: snn.LI(4, 0.9), r"built for neurons of shape \(4,\), but its input has shape \(3,\)"),
        (lambda key: snn.Delay(jnp.array([1, 2])), r"neurons of shape \(3,\) cannot have parameters of shape \(2,\)"),
    ],
    ids=["too many", "too few", "a scalar", "a layer of another shape", "delays of another shape"],
)
@pytest.mark.parametrize("shape", [None, (3,)])
def test_connections_of_another_shape_are_refused(getkey, unchecked, connection, message, shape):
    layer = snn.Recurrent(snn.LIF(3, 0.9), connection(getkey()))
    with pytest.raises(ValueError, match=message):
        layer.init_state(shape)


def test_convolutions_that_shrink_are_refused(getkey):
    layer = snn.Recurrent(snn.LIF((2, 4, 4), 0.9), eqx.nn.Conv2d(2, 2, 3, key=getkey()))
    with pytest.raises(ValueError, match=r"gives \(2, 2, 2\) for neurons of .* their input has the shape \(2, 4, 4\)"):
        snn.Sequential(layer).init_states()


def test_inputs_of_another_shape_are_refused(getkey):
    layer = snn.Recurrent(snn.LIF(None, 0.9), snn.OneToOne(1.0))
    with pytest.raises(ValueError, match=r"the neurons have shape \(3,\), but their input has shape \(1,\)"):
        layer(layer.init_state((3,)), jnp.ones(1))


def test_a_cell_with_weights_has_another_shape_of_input_than_of_output(getkey):
    layer = snn.Recurrent(snn.SLSTM(4, 5, 0.05, key=getkey()), linear(getkey, 5, 4))
    model = snn.Sequential(layer)
    states, outs = model(model.init_states(input_shape=(4,)), 3 * uniform(getkey, NUM_STEPS, 4))
    assert (states[0].v.shape, outs[-1].shape) == ((5,), (NUM_STEPS, 5))
    assert 0 < outs[-1].sum() < outs[-1].size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.tanh, jnp.tanh), "neuron must be a layer with a state, found"),
        ((snn.LIF(3, 0.9), 0.5), "connection must be a layer or a function, found 0.5"),
    ],
)
def test_what_is_no_neuron_or_no_connection_is_refused(unchecked, arguments, message):
    with pytest.raises(TypeError, match=message):
        snn.Recurrent(*arguments)
