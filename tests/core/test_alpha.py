"""Alpha neurons: the closed form of their response, and their recurrence with its derivatives."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .reference import detached, spike
from .test_adaptation import agree, differentiable, inverse, log, run


SIZE, NUM_STEPS = 6, 7
GIVEN = {"decay_exc": 0.85, "decay_inh": 0.6, "threshold": 0.8, "amplitude": 1.7}


def reference(reset, detach_reset, at_threshold=False):
    def steps(p, state, drives):
        v, e, h, outs = state["v"], state["i_exc"], state["i_inh"], []
        theta, alpha, beta = p["threshold"], p["decay_exc"], p["decay_inh"]
        tau = log(alpha) * inverse(log(beta) - log(alpha)) + 1.0
        for x in drives:
            late = spike(v - theta, at_threshold)
            late = detached(late) if detach_reset else late
            old = h
            e, h = alpha * e + x, beta * h - x
            v = tau * (e + h)
            if reset == "zero":
                v, e, h = v - late * v, e - late * e, h - late * h
            elif reset == "subtract":
                v, e, h = v + late * old, e - late * theta, h - late * h
            outs.append(spike(v - theta, at_threshold) * p["amplitude"])
        return outs, {"v": v, "i_exc": e, "i_inh": h}

    return steps


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_spikes_states_and_gradients_follow_the_equations(x64, reset, detach_reset):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 2.5, (NUM_STEPS, SIZE))
    first = {"v": random.uniform(-0.5, 1.5, SIZE), "i_exc": random.uniform(0, 1, SIZE)}
    first["i_inh"] = random.uniform(-1, 0, SIZE)

    def build(p):
        options = {"amplitude": p["amplitude"], "detach_reset": detach_reset}
        return snn.Alpha(SIZE, p["decay_exc"], p["decay_inh"], p["threshold"], reset, **options)

    agree(build, GIVEN, first, xs, reference(reset, detach_reset))


def normalisation(alpha, beta):
    return np.log(alpha) / (np.log(beta) - np.log(alpha)) + 1


def membranes(layer, xs):
    def step(state, x):
        state, _ = layer(state, x)
        return state, state.v

    return np.asarray(jax.lax.scan(step, layer.init_state(), jnp.asarray(xs))[1])


@pytest.mark.parametrize(("alpha", "beta"), [(0.9, 0.8), (0.95, 0.3), (0.99, 0.98)])
def test_the_response_to_one_input_is_a_difference_of_two_exponentials(x64, alpha, beta):
    xs = np.zeros((200, 1))
    xs[0] = 1.3
    found = membranes(snn.Alpha(1, alpha, beta, 1e9), xs)[:, 0]
    t = np.arange(200)
    np.testing.assert_allclose(found, normalisation(alpha, beta) * 1.3 * (alpha**t - beta**t), rtol=1e-10, atol=1e-13)
    assert found[0] == 0
    assert np.all(found[1:] > 0)
    # The slope is zero where alpha^t ln(alpha) = beta^t ln(beta).
    peak = np.log(np.log(beta) / np.log(alpha)) / np.log(alpha / beta)
    assert abs(np.argmax(found) - peak) < 1


def test_the_membrane_is_the_convolution_of_its_input_with_the_response(x64):
    xs, t = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40)
    kernel = normalisation(0.9, 0.7) * (0.9**t - 0.7**t)
    expected = np.stack([np.convolve(x, kernel)[:40] for x in xs.T], axis=1)
    np.testing.assert_allclose(membranes(snn.Alpha(3, 0.9, 0.7, 1e9), xs), expected, rtol=1e-9, atol=1e-12)


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3, 3))

    def membrane(decay_exc, decay_inh, currents, xs):
        layer = snn.Alpha(3, decay_exc, decay_inh, 1e9)
        state, _ = run(layer, snn.AlphaState(jnp.zeros(3), *currents), xs)
        return jnp.sin(state.v + 2 * state.i_exc + 3 * state.i_inh).sum()

    differentiable(membrane, np.array([0.9, 0.8, 0.95]), np.array([0.6, 0.5, 0.7]), first[:2], xs)


@pytest.mark.parametrize(("reset", "state"), [("zero", (0.0, 0.0, 0.0)), ("none", None), ("subtract", None)])
def test_a_reset_acts_one_time_step_after_the_spike(x64, reset, state):
    layer = snn.Alpha(1, 0.9, 0.5, 1.0, reset)
    xs = np.array([[8.0], [0.0], [3.0]])
    tau = normalisation(0.9, 0.5)
    after, spikes = run(layer, layer.init_state(), xs[:2])
    assert spikes[:, 0].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(after.v, tau * (0.9 - 0.5) * 8, rtol=1e-12)  # not yet reset
    after, _ = run(layer, after, xs[2:])
    e, h = 0.81 * 8 + 3, -0.25 * 8 - 3
    if reset == "none":
        state = tau * (e + h), e, h
    elif reset == "subtract":
        state = tau * (e + h) - 0.5 * 8, e - 1.0, 0.0
    np.testing.assert_allclose([after.v[0], after.i_exc[0], after.i_inh[0]], state, rtol=1e-12, atol=1e-14)


def test_decays_and_thresholds_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 3, (12, 3))
    exc, inh, threshold = np.array([[0.9, 0.8, 0.95], [0.6, 0.5, 0.7], [0.7, 0.8, 1.2]])
    together = snn.Alpha(3, exc, inh, threshold)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.Alpha(1, exc[n], inh[n], threshold[n])
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose(state.v[n], alone.v[0], rtol=1e-12)


@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_in_seconds_give_exponential_decays(x64, dt):
    layer = snn.Alpha.from_tau(3, 20e-3, 5e-3, dt=dt, threshold=0.7)
    np.testing.assert_allclose(layer.decay_exc.factor, np.exp(-dt / 20e-3), rtol=1e-15)
    np.testing.assert_allclose(layer.decay_inh.factor, np.exp(-dt / 5e-3), rtol=1e-15)
    assert float(layer.firing.threshold) == 0.7


@pytest.mark.parametrize(("tau_exc", "tau_inh", "dt"), [(0.0, 1e-3, 1e-3), (2e-3, -1e-3, 1e-3), (2e-3, 1e-3, 0.0)])
def test_time_constants_must_be_positive(tau_exc, tau_inh, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.Alpha.from_tau(3, tau_exc, tau_inh, dt=dt)


@pytest.mark.parametrize(("exc", "inh"), [(0.8, 0.9), (0.8, 0.8), (0.8, 0.0), (0.8, -0.1)])
def test_the_falling_part_must_be_the_faster_one(exc, inh):
    with pytest.raises(ValueError, match=f"Alpha needs 0 < decay_inh < decay_exc, found .*={inh}, decay_exc={exc}"):
        snn.Alpha(3, exc, inh)


@pytest.mark.parametrize(("tau_exc", "tau_inh"), [(5e-3, 20e-3), (5e-3, 5e-3)])
def test_equal_or_exchanged_time_constants_are_refused_as_decays_are(tau_exc, tau_inh):
    with pytest.raises(ValueError, match="Alpha needs 0 < decay_inh < decay_exc"):
        snn.Alpha.from_tau(3, tau_exc, tau_inh, dt=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "twice"}, "reset must be 'zero', 'subtract' or 'none', found 'twice'"),
        ({"reset": 0.5}, "reset must be 'zero', 'subtract' or 'none', found 0.5"),
        (
            {"reset_delay": False},
            "the reset of Alpha always waits one time step: reset_delay must be True, found False",
        ),
        ({"reset_delay": "undone"}, "reset_delay must be True, found 'undone'"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.Alpha(**{"shape": 3, "decay_exc": 0.9, "decay_inh": 0.8, **options})
