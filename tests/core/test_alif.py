"""LIF neurons with an adaptive threshold, ALIF and LSNN, against their equations."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .test_adaptation import agree, detached, differentiable, fire, run


pytestmark = pytest.mark.full


ORDERS = ["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"]
SIZE, NUM_STEPS = 6, 7
ALIF = {
    "decay_mem": 0.83,
    "decay_syn": 0.61,
    "decay_adapt": 0.71,
    "scale": 1.4,
    "threshold": 0.6,
    "v_leak": 0.11,
    "amplitude": 1.7,
}
LSNN = {
    "rate_mem": 0.31,
    "rate_syn": 0.22,
    "rate_adapt": 0.27,
    "jump": 0.8,
    "threshold": 0.5,
    "v_leak": 0.11,
    "amplitude": 1.7,
}


def alif(input_scale, **options):
    """Bellec et al. 2018, equations 6 and 7, with the threshold that was crossed as the size of the reset."""

    def steps(p, state, drives):
        v, i, a, outs = state["v"], state["i"], state["a"], []
        beta, rho, leak = p["decay_mem"], p["decay_adapt"], p["v_leak"]
        for x in drives:
            i = p["decay_syn"] * i + x

            def charge(v, i=i):
                if input_scale == "unit":
                    return leak + beta * (v - leak) + i
                return beta * v + (1.0 - beta) * (leak + i)

            theta = p["threshold"] + p["scale"] * a
            v, z, _ = fire(v, charge, theta, p.get("v_reset", 0.0), **options)
            a = rho * a + (p["jump"] if "jump" in p else 1.0 - rho) * z
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i, "a": a}

    return steps


def check_alif(jump=1.0, input_scale="unit", **options):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 2.5, (NUM_STEPS, SIZE)) * (4 if input_scale == "one_minus_decay" else 1)
    first = {k: random.uniform(low, high, SIZE) for k, low, high in (("v", -0.5, 1.5), ("i", -0.5, 0.5), ("a", 0, 0.5))}
    given = ALIF | ({} if jump is None else {"jump": jump})
    given |= {"v_reset": -0.15} if options.get("reset") == "value" else {}

    def build(p):
        choices = {k: x for k, x in options.items() if k not in ("reset", "at_threshold")}
        choices |= {"spike_at_threshold": options.get("at_threshold", False)}
        reset = options.get("reset", "subtract")
        return snn.ALIF(
            SIZE,
            [p["decay_mem"], p["decay_syn"]],
            p["decay_adapt"],
            p["threshold"],
            p["v_reset"] if reset == "value" else reset,
            scale=p["scale"],
            jump=p.get("jump"),
            v_leak=p["v_leak"],
            amplitude=p["amplitude"],
            input_scale=input_scale,
            **choices,
        )

    agree(build, given, first, xs, alif(input_scale, **{"reset": "subtract", **options}))


@pytest.mark.parametrize("jump", [None, 1.0, 0.3])
@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
def test_alif_spikes_states_and_gradients_follow_the_equations(x64, jump, input_scale):
    check_alif(jump, input_scale)


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
def test_every_reset_of_alif_follows_its_equation(x64, reset, detach_reset):
    check_alif(reset=reset, detach_reset=detach_reset)


def lsnn(**options):
    """Norse 1.1, lsnn_feed_forward_step, with its `b` as a trace apart from the threshold."""
    detach = options["detach_reset"]

    def steps(p, state, drives):
        v, i, a, outs = state["v"], state["i"], state["a"], []
        for x in drives:

            def charge(v, i=i):
                return v + p["rate_mem"] * ((p["v_leak"] - v) + i)

            i = i - p["rate_syn"] * i
            a = a - p["rate_adapt"] * a
            v, z, _ = fire(v, charge, p["threshold"] + a, p.get("v_reset", 0.0), **options)
            a = a + p["jump"] * (detached(z) if detach else z)
            i = i + x
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i, "a": a}

    return steps


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["zero", "value", "subtract", "none"])
def test_lsnn_spikes_states_and_gradients_follow_the_equations(x64, reset, detach_reset):
    random = np.random.default_rng(4)
    xs = random.uniform(-1.0, 3.0, (NUM_STEPS, SIZE))
    first = {k: random.uniform(low, high, SIZE) for k, low, high in (("v", -0.5, 1.0), ("i", 0, 2), ("a", 0, 0.5))}

    def build(p):
        return snn.LSNN(
            SIZE,
            [snn.Rate(p["rate_mem"]), snn.Rate(p["rate_syn"])],
            snn.Rate(p["rate_adapt"]),
            p["threshold"],
            p["v_reset"] if reset == "value" else reset,
            jump=p["jump"],
            v_leak=p["v_leak"],
            amplitude=p["amplitude"],
            detach_reset=detach_reset,
        )

    given = LSNN | ({"v_reset": -0.15} if reset == "value" else {})
    agree(build, given, first, xs, lsnn(reset=reset, detach_reset=detach_reset))


def layers(threshold=1e9):
    return {
        "ALIF": lambda mem, syn, adapt, leak: snn.ALIF(3, [mem, syn], adapt, threshold, v_leak=leak),
        "LSNN": lambda mem, syn, adapt, leak: snn.LSNN(3, [mem, syn], adapt, threshold, v_leak=leak),
    }


@pytest.mark.parametrize("kind", ["ALIF", "LSNN"])
def test_gradients_below_threshold_equal_finite_differences(x64, getkey, kind):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3, 3))

    def membrane(decay_mem, decay_syn, decay_adapt, v_leak, first, xs):
        layer = layers()[kind](decay_mem, decay_syn, decay_adapt, v_leak)
        state, _ = run(layer, snn.NeuronState(*first), xs)
        assert state.a is not None
        assert state.i is not None
        return jnp.sin(state.v + 2 * state.a + state.i).sum()

    arguments = jnp.array([0.9, 0.8, 0.7]), jnp.array(0.6), jnp.array(0.8), jnp.array([0.1, 0.2, -0.3]), first, xs
    differentiable(membrane, *arguments)


@pytest.mark.parametrize(
    "kind", [lambda n, p: snn.ALIF(n, **p), lambda n, p: snn.LSNN(n, **{k: x for k, x in p.items() if k != "scale"})]
)
def test_all_parameters_act_per_neuron(x64, kind):
    xs = np.random.default_rng(2).uniform(0, 3, (12, 3))
    values = {
        "decay_adapt": np.array([0.9, 0.5, 0.1]),
        "scale": np.array([0.5, 1.0, 1.5]),
        "jump": np.array([0.5, 0.1, 0.3]),
        "threshold": np.array([0.5, 0.9, 1.3]),
        "v_leak": np.array([0.0, 0.1, 0.2]),
        "reset": np.array([0.0, 0.1, -0.2]),
    }
    mem, syn = np.array([0.9, 0.7, 0.5]), np.array([0.5, 0.6, 0.7])
    together = kind(3, {"decay_constants": [mem, syn], **values})
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = kind(1, {"decay_constants": [mem[n], syn[n]], **{k: x[n] for k, x in values.items()}})
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.a[n]], [alone.v[0], alone.a[0]], rtol=1e-12)


def test_the_threshold_of_a_regular_train_is_raised_by_its_rate(x64):
    # With a running mean (jump=None), the mean of a is the firing rate once it is stationary.
    layer = snn.ALIF(1, 0.9, 0.99, scale=2.0)
    _, spikes = run(layer, layer.init_state(), np.full((4000, 1), 0.5))
    late = spikes[2000:].mean()
    traces = snn.ALIF(1, 0.9, 0.99, scale=2.0)
    state, _ = run(traces, traces.init_state(), np.full((4000, 1), 0.5))
    assert 0.05 < late < 0.9
    assert state.a is not None
    np.testing.assert_allclose(state.a[0], late, atol=0.02)


@pytest.mark.parametrize("scale", [1.8, 0.0])
def test_spikes_become_rarer_as_the_threshold_rises(x64, scale):
    layer = snn.ALIF(1, 0.9, 0.98, scale=scale)
    _, spikes = run(layer, layer.init_state(), np.full((300, 1), 0.4))
    intervals = np.diff(np.flatnonzero(spikes[:, 0]))
    assert len(intervals) > 5
    if scale:
        assert intervals[-1] > intervals[0]
        assert np.all(np.diff(intervals) >= -1)
    else:
        assert np.ptp(intervals) <= 1


def test_a_threshold_that_does_not_move_makes_a_lif_neuron(x64):
    xs = np.random.default_rng(5).uniform(0, 1, (30, 4))
    adaptive, plain = snn.ALIF(4, [0.9, 0.6], 0.9, scale=0.0), snn.LIF(4, [0.9, 0.6])
    state, spikes = run(adaptive, adaptive.init_state(), xs)
    expected_state, expected = run(plain, plain.init_state(), xs)
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_array_equal(state.v, expected_state.v)
    assert 0 < spikes.sum() < spikes.size


def test_the_threshold_that_was_crossed_is_subtracted(x64):
    layer = snn.ALIF(1, 0.5, 0.5, 1.0, scale=2.0, jump=1.0)
    state = snn.NeuronState(jnp.zeros(1), None, jnp.array([0.25]))
    state, spikes = layer(state, jnp.array([1.75]))
    assert (spikes.item(), state.v.item()) == (1.0, 0.25)  # 1.75 - (1 + 2 * 0.25)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
def test_a_reset_cannot_wait_for_another_threshold(reset_delay):
    # The old membrane would be compared with the threshold that its own spike has raised, and the reset be lost.
    with pytest.raises(ValueError, match="the reset of ALIF cannot wait: reset_delay must be False"):
        snn.ALIF(1, 1.0, 0.5, reset_delay=reset_delay)
    with pytest.raises(ValueError, match="the reset of LSNN cannot wait: reset_delay must be False"):
        snn.LSNN(1, [0.9, 0.8], 0.5, reset_delay=reset_delay)


@pytest.mark.parametrize(("reset", "expected"), [("subtract", 0.25), ("zero", 0.0)])
def test_every_spike_is_followed_by_one_reset(x64, reset, expected):
    # No input and no decay after the spike, so that a reset is all that moves the membrane.
    layer = snn.ALIF(1, 1.0, 0.5, 1.0, reset, scale=2.0, jump=1.0)
    state, spikes = layer(layer.init_state(), jnp.array([1.25]))
    assert spikes.item() == 1.0
    state, spikes = layer(state, jnp.array([0.0]))
    assert spikes.item() == 0.0
    assert state.v.item() == expected


def test_lsnn_reads_its_threshold_after_the_decay_and_alif_before(x64):
    # The threshold is 1 + 1 before and 1 + 0.5 after the decay; the membrane is at 1.75.
    state = snn.NeuronState(jnp.array([1.75]), jnp.zeros(1), jnp.ones(1))
    assert snn.LSNN(1, [1.0, 0.5], 0.5, 1.0)(state, jnp.zeros(1))[1].item() == 1.0
    assert snn.ALIF(1, [1.0, 0.5], 0.5, 1.0, scale=1.0)(state, jnp.zeros(1))[1].item() == 0.0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [snn.ALIF, snn.LSNN])
def test_the_order_of_the_synapse_is_that_of_lif(x64, kind, order):
    xs = np.random.default_rng(6).uniform(0, 8, (8, 3))
    scale = {"input_scale": "one_minus_decay"}
    layer = kind(3, [0.8, 0.6], 0.5, jump=0.0, synapse_order=order, **(scale if kind is snn.ALIF else {}))
    plain = snn.LIF(3, [0.8, 0.6], reset="zero" if kind is snn.LSNN else "subtract", synapse_order=order, **scale)
    (state, spikes), (expected_state, expected) = (run(each, each.init_state(), xs) for each in (layer, plain))
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(state.i, expected_state.i, rtol=1e-12)
    assert 0 < spikes.sum() < spikes.size


@pytest.mark.parametrize("tau_syn", [None, 5e-3])
@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_of_alif_give_exponential_decays(x64, dt, tau_syn):
    layer = snn.ALIF.from_tau(3, 20e-3, 0.1, tau_syn, dt=dt, scale=0.7)
    np.testing.assert_allclose(layer.decay_mem.factor, np.exp(-dt / 20e-3), rtol=1e-15)
    np.testing.assert_allclose(layer.adaptation.decay_adapt.factor, np.exp(-dt / 0.1), rtol=1e-15)
    assert layer.adaptation.scale is not None
    assert float(layer.adaptation.scale) == 0.7
    assert (layer.decay_syn is None) == (tau_syn is None)
    if layer.decay_syn is not None and tau_syn is not None:
        np.testing.assert_allclose(layer.decay_syn.factor, np.exp(-dt / tau_syn), rtol=1e-15)


@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_of_lsnn_give_rates_of_an_euler_step(x64, dt):
    layer = snn.LSNN.from_tau(3, 20e-3, 0.1, 5e-3, dt=dt, jump=0.7)
    for decay, tau in ((layer.decay_mem, 20e-3), (layer.adaptation.decay_adapt, 0.1), (layer.decay_syn, 5e-3)):
        assert isinstance(decay, snn.Rate)
        np.testing.assert_allclose(decay.rate, dt / tau, rtol=1e-15)


@pytest.mark.parametrize("kind", [snn.ALIF, snn.LSNN])
@pytest.mark.parametrize(("tau_adapt", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (0.1, 0.0)])
def test_time_constants_must_be_positive(kind, tau_adapt, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        kind.from_tau(3, 20e-3, tau_adapt, 5e-3, dt=dt)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (snn.ALIF, {"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        (snn.LSNN, {"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        (snn.ALIF, {"input_scale": "double"}, "input_scale must be 'unit' or 'one_minus_decay', found 'double'"),
        (snn.ALIF, {"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        (snn.LSNN, {"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        (snn.LSNN, {"decay_constants": 0.9}, r"LSNN needs the decay constants \[membrane, synapse\], found one"),
        (snn.ALIF, {"decay_constants": [0.9] * 3}, r"\[membrane\] or \[membrane, synapse\], found 3 values"),
    ],
)
def test_unknown_options_are_refused(unchecked, kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"shape": 3, "decay_constants": [0.9, 0.8], "decay_adapt": 0.9, **options})
