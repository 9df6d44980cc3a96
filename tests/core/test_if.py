"""Integrate-and-fire neurons count: their spikes and membranes have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate

from .reference import neuron


def run(layer, xs):
    model = snn.Sequential(layer)
    states, (spikes,) = model(model.init_states(), jnp.asarray(xs))
    return np.asarray(spikes), states[0].v


@pytest.mark.parametrize("reset_delay", [False, True, "undone"])
def test_nothing_is_forgotten(x64, reset_delay):
    xs = np.random.default_rng(0).integers(0, 4, (20, 5)) / 4
    spikes, v = run(snn.IF(5, 1.0, reset_delay=reset_delay), xs)
    # Delayed, the reset of a spike in the last step is still to come.
    resets = spikes[:-1].sum(0) if reset_delay is True else spikes.sum(0)
    assert spikes.sum() > 0
    np.testing.assert_array_equal(v + resets, xs.sum(0))


def test_the_firing_rate_is_the_input_over_the_threshold(x64):
    drive = np.array([0.125, 0.25, 0.5])
    spikes, _ = run(snn.IF(3, 2.0, spike_at_threshold=True), np.tile(drive, (64, 1)))
    np.testing.assert_array_equal(spikes.mean(0), drive / 2)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
@pytest.mark.parametrize("reset_delay", [False, True, "undone"])
def test_an_if_neuron_is_a_lif_neuron_without_decay(x64, reset, reset_delay, detach_reset):
    xs, zeros = np.random.default_rng(3).uniform(-0.3, 1.0, (7, 4)), np.zeros(4)
    given = {"gain": 1.0, "threshold": 0.8, "decay_mem": 1.0} | ({"v_reset": 0.3} if reset == "value" else {})
    options = {"reset_delay": reset_delay, "detach_reset": detach_reset}
    outs, last, _ = neuron(xs, zeros, zeros, given, reset=reset, **options)

    def total(gain, threshold):
        layer = snn.IF(4, threshold, 0.3 if reset == "value" else reset, **options)
        spikes, v = [], layer.init_state()
        for x in xs:
            v, z = layer(v, gain * x)
            spikes.append(z)
        return jnp.stack(spikes).sum() + v.v.sum(), (jnp.stack(spikes), v.v)

    gradients, (spikes, v) = jax.grad(total, argnums=(0, 1), has_aux=True)(jnp.array(1.0), jnp.array(0.8))
    np.testing.assert_array_equal(spikes, [out.value for out in outs])
    np.testing.assert_allclose(v, last.value, rtol=1e-12, atol=1e-14)
    expected = sum(out.tangent.sum(1) for out in outs) + last.tangent.sum(1)
    np.testing.assert_allclose(gradients, expected[:2], rtol=1e-9)
    assert 0 < spikes.sum() < spikes.size
    assert np.all(expected[:2] != 0)


def test_the_surrogate_is_the_one_that_was_given():
    layer = snn.IF(1, surrogate=surrogate.StraightThrough())
    assert jax.grad(lambda x: layer(layer.init_state(), x)[1][0])(jnp.zeros(1)).tolist() == [1.0]
