"""Branches side by side: they are what they are alone, joined, with every engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .layers import weighted


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 3, 7
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed]


def sequence(getkey):
    return jax.random.uniform(getkey(), (NUM_STEPS, SIZE), maxval=2.0)


def linear(getkey):
    return eqx.nn.Linear(SIZE, SIZE, key=getkey())


def run(model, xs, **options):
    return model(model.init_states(input_shape=xs.shape[1:]), xs, **options)


def alone(layer, xs):
    states, outs = run(snn.Sequential(layer), xs)
    return states[0], np.asarray(outs[-1])


JOINS = {
    "sum": ("sum", lambda a, b, c: a + b + c),
    "concatenate": ("concatenate", lambda a, b, c: np.concatenate([a, b, c], axis=1)),
    "function": (lambda a, b, c: a - 2 * b * c, lambda a, b, c: a - 2 * b * c),
}


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize(("join", "expected"), JOINS.values(), ids=JOINS)
def test_branches_are_what_they_are_alone(x64, getkey, join, expected, run_with):
    branches = snn.LIF(SIZE, 0.9), linear(getkey), snn.Sequential(linear(getkey), snn.LI(SIZE, 0.7))
    xs = sequence(getkey)
    states, outs = eqx.filter_jit(run)(snn.Parallel(*branches, join=join), xs, engine=run_with)
    separate = [alone(branch, xs) for branch in branches]
    for found, (_, out) in zip(outs[:-1], separate, strict=True):
        np.testing.assert_allclose(found, out, rtol=1e-12)
        assert np.any(out != 0)
    np.testing.assert_allclose(outs[-1], expected(*(out for _, out in separate)), rtol=1e-12)
    assert jax.tree.structure(states) == jax.tree.structure([state for state, _ in separate])
    for found, wanted in zip(jax.tree.leaves(states), jax.tree.leaves([s for s, _ in separate]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_concatenation_is_along_the_channels(getkey):
    xs = jax.random.normal(getkey(), (NUM_STEPS, 2, 4, 4))
    conv = eqx.nn.Conv2d(2, 3, 3, padding=1, key=getkey())
    _, outs = run(snn.Parallel(conv, lambda x: -x, join="concatenate"), xs)
    assert outs[-1].shape == (NUM_STEPS, 5, 4, 4)
    np.testing.assert_array_equal(outs[-1][:, 3:], -xs)


def test_one_branch_is_the_branch(getkey):
    xs, layer = sequence(getkey), snn.LIF(SIZE, 0.9)
    np.testing.assert_array_equal(run(snn.Parallel(layer), xs)[1][-1], alone(layer, xs)[1])


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize(
    ("join", "expected"),
    [
        ("sum", lambda x, z: x + z),
        ("concatenate", lambda x, z: np.concatenate([x, z], 1)),
        (jnp.multiply, np.multiply),
        (lambda x, y: x * (1 - y), lambda x, z: x * (1 - z)),
    ],
    ids=["sum", "concatenate", "and", "iand"],
)
def test_a_residual_joins_the_input_and_the_chain(x64, getkey, join, expected, run_with):
    # Spikes come in, as for the blocks of SEW ResNet.
    xs, chain = jnp.round(sequence(getkey) / 2), (linear(getkey), snn.LIF(SIZE, 0.9, 0.3))
    states, outs = run(snn.Residual(*chain, join=join), xs, engine=run_with)
    (_, lif), z = alone(snn.Sequential(*chain), xs)
    np.testing.assert_array_equal(outs[0], z)
    np.testing.assert_array_equal(outs[-1], expected(np.asarray(xs), z))
    np.testing.assert_allclose(states[0][1].v, lif.v, rtol=1e-12)
    assert 0 < z.sum() < z.size
    assert np.any(np.asarray(xs) * z), "no two spikes meet"


@pytest.mark.parametrize("run_with", ENGINES)
def test_a_shortcut_may_have_layers_and_comes_first(x64, getkey, run_with):
    xs = sequence(getkey)
    chain, shortcut = linear(getkey), snn.LIF(SIZE, 0.8)
    model = snn.Residual(chain, shortcut=shortcut, join=lambda x, fx: x - 3 * fx)
    states, outs = run(model, xs, engine=run_with)
    (state, z), (_, fx) = alone(shortcut, xs), alone(chain, xs)
    np.testing.assert_allclose(outs[-1], z - 3 * fx, rtol=1e-12)
    assert states[0] is None
    np.testing.assert_allclose(states[1].v, state.v, rtol=1e-12)
    assert 0 < z.sum() < z.size


@pytest.mark.parametrize("run_with", ENGINES)
def test_no_branch_is_late(run_with):
    relay = lambda z: z  # noqa: E731
    block = snn.Residual(relay, snn.Residual(relay), shortcut=snn.Parallel(relay, relay))
    pulse = jnp.zeros((5, 2)).at[2].set(1.0)
    _, outs = run(snn.Sequential(block, block), pulse, engine=run_with)
    np.testing.assert_array_equal(outs[-1], 16 * pulse)


def deep(getkey):
    inner = snn.Residual(linear(getkey), snn.LIF(SIZE, 0.9, 0.3), shortcut=snn.LI(SIZE, 0.5))
    wide = snn.Parallel(inner, snn.Sequential(linear(getkey), snn.LI(SIZE, 0.8)), join="concatenate")
    return snn.Sequential(wide, eqx.nn.Linear(2 * SIZE, SIZE, key=getkey()), snn.Residual(snn.LIF(SIZE, 0.9, 0.3)))


@pytest.mark.parametrize("run_with", [*ENGINES[1:], engine.parallel])
def test_all_engines_agree_on_nested_branches(x64, getkey, run_with):
    model, xs = deep(getkey), sequence(getkey)
    states = jax.tree.map(lambda x: x + 0.1, model.init_states())

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def value(arguments, engine):
        model, states, xs = arguments
        results = model(states, xs, engine=engine)
        return weighted(results), results

    (_, found), gradients = value((model, states, xs), run_with)
    (_, expected), expected_gradients = value((model, states, xs), engine.stepwise)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = (found, gradients), (expected, expected_gradients)
    for a, b in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients))
    spikes = found[1][-1] - found[1][1]
    assert 0 < jnp.round(spikes).sum() < spikes.size


def test_step_by_step_is_the_same(getkey):
    model, xs = deep(getkey), sequence(getkey)
    states, outs, step = model.init_states(), [], eqx.filter_jit(model.step)
    for x in xs:
        states, out = step(states, x)
        outs.append(out[-1])
    after, expected = run(model, xs)
    np.testing.assert_allclose(jnp.stack(outs), expected[-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states[0][0][1].v, after[0][0][1].v, rtol=1e-5)


def test_branches_are_counted_and_reached_by_index():
    lif, li = snn.LIF(SIZE, 0.9), snn.LI(SIZE, 0.9)
    model = snn.Parallel(lif, li, jnp.tanh)
    assert len(model) == 3
    assert (model[0], model[1], model[-1]) == (lif, li, jnp.tanh)
    block = snn.Residual(lif, li, shortcut=jnp.tanh)
    assert len(block) == 2
    assert block[0].layers == (lif, li)
    assert block[1] is jnp.tanh
    assert len(snn.Residual(lif)) == 1
    assert snn.Residual(lif)[0] is lif, "a chain of one layer is the layer"


def test_trained_branches_keep_their_join(getkey):
    model = snn.Parallel(linear(getkey), snn.LI(SIZE, 0.5), join="concatenate")
    doubled = jax.tree.map(lambda leaf: 2 * leaf if eqx.is_inexact_array(leaf) else leaf, model)
    xs = sequence(getkey)
    _, outs = eqx.filter_jit(run)(doubled, xs)
    assert outs[-1].shape == (NUM_STEPS, 2 * SIZE)
    np.testing.assert_allclose(outs[0], 2 * alone(model[0], xs)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (snn.Parallel, ValueError, "a Parallel needs at least one branch"),
        (snn.Residual, ValueError, "a Residual needs at least one layer"),
        (lambda: snn.Parallel(jnp.tanh, 3), TypeError, "node '1' of a Parallel must be a layer or a function, found 3"),
        (lambda: snn.Residual(None), TypeError, "node '0' of a Residual must be a layer or a function, found None"),
        (lambda: snn.Residual(jnp.tanh, shortcut=2), TypeError, "node '1' of a Residual must be .* found 2"),
        (lambda: snn.Residual(jnp.tanh, 4), TypeError, "node '1' of a Sequential must be a layer or a function"),
        (
            lambda: snn.Parallel(jnp.tanh, join="mean"),  # pyright: ignore[reportArgumentType]
            ValueError,
            "join must be 'sum', 'concatenate' or a function, found 'mean'",
        ),
        (
            lambda: snn.Residual(jnp.tanh, join=None),  # pyright: ignore[reportArgumentType]
            ValueError,
            "join must be 'sum', 'concatenate' or a function, found None",
        ),
    ],
)
def test_what_is_no_branch_or_no_join_is_refused(unchecked, build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("run_with", ENGINES)
def test_the_states_of_too_few_branches_are_refused(run_with):
    model = snn.Parallel(snn.LI(2, 0.9), snn.LI(2, 0.8))
    with pytest.raises(ValueError, match="expected the states of 2 branches, found 1"):
        model(model.init_states()[:1], jnp.ones((3, 2)), engine=run_with)


def test_a_branch_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"node '1'.*for neurons of shape \(3,\), but its input has shape \(2,\)"):
        snn.Parallel(snn.LI(2, 0.9), snn.LI(3, 0.9)).init_states(input_shape=(2,))
