"""What every layer with state keeps to, run over all that are exported."""

import functools
from typing import Any, NamedTuple

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


def close(found, expected, rtol=1e-10, atol=1e-12):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


LONG = 14
MASK = np.array([False, True, True, False, True, True, False])
MASKING = [engine.stepwise, engine.layerwise, engine.checkpointed]
DTYPES = ["float32", "float64", "bfloat16", "float16"]


def begin(layer, shift, example):
    """A first state that is not at rest, so that its gradient is not trivial."""
    return jax.tree.map(lambda x, dx: x + dx, layer.init_state(example.shape), shift)


def every_engine(arguments, keys, example):
    """Value, last state and outputs, and gradients, of all engines."""

    def value(arguments, run_with):
        layer, shift, xs = arguments
        results = run(layer, xs, begin(layer, shift, example), keys, engine=run_with)
        return weighted(results), results

    evaluate = eqx.filter_value_and_grad(value, has_aux=True)
    return {each.__name__: evaluate(arguments, each) for each in ENGINES}


def given(example):
    """A layer, a shift of its first state, inputs of 14 time steps, and a key for each of them."""
    layer, keys = build(example), jax.random.split(jax.random.key(1), LONG)
    state = layer.init_state(example.shape)
    shift = jax.tree.map(lambda x: jnp.full_like(x, 0.1 if x.dtype.kind == "f" else 0), state)
    return (layer, shift, inputs(example, jax.random.key(0), LONG)), keys


class Double(NamedTuple):
    """What a layer computes where double precision is on; the tests say what of it equals what."""

    arguments: Any  # the layer, a shift of its first state, inputs
    whole: dict[str, Any]  # value, last state and outputs, and gradients, by engine
    halves: dict[str, Any]  # last state and outputs of seven time steps and then seven
    masked: dict[str, Any]  # of seven, of which some do not count
    counted: Any  # of those that do, stepwise
    dtypes: dict[str, Any]  # first states, last states and outputs by the dtype of the inputs


@functools.cache
def double(example) -> Double:
    """One program: nearly all the time of these tests goes into compiling, of many small programs the most."""

    @eqx.filter_jit
    def program(arguments, keys):
        layer, shift, xs = arguments
        start, short = layer.init_state(example.shape), len(MASK)
        padded = xs[:short].at[~MASK].set(jnp.nan)

        def halves(run_with):
            parts = xs.reshape(2, short, *example.shape), keys.reshape(2, short)
            step = lambda state, part: run(layer, part[0], state, part[1], engine=run_with)  # noqa: E731
            state, outs = jax.lax.scan(step, begin(layer, shift, example), parts)
            return state, outs.reshape(-1, *outs.shape[2:])

        def of_dtype(dtype):
            model = snn.Sequential(layer)
            states = model.init_states(input_shape=example.shape, dtype=jnp.dtype(dtype))
            return states, *model(states, xs.astype(dtype), keys)

        return Double(
            arguments=arguments,
            whole=every_engine(arguments, keys, example),
            halves={each.__name__: halves(each) for each in ENGINES},
            masked={each.__name__: run(layer, padded, start, keys[:short], engine=each, mask=MASK) for each in MASKING},
            counted=run(layer, xs[:short][MASK], start, keys[:short][MASK], engine=engine.stepwise),
            dtypes={dtype: of_dtype(dtype) for dtype in DTYPES},
        )

    with jax.enable_x64(True):
        return jax.device_get(program(*given(example)))


@functools.cache
def short(example) -> tuple[Any, dict[int, dict[str, Any]]]:
    """A first state, and what all engines compute from there in no and in one time step."""

    @eqx.filter_jit
    def program(arguments, keys):
        layer, shift, xs = arguments
        runs = {n: every_engine((layer, shift, xs[:n]), keys[:n], example) for n in (0, 1)}
        return begin(layer, shift, example), runs

    with jax.enable_x64(True):
        return jax.device_get(program(*given(example)))


class Single(NamedTuple):
    """What a layer computes in single precision, from its first state."""

    samples: Any  # last states and outputs of each sample by itself; the last sample is the first as bfloat16 has it
    batches: Any  # of all samples mapped, as they are, and with NaN in the second one at the third time step
    half: Any  # of the first sample in bfloat16
    population: Any  # five layers, built at once
    outputs: Any  # one time step of each
    output: Any  # of the layer that is like the first one
    step: Any  # state and output of one time step, None for a layer that needs a key
    step_with_keys: Any


@functools.cache
def single(example) -> Single:
    key = jax.random.key(1)

    @eqx.filter_jit
    def program(layer, xs, keys):
        first = layer.init_state(example.shape)
        alone = lambda xs: run(layer, xs, first, key)  # noqa: E731
        step = lambda layer, x, key: layer(layer.init_state(example.shape), x, key=key)[1]  # noqa: E731
        population = eqx.filter_vmap(lambda _: build(example))(jnp.zeros(5))
        ones = jnp.ones((5, *example.shape))
        return Single(
            samples=jax.lax.map(alone, xs),
            batches=jax.lax.map(jax.vmap(alone), jnp.stack([xs, xs.at[1, 2].set(jnp.nan)])),
            half=alone(xs[0].astype(jnp.bfloat16)),
            population=eqx.filter(population, eqx.is_array),
            outputs=eqx.filter_vmap(step)(population, ones, keys),
            output=step(layer, ones[0], keys[0]),
            step=None if example.needs_key else layer(first, xs[0, 0]),
            step_with_keys=layer(layer.init_state(example.shape, key=keys[1]), xs[0, 0], key=keys[2]),
        )

    xs = jnp.stack([inputs(example, jax.random.key(number)) for number in (0, 2, 3, 0)])
    xs = xs.at[-1].set(xs[-1].astype(jnp.bfloat16).astype(jnp.float32))
    return jax.device_get(program(build(example), xs, jax.random.split(jax.random.key(0), 5)))


def test_every_exported_layer_is_here():
    assert exported() == set(EXAMPLES)


@each_layer
def test_every_layer_is_awake(example):
    out = single(example).samples[1][0]
    assert np.any(out != 0)
    if example.spikes:
        spikes = out != 0
        assert 0 < spikes.sum() < spikes.size
        amplitudes = {0.0, 1.0} if np.all((out == 0) | (out == 1)) else {0.0, 1.5}
        assert set(np.unique(out)) <= amplitudes, "a spike is exactly its amplitude"


@each_layer
def test_every_parameter_gets_a_gradient(example):
    arguments, (_, gradients) = double(example).arguments, double(example).whole["layerwise"]
    assert len(leaves(gradients)) == len(leaves(arguments))
    for path, leaf in jax.tree.leaves_with_path(eqx.filter(gradients, eqx.is_inexact_array)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        is_parameter = name.startswith("[0]")
        expected_zero = is_parameter and any(name.endswith(end) for end in example.without_gradient)
        if is_parameter:
            assert np.all(leaf == 0) if expected_zero else np.all(leaf != 0), name


def engines_agree(runs, num_steps):
    expected, *others = runs.values()
    assert len(others) == len(ENGINES) - 1
    for found in others:
        close(found, expected, rtol=1e-9)
    (_, (_, out)), _ = expected
    assert out.shape[0] == num_steps


@each_layer
def test_all_engines_agree(example):
    engines_agree(double(example).whole, LONG)


@pytest.mark.full
@each_layer
@pytest.mark.parametrize("num_steps", [0, 1])
def test_all_engines_agree_on_short_sequences(example, num_steps):
    first, runs = short(example)
    engines_agree(runs[num_steps], num_steps)
    if num_steps == 0:
        (_, (state, _)), _ = runs[0]["stepwise"]
        close(state, first)


@each_layer
@pytest.mark.parametrize("run_with", ENGINES)
def test_going_on_from_a_state_equals_one_long_run(example, run_with):
    (_, whole), _ = double(example).whole[run_with.__name__]
    close(double(example).halves[run_with.__name__], whole)


@each_layer
@pytest.mark.parametrize("run_with", MASKING)
def test_steps_that_do_not_count_change_nothing(example, run_with):
    state, out = double(example).masked[run_with.__name__]
    close((state, out[MASK]), double(example).counted)
    assert not np.any(out[~MASK])


@each_layer
@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_have_the_dtype_of_the_input_and_states_at_least_float32(example, dtype):
    states, after, (out,) = double(example).dtypes[dtype]
    assert out.dtype == jnp.dtype(dtype)
    wanted = "float64" if dtype == "float64" else "float32"
    assert {s.dtype for s in jax.tree.leaves((states, after)) if s.dtype.kind == "f"} <= {jnp.dtype(wanted)}
    assert np.any(out != 0)


@each_layer
def test_states_are_of_the_default_float(example):
    def dtypes(layer):
        return {leaf.dtype for leaf in jax.tree.leaves(layer.init_state(example.shape)) if leaf.dtype.kind == "f"}

    assert dtypes(build(example)) <= {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert dtypes(build(example)) <= {jnp.dtype("float64")}


@each_layer
def test_half_precision_input_does_not_blur_the_state(example):
    half, full = single(example).half[0], jax.tree.map(lambda x: x[-1], single(example).samples[0])
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@each_layer
def test_a_batch_is_what_its_samples_are(example):
    (_, together), (_, alone) = jax.tree.map(lambda x: x[0], single(example).batches), single(example).samples
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@each_layer
def test_nan_stays_in_its_sample(example):
    clean, found = (jax.tree.map(lambda x: x[which], single(example).batches) for which in range(2))  # noqa: B023
    for sample in (0, 2, 3):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True):
            np.testing.assert_array_equal(a[sample], b[sample])
    np.testing.assert_array_equal(found[1][1, :2], clean[1][1, :2], "NaN reached back in time")
    assert not np.array_equal(found[1][1], clean[1][1]), "NaN reached nothing"
    spikes_in_nan = found[1][1, 2]
    assert np.all(np.isnan(spikes_in_nan) | (spikes_in_nan == 0) | np.isfinite(spikes_in_nan))


@each_layer
def test_a_layer_can_be_built_abstractly_and_in_batches(example):
    struct = eqx.filter_eval_shape(example.make, example.shape)
    assert jax.tree.structure(struct) == jax.tree.structure(build(example))
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(single(example).population))
    np.testing.assert_allclose(single(example).outputs[0], single(example).output, rtol=1e-5)


@pytest.mark.full
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
def test_keys_are_accepted_and_change_nothing(example):
    assert eqx.tree_equal(single(example).step_with_keys, single(example).step)


@each_shaped_layer
def test_negative_sizes_are_refused(example):
    with pytest.raises(ValueError, match=r"a shape has no negative sizes, found \(2, -3\)"):
        example.make((2, -3))
