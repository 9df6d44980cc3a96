"""Threshold, spike and reset, in every combination, against a reference in NumPy that carries its own derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate

from .reference import neuron


pytestmark = pytest.mark.full


RESETS = ["subtract", "zero", "value", "none"]
DELAYS = [False, True, "undone"]
# Powers of two throughout: all arithmetic is exact, and membranes land exactly on the threshold of 1.
GRID = {"gain": 1.0, "decay_mem": 0.5, "threshold": 1.0, "v_reset": 0.25, "amplitude": 2.0}


def firing(reset, p, **options):
    value = p["v_reset"] if reset == "value" else reset
    return snn.Firing(p["threshold"], value, amplitude=p.get("amplitude"), **options)


def run(firing, p, xs, v):
    """A membrane that decays and adds its input, step by step: outputs and the last membrane."""
    outs = []
    for x in xs:
        v, z, _ = firing.fire(v, lambda v, x=x: p["decay_mem"] * v + p["gain"] * x)
        outs.append(firing.output(z, z.dtype))
    return jnp.stack(outs), v


@pytest.fixture
def inputs(x64):
    """Inputs and first membranes on a grid of halves, some of them above threshold from the start."""
    random = np.random.default_rng(0)
    return random.integers(-1, 5, (8, 64)) / 2, random.integers(-2, 6, 64) / 2


@pytest.mark.parametrize("spike_at_threshold", [False, True])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset_delay", DELAYS)
@pytest.mark.parametrize("reset", RESETS)
def test_spikes_membranes_and_gradients_follow_the_equations(
    inputs, reset, reset_delay, detach_reset, spike_at_threshold
):
    xs, v = inputs
    options = {"reset_delay": reset_delay, "detach_reset": detach_reset, "spike_at_threshold": spike_at_threshold}
    given = {name: value for name, value in GRID.items() if reset == "value" or name != "v_reset"}
    outs, last, _ = neuron(xs, v, v, given, reset=reset, **options)
    weights = np.cos(np.arange(xs.size)).reshape(xs.shape)

    def loss(p):
        found, last = run(firing(reset, p, **options), p, jnp.asarray(xs), jnp.asarray(v))
        return jnp.sum(weights * found) + jnp.sum(weights[0] * last), (found, last)

    gradients, (found, found_last) = jax.grad(loss, has_aux=True)({k: jnp.asarray(x) for k, x in given.items()})
    np.testing.assert_array_equal(found, [out.value for out in outs])
    np.testing.assert_array_equal(found_last, last.value)
    assert 0 < np.count_nonzero(found) < found.size
    expected = sum(out.tangent @ weight for out, weight in zip(outs, weights, strict=True)) + last.tangent @ weights[0]
    np.testing.assert_allclose(list(gradients.values()), [expected[list(given).index(k)] for k in gradients], rtol=1e-9)
    assert np.all(expected != 0)


def results(inputs, reset, **options):
    xs, v = inputs
    return run(firing(reset, GRID, **options), GRID, jnp.asarray(xs), jnp.asarray(v))


@pytest.mark.parametrize("reset", RESETS)
def test_the_grid_has_membranes_on_the_threshold(inputs, reset):
    assert np.any(results(inputs, reset)[0] != results(inputs, reset, spike_at_threshold=True)[0])


def test_the_three_delays_and_four_resets_are_different_rules(inputs):
    found = {np.concatenate(results(inputs, r, reset_delay=d), axis=None).tobytes() for r in RESETS for d in DELAYS}
    assert len(found) == len(RESETS) * len(DELAYS) - 2  # without a reset nothing can be delayed


@pytest.mark.parametrize(("spike_at_threshold", "expected"), [(False, 0.0), (True, 1.0)])
def test_a_membrane_on_the_threshold_spikes_only_if_asked_to(spike_at_threshold, expected):
    rule = snn.Firing(0.5, spike_at_threshold=spike_at_threshold)
    v, z, _ = rule.fire(jnp.array([0.5]), lambda v: v)
    assert z.tolist() == [expected]
    assert v.tolist() == [0.5 - 0.5 * expected]


def test_a_detached_reset_hides_the_spike_from_the_gradient():
    def after(v, detach):
        rule = snn.Firing(1.0, detach_reset=detach, surrogate=surrogate.StraightThrough())
        return rule.fire(v, lambda v: v)[0]

    assert jax.grad(after)(1.5, True) == 1.0
    assert jax.grad(after)(1.5, False) == 0.0  # v - H(v - 1), with a derivative of 1 for H


@pytest.mark.parametrize("reset_delay", [False, True])
def test_only_the_winner_spikes_and_the_first_of_equals_wins(reset_delay):
    rule = snn.Firing(1.0, winner_take_all=True, reset_delay=reset_delay)
    spikes = lambda v: rule.fire(jnp.zeros(len(v)), lambda _: jnp.array(v))[1].tolist()  # noqa: E731
    assert spikes([1.5, 2.5, 2.0]) == [0, 1, 0]
    assert spikes([2.0, 3.0, 3.0]) == [0, 1, 0]
    assert spikes([0.5, 0.9, 0.1]) == [0, 0, 0]


def test_the_winner_is_the_furthest_above_its_own_threshold():
    rule = snn.Firing(jnp.array([1.0, 5.0]), winner_take_all=True)
    assert rule.fire(jnp.zeros(2), lambda _: jnp.array([2.0, 5.5]))[1].tolist() == [1, 0]


def test_the_gradient_of_winner_take_all_is_that_of_the_winner(inputs):
    xs, v = inputs
    xs = xs + 0.01 * np.arange(64)  # no ties
    p = {name: GRID[name] for name in ("gain", "decay_mem", "threshold")}
    outs, *_ = neuron(xs, v, v, p, reset="subtract", winner_take_all=True)

    def count(p):
        return run(firing("subtract", p, winner_take_all=True), p, jnp.asarray(xs), jnp.asarray(v))[0].sum()

    value, gradients = jax.value_and_grad(count)({k: jnp.asarray(x) for k, x in p.items()})
    assert value == sum(out.value.sum() for out in outs) > 0
    expected = sum(out.tangent.sum(1) for out in outs)
    np.testing.assert_allclose([gradients[k] for k in p], expected, rtol=1e-9)


def test_winner_take_all_is_for_one_axis_of_neurons():
    with pytest.raises(ValueError, match=r"winner_take_all needs one axis of neurons, found .* \(2, 3\)"):
        snn.Firing(winner_take_all=True).fire(jnp.zeros((2, 3)), lambda v: v)


def test_an_amplitude_scales_what_goes_downstream_and_not_the_reset():
    rule = snn.Firing(1.0, amplitude=jnp.array([3.0, 0.5]))
    v, z, _ = rule.fire(jnp.array([1.5, 1.5]), lambda v: v)
    assert v.tolist() == [0.5, 0.5]
    assert rule.output(z, jnp.dtype("bfloat16")).tolist() == [3.0, 0.5]
    assert rule.output(z, jnp.dtype("bfloat16")).dtype == jnp.bfloat16


@pytest.mark.parametrize("threshold", [1, 1.0, np.float64(1.0)])
def test_thresholds_resets_and_amplitudes_are_strongly_typed_leaves(threshold):
    rule = snn.Firing(threshold, 0, amplitude=2)
    leaves = jax.tree.leaves(rule)
    assert len(leaves) == 3
    assert all(leaf.dtype == jnp.float32 and not leaf.weak_type for leaf in leaves)


@pytest.mark.parametrize("delay", [0, 1, False, True, np.bool_(True)])
def test_a_truth_value_means_the_rule_that_it_is_equal_to(unchecked, delay):
    assert snn.Firing(reset_delay=delay).reset_delay is bool(delay)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "substract"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'substract'"),
        ({"reset_delay": "twice"}, "reset_delay must be False, True or 'undone', found 'twice'"),
        ({"reset_delay": 2}, "reset_delay must be False, True or 'undone', found 2"),
    ],
)
@pytest.mark.parametrize("kind", [snn.Firing, lambda **options: snn.LIF(3, 0.9, **options), lambda **o: snn.IF(3, **o)])
def test_unknown_options_are_refused(unchecked, kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.parametrize("reset", ["subtract", "zero", 0.2, "none"])
def test_a_membrane_that_is_nan_spikes_nan_where_that_is_asked_for(reset):
    run = lambda neuron: neuron(neuron.init_state(), jnp.array([jnp.nan, 2.0, 0.1]))[1].tolist()  # noqa: E731
    assert run(snn.LIF(3, 0.9, reset=reset)) == [0, 1, 0]
    found = run(snn.LIF(3, 0.9, reset=reset, nan_spikes=True))
    assert found[0] != found[0] and found[1:] == [1, 0]
    gradient = jax.grad(lambda x: snn.Firing(nan_spikes=True).spikes(x, jnp.float32(1.0)))(1.1)
    assert gradient == jax.grad(lambda x: snn.Firing().spikes(x, jnp.float32(1.0)))(1.1) > 0
