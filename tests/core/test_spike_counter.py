"""Counting spikes is a cumulative sum, however it is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


SHAPE, NUM_STEPS = (2, 3), 9
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]


def spikes(seed=0):
    return np.random.default_rng(seed).integers(0, 2, (NUM_STEPS, *SHAPE)).astype(np.float32)


def run(xs, state=None, **options):
    model = snn.Sequential(snn.SpikeCounter())
    states = model.init_states(input_shape=xs.shape[1:]) if state is None else [state]
    states, (out,) = model(states, jnp.asarray(xs), **options)
    return states[0], np.asarray(out)


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("scale", [1.0, 0.37], ids=["spikes", "graded spikes"])
def test_counts_are_a_cumulative_sum(run_with, scale):
    xs = np.float32(scale) * spikes()
    state, out = run(xs, engine=run_with)
    np.testing.assert_allclose(out, np.cumsum(xs, axis=0), rtol=0 if scale == 1 else 1e-6)
    np.testing.assert_array_equal(state.count, out[-1])
    assert np.all(out[-1] > 0)


@pytest.mark.parametrize("run_with", ENGINES)
def test_counting_goes_on_from_a_state(run_with):
    first, second = spikes(), spikes(1)
    state, early = run(first, engine=run_with)
    state, late = run(second, state, engine=run_with)
    np.testing.assert_array_equal(late, early[-1] + np.cumsum(second, axis=0))
    np.testing.assert_array_equal(state.count, first.sum(0) + second.sum(0))


def test_steps_that_do_not_count_are_not_counted():
    xs, mask = spikes(), jnp.arange(NUM_STEPS) % 3 != 1
    state, _ = run(xs, mask=mask)
    np.testing.assert_array_equal(state.count, xs[np.asarray(mask)].sum(0))
    assert np.any(state.count != xs.sum(0))


@pytest.mark.parametrize("run_with", ENGINES)
def test_every_spike_gets_the_gradient_of_all_later_counts(run_with):
    xs, upstream = jnp.asarray(spikes()), np.random.default_rng(2).normal(size=(NUM_STEPS, *SHAPE)).astype(np.float32)
    model = snn.Sequential(snn.SpikeCounter(SHAPE))
    loss = lambda xs: jnp.sum(model(model.init_states(), xs, engine=run_with)[1][-1] * upstream)  # noqa: E731
    expected = np.cumsum(upstream[::-1], axis=0)[::-1]
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(xs), expected, rtol=1e-4, atol=1e-5)


def test_counters_run_without_a_loop_in_parallel():
    model, xs = snn.Sequential(snn.SpikeCounter(SHAPE)), jnp.asarray(spikes())
    program = lambda run_with: str(  # noqa: E731
        jax.make_jaxpr(lambda xs: model(model.init_states(), xs, engine=run_with)[1][-1])(xs)
    )
    assert model[0].is_linear
    assert "scan[" in program(engine.layerwise)
    assert "scan[" not in program(engine.parallel)


@pytest.mark.parametrize("run_with", ENGINES)
def test_half_precision_spikes_are_counted_beyond_its_integers(run_with):
    """bfloat16 knows 256, but not 257."""
    state, out = run(jnp.ones((300, 1), jnp.bfloat16), engine=run_with)
    assert (out.dtype, state.count.dtype) == (jnp.bfloat16, jnp.float32)
    assert state.count.tolist() == [300]


def test_it_reads_out_the_rate_of_a_network(getkey):
    model = snn.Sequential(snn.LIF(3, 0.9), snn.SpikeCounter(3))
    _, outs = model(model.init_states(), jax.random.uniform(getkey(), (20, 3)))
    np.testing.assert_array_equal(outs[-1][-1], outs[0].sum(0))
    assert 0 < outs[0].sum() < outs[0].size
