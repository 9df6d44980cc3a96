"""Chains: construction, indexing, running, and the quick start of the README."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnax import engine, snn


def squash(x):
    return jnp.tanh(x)


def chain(getkey):
    return snn.Sequential(
        eqx.nn.Linear(6, 4, key=getkey()),
        snn.LIF(4, [0.9, 0.8], 0.3),
        squash,
        snn.Sequential(eqx.nn.Linear(4, 3, key=getkey()), snn.LIF(3, 0.9, 0.2)),
        snn.flatten(),
        snn.LI(3, 0.7),
    )


def test_layers_are_reached_by_index_slice_and_iteration(getkey):
    model = chain(getkey)
    assert len(model) == len(list(model)) == len(model.layers) == 6
    assert list(model) == list(model.layers)
    assert model[1] is model.layers[1]
    assert model[-1] is model.layers[-1]
    assert isinstance(model[1:3], snn.Sequential)
    assert model[1:3].layers == model.layers[1:3]


def test_the_parts_of_a_chain_run_like_the_whole(getkey):
    model, xs = chain(getkey), jax.random.normal(getkey(), (5, 6))
    states, outs = model(model.init_states(), xs)
    head, hidden = model[:3](model[:3].init_states(), xs)
    tail, out = model[3:](model[3:].init_states(), hidden[-1])
    assert eqx.tree_equal(outs, [*hidden, *out])
    assert eqx.tree_equal(states, [*head, *tail])


def test_there_is_one_state_and_one_output_per_layer(getkey):
    model = chain(getkey)
    states, outs = model(model.init_states(getkey()), jnp.ones((5, 6)))
    assert [type(state).__name__ for state in states] == [
        "NoneType",
        "NeuronState",
        "NoneType",
        "list",
        "NoneType",
        "NeuronState",
    ]
    assert [out.shape for out in outs] == [(5, 4), (5, 4), (5, 4), (5, 3), (5, 3), (5, 3)]
    states, outs = model.step(states, jnp.ones(6))
    assert [out.shape for out in outs] == [(4,), (4,), (4,), (3,), (3,), (3,)]


def test_steps_are_what_a_run_is_made_of(getkey):
    model, xs = chain(getkey), jax.random.normal(getkey(), (4, 6))
    states, stepped = model.init_states(), []
    for x in xs:
        states, outs = model.step(states, x)
        stepped.append(outs)
    after, outs = model(model.init_states(), xs)
    for found, expected in zip(outs, zip(*stepped, strict=True), strict=True):
        np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-6, atol=1e-7)
    assert jax.tree.structure(after) == jax.tree.structure(states)
    assert outs[1].sum() > 0


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_identity_layers_delay_nothing(run):
    xs = jnp.arange(12.0).reshape(4, 3)
    model = snn.Sequential(*[eqx.nn.Identity()] * 3)
    _, outs = model(model.init_states(), xs, engine=run)
    for out in outs:
        np.testing.assert_array_equal(out, xs)


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_an_impulse_passes_all_spiking_layers_in_the_same_time_step(run):
    xs = jnp.zeros((6, 1)).at[2].set(2.0)
    model = snn.Sequential(*[snn.LIF(1, 0.9, 0.5, "zero")] * 4)
    _, outs = model(model.init_states(), xs, engine=run)
    assert [out.ravel().tolist() for out in outs] == [[0, 0, 1, 0, 0, 0]] * 4


def test_shapes_are_inferred_through_layers_of_all_kinds(getkey):
    model = snn.Sequential(
        eqx.nn.Conv2d(2, 3, 3, key=getkey()),
        snn.LIF(None, [0.9, 0.8]),
        eqx.nn.Dropout(0.5),
        snn.Sequential(eqx.nn.MaxPool2d(2, 2), snn.IF(None)),
        snn.flatten(),
        snn.LI(None, 0.9),
    )
    states = model.init_states(input_shape=(2, 8, 8))
    assert [s.shape for s in jax.tree.leaves(states)] == [(3, 6, 6), (3, 6, 6), (3, 3, 3), (27,)]
    again = model.init_states(input_shape=[np.int64(2), np.int64(8), np.int64(8)])
    assert eqx.tree_equal(states, again)


def test_an_input_that_does_not_fit_is_told_with_the_node(getkey):
    model = snn.Sequential(eqx.nn.Linear(6, 4, key=getkey()), snn.LIF(None, 0.9))
    with pytest.raises(ValueError, match=r"node '0' \(Linear\): does not take an input of shape .*7"):
        model.init_states(input_shape=(7,))
    with pytest.raises(ValueError, match=r"node '1' \(LIF\): the layer was built without a shape"):
        model.init_states()
    with pytest.raises(
        ValueError, match=r"node '1' .* built for neurons of shape \(5,\), but its input has shape \(4,\)"
    ):
        snn.Sequential(model[0], snn.LIF(5, 0.9)).init_states(input_shape=(6,))
    with pytest.raises(ValueError, match=r"input_shape must give 1 shape\(s\)"):
        model.init_states(input_shape=((6,), (6,)))


def test_a_chain_needs_layers():
    with pytest.raises(ValueError, match="a Sequential needs at least one layer"):
        snn.Sequential()
    with pytest.raises(TypeError, match=r"node '1' of a Sequential must be a layer or a function, found 0\.9"):
        snn.Sequential(jnp.tanh, 0.9)
    with pytest.raises(ValueError, match="at least one layer"):
        snn.Sequential(jnp.tanh)[1:]


def test_states_of_another_chain_are_refused(getkey):
    model = chain(getkey)
    with pytest.raises(ValueError, match="expected the states of 6 layers, found 1"):
        model([None], jnp.ones((5, 6)))


def test_inputs_without_time_are_refused(getkey):
    model = snn.Sequential(jnp.tanh)
    with pytest.raises(ValueError, match=r"input 'input' must be time-major \(time, \.\.\.\), found a scalar"):
        model(model.init_states(), jnp.float32(1.0))


@pytest.mark.parametrize(
    "wrapper", [eqx.Partial(jnp.multiply, jnp.float32(2)), eqx.filter_jit(lambda x: 2 * x), lambda x: x + x]
)
@pytest.mark.parametrize("with_key", [False, True])
def test_a_key_goes_only_to_layers_that_have_an_argument_for_it(getkey, wrapper, with_key):
    model = snn.Sequential(wrapper, eqx.nn.Dropout(0.5, inference=not with_key))
    outs = model(model.init_states(), jnp.ones((4, 3)), getkey() if with_key else None)[1]
    assert (outs[0] == 2).all()


def test_dropout_without_a_key_raises():
    model = snn.Sequential(eqx.nn.Dropout(0.5))
    with pytest.raises(RuntimeError, match="requires a key"):
        model(model.init_states(), jnp.ones((4, 3)))


def test_a_model_is_arrays_and_structure_and_can_be_carried_through_a_scan(getkey):
    xs = jax.random.normal(getkey(), (3, 5, 6))
    arrays, static = eqx.partition(chain(getkey), eqx.is_array)

    def body(arrays, xs):
        model = eqx.combine(arrays, static)
        gradients = eqx.filter_grad(lambda model: model(model.init_states(), xs)[1][-1].sum())(model)
        return eqx.apply_updates(arrays, jax.tree.map(lambda g: -0.1 * g, gradients)), None

    after, _ = jax.lax.scan(body, arrays, xs)
    assert jax.tree.structure(after) == jax.tree.structure(arrays)
    assert not eqx.tree_equal(after, arrays)


def test_training_compiles_once(getkey):
    traces = 0
    optimiser = optax.adam(1e-2)

    @eqx.filter_jit
    def train(model, opt_state, xs):
        nonlocal traces
        traces += 1
        gradients = eqx.filter_grad(lambda model: model(model.init_states(), xs)[1][-1].sum())(model)
        updates, opt_state = optimiser.update(gradients, opt_state)
        return eqx.apply_updates(model, updates), opt_state

    model = chain(getkey)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optimiser.init(eqx.filter(model, eqx.is_array))
        for _ in range(3):
            model, opt_state = train(model, opt_state, jnp.ones((5, 6)))
    assert traces == 1


def test_a_chain_can_be_built_abstractly_and_in_batches(getkey):
    def build(key):
        return snn.Sequential(eqx.nn.Linear(6, 4, key=key), snn.LIF(4, [0.9, 0.8]))

    struct = eqx.filter_eval_shape(build, getkey())
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(struct))
    models = eqx.filter_vmap(build)(jax.random.split(getkey(), 3))
    outs = eqx.filter_vmap(lambda model: model(model.init_states(), jnp.ones((5, 6)))[1][-1])(models)
    assert outs.shape == (3, 5, 4)


def test_a_chain_can_be_pickled_and_serialised(getkey, tmp_path):
    model, xs = chain(getkey), jax.random.normal(getkey(), (5, 6))
    expected = model(model.init_states(), xs)
    copy = pickle.loads(pickle.dumps(model))
    assert eqx.tree_equal(copy(copy.init_states(), xs), expected)
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    other = jax.tree.map(lambda leaf: leaf * 0 if eqx.is_inexact_array(leaf) else leaf, model)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other)
    assert eqx.tree_equal(loaded(loaded.init_states(), xs), expected)


@pytest.mark.parametrize("flatten", [snn.flatten, snn.flatten()], ids=["flatten", "flatten()"])
def test_the_quick_start_learns(getkey, flatten):
    model = snn.Sequential(
        eqx.nn.Conv2d(2, 32, 7, 2, key=getkey()),
        snn.LIF((32, 14, 14), [0.9, 0.8], key=getkey()),
        flatten,
        eqx.nn.Linear(6272, 11, key=getkey()),
        snn.LIF(11, [0.9, 0.8], key=getkey()),
    )
    xs = (jax.random.uniform(getkey(), (2, 8, 2, 34, 34)) < 0.3).astype(jnp.float32)
    labels = jnp.array([3, 7])

    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model):
        states = model.init_states(getkey())
        _, out_spikes = jax.vmap(model, in_axes=(None, 0))(states, xs)
        targets = jax.nn.one_hot(labels, 11)
        return optax.softmax_cross_entropy(out_spikes[-1].sum(1), targets).mean(), out_spikes

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (before, out_spikes), gradients = eqx.filter_jit(loss)(model)
        optimiser = optax.sgd(0.02)
        updates, _ = optimiser.update(gradients, optimiser.init(eqx.filter(model, eqx.is_array)))
        (after, _), _ = eqx.filter_jit(loss)(eqx.apply_updates(model, updates))
    assert [out.shape for out in out_spikes] == [
        (2, 8, 32, 14, 14),
        (2, 8, 32, 14, 14),
        (2, 8, 6272),
        (2, 8, 11),
        (2, 8, 11),
    ]
    for spikes in out_spikes[1], out_spikes[-1]:
        assert 0 < spikes.sum() < spikes.size
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients))
    assert after < before


@pytest.mark.parametrize(
    "build",
    [
        lambda layer: snn.Sequential(layer, snn.LIF(3, 0.9, 0.2), layer),
        lambda layer: snn.Parallel(layer, layer),
        lambda layer: snn.Residual(layer, shortcut=layer),
        lambda layer: snn.Sequential(layer, snn.LIF(3, 0.9, 0.2), layer)[:3],
    ],
    ids=["Sequential", "Parallel", "Residual", "slice"],
)
def test_a_layer_given_twice_learns_once(getkey, build):
    layer = eqx.nn.Linear(3, 3, key=getkey())
    model = build(layer)
    is_weight = lambda x: eqx.is_array(x) and x.shape == (3, 3)  # noqa: E731
    assert sum(map(is_weight, jax.tree.leaves(model))) == 1
    assert model[0] is layer and model[len(model) - 1] is layer
    xs = jax.random.normal(getkey(), (6, 3))
    run = lambda model: model(model.init_states(), xs)[1][-1].sum()  # noqa: E731
    found = jax.tree.leaves(eqx.filter_grad(run)(model))[0]
    copies = build(layer) if len(model) == 2 else snn.Sequential(*model[:2], jax.tree.map(jnp.copy, layer))
    if len(model) == 3:
        gradients = eqx.filter_grad(run)(copies)
        np.testing.assert_allclose(found, gradients[0].weight + gradients[2].weight, rtol=1e-5, atol=1e-6)
    assert jnp.any(found != 0)


@pytest.mark.parametrize(
    "build",
    [
        lambda layer: snn.Sequential(layer, snn.Sequential(layer)),
        lambda layer: snn.Graph({"a": layer, "b": snn.Sequential(jnp.tanh, layer)}, {"a": "input", "b": "a"}, "b"),
        lambda layer: snn.Sequential(snn.Recurrent(snn.LIF(3, 0.9), layer), layer),
        lambda layer: snn.Parallel(snn.Sequential(layer), snn.Residual(snn.Sequential(layer, jnp.tanh))),
    ],
)
def test_a_layer_in_two_containers_is_refused_with_both_places(getkey, build):
    with pytest.raises(ValueError, match=r"' and '.*' are one Linear, and would be two that learn apart"):
        build(eqx.nn.Linear(3, 3, key=getkey()))


def test_what_has_no_parameters_may_be_anywhere():
    pool = snn.MaxPool(2)
    snn.Sequential(pool, snn.Sequential(pool, jnp.tanh), snn.Residual(jnp.tanh))
