"""What every layer with state keeps to, run over all that are exported."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


SHAPE = (3, 4)
# Each with all of its optional parameters.
LAYERS = {
    snn.LIF: lambda shape: snn.LIF(
        shape, [0.9, 0.8], 0.5, 0.1, v_leak=0.05, input_scale="one_minus_decay", amplitude=1.5, detach_reset=False
    ),
    snn.LI: lambda shape: snn.LI(shape, [0.9, 0.8], v_leak=0.05, input_scale="one_minus_decay"),
    snn.IF: lambda shape: snn.IF(shape, 0.5, 0.1, detach_reset=False),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=[kind.__name__ for kind in LAYERS])


def sequence(getkey, num_steps=8, shape=SHAPE):
    return jax.random.uniform(getkey(), (num_steps, *shape), maxval=4.0)


def run(layer, xs, state=None):
    model = snn.Sequential(layer)
    states, (out,) = model([layer.init_state()] if state is None else [state], xs)
    return states[0], out


def test_every_exported_layer_is_here():
    exported = {kind for kind in vars(snn).values() if inspect.isclass(kind) and issubclass(kind, engine.AbstractLayer)}
    assert exported - {engine.AbstractLayer} == set(LAYERS)


@each_layer
def test_every_parameter_gets_a_gradient(make, getkey):
    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(layer, xs):
        state, out = run(layer, xs)
        return jnp.sum(out * jnp.arange(float(out.size)).reshape(out.shape)) + jnp.sum(state.v)

    layer = make(SHAPE)
    gradients = gradient(layer, sequence(getkey))
    parameters = jax.tree.leaves(eqx.filter(layer, eqx.is_inexact_array))
    assert len(parameters) >= 2
    assert len(jax.tree.leaves(gradients)) == len(parameters)
    assert all(jnp.isfinite(leaf).all() and jnp.all(leaf != 0) for leaf in jax.tree.leaves(gradients))


@each_layer
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_outputs_have_the_dtype_of_the_input_and_states_at_least_float32(x64, make, dtype, getkey):
    xs = sequence(getkey).astype(dtype)
    model = snn.Sequential(make(SHAPE))
    states = model.init_states(dtype=jnp.dtype(dtype))
    after, (out,) = model(states, xs)
    assert out.dtype == jnp.dtype(dtype)
    assert all(s.dtype == ("float64" if dtype == "float64" else "float32") for s in jax.tree.leaves((states, after)))
    assert jnp.any(out != 0)


@each_layer
def test_states_are_of_the_default_float(make):
    assert {leaf.dtype for leaf in jax.tree.leaves(make(SHAPE).init_state())} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert {leaf.dtype for leaf in jax.tree.leaves(make(SHAPE).init_state())} == {jnp.dtype("float64")}


@each_layer
def test_half_precision_input_does_not_blur_the_membrane(make, getkey):
    xs = sequence(getkey).astype(jnp.bfloat16)
    half, full = run(make(SHAPE), xs)[0], run(make(SHAPE), xs.astype(jnp.float32))[0]
    np.testing.assert_array_equal(half.v, full.v)


@each_layer
def test_a_batch_is_what_its_samples_are(make, getkey):
    layer = make(SHAPE)
    xs = sequence(getkey, shape=(2, *SHAPE))
    _, together = jax.jit(jax.vmap(lambda xs: run(layer, xs), in_axes=1, out_axes=1))(xs)
    for sample in range(2):
        np.testing.assert_allclose(together[:, sample], run(layer, xs[:, sample])[1], rtol=1e-6)


@each_layer
def test_going_on_from_a_state_equals_one_long_run(make, getkey):
    xs = sequence(getkey)
    state, early = run(make(SHAPE), xs[:3])
    state, late = run(make(SHAPE), xs[3:], state)
    whole, out = run(make(SHAPE), xs)
    np.testing.assert_array_equal(jnp.concatenate([early, late]), out)
    assert eqx.tree_equal(state, whole)


@each_layer
def test_a_layer_can_be_built_abstractly_and_in_batches(make):
    struct = eqx.filter_eval_shape(make, SHAPE)
    assert jax.tree.structure(struct) == jax.tree.structure(make(SHAPE))
    population = eqx.filter_vmap(lambda _: make(SHAPE))(jnp.zeros(5))
    assert all(leaf.shape == (5,) for leaf in jax.tree.leaves(population))
    xs = jnp.ones((5, *SHAPE))
    state, out = eqx.filter_vmap(lambda layer, x: layer(layer.init_state(), x))(population, xs)
    assert out.shape == state.v.shape == xs.shape


@each_layer
def test_the_shape_may_come_from_the_input(make):
    assert make(None).init_state((2, 5)).v.shape == (2, 5)
    assert make((2, 5)).init_state((2, 5)).v.shape == (2, 5)
    assert make(7).init_state().v.shape == (7,)
    assert make(7).shape == make([7]).shape == (7,)
    assert make(()).init_state().v.shape == ()


@each_layer
def test_a_layer_without_a_shape_says_so(make):
    with pytest.raises(ValueError, match=r"built without a shape: give it one, or pass input_shape to init_states"):
        make(None).init_state()


@each_layer
def test_shapes_that_disagree_are_named(make):
    with pytest.raises(ValueError, match=r"for neurons of shape \(3, 4\), but its input has shape \(4,\)"):
        make(SHAPE).init_state((4,))


@each_layer
@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 3, 4), ()])
def test_an_input_is_never_broadcast(make, shape):
    with pytest.raises(ValueError, match=r"the neurons have shape \(3, 4\), but their input has shape .*jax.vmap"):
        make(SHAPE)(make(SHAPE).init_state(), jnp.zeros(shape))


@each_layer
def test_keys_are_accepted_and_change_nothing(make, getkey):
    layer, x = make(SHAPE), sequence(getkey)[0]
    with_key = layer(layer.init_state(key=getkey()), x, key=getkey())
    assert eqx.tree_equal(with_key, layer(layer.init_state(), x))


@each_layer
def test_negative_sizes_are_refused(make):
    with pytest.raises(ValueError, match=r"a shape has no negative sizes, found \(2, -3\)"):
        make((2, -3))
