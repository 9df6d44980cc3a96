"""States at levels: values, ties, gradients, and where neurons round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate


LEVELS = (-1.0, -0.25, 0.0, 0.5, 2.0)


def test_values_are_the_nearest_levels_and_ties_go_down(getkey):
    x = jnp.concatenate([jax.random.uniform(getkey(), (200,), minval=-3, maxval=4), jnp.array([0.25, 1.25, -0.625])])
    distances = np.abs(np.array(LEVELS)[:, None] - np.asarray(x, np.float64))
    expected = np.array(LEVELS)[distances.argmin(0)]
    found = snn.Quantiser(LEVELS)(x)
    np.testing.assert_array_equal(found, expected.astype(x.dtype))
    assert found[-3:].tolist() == [0.0, 0.5, -1.0]


def test_shapes_dtypes_and_nan_stay():
    quantiser = snn.Quantiser(LEVELS)
    for dtype in (jnp.float16, jnp.float32):
        out = quantiser(jnp.array([[0.3, jnp.nan, jnp.inf]], dtype))
        assert out.dtype == dtype and out.shape == (1, 3)
        assert jnp.isnan(out[0, 1]) and out[0, 2] == 2.0
    assert quantiser(jnp.zeros((0, 3))).shape == (0, 3)
    assert snn.Quantiser([0.5])(jnp.array([-3.0, 9.0])).tolist() == [0.5, 0.5]


def test_the_gradient_passes():
    x = jnp.array([-5.0, 0.1, 0.4, 9.0])
    assert jax.grad(lambda x: (snn.Quantiser(LEVELS)(x) * jnp.arange(4.0)).sum())(x).tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("levels", [(), (0.0, 0.0), (1.0, 0.0), (0.0, jnp.nan)])
def test_levels_that_do_not_rise_are_refused(levels):
    with pytest.raises(ValueError, match="levels must be numbers in rising order"):
        snn.Quantiser(levels)


@pytest.mark.parametrize(
    "neuron",
    [
        snn.LIF(4, [0.9, 0.8], quantise=snn.Quantiser(LEVELS), surrogate=surrogate.ATan()),
        snn.LIF(4, 0.9, reset="none", quantise=snn.Quantiser(LEVELS)),
        snn.Alpha(4, 0.9, 0.8, quantise=snn.Quantiser(LEVELS)),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_states_are_at_levels_before_the_reset(neuron, getkey):
    state = neuron.init_state()
    for x in jax.random.uniform(getkey(), (6, 4)):
        state, _ = neuron(state, x)
        moved = jnp.stack([jnp.asarray(LEVELS), jnp.asarray(LEVELS) - 1.0])
        assert all(bool((jnp.abs(moved - value) == 0).any()) for leaf in jax.tree.leaves(state) for value in leaf)


def test_a_quantised_neuron_is_not_linear():
    assert snn.LIF(3, 0.9, reset="none").is_linear
    assert not snn.LIF(3, 0.9, reset="none", quantise=snn.Quantiser(LEVELS)).is_linear
