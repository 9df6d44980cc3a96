"""Parametric LIF neurons: a rate of decay that is a sigmoid, and learns."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnax import snn

from .reference import Dual
from .test_adaptation import agree, differentiable, fire, run


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 6, 7
GIVEN = {"w": -0.4, "threshold": 0.7, "v_leak": 0.11, "amplitude": 1.7}


def with_raw(layer, w):
    return eqx.tree_at(lambda layer: layer.decay_mem.value, layer, jnp.asarray(w))


def sigmoid(x: Dual) -> Dual:
    value = 1 / (1 + np.exp(-x.value))
    return Dual(value, value * (1 - value) * x.tangent)


def reference(input_scale, **options):
    def steps(p, state, drives):
        v, rate, leak, outs = state["v"], sigmoid(p["w"]), p["v_leak"], []
        for x in drives:

            def charge(v, x=x):
                if input_scale == "unit":
                    return v - rate * (v - leak) + x
                return v + rate * (leak - v + x)

            v, z, _ = fire(v, charge, p["threshold"], p.get("v_reset", 0.0), **options)
            outs.append(z * p["amplitude"])
        return outs, {"v": v}

    return steps


def check(input_scale="one_minus_decay", reset="zero", **options):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 2.5, (NUM_STEPS, SIZE)) * (2 if input_scale == "one_minus_decay" else 1)
    first = {"v": random.uniform(-0.5, 1.5, SIZE)}
    given = GIVEN | ({"v_reset": -0.15} if reset == "value" else {})

    def build(p):
        target = p["v_reset"] if reset == "value" else reset
        choices = {"v_leak": p["v_leak"], "amplitude": p["amplitude"], "input_scale": input_scale, **options}
        return with_raw(snn.PLIF(SIZE, 2.0, p["threshold"], target, **choices), p["w"])

    expected = {"reset": reset, "detach_reset": False, "at_threshold": True, **options}
    agree(build, given, first, xs, reference(input_scale, **expected))


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
def test_spikes_states_and_gradients_follow_the_equations(x64, reset, input_scale):
    check(input_scale, reset)


@pytest.mark.parametrize("reset", ["subtract", "zero", "value"])
def test_a_reset_may_be_detached(x64, reset):
    check(reset=reset, detach_reset=True)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_delayed_resets_follow_their_equations(x64, reset, keep_input, reset_delay):
    check(reset=reset, reset_delay=reset_delay, keep_input=keep_input)


def test_a_membrane_on_the_threshold_spikes_unless_asked_otherwise():
    for options, expected in (({}, 1.0), ({"spike_at_threshold": False}, 0.0)):
        layer = snn.PLIF(1, 2.0, **options)
        assert layer(layer.init_state(), jnp.array([2.0]))[1].item() == expected


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
def test_gradients_below_threshold_equal_finite_differences(x64, getkey, input_scale):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3,))

    def membrane(w, v_leak, first, xs):
        layer = with_raw(snn.PLIF(3, 2.0, 1e9, v_leak=v_leak, input_scale=input_scale), w)
        return jnp.sin(run(layer, snn.NeuronState(first), xs)[0].v).sum()

    differentiable(membrane, np.array([-1.0, 0.0, 1.5]), np.array([0.1, 0.2, -0.3]), first, xs)


@pytest.mark.parametrize("tau", [1.01, 2.0, 50.0, 1e6])
def test_the_rate_is_a_sigmoid_that_starts_at_one_over_the_time_constant(x64, tau):
    decay = snn.PLIF(3, tau).decay_mem
    assert isinstance(decay, snn.SigmoidRate)
    np.testing.assert_allclose(decay.value, -np.log(tau - 1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(decay.rate, 1 / tau, rtol=1e-12)
    np.testing.assert_allclose(decay.factor, 1 - 1 / tau, rtol=1e-12)
    x, s = jnp.array([0.3, -2.0]), jnp.array([1.0, 0.5])
    np.testing.assert_allclose(decay.leak(s), (1 - 1 / tau) * s, rtol=1e-12)
    np.testing.assert_allclose(decay.relax(s, x), s + (x - s) / tau, rtol=1e-12)


@pytest.mark.parametrize(("tau", "dt"), [(20e-3, 1e-3), (20e-3, 2e-3), (5e-3, 1e-3)])
def test_a_time_constant_in_seconds_is_the_first_of_the_rates(x64, tau, dt):
    layer = snn.PLIF.from_tau(3, tau, dt=dt, threshold=0.7)
    assert isinstance(layer.decay_mem, snn.SigmoidRate)
    np.testing.assert_allclose(layer.decay_mem.rate, dt / tau, rtol=1e-12)
    assert float(layer.firing.threshold) == 0.7


@pytest.mark.parametrize("w", [-60.0, -10.0, 0.0, 10.0, 30.0])
def test_the_gradient_is_never_dead_and_the_factor_never_leaves_its_range(x64, w):
    def membrane(w):
        layer = with_raw(snn.PLIF(1, 2.0, 1e9), w)
        return run(layer, snn.NeuronState(jnp.ones(1)), np.full((2, 1), 3.0))[0].v[0]

    gradient = jax.grad(membrane)(w)
    assert jnp.isfinite(gradient)
    assert gradient > 0
    factor = float(with_raw(snn.PLIF(1, 2.0), w).decay_mem.factor)
    assert 0 <= factor <= 1


def test_the_gradient_is_not_dead_in_single_precision():
    for w in (-80.0, -20.0, 15.0):
        gradient = jax.grad(lambda w: snn.SigmoidRate(w).leak(jnp.float32(1.0)))(jnp.float32(w))
        assert gradient < 0
        assert jnp.isfinite(gradient)


@pytest.mark.parametrize("first", [1.2, 50.0])
def test_a_decay_is_learned_from_membranes(x64, first):
    xs = np.random.default_rng(0).normal(size=(30, 4))
    target = run(layer := snn.LI(4, 0.8, input_scale="one_minus_decay"), layer.init_state(), xs)[1]

    def loss(layer):
        def step(state, x):
            state, _ = layer(state, x)
            return state, state.v

        return jnp.mean((jax.lax.scan(step, layer.init_state(), jnp.asarray(xs))[1] - target) ** 2)

    layer = snn.PLIF(4, first, 1e9)
    assert loss(layer) > 1e-3
    optimiser = optax.adam(0.1)
    where = lambda layer: layer.decay_mem.value  # noqa: E731

    @jax.jit
    def train(w):
        def step(carry, _):
            w, state = carry
            gradient = jax.grad(lambda w: loss(eqx.tree_at(where, layer, w)))(w)
            with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
                updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimiser.init(w)), None, length=300)[0][0]

    with jax.numpy_dtype_promotion("standard"):  # Adam counts in int32
        learned = eqx.tree_at(where, layer, train(where(layer)))
    np.testing.assert_allclose(learned.decay_mem.factor, 0.8, atol=1e-3)


def test_rates_thresholds_and_resets_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 3, (12, 3))
    w, threshold, reset = np.array([[-1.0, 0.0, 1.0], [0.7, 0.8, 1.2], [0.0, 0.1, -0.2]])
    together = with_raw(snn.PLIF(3, 2.0, threshold, reset), w)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = with_raw(snn.PLIF(1, 2.0, threshold[n], reset[n]), w[n])
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose(state.v[n], alone.v[0], rtol=1e-12)


@pytest.mark.parametrize("tau", [1.0, 0.5, 0.0, -3.0, float("nan")])
def test_a_time_constant_must_be_more_than_one_step(tau):
    with pytest.raises(ValueError, match=f"init_tau must be more than one time step, found {tau}"):
        snn.PLIF(3, tau)


def test_a_time_constant_below_the_time_step_is_refused():
    with pytest.raises(ValueError, match=r"init_tau must be more than one time step, found 0\.5"):
        snn.PLIF.from_tau(3, 1e-3, dt=2e-3)


@pytest.mark.parametrize("rate", [0, 1, 1.5, -0.1])
def test_a_rate_lies_within_its_bounds(rate):
    with pytest.raises(ValueError, match=f"a rate must be between 0 and 1, both excluded, found {rate}"):
        snn.SigmoidRate.from_rate(rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_scale": "double"}, "input_scale must be 'unit' or 'one_minus_decay', found 'double'"),
        ({"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        ({"reset_delay": "twice"}, "reset_delay must be False, True or 'undone', found 'twice'"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.PLIF(**{"shape": 3, **options})
