"""Dropout: which steps share a mask, when it is drawn, and what it does to the mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 200, 6
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]


def ones():
    return jnp.ones((NUM_STEPS, SIZE))


def run(model, key, states=None, xs=None, **options):
    states = model.init_states(input_shape=(SIZE,)) if states is None else states
    states, outs = model(states, ones() if xs is None else xs, key, **options)
    return states, np.asarray(outs[-1])


def masks(out):
    return {step.tobytes() for step in out}


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize(("per", "different"), [("sequence", 1), ("step", NUM_STEPS)])
def test_masks_are_shared_by_a_sequence_or_drawn_per_step(getkey, per, different, run_with):
    model, key = snn.Sequential(snn.Dropout(0.4, per=per)), getkey()
    states, out = run(model, key, engine=run_with)
    assert len(masks(out)) == different
    assert bool(states[0].drawn) is (per == "sequence")
    np.testing.assert_array_equal(out, run(model, key, engine=engine.stepwise)[1])
    assert np.any(out != run(model, getkey(), engine=run_with)[1]), "another key, the same mask"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("per", ["sequence", "step"])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(getkey, per, p):
    model = snn.Sequential(snn.Dropout(p, per=per))
    _, (out,) = model(model.init_states(input_shape=(20000,)), jnp.full((3, 20000), 2.0), getkey())
    for step in out:
        kept = step[step != 0]
        np.testing.assert_allclose(kept, 2 / (1 - p), rtol=1e-6)
        # Five standard deviations of the share of kept elements.
        np.testing.assert_allclose(kept.size / step.size, 1 - p, atol=5 * (p * (1 - p) / step.size) ** 0.5)


@pytest.mark.parametrize("run_with", ENGINES)
def test_the_mask_is_kept_when_going_on_and_forgotten_by_init_states(getkey, run_with):
    model = snn.Sequential(snn.Dropout(0.5))
    states, first = run(model, getkey(), engine=run_with)
    _, second = run(model, getkey(), states, engine=run_with)
    np.testing.assert_array_equal(second, first)
    _, fresh = run(model, getkey(), engine=run_with)
    assert np.any(fresh != first)


def test_a_mask_per_step_is_no_state(getkey):
    model = snn.Sequential(snn.Dropout(0.5, per="step"))
    states, first = run(model, getkey())
    _, second = run(model, getkey(), states)
    assert not masks(first) & masks(second)


@pytest.mark.parametrize("run_with", ENGINES)
def test_a_mask_is_drawn_with_the_key_of_the_first_step_that_counts(getkey, run_with):
    model, keys = snn.Sequential(snn.Dropout(0.5)), jax.random.split(getkey(), NUM_STEPS)
    counts = jnp.array([False, False, True, True, False, True])
    _, out = run(model, keys, engine=run_with, mask=counts)
    _, expected = run(model, keys[2:], xs=ones()[2:], engine=engine.stepwise)
    np.testing.assert_array_equal(out[2], expected[0])
    assert masks(out[np.asarray(counts)]) == masks(expected)
    states, out = run(model, keys, engine=run_with, mask=jnp.zeros(NUM_STEPS, bool))
    assert not states[0].drawn
    assert not np.any(out)


def test_step_by_step_is_the_same_mask(getkey):
    model, keys = snn.Sequential(snn.Dropout(0.5)), jax.random.split(getkey(), NUM_STEPS)
    states, outs = model.init_states(input_shape=(SIZE,)), []
    for x, key in zip(ones(), keys, strict=True):
        states, (out,) = model.step(states, x, key=key)
        outs.append(out)
    np.testing.assert_array_equal(outs, run(model, keys)[1])


@pytest.mark.parametrize("run_with", ENGINES)
def test_layers_have_masks_of_their_own_also_in_containers(getkey, run_with):
    model = snn.Sequential(snn.Dropout(0.5), snn.Sequential(snn.Dropout(0.5)), snn.Residual(snn.Dropout(0.5)))
    _, outs = model(model.init_states(input_shape=(SIZE,)), ones(), getkey(), engine=run_with)
    first, second, third = (np.asarray(out[0]) for out in outs)
    assert set(np.unique(first)) == {0.0, 2.0}
    assert set(np.unique(second)) == {0.0, 4.0}
    assert set(np.unique(third)) == {0.0, 4.0, 12.0}
    both = np.mean((first > 0) & (second > 0))
    np.testing.assert_allclose(both, 0.25, atol=5 * (3 / 16 / SIZE) ** 0.5)


@pytest.mark.parametrize("per", ["sequence", "step"])
def test_dropout_is_off_in_inference_and_at_zero(per, getkey):
    xs = jax.random.normal(getkey(), (NUM_STEPS, SIZE))
    for model in (
        eqx.nn.inference_mode(snn.Sequential(snn.Dropout(0.5, per=per))),
        snn.Sequential(snn.Dropout(0.5, per=per, inference=True)),
        snn.Sequential(snn.Dropout(0.0, per=per)),
    ):
        for run_with in ENGINES:
            states, out = run(model, None, xs=xs, engine=run_with)
            np.testing.assert_array_equal(out, xs)
            assert not states[0].drawn
    training = eqx.nn.inference_mode(model, value=False)
    assert training[0].inference is False


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("per", ["sequence", "step"])
def test_a_missing_key_is_refused(per, run_with):
    with pytest.raises(ValueError, match=r"Dropout needs a key: model\(states, xs, key\), or switch dropout off"):
        run(snn.Sequential(snn.Dropout(0.5, per=per)), None, engine=run_with)


@pytest.mark.parametrize("run_with", ENGINES)
def test_samples_of_a_batch_have_masks_of_their_own(getkey, run_with):
    model = snn.Sequential(snn.Dropout(0.5))
    states, xs = model.init_states(input_shape=(SIZE,)), jnp.ones((4, NUM_STEPS, SIZE))

    def batch(key, axis):
        runs = jax.vmap(lambda xs, key: model(states, xs, key, engine=run_with), in_axes=(0, axis))
        return runs(xs, key)

    after, (out,) = batch(jax.random.split(getkey(), 4), 0)
    assert len(masks(np.asarray(out[:, 0]))) == 4
    assert all(len(masks(np.asarray(sample))) == 1 for sample in out)
    assert after[0].drawn.shape == (4,)
    _, (shared,) = batch(getkey(), None)
    assert len(masks(np.asarray(shared[:, 0]))) == 1


def test_gradients_pass_where_the_mask_is_open(getkey):
    model, key = snn.Sequential(snn.Dropout(0.75)), getkey()
    states = model.init_states(input_shape=(SIZE,))
    gradient = jax.grad(lambda xs: model(states, xs, key)[1][-1].sum())(ones())
    np.testing.assert_array_equal(gradient, run(model, key)[1])
    assert set(np.unique(gradient)) == {0.0, 4.0}


@pytest.mark.parametrize("shape", [(2, 3, 4), ()])
def test_inputs_may_have_any_shape(getkey, shape):
    model = snn.Sequential(snn.Dropout(0.5))
    states, (out,) = model(model.init_states(input_shape=shape), jnp.ones((NUM_STEPS, *shape)), getkey())
    assert out.shape == (NUM_STEPS, *shape)
    assert states[0].mask.shape == shape


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_shares_beyond_the_bounds_are_refused(p):
    with pytest.raises(ValueError, match=f"at least 0 and below 1, found {p}"):
        snn.Dropout(p)


def test_an_unknown_sharing_is_refused(unchecked):
    with pytest.raises(ValueError, match="per must be 'sequence' or 'step', found 'batch'"):
        snn.Dropout(0.5, per="batch")  # pyright: ignore[reportArgumentType]


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match=r"node '0' \(Dropout\): .*pass input_shape to init_states"):
        snn.Sequential(snn.Dropout(0.5)).init_states()
