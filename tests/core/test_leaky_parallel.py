"""Layers whose recurrence is a matrix: the equation in NumPy, and the linear layer with LIF that it contains."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


INPUTS, HIDDEN, NUM_STEPS, THRESHOLD = 3, 5, 12, 0.4
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed]


def run(layer, xs, **options):
    model = snn.Sequential(layer)
    states, outs = eqx.filter_jit(model)(model.init_states(input_shape=(INPUTS,)), jnp.asarray(xs), **options)
    return states[0], np.asarray(outs[-1])


def normal(*shape):
    return 2 * np.random.default_rng(0).normal(size=shape)


def reference(layer, xs):
    v, membranes = np.zeros(HIDDEN), []
    bias = 0.0 if layer.bias is None else np.asarray(layer.bias)
    for x in xs:
        v = np.asarray(layer.weight_ih) @ x + bias + np.asarray(layer.weight_hh) @ v
        v = np.maximum(v, 0) if layer.activation == "relu" else v
        membranes.append(v)
    return np.array(membranes)


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize(
    "options", [{}, {"decay": 0.8}, {"decay": jnp.linspace(0.1, 0.9, HIDDEN)}, {"use_bias": False}], ids=str
)
def test_membranes_follow_the_equation(x64, getkey, activation, options, run_with):
    layer = snn.LeakyParallel(INPUTS, HIDDEN, THRESHOLD, activation=activation, key=getkey(), **options)
    xs = normal(NUM_STEPS, INPUTS)
    state, out = run(layer, xs, engine=run_with)
    membranes = reference(layer, xs)
    np.testing.assert_array_equal(out, membranes > THRESHOLD)
    np.testing.assert_allclose(state.v, membranes[-1], rtol=1e-10, atol=1e-12)
    assert 0 < out.sum() < out.size
    assert bool(np.any(membranes < 0)) is (activation == "identity")
    assert np.any(membranes == 0) or activation == "identity", "the rectifier plays no part"


def test_a_decay_is_the_diagonal_and_none_draws_a_full_matrix(getkey):
    drawn = snn.LeakyParallel(INPUTS, HIDDEN, key=getkey()).weight_hh
    assert jnp.all(drawn != 0)
    same = snn.LeakyParallel(INPUTS, HIDDEN, decay=0.9, key=getkey()).weight_hh
    np.testing.assert_array_equal(same, 0.9 * np.eye(HIDDEN, dtype=np.float32))
    each = jnp.linspace(0.1, 0.9, HIDDEN)
    per_neuron = snn.LeakyParallel(INPUTS, HIDDEN, decay=each, key=getkey()).weight_hh
    np.testing.assert_array_equal(per_neuron, jnp.diag(each))


def test_weights_are_uniform_within_the_bound_of_torch(getkey):
    layer = snn.LeakyParallel(20, 64, key=getkey())
    assert layer.bias is not None
    for leaf in (layer.weight_ih, layer.weight_hh, layer.bias):
        assert 0.7 / 8 < leaf.max() <= 1 / 8
        assert -1 / 8 <= leaf.min() < -0.7 / 8
    assert layer.weight_ih[0, 0] != layer.weight_hh[0, 0] != layer.bias[0]


@pytest.mark.parametrize("run_with", [engine.layerwise, engine.parallel])
def test_a_diagonal_without_rectifier_is_a_linear_layer_with_leaky_neurons(x64, getkey, run_with):
    options = {"decay": jnp.linspace(0.5, 0.9, HIDDEN), "activation": "identity", "key": getkey()}
    layer, xs = snn.LeakyParallel(INPUTS, HIDDEN, THRESHOLD, **options), jnp.asarray(normal(NUM_STEPS, INPUTS))
    linear = eqx.nn.Linear(INPUTS, HIDDEN, key=getkey())
    linear = eqx.tree_at(lambda linear: (linear.weight, linear.bias), linear, (layer.weight_ih, layer.bias))
    chain = snn.Sequential(linear, snn.LIF(HIDDEN, options["decay"], THRESHOLD, "none"))

    @eqx.filter_jit
    def value(model):
        states, outs = model(model.init_states(), xs, engine=run_with)
        steps = jnp.arange(1.0, NUM_STEPS + 1)[:, None]
        return jnp.sum(outs[-1] * jnp.sin(steps)), (states[-1].v, outs[-1])

    gradients, (v, out) = eqx.filter_grad(value, has_aux=True)(snn.Sequential(layer))
    expected, (expected_v, expected_out) = eqx.filter_grad(value, has_aux=True)(chain)
    np.testing.assert_array_equal(out, expected_out)
    np.testing.assert_allclose(v, expected_v, rtol=1e-9)
    assert 0 < out.sum() < out.size
    pairs = (gradients[0].weight_ih, expected[0].weight), (gradients[0].bias, expected[0].bias)
    for found, wanted in (*pairs, (jnp.diag(gradients[0].weight_hh), expected[1].decay_mem.value)):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        assert jnp.all(wanted != 0)
    others = gradients[0].weight_hh[~np.eye(HIDDEN, dtype=bool)]
    assert jnp.all(others != 0), "the other leaks cannot learn"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda key: snn.LeakyParallel(2, 3, activation="tanh", key=key),  # pyright: ignore[reportArgumentType]
            "activation must be 'relu' or 'identity', found 'tanh'",
        ),
        (
            lambda key: snn.LeakyParallel(2, 3, reset_delay=True, key=key),
            "the reset of LeakyParallel cannot wait: reset_delay must be False, found True",
        ),
        (
            lambda key: snn.LeakyParallel(2, 3, key=key).init_state((3,)),
            r"LeakyParallel was built for inputs of shape \(2,\), found \(3,\)",
        ),
        (
            lambda key: snn.LeakyParallel(2, 3, key=key)(snn.HiddenState(jnp.zeros(3)), jnp.ones((1, 2))),
            r"inputs of shape \(2,\), found \(1, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(unchecked, getkey, build, message):
    with pytest.raises(ValueError, match=message):
        build(getkey())
