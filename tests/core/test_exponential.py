"""EIF and AdEx neurons against their equations, the differential equations behind these, and a limit."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .test_adaptation import agree, differentiable, exp, fire, inverse, run


pytestmark = pytest.mark.full


SIZE, NUM_STEPS = 6, 7
GIVEN = {
    "rate_mem": 0.3,
    "decay_syn": 0.61,
    "delta_T": 0.45,
    "threshold": 1.1,
    "v_leak": 0.11,
    "amplitude": 1.7,
}
ADAPT = {"rate_adapt": 0.2, "coupling": 0.4, "jump": 0.3}


def reference(**options):
    """With an adaptation current where the parameters have one."""

    def steps(p, state, drives):
        v, i, a, outs = state["v"], state["i"], state.get("a"), []
        sharpness, upswing = inverse(p["delta_T"]), p.get("theta_rh", p["threshold"])
        for x in drives:
            i = p["decay_syn"] * i + x

            def charge(v, drive=i if a is None else i - a):
                current = p["delta_T"] * exp((v - upswing) * sharpness)
                return v + p["rate_mem"] * (p["v_leak"] - v + current + drive)

            before = v
            v, z, _ = fire(v, charge, p["threshold"], p.get("v_reset", 0.0), **options)
            if a is not None:
                a = a + p["rate_adapt"] * (p["coupling"] * (before - p["v_leak"]) - a) + p["jump"] * z
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i} | ({} if a is None else {"a": a})

    return steps


def check(adaptive, apart=True, reset="zero", num_steps=NUM_STEPS, **options):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 3.0, (num_steps, SIZE))
    first = {"v": random.uniform(-0.5, 1.0, SIZE), "i": random.uniform(-0.5, 0.5, SIZE)}
    given = GIVEN | (ADAPT if adaptive else {}) | ({"theta_rh": 0.8} if apart else {})
    given |= {"v_reset": -0.15} if reset == "value" else {}
    if adaptive:
        first["a"] = random.uniform(-0.3, 0.5, SIZE)

    def build(p):
        parameters = {k: p[k] for k in ("delta_T", "v_leak", "amplitude")} | {"theta_rh": p.get("theta_rh")}
        decays, target = [snn.Rate(p["rate_mem"]), p["decay_syn"]], p["v_reset"] if reset == "value" else reset
        if not adaptive:
            return snn.EIF(SIZE, decays, p["threshold"], target, **parameters, **options)
        parameters |= {k: p[k] for k in ("coupling", "jump")}
        return snn.AdEx(SIZE, decays, snn.Rate(p["rate_adapt"]), p["threshold"], target, **parameters, **options)

    agree(build, given, first, xs, reference(reset=reset, **options))


@pytest.mark.parametrize("apart", [False, True], ids=["rheobase at threshold", "rheobase apart"])
@pytest.mark.parametrize("adaptive", [False, True], ids=["EIF", "AdEx"])
def test_spikes_states_and_gradients_follow_the_equations(x64, adaptive, apart):
    check(adaptive, apart)


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
def test_every_reset_follows_its_equation(x64, reset, detach_reset):
    # Nothing stops a membrane that is not reset.
    check(True, reset=reset, num_steps=4 if reset == "none" else NUM_STEPS, detach_reset=detach_reset)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "value"])
def test_delayed_resets_follow_their_equations(x64, reset, keep_input, reset_delay):
    # A delayed subtraction comes after the exponential, and takes too little of it to stop it.
    num_steps = 4 if reset == "subtract" else NUM_STEPS
    options = {"reset_delay": reset_delay, "keep_input": keep_input, "detach_reset": False}
    check(True, reset=reset, num_steps=num_steps, **options)


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), 0.3 * jax.random.normal(getkey(), (3, 3))

    def membrane(rate, decay_syn, rate_adapt, coupling, delta_T, theta_rh, v_leak, first, xs):
        options = {"coupling": coupling, "delta_T": delta_T, "theta_rh": theta_rh, "v_leak": v_leak}
        layer = snn.AdEx(3, [snn.Rate(rate), decay_syn], snn.Rate(rate_adapt), 1e9, **options)
        state, _ = run(layer, snn.NeuronState(*first), xs)
        assert state.a is not None
        return jnp.sin(state.v + 2 * state.a).sum()

    arguments = np.array([0.1, 0.2, 0.3]), 0.6, 0.2, np.array([0.3, -0.2, 0.4]), np.array([0.5, 0.4, 0.6]), 1.0, 0.1
    differentiable(membrane, *arguments, first, xs)


# The differential equations, in NumPy.

TAU, TAU_ADAPT, DELTA, THETA, LEAK, COUPLING = 10.0, 30.0, 0.3, 1.0, 0.05, 0.6


def slope(state, drive, coupling):
    v, a = state
    dv = (LEAK - v + DELTA * np.exp((v - THETA) / DELTA) + drive - a) / TAU
    return np.array([dv, (coupling * (v - LEAK) - a) / TAU_ADAPT])


def runge_kutta(drive, coupling, duration, dt=0.02, threshold=np.inf):
    """The state at the end, or the time of the first crossing of the threshold."""
    state = np.array([LEAK, 0.0])
    for step in range(round(duration / dt)):
        k1 = slope(state, drive, coupling)
        k2 = slope(state + dt / 2 * k1, drive, coupling)
        k3 = slope(state + dt / 2 * k2, drive, coupling)
        k4 = slope(state + dt * k3, drive, coupling)
        following = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if following[0] > threshold:
            return dt * (step + (threshold - state[0]) / (following[0] - state[0]))
        state = following
    return state


def neuron(dt, coupling, threshold):
    options = {"dt": dt * 1e-3, "threshold": threshold, "delta_T": DELTA, "theta_rh": THETA, "v_leak": LEAK}
    if coupling is None:
        return snn.EIF.from_tau(1, TAU * 1e-3, **options)
    return snn.AdEx.from_tau(1, TAU * 1e-3, TAU_ADAPT * 1e-3, coupling=coupling, **options)


@pytest.mark.parametrize("coupling", [None, COUPLING], ids=["EIF", "AdEx"])
def test_membranes_below_threshold_converge_to_the_differential_equation_at_first_order(x64, coupling):
    drive, duration = 0.6, 16.0
    exact = runge_kutta(drive, coupling or 0.0, duration)
    errors = []
    for dt in (0.4, 0.2, 0.1, 0.05):
        layer = neuron(dt, coupling, 1e9)
        state, _ = run(layer, layer.init_state(), np.full((round(duration / dt), 1), drive))
        found = [state.v.item(), 0.0 if state.a is None else state.a.item()]
        errors.append(np.abs(found - exact).max())
    assert errors[0] > 1e-3, "the steps are too small to see the error"
    ratios = np.divide(errors[:-1], errors[1:])
    np.testing.assert_allclose(ratios, 2.0, rtol=0.1)


@pytest.mark.parametrize("coupling", [None, COUPLING], ids=["EIF", "AdEx"])
def test_the_first_spike_comes_when_the_differential_equation_blows_up(x64, coupling):
    drive, threshold = 2.0, 3.0
    exact = runge_kutta(drive, coupling or 0.0, 40.0, dt=0.002, threshold=threshold)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        layer = neuron(dt, coupling, threshold)
        _, spikes = run(layer, layer.init_state(), np.full((round(30 / dt), 1), drive))
        errors.append(abs(dt * (1 + np.flatnonzero(spikes[:, 0])[0]) - exact))
    assert 5 < exact < 30
    assert errors[-1] < 0.06
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("beyond", [-0.02, 0.02])
def test_the_rheobase_is_where_the_fixed_point_is_lost(x64, beyond):
    # dv/dt = 0 has its maximum over v at theta_rh: the neuron fires above I = theta_rh - leak - delta_T only.
    layer = neuron(0.1, None, 3.0)
    _, spikes = run(layer, layer.init_state(), np.full((6000, 1), THETA - LEAK - DELTA + beyond))
    assert bool(spikes.any()) == (beyond > 0)


def test_without_an_exponential_adex_is_an_adaptive_lif_neuron_below_threshold(x64):
    xs = np.random.default_rng(1).uniform(0, 1.1, (60, 4))
    decays, options = ([snn.Rate(0.1), 0.6], snn.Rate(0.05)), {"coupling": 0.7, "v_leak": 0.1}
    limit = snn.AdaptiveLIF(4, *decays, 9.0, input_scale="one_minus_decay", **options)
    expected, _ = run(limit, limit.init_state(), xs)
    distances = []
    for delta in (0.8, 0.4, 0.1, 0.02):
        layer = snn.AdEx(4, *decays, 9.0, theta_rh=4.0, delta_T=delta, **options)
        state, _ = run(layer, layer.init_state(), xs)
        assert state.a is not None
        assert expected.a is not None
        distances.append(np.abs(np.array([state.v - expected.v, state.a - expected.a])).max())
    assert expected.v.max() > 0.5
    assert distances[0] > distances[1] > distances[2]
    assert distances[0] > 1e-3
    assert distances[3] < 1e-14


def test_without_an_exponential_adex_spikes_with_the_adaptive_lif_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 4, (80, 4))
    decays, options = ([snn.Rate(0.1), 0.6], snn.Rate(0.05)), {"coupling": 0.3, "jump": 0.4}
    limit = snn.AdaptiveLIF(4, *decays, 1.0, "zero", input_scale="one_minus_decay", **options)
    layer = snn.AdEx(4, *decays, 1.0, delta_T=1e-4, **options)
    (_, found), (_, expected) = (run(each, each.init_state(), xs) for each in (layer, limit))
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < found.size


def test_without_coupling_and_jump_adex_is_eif(x64):
    xs = np.random.default_rng(2).uniform(0, 4, (40, 4))
    eif, adex = snn.EIF(4, [0.9, 0.6]), snn.AdEx(4, [0.9, 0.6], 0.9, jump=0.0)
    (state, found), (expected_state, expected) = (run(each, each.init_state(), xs) for each in (adex, eif))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(state.v, expected_state.v, rtol=1e-12)
    assert 0 < found.sum() < found.size


def test_spikes_become_rarer_with_adaptation(x64):
    layer = snn.AdEx(1, snn.Rate(0.1), snn.Rate(0.01), jump=0.3)
    _, spikes = run(layer, layer.init_state(), np.full((600, 1), 3.0))
    intervals = np.diff(np.flatnonzero(spikes[:, 0]))
    assert len(intervals) > 10
    assert intervals[-1] > 1.5 * intervals[0]


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 4, (12, 3))
    values = {
        "coupling": np.array([0.1, 0.2, -0.3]),
        "jump": np.array([0.5, 0.1, 0.3]),
        "delta_T": np.array([0.4, 0.5, 0.6]),
        "theta_rh": np.array([0.8, 0.9, 1.0]),
        "v_leak": np.array([0.0, 0.1, 0.2]),
        "threshold": np.array([1.0, 1.1, 1.2]),
    }
    mem, syn, adapt = np.array([[0.9, 0.8, 0.7], [0.5, 0.6, 0.7], [0.9, 0.8, 0.95]])
    together = snn.AdEx(3, [mem, syn], adapt, **values)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.AdEx(1, [mem[n], syn[n]], adapt[n], **{k: x[n] for k, x in values.items()})
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.a[n]], [alone.v[0], alone.a[0]], rtol=1e-12)


@pytest.mark.parametrize("tau_syn", [None, 5e-3])
@pytest.mark.parametrize("dt", [1e-3, 2e-3])
@pytest.mark.parametrize("kind", [snn.EIF, snn.AdEx])
def test_time_constants_in_seconds_give_rates_and_an_exponential_synapse(x64, kind, dt, tau_syn):
    taus = (20e-3, tau_syn) if kind is snn.EIF else (20e-3, 0.1, tau_syn)
    layer = kind.from_tau(3, *taus, dt=dt, delta_T=0.7)
    assert isinstance(layer.decay_mem, snn.Rate)
    np.testing.assert_allclose(layer.decay_mem.rate, dt / 20e-3, rtol=1e-15)
    assert float(layer.delta_T) == 0.7
    if kind is snn.AdEx:
        assert isinstance(layer.adaptation.decay_adapt, snn.Rate)
        np.testing.assert_allclose(layer.adaptation.decay_adapt.rate, dt / 0.1, rtol=1e-15)
    assert (layer.decay_syn is None) == (tau_syn is None)
    if tau_syn is not None:
        np.testing.assert_allclose(layer.decay_syn.factor, np.exp(-dt / tau_syn), rtol=1e-15)


@pytest.mark.parametrize("kind", [snn.EIF, snn.AdEx])
@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (0.1, 0.0)])
def test_time_constants_must_be_positive(kind, tau, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        kind.from_tau(3, tau, *([] if kind is snn.EIF else [0.1]), dt=dt)


@pytest.mark.parametrize("kind", [snn.EIF, lambda *a, **options: snn.AdEx(*a, decay_adapt=0.9, **options)])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        ({"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        ({"reset_delay": "twice"}, "reset_delay must be False, True or 'undone', found 'twice'"),
        ({"decay_constants": [0.9] * 3}, r"\[membrane\] or \[membrane, synapse\], found 3 values"),
    ],
)
def test_unknown_options_are_refused(unchecked, kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"shape": 3, "decay_constants": 0.9, **options})
