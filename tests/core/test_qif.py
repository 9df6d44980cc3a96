"""QIF neurons against their equations, and the closed form of their firing rate."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .test_adaptation import agree, differentiable, fire, run


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 6, 7
GIVEN = {
    "rate_mem": 0.3,
    "decay_syn": 0.61,
    "threshold": 1.2,
    "v_rest": 0.11,
    "v_critical": 0.7,
    "gain_squared": 1.3,
    "amplitude": 1.7,
}
ADAPT = {"rate_adapt": 0.2, "coupling": 0.4, "jump": 0.3}


def reference(**options):
    """The current adapts to the membrane of this time step, before its reset."""

    def steps(p, state, drives):
        v, i, a, outs = state["v"], state["i"], state.get("a"), []
        for x in drives:
            i = p["decay_syn"] * i + x

            def charge(v, drive=i if a is None else i - a):
                parabola = p["gain_squared"] * (v - p["v_rest"]) * (v - p["v_critical"])
                return v + p["rate_mem"] * (parabola + drive)

            v, z, charged = fire(v, charge, p["threshold"], p.get("v_reset", 0.0), **options)
            if a is not None:
                a = a + p["rate_adapt"] * (p["coupling"] * (charged - p["v_rest"]) - a) + p["jump"] * z
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i} | ({} if a is None else {"a": a})

    return steps


def check(adaptive, reset="value", **options):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 3.0, (NUM_STEPS, SIZE))
    first = {"v": random.uniform(-0.5, 1.0, SIZE), "i": random.uniform(-0.5, 0.5, SIZE)}
    given = GIVEN | (ADAPT if adaptive else {}) | ({"v_reset": -0.15} if reset == "value" else {})
    if adaptive:
        first["a"] = random.uniform(-0.3, 0.5, SIZE)

    def build(p):
        parameters = {k: p[k] for k in ("v_rest", "v_critical", "amplitude")} | {"gain": p["gain_squared"]}
        if adaptive:
            parameters |= {"decay_adapt": snn.Rate(p["rate_adapt"]), "coupling": p["coupling"], "jump": p["jump"]}
        decays, target = [snn.Rate(p["rate_mem"]), p["decay_syn"]], p["v_reset"] if reset == "value" else reset
        return snn.QIF(SIZE, decays, p["threshold"], target, **parameters, **options)

    agree(build, given, first, xs, reference(reset=reset, **options))


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
@pytest.mark.parametrize("adaptive", [False, True], ids=["QIF", "adaptive"])
def test_spikes_states_and_gradients_follow_the_equations(x64, adaptive, reset, detach_reset):
    check(adaptive, reset=reset, detach_reset=detach_reset)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "value"])
def test_delayed_resets_follow_their_equations(x64, reset, keep_input, reset_delay):
    check(True, reset=reset, reset_delay=reset_delay, keep_input=keep_input, detach_reset=False)


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), 0.3 * jax.random.normal(getkey(), (3, 3))

    def membrane(rate, decay_syn, rate_adapt, coupling, v_rest, v_critical, gain, first, xs):
        options = {"v_rest": v_rest, "v_critical": v_critical, "gain": gain, "coupling": coupling}
        layer = snn.QIF(3, [snn.Rate(rate), decay_syn], 1e9, decay_adapt=snn.Rate(rate_adapt), **options)
        state, _ = run(layer, snn.NeuronState(*first), xs)
        assert state.a is not None
        return jnp.sin(state.v + 2 * state.a).sum()

    arguments = np.array([0.1, 0.2, 0.3]), 0.6, 0.2, np.array([0.3, -0.2, 0.4]), 0.1, np.array([0.7, 0.8, 0.9]), 1.2
    differentiable(membrane, *arguments, first, xs)


def period(drive, tau, threshold, reset, rest, critical, gain):
    """Between two spikes of tau dv/dt = gain (v - rest)(v - critical) + drive."""
    middle = (rest + critical) / 2
    above = drive - gain * (critical - rest) ** 2 / 4  # what the parabola has at its minimum
    width = np.sqrt(above / gain)
    return tau / (gain * width) * (np.arctan((threshold - middle) / width) - np.arctan((reset - middle) / width))


@pytest.mark.parametrize(("drive", "gain"), [(0.5, 1.0), (1.0, 1.0), (1.0, 2.0)])
def test_the_firing_rate_converges_to_its_closed_form(x64, drive, gain):
    rest, critical, threshold, reset, tau = 0.1, 0.9, 30.0, -30.0, 10.0
    expected = period(drive, tau, threshold, reset, rest, critical, gain)
    limit = np.pi * tau / np.sqrt(gain * drive - (gain * (critical - rest) / 2) ** 2)
    np.testing.assert_allclose(expected, limit, rtol=0.05)  # reset and threshold are far
    errors = []
    for dt in (0.5, 0.1, 0.02):
        options = {"v_rest": rest, "v_critical": critical, "gain": gain, "dt": dt * 1e-3}
        layer = snn.QIF.from_tau(1, tau * 1e-3, threshold=threshold, reset=reset, **options)
        _, spikes = run(layer, layer.init_state(), np.full((round(4.2 * expected / dt), 1), drive))
        times = dt * np.flatnonzero(spikes[:, 0])
        assert len(times) >= 4
        assert np.ptp(np.diff(times)) < 2.1 * dt
        errors.append(abs(np.diff(times).mean() / expected - 1))
    # A spike time is known to one time step only.
    assert errors[-1] < 0.02 / expected
    assert errors[0] > 4 * errors[-1]


@pytest.mark.parametrize("drive", [-0.3, 0.0, 0.1])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_below_the_critical_potential_membranes_settle_and_above_they_spike_by_themselves(x64, drive, gain):
    rest, critical = 0.1, 0.9
    spread = np.sqrt((critical - rest) ** 2 / 4 - drive / gain)
    stable, unstable = (rest + critical) / 2 - spread, (rest + critical) / 2 + spread
    options = {"v_rest": rest, "v_critical": critical, "gain": gain}
    layer = snn.QIF(3, snn.Rate(0.1), 20.0, 20.0, **options)
    first = snn.NeuronState(jnp.array([stable - 0.3, unstable - 0.01, unstable + 0.01]))
    state, spikes = run(layer, first, np.full((400, 3), drive))
    assert (spikes.sum(0) > 0).tolist() == [False, False, True]
    np.testing.assert_allclose(state.v[:2], stable, rtol=1e-6)


@pytest.mark.parametrize("jump", [0.0, 0.5])
def test_spikes_become_rarer_with_an_adaptation_current(x64, jump):
    layer = snn.QIF(1, snn.Rate(0.1), decay_adapt=0.98, jump=jump)
    _, spikes = run(layer, layer.init_state(), np.full((600, 1), 2.0))
    intervals = np.diff(np.flatnonzero(spikes[:, 0]))
    assert len(intervals) > 5
    assert intervals[-1] > 1.5 * intervals[0] if jump else np.ptp(intervals) == 0


def test_membranes_start_at_rest_and_stay_there(x64):
    layer = snn.QIF((2, 3), 0.9, v_rest=-0.2)
    state, spikes = run(layer, layer.init_state(), np.zeros((9, 2, 3)))
    np.testing.assert_array_equal(state.v, -0.2)
    assert not spikes.any()
    assert state.a is None


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 5, (12, 3))
    values = {
        "v_rest": np.array([0.0, 0.1, 0.2]),
        "v_critical": np.array([0.7, 0.8, 0.9]),
        "gain": np.array([0.5, 1.0, 1.5]),
        "threshold": np.array([1.0, 1.1, 1.2]),
        "reset": np.array([0.0, -0.1, -0.2]),
        "coupling": np.array([0.1, 0.2, -0.3]),
        "jump": np.array([0.5, 0.1, 0.3]),
        "decay_adapt": np.array([0.9, 0.8, 0.7]),
    }
    mem, syn = np.array([[0.9, 0.8, 0.7], [0.5, 0.6, 0.7]])
    together = snn.QIF(3, [mem, syn], **values)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.QIF(1, [mem[n], syn[n]], **{k: x[n] for k, x in values.items()})
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.a[n]], [alone.v[0], alone.a[0]], rtol=1e-12)


@pytest.mark.parametrize("tau_syn", [None, 5e-3])
@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_in_seconds_give_a_rate_and_an_exponential_synapse(x64, dt, tau_syn):
    layer = snn.QIF.from_tau(3, 20e-3, tau_syn, dt=dt, gain=0.7)
    assert isinstance(layer.decay_mem, snn.Rate)
    np.testing.assert_allclose(layer.decay_mem.rate, dt / 20e-3, rtol=1e-15)
    assert float(layer.gain) == 0.7
    assert (layer.decay_syn is None) == (tau_syn is None)
    if layer.decay_syn is not None and tau_syn is not None:
        np.testing.assert_allclose(layer.decay_syn.factor, np.exp(-dt / tau_syn), rtol=1e-15)


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (0.1, 0.0)])
def test_time_constants_must_be_positive(tau, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.QIF.from_tau(3, tau, dt=dt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        ({"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        ({"decay_constants": [0.9] * 3}, r"\[membrane\] or \[membrane, synapse\], found 3 values"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.QIF(**{"shape": 3, "decay_constants": 0.9, **options})
