"""What every layer with state keeps to, run over all that are exported."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .layers import EXAMPLES, SHAPE, exported, inputs, leaves, weighted


ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]
IDS = [kind.__name__ for kind in EXAMPLES]
each_layer = pytest.mark.parametrize("example", EXAMPLES.values(), ids=IDS)
each_shaped_layer = pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES.values() if example.has_shape],
    ids=[kind.__name__ for kind, example in EXAMPLES.items() if example.has_shape],
)


def build(example):
    return example.make(example.shape)


def run(layer, xs, state, key=None, **options):
    states, (out,) = snn.Sequential(layer)([state], xs, key, **options)
    return states[0], out


def first_state(layer, example):
    """A state that is not at rest, so that its gradient is not trivial."""
    state = layer.init_state(example.shape)
    return jax.tree.map(lambda x: x + 0.1 if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


def close(found, expected, rtol=1e-10, atol=1e-12):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


def test_every_exported_layer_is_here():
    assert exported() == set(EXAMPLES)


@each_layer
def test_every_layer_is_awake(example, getkey):
    layer = build(example)
    _, out = run(layer, inputs(example, getkey()), layer.init_state(example.shape), getkey())
    assert jnp.any(out != 0)
    if example.spikes:
        spikes = out != 0
        assert 0 < spikes.sum() < spikes.size
        amplitudes = {0.0, 1.0} if jnp.all((out == 0) | (out == 1)) else {0.0, 1.5}
        assert set(np.unique(out)) <= amplitudes, "a spike is exactly its amplitude"


@each_layer
def test_every_parameter_gets_a_gradient(x64, example, getkey):
    layer = build(example)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(arguments):
        layer, shift, xs = arguments
        state = jax.tree.map(lambda x, dx: x + dx.astype(x.dtype), layer.init_state(example.shape), shift)
        return weighted(run(layer, xs, state, jax.random.key(1)))

    shift = jax.tree.map(lambda x: jnp.full(x.shape, 0.1 * (x.dtype.kind == "f")), layer.init_state(example.shape))
    arguments = layer, shift, inputs(example, getkey())
    gradients = gradient(arguments)
    assert len(leaves(gradients)) == len(leaves(arguments))
    for path, leaf in jax.tree.leaves_with_path(eqx.filter(gradients, eqx.is_inexact_array)):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(leaf).all(), name
        is_parameter = name.startswith("[0]")
        expected_zero = is_parameter and any(name.endswith(end) for end in example.without_gradient)
        if is_parameter:
            assert jnp.all(leaf == 0) if expected_zero else jnp.all(leaf != 0), name


@each_layer
@pytest.mark.parametrize("num_steps", [0, 1, 13])
def test_all_engines_agree(x64, example, getkey, num_steps):
    layer, xs = build(example), inputs(example, getkey(), num_steps)

    @eqx.filter_jit
    def all_runs(arguments):
        results = []
        for run_with in ENGINES:

            @eqx.filter_value_and_grad(has_aux=True)
            def value(arguments, run_with=run_with):
                layer, state, xs = arguments
                results = run(layer, xs, state, jax.random.key(1), engine=run_with)
                return weighted(results), results

            results.append(value(arguments))
        return results

    state = first_state(layer, example)
    expected, *others = all_runs((layer, state, xs))
    for found in others:
        close(found, expected, rtol=1e-9)
    assert expected[0][1][1].shape[0] == num_steps
    if num_steps == 0:
        close(expected[0][1][0], state)


@each_layer
@pytest.mark.parametrize("run_with", ENGINES)
def test_going_on_from_a_state_equals_one_long_run(x64, example, getkey, run_with):
    layer, xs = build(example), inputs(example, getkey(), 7)
    keys = jax.random.split(getkey(), 7)
    first = layer.init_state(example.shape)
    state, early = run(layer, xs[:3], first, keys[:3], engine=run_with)
    state, late = run(layer, xs[3:], state, keys[3:], engine=run_with)
    close((state, jnp.concatenate([early, late])), run(layer, xs, first, keys, engine=run_with))


@each_layer
@pytest.mark.parametrize("run_with", [engine.stepwise, engine.layerwise, engine.checkpointed])
def test_steps_that_do_not_count_change_nothing(x64, example, getkey, run_with):
    layer, xs = build(example), inputs(example, getkey(), 7)
    mask = jnp.array([False, True, True, False, True, True, False])
    keys = jax.random.split(getkey(), 7)
    first = layer.init_state(example.shape)
    padded = xs.at[~mask].set(jnp.nan)
    state, out = run(layer, padded, first, keys, engine=run_with, mask=mask)
    expected_state, expected = run(layer, xs[mask], first, keys[mask], engine=engine.stepwise)
    close((state, out[mask]), (expected_state, expected))
    assert not jnp.any(out[~mask])


@each_layer
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_outputs_have_the_dtype_of_the_input_and_states_at_least_float32(x64, example, dtype, getkey):
    xs = inputs(example, getkey()).astype(dtype)
    model = snn.Sequential(build(example))
    states = model.init_states(input_shape=example.shape, dtype=jnp.dtype(dtype))
    after, (out,) = model(states, xs, getkey())
    assert out.dtype == jnp.dtype(dtype)
    wanted = "float64" if dtype == "float64" else "float32"
    assert {s.dtype for s in jax.tree.leaves((states, after)) if s.dtype.kind == "f"} <= {jnp.dtype(wanted)}
    assert jnp.any(out != 0)


@each_layer
def test_states_are_of_the_default_float(example):
    def dtypes(layer):
        return {leaf.dtype for leaf in jax.tree.leaves(layer.init_state(example.shape)) if leaf.dtype.kind == "f"}

    assert dtypes(build(example)) <= {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert dtypes(build(example)) <= {jnp.dtype("float64")}


@each_layer
def test_half_precision_input_does_not_blur_the_state(example, getkey):
    layer, xs, key = build(example), inputs(example, getkey()).astype(jnp.bfloat16), getkey()
    first = layer.init_state(example.shape)
    half, full = run(layer, xs, first, key)[0], run(layer, xs.astype(jnp.float32), first, key)[0]
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@each_layer
def test_a_batch_is_what_its_samples_are(example, getkey):
    layer, key = build(example), getkey()
    first = layer.init_state(example.shape)
    xs = jnp.stack([inputs(example, getkey()) for _ in range(2)])
    _, together = jax.jit(jax.vmap(lambda xs: run(layer, xs, first, key)))(xs)
    for sample in range(2):
        np.testing.assert_allclose(together[sample], run(layer, xs[sample], first, key)[1], rtol=1e-5, atol=1e-6)


@each_layer
def test_nan_stays_in_its_sample(example, getkey):
    layer, key = build(example), getkey()
    first = layer.init_state(example.shape)
    xs = jnp.stack([inputs(example, getkey()) for _ in range(3)])
    broken = xs.at[1, 2].set(jnp.nan)
    runs = jax.jit(jax.vmap(lambda xs: run(layer, xs, first, key)))
    clean, found = runs(xs), runs(broken)
    for sample in (0, 2):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True):
            np.testing.assert_array_equal(a[sample], b[sample])
    np.testing.assert_array_equal(found[1][1, :2], clean[1][1, :2], "NaN reached back in time")
    spikes_in_nan = found[1][1, 2]
    assert jnp.all(jnp.isnan(spikes_in_nan) | (spikes_in_nan == 0) | jnp.isfinite(spikes_in_nan))


@each_layer
def test_a_layer_can_be_built_abstractly_and_in_batches(example):
    struct = eqx.filter_eval_shape(example.make, example.shape)
    layer = build(example)
    assert jax.tree.structure(struct) == jax.tree.structure(layer)
    population = eqx.filter_vmap(lambda _: build(example))(jnp.zeros(5))
    arrays = jax.tree.leaves(eqx.filter(population, eqx.is_array))
    assert all(leaf.shape[0] == 5 for leaf in arrays)
    xs, keys = jnp.ones((5, *example.shape)), jax.random.split(jax.random.key(0), 5)

    def step(layer, x, key):
        return layer(layer.init_state(example.shape), x, key=key)

    _, out = eqx.filter_vmap(step)(population, xs, keys)
    np.testing.assert_allclose(out[0], step(layer, xs[0], keys[0])[1], rtol=1e-5)


@each_layer
def test_a_model_may_be_carried_by_a_scan_and_is_traced_once(example, getkey):
    layer, xs = build(example), inputs(example, getkey(), 4)
    arrays, static = eqx.partition(layer, eqx.is_array)
    first, traces = layer.init_state(example.shape), []

    @jax.jit
    def train(arrays):
        traces.append(None)

        def step(arrays, key):
            loss = lambda layer: weighted(run(layer, xs, first, key))  # noqa: E731
            gradients = eqx.filter_grad(loss)(eqx.combine(arrays, static))
            updates = jax.tree.map(lambda g: -1e-3 * g, gradients)
            return eqx.filter(eqx.apply_updates(eqx.combine(arrays, static), updates), eqx.is_array), None

        return jax.lax.scan(step, arrays, jax.random.split(jax.random.key(0), 3))[0]

    after = train(train(arrays))
    assert len(traces) == 1, "a trained model compiles again"
    assert jax.tree.structure(after) == jax.tree.structure(arrays)
    assert all(a.dtype == b.dtype for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(arrays), strict=True))


@each_shaped_layer
def test_the_shape_may_come_from_the_input(example):
    shapes = lambda state: {leaf.shape for leaf in jax.tree.leaves(state)}  # noqa: E731
    assert shapes(example.make(None).init_state((2, 5))) == {(2, 5)}
    assert shapes(example.make((2, 5)).init_state((2, 5))) == {(2, 5)}
    assert shapes(example.make(7).init_state((7,))) == {(7,)}
    assert shapes(example.make(())) <= {()}


@each_shaped_layer
def test_a_layer_without_a_shape_says_so(example):
    with pytest.raises(ValueError, match=r"built without a shape: give it one, or pass input_shape to init_states"):
        example.make(None).init_state()


@each_shaped_layer
def test_shapes_that_disagree_are_named(example):
    with pytest.raises(ValueError, match=r"for neurons of shape \(3, 4\), but its input has shape \(4,\)"):
        example.make(SHAPE).init_state((4,))


@each_shaped_layer
@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 3, 4), ()])
def test_an_input_is_never_broadcast(example, shape):
    layer = example.make(SHAPE)
    with pytest.raises(ValueError, match=r"the neurons have shape \(3, 4\), but their input has shape .*jax.vmap"):
        layer(layer.init_state(), jnp.zeros(shape))


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES.values() if not example.needs_key],
    ids=[kind.__name__ for kind, example in EXAMPLES.items() if not example.needs_key],
)
def test_keys_are_accepted_and_change_nothing(example, getkey):
    layer, x = build(example), inputs(example, getkey())[0]
    with_key = layer(layer.init_state(example.shape, key=getkey()), x, key=getkey())
    assert eqx.tree_equal(with_key, layer(layer.init_state(example.shape), x))


@each_shaped_layer
def test_negative_sizes_are_refused(example):
    with pytest.raises(ValueError, match=r"a shape has no negative sizes, found \(2, -3\)"):
        example.make((2, -3))
