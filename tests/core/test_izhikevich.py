"""Izhikevich's simple model: its equations, and the twenty behaviours of Izhikevich 2004, figure 1.

The inputs are those of the script that drew that figure (izhikevich.org, figure1.m), as are time steps and durations.
`simulate` is the model in NumPy; it checks the recurrence, and claims about behaviour are checked on the spikes.
"""
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


def pulse(t, start, width):
    return (t > start) & (t < start + width)


# Duration in ms and input of each behaviour.
STIMULI = {
    "tonic_spiking": (100, lambda t: 14.0 * (t > 10)),
    "phasic_spiking": (200, lambda t: 0.5 * (t > 20)),
    "tonic_bursting": (220, lambda t: 15.0 * (t > 22)),
    "phasic_bursting": (200, lambda t: 0.6 * (t > 20)),
    "mixed_mode": (160, lambda t: 10.0 * (t > 16)),
    "spike_frequency_adaptation": (85, lambda t: 30.0 * (t > 8.5)),
    "class_1_excitable": (300, lambda t: 0.075 * np.maximum(t - 30, 0)),
    "class_2_excitable": (300, lambda t: -0.5 + 0.015 * np.maximum(t - 30, 0)),
    "spike_latency": (100, lambda t: 7.04 * pulse(t, 10, 3)),
    "subthreshold_oscillation": (200, lambda t: 2.0 * pulse(t, 20, 5)),
    "resonator": (400, lambda t: 0.65 * sum(pulse(t, start, 4) for start in (40, 60, 280, 320))),
    "integrator": (100, lambda t: 9.0 * sum(pulse(t, start, 2) for start in (100 / 11, 100 / 11 + 5, 70, 80))),
    "rebound_spike": (200, lambda t: -15.0 * pulse(t, 20, 5)),
    "rebound_burst": (200, lambda t: -15.0 * pulse(t, 20, 5)),
    "threshold_variability": (100, lambda t: 1.0 * pulse(t, 10, 5) - 6.0 * pulse(t, 70, 5) + 1.0 * pulse(t, 80, 5)),
    "bistability": (300, lambda t: 0.24 + 1.0 * pulse(t, 37.5, 5) + 1.0 * pulse(t, 216, 5)),
    "depolarizing_afterpotential": (50, lambda t: 20.0 * (np.abs(t - 10) < 1)),
    "accommodation": (400, lambda t: np.where(t < 200, t / 25, 0) + ((t >= 300) & (t < 312.5)) * (t - 300) / 12.5 * 4),
    "inhibition_induced_spiking": (350, lambda t: np.where((t < 50) | (t > 250), 80.0, 75.0)),
    "inhibition_induced_bursting": (350, lambda t: np.where((t < 50) | (t > 250), 80.0, 75.0)),
}
# a, b, c, d, first v, time step; the quadratic right-hand side is 0.04 v^2 + 5 v + 140 but for two of them.
PARAMETERS = {
    "tonic_spiking": (0.02, 0.2, -65, 6, -70, 0.25),
    "phasic_spiking": (0.02, 0.25, -65, 6, -64, 0.25),
    "tonic_bursting": (0.02, 0.2, -50, 2, -70, 0.25),
    "phasic_bursting": (0.02, 0.25, -55, 0.05, -64, 0.2),
    "mixed_mode": (0.02, 0.2, -55, 4, -70, 0.25),
    "spike_frequency_adaptation": (0.01, 0.2, -65, 8, -70, 0.25),
    "class_1_excitable": (0.02, -0.1, -55, 6, -60, 0.25),
    "class_2_excitable": (0.2, 0.26, -65, 0, -64, 0.25),
    "spike_latency": (0.02, 0.2, -65, 6, -70, 0.2),
    "subthreshold_oscillation": (0.05, 0.26, -60, 0, -62, 0.25),
    "resonator": (0.1, 0.26, -60, -1, -62, 0.25),
    "integrator": (0.02, -0.1, -55, 6, -60, 0.25),
    "rebound_spike": (0.03, 0.25, -60, 4, -64, 0.2),
    "rebound_burst": (0.03, 0.25, -52, 0, -64, 0.2),
    "threshold_variability": (0.03, 0.25, -60, 4, -64, 0.25),
    "bistability": (0.1, 0.26, -60, 0, -61, 0.25),
    "depolarizing_afterpotential": (1, 0.2, -60, -21, -70, 0.1),
    "accommodation": (0.02, 1, -55, 4, -65, 0.5),
    "inhibition_induced_spiking": (-0.02, -1, -60, 8, -63.8, 0.5),
    "inhibition_induced_bursting": (-0.026, -1, -45, -2, -63.8, 0.5),
}


def simulate(name, xs):
    """Spikes and membranes as the script of the figure computes them: the recovery follows the new membrane."""
    a, b, c, d, v, dt = PARAMETERS[name]
    linear, constant = (4.1, 108) if name in ("class_1_excitable", "integrator") else (5, 140)
    u = -16 if name == "accommodation" else b * v
    spikes, membranes = [], []
    for x in xs:
        v = v + dt * (0.04 * v * v + linear * v + constant - u + x)
        u = u + dt * a * (b * (v + 65) if name == "accommodation" else b * v - u)
        spikes.append(float(v > 30))
        if v > 30:
            v, u = c, u + d
        membranes.append(v)
    return np.array(spikes), np.array(membranes), u


def times_and_inputs(name, dt=None):
    duration, stimulus = STIMULI[name]
    t = np.arange(0, duration + 1e-9, dt or PARAMETERS[name][-1])
    return t, stimulus(t)


def response(name, xs, **options):
    """Spikes of the named neuron."""
    layer = snn.Izhikevich.named(name, 1, **options)
    _, spikes = run(layer, layer.init_state(), np.asarray(xs, float)[:, None])
    return np.asarray(spikes[:, 0])


def spike_times(name, stimulus=None, **options):
    """In ms, for the input of the figure or another one."""
    t, xs = times_and_inputs(name, options.get("dt"))
    return t[response(name, xs if stimulus is None else stimulus(t), **options) > 0]


def test_the_twenty_behaviours_of_the_figure_are_there(x64):
    assert len(PARAMETERS) == len(STIMULI) == 20
    for name, (a, b, c, d, v, dt) in PARAMETERS.items():
        layer = snn.Izhikevich.named(name, (2, 3))
        assert layer.firing.v_reset is not None
        found = [float(x) for x in (layer.a, layer.b, layer.firing.v_reset, layer.d)]
        assert (*found, layer.dt) == (a, b, c, d, dt), name
        state = layer.init_state()
        assert state.v.shape == (2, 3)
        np.testing.assert_array_equal(state.v, v)
        np.testing.assert_allclose(state.a, -16 if name == "accommodation" else b * v, rtol=1e-15)


@pytest.mark.parametrize("name", ["tonic", "Tonic_Spiking", "", "accomodation"])
def test_an_unknown_behaviour_is_refused_with_those_that_are_known(name):
    known = ", ".join(f"'{each}'" for each in PARAMETERS)
    with pytest.raises(ValueError, match=rf"behavior must be one of \[{known}\], found '{name}'"):
        snn.Izhikevich.named(name, 1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_spikes_and_states_equal_the_simulation_in_numpy(x64, name):
    _, xs = times_and_inputs(name)
    layer = snn.Izhikevich.named(name, 1)
    state, spikes = run(layer, layer.init_state(), xs[:, None])
    expected, membranes, u = simulate(name, xs)
    np.testing.assert_array_equal(spikes[:, 0], expected)
    assert 0 < expected.sum() < expected.size
    # Rounding grows along a trajectory, from 1e-16 to 1e-6 over the 64 spikes of one of them.
    np.testing.assert_allclose([state.v[0], state.a[0]], [membranes[-1], u], rtol=1e-5)


# What each behaviour is.


def test_tonic_spiking_goes_on_regularly_while_the_input_lasts(x64):
    times = spike_times("tonic_spiking", lambda t: 14.0 * (t > 10))
    assert len(times) == 5  # as many as in the figure
    longer = np.arange(0, 1000, 0.25)
    intervals = np.diff(np.flatnonzero(response("tonic_spiking", 14.0 * (longer > 10))))[2:]
    assert len(intervals) > 20
    assert np.ptp(intervals) <= 2


def test_phasic_spiking_is_one_spike_at_the_onset(x64):
    times = spike_times("phasic_spiking")
    assert len(times) == 1
    assert 20 < times[0] < 60


def test_tonic_bursting_has_short_intervals_within_and_long_ones_between_bursts(x64):
    intervals = np.diff(spike_times("tonic_bursting"))
    within, between = intervals[intervals < 10], intervals[intervals > 25]
    assert len(within) + len(between) == len(intervals)
    assert len(between) >= 3
    assert len(within) > 3 * len(between)


def test_phasic_bursting_is_one_burst_at_the_onset(x64):
    times = spike_times("phasic_bursting")
    assert 4 <= len(times) <= 8
    assert 20 < times[0] < times[-1] < 80
    assert np.all(np.diff(times) < 12)


def test_mixed_mode_begins_with_a_burst_and_goes_on_tonically(x64):
    intervals = np.diff(spike_times("mixed_mode"))
    assert np.all(intervals[:2] < 6)
    assert np.all(intervals[2:] > 25)
    assert len(intervals) == 5


def test_spike_frequency_adaptation_lengthens_every_interval(x64):
    intervals = np.diff(spike_times("spike_frequency_adaptation"))
    assert len(intervals) == 5
    # The last one is near its limit.
    assert np.all(np.diff(intervals) > 0)
    assert intervals[-1] > 5 * intervals[0]


def rates_of(name, drives, duration=3000):
    """Spikes per second while a constant input lasts, without its first third."""
    xs = np.tile(drives, (round(duration / 0.25), 1))
    layer = snn.Izhikevich.named(name, len(drives))
    _, spikes = run(layer, layer.init_state(), xs)
    return np.asarray(spikes)[len(xs) // 3 :].sum(0) / (duration / 1500)


def test_class_1_neurons_begin_to_fire_arbitrarily_slowly_and_class_2_neurons_do_not(x64):
    rates = {
        "class_1_excitable": rates_of("class_1_excitable", np.linspace(1, 12, 34)),
        "class_2_excitable": rates_of("class_2_excitable", np.linspace(-0.5, 2, 26)),
    }
    for found in rates.values():
        assert found[0] == 0
        assert np.all(np.diff(found) > -4)  # a count in 2 s
    slowest = {name: found[found > 0].min() for name, found in rates.items()}
    fastest = {name: found.max() for name, found in rates.items()}
    assert slowest["class_1_excitable"] < 0.3 * fastest["class_1_excitable"]
    onset = {name: slowest[name] / fastest[name] for name in rates}
    assert onset["class_2_excitable"] > 2 * onset["class_1_excitable"]


@pytest.mark.parametrize("name", ["class_1_excitable", "class_2_excitable"])
def test_a_ramp_makes_excitable_neurons_fire_faster_and_faster(x64, name):
    intervals = np.diff(spike_times(name))
    assert len(intervals) >= 9
    assert np.all(np.diff(intervals) <= 0.5)
    assert intervals[0] > 1.5 * intervals[-1]


def test_a_latent_spike_follows_long_after_its_pulse(x64):
    times = spike_times("spike_latency")
    assert len(times) == 1
    assert times[0] > 13 + 5
    # A stronger pulse takes less time.
    assert spike_times("spike_latency", lambda t: 10.0 * pulse(t, 10, 3))[0] < times[0] - 3


def test_subthreshold_oscillations_ring_after_the_spike(x64):
    t, xs = times_and_inputs("subthreshold_oscillation")
    spikes, membranes, _ = simulate("subthreshold_oscillation", xs)
    np.testing.assert_array_equal(response("subthreshold_oscillation", xs), spikes)
    assert spikes.sum() == 1
    late = membranes[t > 60]
    peaks = np.flatnonzero((late[1:-1] > late[:-2]) & (late[1:-1] > late[2:]))
    assert len(peaks) >= 2
    assert late[peaks[0] + 1] - late[peaks[1] + 1] > 0.05  # damped


def answered(name, amplitude, width, gaps):
    """Whether a pair of pulses evokes a spike, for each gap between them."""
    t, _ = times_and_inputs(name)
    xs = np.stack([amplitude * (pulse(t, 40, width) + pulse(t, 40 + gap, width)) for gap in gaps], axis=1)
    layer = snn.Izhikevich.named(name, len(gaps))
    _, spikes = run(layer, layer.init_state(), xs)
    return np.any(spikes, axis=0).tolist()


def test_a_resonator_answers_pulses_at_its_own_frequency_only(x64):
    times = spike_times("resonator")
    assert len(times) == 1  # to the second of the two doublets
    assert times[0] > 320
    assert answered("resonator", 0.65, 4, gaps=(20, 40, 60)) == [False, True, False]


def test_an_integrator_answers_pulses_that_are_close_only(x64):
    times = spike_times("integrator")
    assert len(times) == 1
    assert times[0] < 25
    assert answered("integrator", 9.0, 2, gaps=(3, 10, 20, 40)) == [True, False, False, False]


@pytest.mark.parametrize(("name", "most"), [("rebound_spike", 1), ("rebound_burst", 12)])
def test_an_inhibitory_pulse_is_followed_by_a_rebound(x64, name, most):
    times = spike_times(name)
    assert times[0] > 25
    assert (len(times) == 1) == (most == 1)
    assert len(times) <= most
    assert len(spike_times(name, lambda t: 0.0 * t)) == 0


def test_the_threshold_varies_with_what_came_before(x64):
    times = spike_times("threshold_variability")
    assert len(times) == 1  # the same pulse, but after an inhibitory one
    assert times[0] > 80


def test_a_bistable_neuron_is_switched_on_and_off_by_pulses(x64):
    # The second pulse must meet the right phase of the spikes: with `reads="before"` it does not end them.
    times = spike_times("bistability")
    assert len(times) == 5
    assert times[0] > 37
    assert times[-1] < 216


def test_a_bistable_neuron_has_a_pulse_that_ends_its_spikes_and_is_silent_without_the_first(x64):
    assert len(spike_times("bistability", lambda t: 0.24 + 0 * t)) == 0
    t, _ = times_and_inputs("bistability")
    on = 0.24 + 1.0 * pulse(t, 37.5, 5)
    xs = np.stack([on] + [on + 1.0 * pulse(t, start, 5) for start in range(206, 246, 3)], axis=1)
    layer = snn.Izhikevich.named("bistability", xs.shape[1])
    _, spikes = run(layer, layer.init_state(), xs)
    alone, *others = (t[np.asarray(train) > 0][-1] for train in spikes.T)
    assert alone > 260
    assert min(others) < 230
    assert max(others) > 260  # and it depends on its phase


def test_a_depolarizing_afterpotential_follows_the_one_spike(x64):
    # With a = 1 the order of the updates matters: four spikes with `reads="before"`.
    t, xs = times_and_inputs("depolarizing_afterpotential")
    assert response("depolarizing_afterpotential", xs).sum() == 1
    assert xs[t > 12].max() == 0


def test_a_slow_ramp_accommodates_and_a_fast_one_spikes(x64):
    times = spike_times("accommodation")
    assert len(times) == 1
    assert 300 < times[0] < 320


def test_an_accommodating_neuron_rests_without_input(x64):
    assert len(spike_times("accommodation", lambda t: 0.0 * t)) == 0


def test_inhibition_induces_spiking(x64):
    times = spike_times("inhibition_induced_spiking")
    assert 3 <= len(times) <= 4
    assert times[0] > 50
    assert times[-1] < 260  # 8 ms to end one that was under way
    assert len(spike_times("inhibition_induced_spiking", lambda t: 80.0 + 0 * t)) == 0


def test_inhibition_induces_bursts_and_they_end_with_it(x64):
    # With `reads="before"` the neuron would not stop spiking at all at this time step.
    times = spike_times("inhibition_induced_bursting")
    assert 8 <= len(times) <= 20
    assert times[0] > 50
    assert times[-1] < 260
    assert np.diff(times).max() > 30


# The equations in general.

SIZE, NUM_STEPS = 6, 7
GIVEN = {
    "a": 0.1,
    "b": 0.25,
    "c": -60.0,
    "d": 5.0,
    "threshold": 25.0,
    "quadratic": 0.05,
    "linear": 5.2,
    "constant": 141.0,
    "amplitude": 1.7,
}


def reference(**options):
    def steps(p, state, drives):
        v, u, outs = state["v"], state["a"], []
        for x in drives:

            def charge(v, x=x, u=u):
                return v + 0.3 * (p["quadratic"] * v * v + p["linear"] * v + p["constant"] - u + x)

            u = u + 0.3 * p["a"] * (p["b"] * v - u)
            v, z, _ = fire(v, charge, p["threshold"], p["c"], reset="value", **options)
            u = u + p["d"] * z
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "a": u}

    return steps


@pytest.mark.parametrize(
    "options",
    [
        {"detach_reset": True},
        {"detach_reset": False},
        {"detach_reset": False, "reset_delay": True},
        {"detach_reset": True, "reset_delay": True, "keep_input": False},
        {"detach_reset": False, "reset_delay": "undone"},
        {"detach_reset": False, "reset_delay": "undone", "keep_input": False},
    ],
)
def test_spikes_states_and_gradients_follow_the_equations(x64, options):
    random = np.random.default_rng(3)
    xs = random.uniform(-5.0, 25.0, (NUM_STEPS, SIZE))
    first = {"v": random.uniform(-60, 40, SIZE), "a": random.uniform(-18, -10, SIZE)}

    def build(p):
        values = {k: p[k] for k in GIVEN}
        return snn.Izhikevich(SIZE, **values, dt=0.3, **options)

    agree(build, GIVEN, first, xs, reference(**options))


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs = jax.random.normal(getkey(), (5, 3))

    def membrane(a, b, quadratic, linear, constant, v0, u0, xs):
        options = {"quadratic": 0.04 + quadratic / 1000, "linear": linear, "constant": constant, "v0": v0, "u0": u0}
        layer = snn.Izhikevich(3, a, b, threshold=1e9, **options)
        state, _ = run(layer, layer.init_state(), xs)
        assert state.a is not None
        return jnp.sin(state.v / 10 + state.a).sum()

    arguments = (
        np.array([0.02, 0.1, 0.2]),
        0.2,
        0.04,
        np.array([5.0, 5.1, 4.9]),
        140.0,
        np.array([-60.0, -65, -70]),
        -13.0,
    )
    differentiable(membrane, *arguments, xs)


def test_the_first_recovery_is_b_times_the_first_membrane_unless_given(x64):
    def first(v0, b, u0=None):
        state = snn.Izhikevich(2, b=b, v0=v0, u0=u0).init_state()
        assert state.a is not None
        return state.a.sum()

    value, gradients = jax.value_and_grad(first, argnums=(0, 1))(-60.0, 0.25)
    assert value == -30.0
    assert gradients == (0.5, -120.0)
    assert first(-60.0, 0.25, -11.0) == -22.0


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 30, (60, 3))
    values = {
        "a": np.array([0.02, 0.1, 0.2]),
        "b": np.array([0.2, 0.25, 0.22]),
        "c": np.array([-65.0, -55.0, -50.0]),
        "d": np.array([8.0, 4.0, 2.0]),
        "v0": np.array([-70.0, -65.0, -60.0]),
        "u0": np.array([-14.0, -15.0, -16.0]),
        "threshold": np.array([30.0, 20.0, 10.0]),
        "quadratic": np.array([0.04, 0.045, 0.05]),
        "linear": np.array([5.0, 5.1, 5.2]),
        "constant": np.array([140.0, 141.0, 142.0]),
    }
    together = snn.Izhikevich(3, **values)
    state, spikes = run(together, together.init_state(), xs)
    assert np.all(spikes.sum(0) > 0)
    assert spikes.sum() < spikes.size
    for n in range(3):
        one = snn.Izhikevich(1, **{k: x[n] for k, x in values.items()})
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.a[n]], [alone.v[0], alone.a[0]], rtol=1e-9)


def test_options_of_a_named_neuron_may_be_overridden(x64):
    layer = snn.Izhikevich.named("tonic_spiking", 2, dt=0.1, d=7.0, amplitude=2.0)
    assert (layer.dt, float(layer.d), float(layer.b)) == (0.1, 7.0, 0.2)
    _, spikes = run(layer, layer.init_state(), np.full((500, 2), 14.0))
    assert set(np.unique(spikes)) == {0.0, 2.0}


def test_unknown_options_are_refused(unchecked):
    with pytest.raises(ValueError, match="reset_delay must be False, True or 'undone', found 'twice'"):
        snn.Izhikevich(1, reset_delay="twice")  # pyright: ignore[reportArgumentType]
