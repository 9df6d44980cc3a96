"""Lapicque's circuit: charging curves, firing periods, and the recurrence with its derivatives."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .test_adaptation import agree, differentiable, fire, inverse, run


pytestmark = pytest.mark.full


R, C = 2.5, 4.0
SIZE, NUM_STEPS, DT = 6, 7, 0.7
GIVEN = {"resistance": 1.7, "capacitance": 0.9, "threshold": 0.7, "amplitude": 1.7}


def reference(**options):
    def steps(p, state, drives):
        v, outs = state["v"], []
        leak = DT * inverse(p["resistance"] * p["capacitance"])
        for x in drives:

            def charge(v, x=x):
                return v - leak * v + DT * inverse(p["capacitance"]) * x

            v, z, _ = fire(v, charge, p["threshold"], p.get("v_reset", 0.0), **options)
            outs.append(z * p["amplitude"])
        return outs, {"v": v}

    return steps


def check(reset="subtract", **options):
    random = np.random.default_rng(3)
    xs, first = random.uniform(-1.0, 2.5, (NUM_STEPS, SIZE)), {"v": random.uniform(-0.5, 1.5, SIZE)}
    given = GIVEN | ({"v_reset": -0.15} if reset == "value" else {})

    def build(p):
        target = p["v_reset"] if reset == "value" else reset
        values = p["resistance"], p["capacitance"], p["threshold"]
        return snn.Lapicque(SIZE, *values, target, amplitude=p["amplitude"], dt=DT, **options)

    agree(build, given, first, xs, reference(reset=reset, **options))


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
def test_spikes_states_and_gradients_follow_the_equations(x64, reset, detach_reset):
    check(reset, detach_reset=detach_reset)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value"])
def test_delayed_resets_follow_their_equations(x64, reset, keep_input, reset_delay):
    check(reset, reset_delay=reset_delay, keep_input=keep_input, detach_reset=False)


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3,))

    def membrane(resistance, capacitance, first, xs):
        layer = snn.Lapicque(3, resistance, capacitance, 1e9, dt=DT)
        return jnp.sin(run(layer, snn.NeuronState(first), xs)[0].v).sum()

    differentiable(membrane, np.array([1.5, 2.0, 2.5]), np.array([0.9, 1.1, 1.3]), first, xs)


@pytest.mark.parametrize("current", [0.2, -1.0])
@pytest.mark.parametrize("start", [0.0, 0.7])
def test_a_constant_current_charges_the_capacitor_exponentially(x64, start, current):
    tau, duration, errors = R * C, 12.0, []
    for dt in (0.4, 0.2, 0.1):
        steps = round(duration / dt)
        layer = snn.Lapicque(1, R, C, 1e9, dt=dt)
        state, _ = run(layer, snn.NeuronState(jnp.full(1, start)), np.full((steps, 1), current))
        euler = R * current + (start - R * current) * (1 - dt / tau) ** steps
        np.testing.assert_allclose(state.v, euler, rtol=1e-12)
        errors.append(abs(state.v[0] - (R * current + (start - R * current) * np.exp(-duration / tau))))
    assert errors[0] > 1e-3
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2.0, rtol=0.05)  # first order


def test_the_firing_period_converges_to_its_closed_form(x64):
    current, threshold = 1.0, 1.5
    period = R * C * np.log(R * current / (R * current - threshold))
    dt = 0.005
    layer = snn.Lapicque(1, R, C, threshold, "zero", dt=dt)
    _, spikes = run(layer, layer.init_state(), np.full((round(4.5 * period / dt), 1), current))
    times = dt * np.flatnonzero(spikes[:, 0])
    assert len(times) == 4
    np.testing.assert_allclose(np.diff(times), period, atol=2 * dt)


@pytest.mark.parametrize(("current", "fires"), [(0.99, False), (1.01, True)])
def test_the_rheobase_is_the_threshold_over_the_resistance(x64, current, fires):
    layer = snn.Lapicque(1, R, C, 1.5, dt=0.5)
    _, spikes = run(layer, layer.init_state(), np.full((400, 1), current * 1.5 / R))
    assert bool(spikes.any()) == fires


def test_it_is_a_lif_neuron_with_scaled_input(x64):
    xs = np.random.default_rng(1).uniform(0, 2, (30, 4))
    layer, plain = snn.Lapicque(4, R, C, dt=2.0), snn.LIF(4, snn.Rate(2.0 / (R * C)))
    (state, found), (expected_state, expected) = (
        run(layer, layer.init_state(), xs),
        run(plain, plain.init_state(), xs * 2.0 / C),
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(state.v, expected_state.v, rtol=1e-12)
    assert 0 < found.sum() < found.size


def test_resistance_capacitance_and_threshold_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 2, (12, 3))
    resistance, capacitance, threshold = np.array([[1.5, 2.0, 2.5], [0.9, 1.1, 1.3], [0.7, 0.8, 1.2]])
    together = snn.Lapicque(3, resistance, capacitance, threshold, dt=DT)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.Lapicque(1, resistance[n], capacitance[n], threshold[n], dt=DT)
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose(state.v[n], alone.v[0], rtol=1e-12)


@pytest.mark.parametrize("resistance", [1.0, 5.0])
@pytest.mark.parametrize(("tau", "dt"), [(20e-3, 1e-3), (5e-3, 2e-3)])
def test_a_time_constant_is_resistance_times_capacitance(x64, tau, dt, resistance):
    layer = snn.Lapicque.from_tau(3, tau, dt=dt, resistance=resistance, threshold=0.7)
    np.testing.assert_allclose(layer.resistance * layer.capacitance, tau, rtol=1e-15)
    np.testing.assert_allclose(layer.membrane_factor, 1 - dt / tau, rtol=1e-15)
    assert (float(layer.resistance), layer.dt, float(layer.firing.threshold)) == (resistance, dt, 0.7)
    state, _ = run(layer, layer.init_state(), np.full((1, 3), 0.01))
    np.testing.assert_allclose(state.v, 0.01 * resistance * dt / tau, rtol=1e-12)


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (1e-2, 0.0)])
def test_time_constants_must_be_positive(tau, dt):
    # FAILS: every other neuron refuses these; this one divides by zero, grows without bound, or never moves.
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.Lapicque.from_tau(3, tau, dt=dt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        ({"reset_delay": "twice"}, "reset_delay must be False, True or 'undone', found 'twice'"),
        ({"shape": -3}, r"a shape has no negative sizes, found \(-3,\)"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.Lapicque(**{"shape": 3, "resistance": R, "capacitance": C, **options})
