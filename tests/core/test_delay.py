"""Delays: whole ones are exact shifts; learned ones against NumPy, finite differences, and data."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnax import engine, snn

from .layers import weighted


pytestmark = pytest.mark.full


NUM_STEPS, SIZE, LONGEST = 9, 4, 3
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed]


def run(layer, xs, state=None, **options):
    state = layer.init_state(xs.shape[1:]) if state is None else state
    states, (out,) = snn.Sequential(layer)([state], xs, **options)
    return states[0], out


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def shifted(x, steps):
    """`(time,)`, a whole number of steps late."""
    return np.concatenate([np.zeros(steps), x])[: len(x)]


def interpolated(x, delay):
    """`(time,)`, read between its two neighbours."""
    whole = int(np.floor(delay))
    part = delay - whole
    return (1 - part) * shifted(x, whole) + part * shifted(x, whole + 1)


def gaussian(x, delay, longest, sigma):
    kernel = np.exp(-(((np.arange(longest + 1) - delay) / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    return sum(weight * shifted(x, steps) for steps, weight in enumerate(kernel))


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("delay", [0, 1, 3, [0, 1, 2, 3], [2, 2, 0, 5]], ids=str)
def test_whole_delays_are_exact_shifts(x64, delay, run_with):
    xs = normal(NUM_STEPS, SIZE)
    layer = snn.Delay(jnp.array(delay))
    assert layer.max_delay == np.max(delay)
    _, out = run(layer, jnp.asarray(xs), engine=run_with)
    delays = np.broadcast_to(delay, SIZE)
    expected = np.stack([shifted(xs[:, n], delays[n]) for n in range(SIZE)], axis=1)
    np.testing.assert_array_equal(out, expected)
    assert not jax.tree.leaves(eqx.filter(layer, eqx.is_inexact_array)), "whole delays do not learn"


def test_delays_of_neurons_in_space_are_exact_shifts(x64):
    xs, delay = normal(NUM_STEPS, 2, 3), np.array([[0, 1, 2], [3, 4, 0]])
    _, out = run(snn.Delay(delay), jnp.asarray(xs))
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(out[(slice(None), *index)], shifted(xs[(slice(None), *index)], delay[index]))


def test_delays_may_be_shared_along_an_axis(x64):
    xs, delay = normal(NUM_STEPS, 2, 3), np.array([[1], [2]])
    _, out = run(snn.Delay(delay), jnp.asarray(xs))
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(
            out[(slice(None), *index)], shifted(xs[(slice(None), *index)], delay[index[0], 0])
        )


def test_a_delay_longer_than_the_sequence_arrives_when_going_on(x64):
    xs = jnp.asarray(normal(NUM_STEPS, SIZE))
    layer = snn.Delay(NUM_STEPS + 2)
    state, out = run(layer, xs)
    assert not jnp.any(out)
    _, late = run(layer, jnp.zeros((NUM_STEPS + 2, SIZE)), state)
    np.testing.assert_array_equal(late[2:], xs)
    assert not jnp.any(late[:2])


DELAYS = [0.0, 0.3, 1.0, 1.75, 2.5, 3.0]


@pytest.mark.parametrize("run_with", ENGINES)
def test_linear_interpolation_reads_the_two_neighbours(x64, run_with):
    xs = normal(NUM_STEPS, len(DELAYS))
    _, out = run(snn.Delay(jnp.array(DELAYS)), jnp.asarray(xs), engine=run_with)
    expected = np.stack([interpolated(xs[:, n], delay) for n, delay in enumerate(DELAYS)], axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("run_with", ENGINES)
def test_gaussian_interpolation_reads_through_a_normalised_kernel(x64, run_with, sigma):
    xs = normal(NUM_STEPS, len(DELAYS))
    layer = snn.Delay(jnp.array(DELAYS), 5, interpolation="gaussian", sigma=sigma)
    _, out = run(layer, jnp.asarray(xs), engine=run_with)
    expected = np.stack([gaussian(xs[:, n], delay, 5, sigma) for n, delay in enumerate(DELAYS)], axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)


def test_one_learned_delay_may_be_shared_by_all(x64):
    xs = normal(NUM_STEPS, SIZE)
    for kind, reference in (("linear", lambda x: interpolated(x, 1.6)), ("gaussian", lambda x: gaussian(x, 1.6, 3, 1))):
        _, out = run(snn.Delay(1.6, 3, interpolation=kind), jnp.asarray(xs))
        expected = np.stack([reference(x) for x in xs.T], axis=1)
        np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("run_with", [engine.stepwise, engine.layerwise])
@pytest.mark.parametrize("interpolation", ["linear", "gaussian"])
def test_gradients_of_delays_equal_finite_differences(x64, interpolation, run_with):
    xs = jnp.asarray(normal(NUM_STEPS, SIZE))
    layer = snn.Delay(jnp.array([0.4, 1.3, 1.9, 2.6]), LONGEST, interpolation=interpolation)

    @jax.jit
    def value(delay):
        return weighted(run(eqx.tree_at(lambda layer: layer.delay, layer, delay), xs, engine=run_with))

    gradient = jax.grad(value)(layer.delay)
    for neuron in range(SIZE):
        step = jnp.zeros(SIZE).at[neuron].set(1e-6)
        expected = (value(layer.delay + step) - value(layer.delay - step)) / 2e-6
        assert abs(expected) > 1e-3
        np.testing.assert_allclose(gradient[neuron], expected, rtol=1e-6)


@pytest.mark.parametrize("interpolation", ["linear", "gaussian"])
@pytest.mark.parametrize("kind", ["delay", "delayed linear"])
def test_whole_delays_and_those_beyond_the_bounds_can_still_learn(x64, interpolation, kind):
    """At a whole delay the slope is that of one side; beyond a bound it is that at the bound."""
    xs = jnp.asarray(normal(NUM_STEPS, 7))
    inside = jnp.array([0.0, 1.0, 2.0, 3.0, 0.0, 3.0, 3.0])
    outside = inside.at[4:].set(jnp.array([-0.7, 3.4, 9.0]))
    layer = snn.Delay(inside, LONGEST, interpolation=interpolation)
    if kind == "delayed linear":
        options = {"interpolation": interpolation, "use_bias": False, "key": jax.random.key(0)}
        layer = snn.DelayedLinear(7, 1, LONGEST, delay=inside[None], **options)
        inside, outside = inside[None], outside[None]

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def value(delay):
        return weighted(run(eqx.tree_at(lambda layer: layer.delay, layer, delay), xs)[1])

    (total, gradient), (same, expected) = value(outside), value(inside)
    np.testing.assert_allclose(total, same, rtol=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)
    assert jnp.all(gradient != 0), "a delay that cannot learn its way back"


def test_the_slope_at_a_whole_delay_is_the_difference_of_neighbours(x64):
    xs = normal(NUM_STEPS, 1)
    layer = snn.Delay(jnp.array([2.0]), LONGEST)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda layer: weighted(run(layer, jnp.asarray(xs))[1])))(layer).delay
    slope = shifted(xs[:, 0], 3) - shifted(xs[:, 0], 2)
    np.testing.assert_allclose(gradient[0], slope @ np.cos(np.arange(1.0, NUM_STEPS + 1)), rtol=1e-12)


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("kind", ["whole", "one for all", "linear", "gaussian"])
def test_a_delayed_linear_layer_is_a_double_loop_over_synapses(x64, kind, run_with):
    outputs, inputs, random = 3, SIZE, np.random.default_rng(3)
    delay = random.uniform(0, LONGEST, (outputs, inputs))
    options = {"interpolation": kind} if kind in ("linear", "gaussian") else {}
    if kind == "whole":
        delay = random.integers(0, LONGEST + 1, (outputs, inputs))
    elif kind == "one for all":
        delay = np.array(2)
    layer = snn.DelayedLinear(inputs, outputs, LONGEST, delay=jnp.asarray(delay), key=jax.random.key(0), **options)
    xs = normal(NUM_STEPS, inputs)
    _, out = run(layer, jnp.asarray(xs), engine=run_with)
    expected = np.zeros((NUM_STEPS, outputs))
    for o in range(outputs):
        for i in range(inputs):
            d = np.broadcast_to(delay, (outputs, inputs))[o, i]
            late = gaussian(xs[:, i], d, LONGEST, 1.0) if kind == "gaussian" else interpolated(xs[:, i], float(d))
            expected[:, o] += float(layer.weight[o, i]) * late
        expected[:, o] += float(layer.bias[o])
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)
    assert np.all(expected[LONGEST:] != 0)


def test_a_delayed_linear_layer_without_delay_is_a_linear_layer(x64, getkey):
    layer = snn.DelayedLinear(SIZE, 3, 0, use_bias=False, key=getkey())
    xs = jnp.asarray(normal(NUM_STEPS, SIZE))
    assert (layer.max_delay, layer.bias, layer.delay.shape) == (0, None, (3, SIZE))
    np.testing.assert_allclose(run(layer, xs)[1], xs @ layer.weight.T, rtol=1e-12)


def test_gradients_of_a_delayed_linear_layer_equal_finite_differences(x64, getkey):
    layer = snn.DelayedLinear(3, 2, LONGEST, key=getkey())
    layer = eqx.tree_at(lambda layer: layer.delay, layer, jnp.array([[0.4, 1.3, 1.9], [2.6, 0.7, 1.2]]))
    xs = jnp.asarray(normal(NUM_STEPS, 3))
    value = eqx.filter_jit(lambda layer: weighted(run(layer, xs)[1]))
    gradients = eqx.filter_jit(eqx.filter_grad(value))(layer)
    for name in ("weight", "delay", "bias"):
        where = lambda layer, name=name: getattr(layer, name)  # noqa: E731
        leaf = where(layer)
        for index in np.ndindex(leaf.shape):
            step = jnp.zeros_like(leaf).at[index].set(1e-6)
            up, down = (value(eqx.tree_at(where, layer, leaf + sign * step)) for sign in (1, -1))
            assert abs(up - down) > 1e-9
            np.testing.assert_allclose(where(gradients)[index], (up - down) / 2e-6, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("interpolation", ["linear", "gaussian"])
@pytest.mark.parametrize("start", [0.5, 4.8, 7.5], ids=["too short", "too long", "beyond the bound"])
def test_a_delay_is_learned_from_data(getkey, interpolation, start):
    target = jnp.array([1.3, 2.6, 3.1])
    time = jnp.arange(60.0)[:, None]
    xs = jnp.sin(0.35 * time + jnp.arange(3.0)[None]) + 0.3 * jnp.cos(0.6 * time)

    def layer(delay):
        built = snn.Delay(jnp.zeros(3), 6, interpolation=interpolation)
        return eqx.tree_at(lambda built: built.delay, built, delay)

    wanted = run(layer(target), xs)[1]
    optimiser = optax.adam(0.1)

    @jax.jit
    def learn(delay):
        def step(carry, _):
            delay, state = carry
            error, gradient = jax.value_and_grad(lambda delay: jnp.mean((run(layer(delay), xs)[1] - wanted) ** 2))(
                delay
            )
            with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
                updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(delay, updates), state), error

        return jax.lax.scan(step, (delay, optimiser.init(delay)), None, length=250)

    (delay, _), errors = learn(jnp.full(3, start))
    np.testing.assert_allclose(delay, target, atol=0.02)
    assert errors[0] > 1e-2 > 1e-4 > errors[-1]


def test_delays_of_synapses_are_drawn_over_the_whole_range(getkey):
    layer = snn.DelayedLinear(30, 40, 5, key=getkey())
    assert 0 <= layer.delay.min() < 0.1
    assert 4.9 < layer.delay.max() <= 5
    other = snn.DelayedLinear(30, 40, 5, key=getkey())
    assert jnp.all(layer.delay != other.delay)
    assert jnp.all(layer.weight != other.weight)
    assert jnp.abs(layer.weight).max() <= 30**-0.5


def test_delays_may_be_traced_when_the_longest_is_given():
    found = jax.jit(lambda delay: run(snn.Delay(delay, 3), jnp.eye(6, 1))[1])(jnp.array([2.0]))
    assert found[:, 0].tolist() == [0, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="max_delay must be given where the delays are not known"):
        jax.jit(lambda delay: run(snn.Delay(delay), jnp.eye(6, 1))[1])(jnp.array([2.0]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: snn.Delay(-1), "delays lie between 0 and max_delay=.*found -1 to -1"),
        (lambda: snn.Delay(jnp.array([0.5, -0.5])), "found -0.5 to 0.5"),
        (lambda: snn.Delay(4, 3), "delays lie between 0 and max_delay=3 time steps, found 4 to 4"),
        (lambda: snn.Delay(3.5, 3), "max_delay=3 time steps, found 3.5 to 3.5"),
        (lambda: snn.Delay(1.0, interpolation="cubic"), "interpolation must be 'linear' or 'gaussian', found 'cubic'"),
        (lambda: snn.Delay(1.0, sigma=0.0), "sigma must be a positive number of time steps, found 0.0"),
        (
            lambda: snn.DelayedLinear(2, 3, 4, delay=jnp.ones((2, 3)), key=jax.random.key(0)),
            r"delays of \(3, 2\) synapses must be one or have that shape, found \(2, 3\)",
        ),
        (lambda: snn.DelayedLinear(2, 3, 4, delay=5, key=jax.random.key(0)), "max_delay=4 time steps, found 5 to 5"),
        (lambda: snn.DelayedLinear(2, 3, -1, key=jax.random.key(0)), "between 0 and max_delay=-1"),
        (lambda: snn.Delay(jnp.array([1, 2])).init_state((3,)), r"\(3,\) cannot have parameters of shape \(2,\)"),
        (lambda: snn.Delay(1).init_state(), "pass input_shape to init_states"),
        (
            lambda: snn.DelayedLinear(2, 3, 4, key=jax.random.key(0)).init_state((3,)),
            r"built for neurons of shape \(2,\), but its input has shape \(3,\)",
        ),
        (lambda: snn.Delay(1)(snn.Delay(1).init_state((3,)), jnp.ones(2)), r"shape \(3,\), but .* \(2,\) .*jax.vmap"),
        (lambda: snn.Delay(float("nan"), 3), "delay must be a number, found nan"),
    ],
)
def test_what_is_no_delay_is_refused(unchecked, build, message):
    with pytest.raises(ValueError, match=message):
        build()
