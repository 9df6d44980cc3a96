"""Batch normalisation against NumPy: outputs, running statistics, gradients, and what is normalised together."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .layers import weighted


pytestmark = pytest.mark.full


BATCH, NUM_STEPS, CHANNELS, STEPS = 3, 5, 2, 3
IMAGE = (CHANNELS, 4)
RTOL, ATOL = 1e-10, 1e-12
STEPPED = [engine.stepwise, engine.layerwise, engine.checkpointed]
each_kind = pytest.mark.parametrize("statistics", ["step", "sequence", "per_step"])


def normal(*shape, seed=0):
    return 0.4 + 1.7 * np.random.default_rng(seed).normal(size=shape)


def build(statistics, axis_name: Any = "batch", **options):
    """No parameter and no statistic has its default value."""
    steps = STEPS if statistics == "per_step" else None
    layer = snn.BatchNorm(CHANNELS, axis_name=axis_name, statistics=statistics, steps=steps, **options)
    values = [normal(*layer.mean.shape, seed=k) for k in range(1, 5)]
    new = [jnp.asarray(value if k < 3 else value**2 + 0.5, layer.mean.dtype) for k, value in enumerate(values)]
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias, layer.mean, layer.var), layer, new)


def run(layer, xs, mask=None, **options):
    """A batch `(batch, time, channels, *space)`, with `mask` `(batch, time)`; the states are those of all samples."""
    model = snn.Sequential(layer)

    @eqx.filter_jit
    def batch(model, xs, mask):
        states = model.init_states(input_shape=xs.shape[2:])
        sample = lambda xs, mask: model(states, xs, mask=mask, **options)  # noqa: E731
        return jax.vmap(sample, in_axes=(0, None if mask is None else 0), axis_name="batch")(xs, mask)

    (state,), (out,) = batch(model, jnp.asarray(xs), None if mask is None else jnp.asarray(mask))
    return state, out


def groups(layer, num_steps):
    """The time steps that are normalised together, and the row of the statistics that they belong to."""
    if layer.statistics == "sequence":
        return [(np.arange(num_steps), ...)]
    rows = [...] * num_steps if layer.steps is None else [min(t, layer.steps - 1) for t in range(num_steps)]
    return [(np.array([t]), row) for t, row in enumerate(rows)]


def reference(layer, xs, mask=None):
    """Outputs and running statistics; a step that is left out by all samples must be the last one."""
    mean, var = np.array(layer.mean), np.array(layer.var)
    mask = np.ones(xs.shape[:2], bool) if mask is None else mask
    by_channel = np.moveaxis(xs, 2, -1)
    out = np.zeros(by_channel.shape)
    for steps, row in groups(layer, xs.shape[1]):
        counts = mask[:, steps]
        values = by_channel[:, steps][counts].reshape(-1, CHANNELS)
        if values.size:
            mu, biased = values.mean(0), values.var(0)
            scaled = (by_channel[:, steps] - mu) / np.sqrt(biased + layer.epsilon)
            kept = counts.reshape(*counts.shape, *(1,) * (by_channel.ndim - 2))
            out[:, steps] = kept * (scaled * np.asarray(layer.weight)[row] + np.asarray(layer.bias)[row])
            unbiased = biased * len(values) / max(len(values) - 1, 1)
            mean[row] = (1 - layer.momentum) * mean[row] + layer.momentum * mu
            var[row] = (1 - layer.momentum) * var[row] + layer.momentum * unbiased
    return np.moveaxis(out, -1, 2), mean, var


def assert_agrees(layer, found, expected):
    state, out = found
    expected_out, mean, var = expected
    np.testing.assert_allclose(out, expected_out, rtol=RTOL, atol=ATOL)
    for sample in range(out.shape[0]):
        np.testing.assert_allclose(state.mean[sample], mean, rtol=RTOL)
        np.testing.assert_allclose(state.var[sample], var, rtol=RTOL)
    assert np.all(mean != layer.mean), "nothing was learned"
    assert np.all(var != layer.var)


@pytest.mark.parametrize(
    ("space", "momentum", "run_with"), list(zip([(), (4,), (3, 2)], [0.1, 0.6, 1.0], STEPPED, strict=True))
)
@pytest.mark.parametrize("statistics", ["step", "per_step"])
def test_every_step_is_normalised_over_batch_and_space(x64, statistics, space, momentum, run_with):
    layer, xs = build(statistics, momentum=momentum, epsilon=0.01), normal(BATCH, NUM_STEPS, CHANNELS, *space)
    found = run(layer, xs, engine=run_with)
    assert_agrees(layer, found, reference(layer, xs))
    assert found[0].step.tolist() == [NUM_STEPS] * BATCH


@pytest.mark.parametrize("space", [(), (4,), (3, 2)])
def test_a_whole_sequence_is_normalised_over_time_too(x64, space):
    layer, xs = build("sequence", momentum=0.3), normal(BATCH, NUM_STEPS, CHANNELS, *space)
    assert_agrees(layer, run(layer, xs), reference(layer, xs))


def test_steps_beyond_the_last_have_its_parameters_and_statistics(x64):
    layer, xs = build("per_step"), normal(BATCH, STEPS + 2, CHANNELS)
    state, out = run(layer, xs)
    last = (xs[:, -1] - xs[:, -1].mean(0)) / np.sqrt(xs[:, -1].var(0) + 1e-5)
    np.testing.assert_allclose(out[:, -1], last * np.asarray(layer.weight[-1]) + np.asarray(layer.bias[-1]), rtol=1e-9)
    assert (state.step == STEPS + 2).all()
    # The last row learned from three steps, the others from one.
    mean = np.array(layer.mean[-1])
    for step in range(STEPS - 1, STEPS + 2):
        mean = 0.9 * mean + 0.1 * xs[:, step].mean(0)
    np.testing.assert_allclose(state.mean[0, -1], mean, rtol=1e-12)
    np.testing.assert_allclose(state.mean[0, 0], 0.9 * layer.mean[0] + 0.1 * xs[:, 0].mean(0), rtol=1e-12)


@pytest.mark.parametrize("space", [(), (3, 2)])
@pytest.mark.parametrize(
    ("statistics", "run_with"),
    [
        *(("step", run_with) for run_with in STEPPED),
        ("sequence", engine.layerwise),
        *(("per_step", run_with) for run_with in STEPPED),
    ],
)
def test_steps_that_do_not_count_do_not_enter_the_statistics(x64, statistics, space, run_with):
    layer, xs = build(statistics), normal(BATCH, NUM_STEPS, CHANNELS, *space)
    mask = np.arange(NUM_STEPS) < np.array([[2], [4], [3]])  # of the last step, nothing counts
    xs[~mask] = 1e3
    found = run(layer, xs, mask, engine=run_with)
    assert_agrees(layer, found, reference(layer, xs, mask))
    assert (found[0].step == (0 if statistics == "sequence" else 4)).all()


def test_statistics_go_on_with_longer_samples_in_a_feedback_loop_too(x64):
    nodes = {"norm": build("step"), "lif": snn.LIF(CHANNELS, 0.9, 0.5)}
    model = snn.Graph(nodes, {"norm": ["input", snn.Previous("lif")], "lif": "norm"}, outputs="lif")
    xs = jnp.asarray(normal(BATCH, NUM_STEPS, CHANNELS))
    mask = jnp.asarray(np.arange(NUM_STEPS) < np.array([[2], [5], [3]]))

    def run_with(engine, xs=xs, mask=mask):
        states = model.init_states(input_shape=(CHANNELS,))
        sample = lambda xs, mask: model(states, xs, mask=mask, engine=engine)  # noqa: E731
        return jax.jit(jax.vmap(sample, axis_name="batch"))(xs, mask)

    expected = run_with(engine.stepwise)
    states, outs = expected
    for found in (run_with(engine.layerwise), run_with(engine.checkpointed)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL), found, expected)
    assert outs[-1].any() and not outs[-1][0, 2:].any()
    # One set of statistics, which the last two steps of the longest sample changed alone.
    np.testing.assert_array_equal(states["norm"].mean, jnp.tile(states["norm"].mean[1], (BATCH, 1)))
    assert (states["norm"].step == NUM_STEPS).all()
    early = run_with(engine.stepwise, xs[:, :3], mask[:, :3])[0]
    assert (early["norm"].mean != states["norm"].mean).all()
    np.testing.assert_array_equal(early["lif"].v[0], states["lif"].v[0])


@each_kind
def test_a_batch_may_have_several_axes(x64, statistics):
    layer, xs = build(statistics, ("outer", "inner")), normal(4, NUM_STEPS, CHANNELS)
    model = snn.Sequential(layer)
    states = model.init_states()
    inner = jax.vmap(lambda xs: model(states, xs), axis_name="inner")
    (state,), (out,) = jax.vmap(inner, axis_name="outer")(jnp.asarray(xs.reshape(2, 2, *xs.shape[1:])))
    flat = jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), (state, out))
    assert_agrees(layer, flat, reference(layer, xs))


@each_kind
def test_without_a_batch_axis_there_is_one_sample(x64, statistics):
    layer, xs = build(statistics, axis_name=None), normal(BATCH, NUM_STEPS, CHANNELS, 6)
    state, out = run(layer, xs)
    for sample in range(BATCH):
        alone = jax.tree.map(lambda x, k=sample: x[k : k + 1], (state, out))
        assert_agrees(layer, alone, reference(layer, xs[sample : sample + 1]))


@pytest.mark.parametrize("run_with", STEPPED[:2])
@each_kind
def test_inference_uses_the_running_statistics_and_keeps_them(x64, statistics, run_with):
    layer, xs = eqx.nn.inference_mode(build(statistics)), normal(BATCH, NUM_STEPS, CHANNELS, 4)
    state, out = run(layer, xs, engine=run_with)
    for steps, row in groups(build("step"), NUM_STEPS) if statistics == "sequence" else groups(layer, NUM_STEPS):
        mean, var, weight, bias = (
            np.asarray(leaf)[row][:, None] for leaf in (layer.mean, layer.var, layer.weight, layer.bias)
        )
        expected = (xs[:, steps] - mean) / np.sqrt(var + layer.epsilon) * weight + bias
        np.testing.assert_allclose(out[:, steps], expected, rtol=RTOL, atol=ATOL)
    np.testing.assert_array_equal(state.mean, jnp.stack([layer.mean] * BATCH))
    np.testing.assert_array_equal(state.var, jnp.stack([layer.var] * BATCH))
    assert (state.step == NUM_STEPS).all()


@pytest.mark.parametrize(("use_weight", "use_bias"), [(False, True), (True, False), (False, False)])
def test_scale_and_shift_may_be_left_out(x64, use_weight, use_bias):
    full, xs = build("step"), normal(BATCH, NUM_STEPS, CHANNELS)
    layer = snn.BatchNorm(CHANNELS, axis_name="batch", use_weight=use_weight, use_bias=use_bias)
    assert (layer.weight is None, layer.bias is None) == (not use_weight, not use_bias)
    plain = eqx.tree_at(lambda layer: (layer.weight, layer.bias), full, (jnp.ones(CHANNELS), jnp.zeros(CHANNELS)))
    np.testing.assert_allclose(run(layer, xs)[1], reference(plain, xs)[0], rtol=RTOL, atol=ATOL)


@each_kind
def test_gradients_go_through_the_statistics_of_the_batch(x64, statistics):
    layer, xs = build(statistics), normal(BATCH, NUM_STEPS, CHANNELS, 4)
    upstream = normal(*xs.shape, seed=9)
    loss = lambda both: jnp.sum(run(*both)[1] * jnp.asarray(upstream))  # noqa: E731
    of_layer, of_xs = eqx.filter_jit(eqx.filter_grad(loss))((layer, jnp.asarray(xs)))
    expected, weight, bias = np.zeros(xs.shape), np.zeros(layer.mean.shape), np.zeros(layer.mean.shape)
    axes = (0, 1, 3)
    for steps, row in groups(layer, NUM_STEPS):
        x, g = xs[:, steps], upstream[:, steps]
        deviation = np.sqrt(x.var(axes, keepdims=True) + layer.epsilon)
        x = (x - x.mean(axes, keepdims=True)) / deviation
        weight[row] += (g * x).sum(axes)
        bias[row] += g.sum(axes)
        g = g * np.asarray(layer.weight)[row][:, None]
        expected[:, steps] = g - g.mean(axes, keepdims=True) - x * (g * x).mean(axes, keepdims=True)
        expected[:, steps] /= deviation
    for found, wanted in ((of_xs, expected), (of_layer.weight, weight), (of_layer.bias, bias)):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)
        assert np.all(wanted != 0)


@each_kind
def test_running_statistics_have_no_gradient(x64, statistics):
    layer, xs = build(statistics), jnp.asarray(normal(BATCH, NUM_STEPS, CHANNELS))

    @eqx.filter_jit
    def gradient(both, part):
        return eqx.filter_grad(lambda both: weighted(part(run(*both))))(both)

    of_layer, of_xs = gradient((layer, xs), lambda found: found[1])
    assert not jnp.any(of_layer.mean)
    assert not jnp.any(of_layer.var)
    assert jnp.all(of_layer.weight != 0)
    assert jnp.all(of_xs != 0)
    of_layer, of_xs = gradient((layer, xs), lambda found: found[0])
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves((of_layer, of_xs)))


@pytest.mark.parametrize("num_steps", [0, 1])
@each_kind
def test_the_shortest_sequences(x64, statistics, num_steps):
    layer, xs = build(statistics), normal(BATCH, num_steps, CHANNELS)
    state, out = run(layer, xs)
    expected, mean, var = reference(layer, xs)
    assert out.shape == (BATCH, num_steps, CHANNELS)
    np.testing.assert_allclose(out, expected, rtol=RTOL)
    np.testing.assert_allclose(state.mean[0], mean, rtol=RTOL)
    np.testing.assert_allclose(state.var[0], var, rtol=RTOL)
    assert bool(jnp.all(state.mean[0] == layer.mean)) is (num_steps == 0)


@pytest.mark.parametrize(
    ("axis_name", "shape", "found"),
    [(None, (3, 2, CHANNELS), "it sees no batch"), ("batch", (1, 2, CHANNELS), "the batch has one sample")],
)
@pytest.mark.parametrize("statistics", ["step", "per_step"])
def test_a_single_value_is_its_own_mean_and_refused_as_in_torch(statistics, axis_name, shape, found):
    layer = build(statistics, axis_name=axis_name)
    with pytest.raises(ValueError, match=f"more than one value per channel, and {found}: .* axis_name='batch'"):
        run(layer, normal(*shape))
    run(eqx.nn.inference_mode(layer), normal(*shape))
    run(layer, normal(*shape, 2))


def test_a_sequence_of_one_value_is_refused_too():
    layer = build("sequence", axis_name=None)
    with pytest.raises(ValueError, match="more than one value per channel"):
        run(layer, normal(3, 1, CHANNELS))


@each_kind
def test_going_on_from_states_goes_on_learning(x64, statistics):
    layer, xs = build(statistics), jnp.asarray(normal(BATCH, 4, CHANNELS))
    model = snn.Sequential(layer)
    batch = jax.jit(jax.vmap(model, in_axes=(0, 0), axis_name="batch"))
    states = jax.tree.map(lambda x: jnp.stack([x] * BATCH), model.init_states())
    after, _ = batch(states, xs[:, :2])
    again, outs = batch(after, xs[:, 2:])
    if statistics == "sequence":
        then = snn.update_statistics(model, after)[0]
        assert_agrees(then, (again[0], outs[-1]), reference(then, np.asarray(xs[:, 2:])))
    else:
        expected = reference(layer, np.asarray(xs))
        assert_agrees(layer, (again[0], outs[-1]), (expected[0][:, 2:], *expected[1:]))


def test_statistics_of_half_precision_are_computed_in_single():
    layer, xs = build("step"), jnp.asarray(300 + normal(BATCH, NUM_STEPS, CHANNELS, 50), jnp.bfloat16)
    state, out = run(layer, xs)
    assert (out.dtype, state.mean.dtype) == (jnp.bfloat16, jnp.float32)
    expected, mean, _ = reference(layer, np.asarray(xs, np.float64))
    np.testing.assert_allclose(state.mean[0], mean, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=1e-2, atol=1e-2)


def nested(getkey, axis_name: Any = "batch"):
    norm = lambda: snn.BatchNorm(CHANNELS, axis_name=axis_name)  # noqa: E731
    mix = lambda: eqx.nn.Conv1d(CHANNELS, CHANNELS, 1, key=getkey())  # noqa: E731
    graph = snn.Graph({"norm": norm(), "lif": snn.LIF(None, 0.9)}, {"norm": "input", "lif": "norm"}, "lif")
    return snn.Sequential(norm(), mix(), snn.Residual(snn.Sequential(mix(), norm())), snn.Parallel(graph, norm()))


PLACES = {
    "0": lambda model, states: (model[0], states[0]),
    "2.0.1": lambda model, states: (model[2][0][1], states[2][0][1]),
    "3.0.norm": lambda model, states: (model[3][0].nodes["norm"], states[3][0]["norm"]),
    "3.1": lambda model, states: (model[3][1], states[3][1]),
}


@pytest.mark.parametrize("axis_name", ["batch", None])
def test_update_statistics_reaches_every_layer_and_changes_nothing_else(x64, getkey, axis_name):
    model, xs = nested(getkey, axis_name), jnp.asarray(normal(BATCH, NUM_STEPS, *IMAGE))
    states = model.init_states(input_shape=IMAGE)
    after, _ = jax.jit(jax.vmap(model, in_axes=(None, 0), axis_name="batch"))(states, xs)
    updated = snn.update_statistics(model, after)
    assert jax.tree.structure(updated) == jax.tree.structure(model)
    for of in PLACES.values():
        layer, state = of(updated, after)
        # Where the batch is not known, the statistics of its samples differ.
        assert bool(jnp.all(state.var[0] == state.var[1])) is (axis_name == "batch")
        np.testing.assert_allclose(layer.mean, state.mean.mean(0), rtol=1e-12)
        np.testing.assert_allclose(layer.var, state.var.mean(0), rtol=1e-12)
        assert jnp.all(layer.mean != 0)
    changed = [
        jax.tree_util.keystr(path)
        for (path, new), old in zip(jax.tree.leaves_with_path(updated), jax.tree.leaves(model), strict=True)
        if new is not old
    ]
    assert len(changed) == 2 * len(PLACES)
    assert all(path.endswith((".mean", ".var")) for path in changed)
    assert set(PLACES) == {path for path, node in engine.walk(updated) if isinstance(node, snn.BatchNorm)}


def test_updated_models_start_from_their_statistics_also_in_inference(x64, getkey):
    model, xs = nested(getkey), jnp.asarray(normal(BATCH, NUM_STEPS, *IMAGE))
    after, _ = jax.jit(jax.vmap(model, in_axes=(None, 0), axis_name="batch"))(model.init_states(input_shape=IMAGE), xs)
    updated = snn.update_statistics(model, jax.tree.map(lambda x: x[0], after))
    states = updated.init_states(input_shape=IMAGE)
    np.testing.assert_array_equal(states[0].mean, after[0].mean[0])
    still = eqx.nn.inference_mode(updated)
    final, outs = eqx.filter_jit(still)(states, xs[0])
    assert eqx.tree_equal(snn.update_statistics(still, final), still)
    mean, var = (np.asarray(x)[:, None] for x in (states[0].mean, states[0].var))
    np.testing.assert_allclose(outs[0][0], (xs[0, 0] - mean) / np.sqrt(var + 1e-5), rtol=RTOL)


def test_a_model_without_batch_norm_is_returned_as_it_is():
    model = snn.Sequential(snn.LIF(2, 0.9))
    assert snn.update_statistics(model, model.init_states()) is model


def test_statistics_of_a_layer_used_twice_are_refused():
    norm = snn.BatchNorm(2)
    model = snn.Graph({"one": norm, "two": norm}, {"one": "input", "two": "one"}, outputs="two")
    with pytest.raises(ValueError, match=r"'one' and 'two' are one BatchNorm.* build the model with two layers"):
        snn.update_statistics(model, model.init_states(input_shape=(2,)))
    still = eqx.nn.inference_mode(model)
    assert eqx.tree_equal(snn.update_statistics(still, still.init_states(input_shape=(2,))), still)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: snn.BatchNorm(2, statistics="batch"),  # pyright: ignore[reportArgumentType]
            "statistics must be 'step', 'sequence' or 'per_step', found 'batch'",
        ),
        (lambda: snn.BatchNorm(2, steps=3), "steps goes with statistics='per_step', found steps=3 and 'step'"),
        (lambda: snn.BatchNorm(2, statistics="per_step"), "found steps=None and 'per_step'"),
        (lambda: snn.BatchNorm(2).init_state((3, 4)), r"built for 2 channels, found inputs of shape \(3, 4\)"),
        (lambda: snn.BatchNorm(2).init_state(()), r"built for 2 channels, found inputs of shape \(\)"),
        (
            lambda: run(snn.BatchNorm(2, statistics="sequence"), normal(1, 4, 2), engine=engine.stepwise),
            r"statistics='sequence'\) needs the whole sequence in training and cannot be stepped: .*layerwise",
        ),
    ],
)
def test_what_cannot_be_normalised_is_refused(unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()
