"""Sigma-delta neurons: their spikes, filtered, are their input; and their recurrence with its derivatives."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .reference import detached, spike
from .test_adaptation import agree, differentiable, run


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 6, 7
GIVEN = {"decay_mem": 0.9, "decay_syn": 0.5, "decay_feedback": 0.7, "threshold": 0.6, "amplitude": 1.7}


def reference(detach_reset, at_threshold):
    def steps(p, state, drives):
        v, i, s, outs = state["v"], state["i"], state["s"], []
        for x in drives:
            i = p["decay_syn"] * i + x
            v = p["decay_mem"] * v + i - s
            z = spike(v - p["threshold"], at_threshold)
            s = p["decay_feedback"] * s + (detached(z) if detach_reset else z)
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i, "s": s}

    return steps


@pytest.mark.parametrize("at_threshold", [False, True])
@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
def test_spikes_states_and_gradients_follow_the_equations(x64, detach_reset, at_threshold):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 2.0, (NUM_STEPS, SIZE))
    first = {k: random.uniform(-0.5, 0.8, SIZE) for k in ("v", "i", "s")}

    def build(p):
        decays = [p[f"decay_{each}"] for each in ("mem", "syn", "feedback")]
        options = {"detach_reset": detach_reset, "spike_at_threshold": at_threshold, "amplitude": p["amplitude"]}
        return snn.SigmaDelta(SIZE, decays, p["threshold"], **options)

    agree(build, GIVEN, first, xs, reference(detach_reset, at_threshold))


def test_the_feedback_is_attached_unless_asked_otherwise():
    assert not snn.SigmaDelta(3, [0.9] * 3).firing.detach_reset
    assert snn.SigmaDelta(3, [0.9] * 3, detach_reset=True).firing.detach_reset

    def feedback(x, **options):
        layer = snn.SigmaDelta(1, [0.9] * 3, **options)
        return layer(layer.init_state(), x)[0].s[0]

    assert jax.grad(feedback)(jnp.array([1.5])).item() > 0
    assert jax.grad(lambda x: feedback(x, detach_reset=True))(jnp.array([1.5])).item() == 0


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3, 3))

    def membrane(decay_mem, decay_syn, decay_feedback, first, xs):
        layer = snn.SigmaDelta(3, [decay_mem, decay_syn, decay_feedback], 1e9)
        return jnp.sin(run(layer, snn.SigmaDeltaState(*first), xs)[0].v).sum()

    differentiable(membrane, np.array([0.9, 0.8, 0.7]), 0.6, np.array([0.5, 0.6, 0.7]), first, xs)


def traces(layer, xs):
    """Filtered inputs, reconstructions and spikes of all time steps."""

    def step(state, x):
        state, z = layer(state, x)
        return state, (state.i, state.s, z, state.v)

    return map(np.asarray, jax.lax.scan(step, layer.init_state(), jnp.asarray(xs))[1])


LENGTH = 4000
T = np.arange(LENGTH)
SIGNALS = {
    "constant": lambda high: np.full(LENGTH, 0.37 * high),
    "nearly zero": lambda high: np.full(LENGTH, 0.011 * high),
    "nearly full": lambda high: np.full(LENGTH, 0.989 * high),
    "sine": lambda high: high * (0.5 + 0.4 * np.sin(2 * np.pi * T / 300)),
    "ramp": lambda high: high * T / LENGTH,
    "noise": lambda high: high * np.random.default_rng(0).uniform(size=LENGTH),
}


@pytest.mark.parametrize("feedback", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("signal", SIGNALS)
def test_the_mean_of_the_reconstruction_is_that_of_the_input(x64, signal, feedback):
    # The reconstruction lies within [0, 1 / (1 - feedback)].
    xs = SIGNALS[signal](1 / (1 - feedback))[:, None]
    layer = snn.SigmaDelta(1, [1.0, 0.0, feedback], threshold=0.5)
    i, s, z, v = traces(layer, xs)
    np.testing.assert_array_equal(i, xs)
    assert 0 < z.sum() < LENGTH
    # v is the sum of all errors, and the loop keeps it within the reach of a few pulses.
    bound = 6 / (1 - feedback) ** 2
    assert np.abs(v).max() < bound
    np.testing.assert_allclose(s.mean(), xs.mean(), atol=bound / LENGTH)
    np.testing.assert_allclose(s.mean(), z.mean() / (1 - feedback), atol=(1 - feedback) ** -2 / LENGTH)


def test_the_smoothed_reconstruction_follows_the_signal(x64):
    xs = SIGNALS["sine"](2.0)[:, None]
    _, s, z, _ = traces(snn.SigmaDelta(1, [1.0, 0.0, 0.5], threshold=0.5), xs)
    smooth = lambda x: np.convolve(x[:, 0], np.full(30, 1 / 30), mode="valid")  # noqa: E731
    assert np.abs(smooth(s) - smooth(xs)).max() < 0.15
    assert np.ptp(smooth(s)) > 1.4
    assert set(np.unique(z)) == {0.0, 1.0}


def test_it_is_the_filtered_input_that_is_encoded(x64):
    xs = np.random.default_rng(1).uniform(0, 0.2, (LENGTH, 1))
    i, s, z, _ = traces(snn.SigmaDelta(1, [1.0, 0.8, 0.0], threshold=0.5), xs)
    np.testing.assert_allclose(i.mean(), xs.mean() / (1 - 0.8), rtol=0.01)
    np.testing.assert_allclose(s.mean(), i.mean(), atol=6 / LENGTH)
    assert 0 < z.sum() < LENGTH


@pytest.mark.parametrize("x", [-0.5, 0.0])
def test_pulses_are_never_negative_so_that_negative_input_is_not_encoded(x64, x):
    _, s, z, _ = traces(snn.SigmaDelta(1, [1.0, 0.0, 0.0], threshold=0.5), np.full((50, 1), x))
    assert not z.any()
    assert not s.any()


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 1.5, (12, 3))
    mem, syn, feedback, threshold = np.array([[1.0, 0.9, 0.8], [0.0, 0.3, 0.5], [0.9, 0.7, 0.5], [0.5, 0.8, 1.2]])
    together = snn.SigmaDelta(3, [mem, syn, feedback], threshold)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.SigmaDelta(1, [mem[n], syn[n], feedback[n]], threshold[n])
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.s[n]], [alone.v[0], alone.s[0]], rtol=1e-12)


@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_in_seconds_give_exponential_decays(x64, dt):
    layer = snn.SigmaDelta.from_tau(3, 20e-3, 5e-3, 50e-3, dt=dt, threshold=0.7)
    decays = layer.decay_mem, layer.decay_syn, layer.decay_feedback
    for decay, tau in zip(decays, (20e-3, 5e-3, 50e-3), strict=True):
        np.testing.assert_allclose(decay.factor, np.exp(-dt / tau), rtol=1e-15)
    assert float(layer.firing.threshold) == 0.7


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (1e-2, 0.0)])
def test_time_constants_must_be_positive(tau, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.SigmaDelta.from_tau(3, 1e-2, 1e-2, tau, dt=dt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay_constants": 0.9}, r"\[membrane, synapse, feedback\], found 1 values"),
        ({"decay_constants": [0.9] * 2}, r"\[membrane, synapse, feedback\], found 2 values"),
        ({"decay_constants": [0.9] * 4}, r"\[membrane, synapse, feedback\], found 4 values"),
        ({"reset_delay": True}, "the reset of SigmaDelta .*cannot wait: reset_delay must be False, found True"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.SigmaDelta(**{"shape": 3, "decay_constants": [0.9, 0.8, 0.7], **options})
