"""LIF neurons with an adaptation current, against their equations and the fixed points of these."""
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


ORDERS = ["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"]
GIVEN = {
    "decay_mem": 0.83,
    "decay_adapt": 0.71,
    "coupling": 0.4,
    "jump": 0.3,
    "threshold": 0.7,
    "v_leak": 0.11,
    "amplitude": 1.7,
}
SIZE, NUM_STEPS = 6, 7


def reference(order=None, input_scale="unit", **options):
    def steps(p, state, drives):
        v, i, a = state["v"], state.get("i"), state["a"]
        beta, rho, leak, outs = p["decay_mem"], p["decay_adapt"], p["v_leak"], []
        for x in drives:
            if order == "decay-jump-read":
                i = p["decay_syn"] * i + x
                x = i
            elif order == "jump-read-decay":
                x = i + x
                i = p["decay_syn"] * x
            elif order == "read-decay-jump":
                x, i = i, p["decay_syn"] * i + x
            elif order == "jump-decay-read":
                i = p["decay_syn"] * (i + x)
                x = i

            def charge(v, drive=x - a):
                if input_scale == "unit":
                    return leak + beta * (v - leak) + drive
                return beta * v + (1.0 - beta) * (leak + drive)

            before = v
            v, z, _ = fire(v, charge, p["threshold"], p.get("v_reset", 0.0), **options)
            a = rho * a + (1.0 - rho) * p["coupling"] * (before - leak) + p["jump"] * z
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "a": a} | ({} if order is None else {"i": i})

    return steps


def build(order=None, input_scale="unit", reset="subtract", **options):
    def make(p):
        return snn.AdaptiveLIF(
            SIZE,
            [p["decay_mem"]] if order is None else [p["decay_mem"], p["decay_syn"]],
            p["decay_adapt"],
            p["threshold"],
            p["v_reset"] if reset == "value" else reset,
            coupling=p["coupling"],
            jump=p["jump"],
            v_leak=p["v_leak"],
            amplitude=p["amplitude"],
            input_scale=input_scale,
            **({} if order is None else {"synapse_order": order}),
            **options,
        )

    return make


def check(order=None, input_scale="unit", at_threshold=False, **options):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.0, 2.0, (NUM_STEPS, SIZE)) * (4 if input_scale == "one_minus_decay" else 1)
    first = {"v": random.uniform(-0.5, 1.5, SIZE), "a": random.uniform(-0.3, 0.5, SIZE)}
    given = GIVEN | ({"v_reset": -0.15} if options.get("reset") == "value" else {})
    if order is not None:
        given, first["i"] = {**given, "decay_syn": 0.61}, random.uniform(-0.5, 0.5, SIZE)
    expected = reference(order, input_scale, at_threshold=at_threshold, **{"reset": "subtract", **options})
    agree(build(order, input_scale, spike_at_threshold=at_threshold, **options), given, first, xs, expected)


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("order", [None, *ORDERS])
def test_spikes_states_and_gradients_follow_the_equations(x64, order, input_scale):
    check(order, input_scale)


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value", "none"])
def test_every_reset_follows_its_equation(x64, reset, detach_reset):
    check(reset=reset, detach_reset=detach_reset)


@pytest.mark.parametrize("reset_delay", [True, "undone"])
@pytest.mark.parametrize("keep_input", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "value"])
def test_delayed_resets_follow_their_equations(x64, reset, keep_input, reset_delay):
    check(reset=reset, reset_delay=reset_delay, keep_input=keep_input, detach_reset=False)


def test_a_membrane_on_the_threshold_spikes_if_asked_to():
    for at_threshold, expected in ((False, 0.0), (True, 1.0)):
        layer = snn.AdaptiveLIF(1, 0.5, 0.5, 1.0, jump=0.5, spike_at_threshold=at_threshold)
        state, spikes = layer(layer.init_state(), jnp.ones(1))
        assert spikes.tolist() == [expected]
        assert state.a is not None
        assert state.a.tolist() == [0.5 * expected]


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_below_threshold_equal_finite_differences(x64, getkey, order):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3, 3))

    def membrane(decay_mem, decay_syn, decay_adapt, coupling, v_leak, first, xs):
        options = {"synapse_order": order, "coupling": coupling, "v_leak": v_leak}
        layer = snn.AdaptiveLIF(3, [decay_mem, decay_syn], decay_adapt, 1e9, **options)
        state, _ = run(layer, snn.NeuronState(*first), xs)
        assert state.a is not None
        assert state.i is not None
        return jnp.sin(state.v + 2 * state.a + state.i).sum()

    arguments = jnp.array([0.9, 0.8, 0.7]), jnp.array(0.6), jnp.array(0.8), jnp.array([0.3, -0.2, 0.4]), jnp.array(0.1)
    differentiable(membrane, *arguments, first, xs)


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 2, (9, 3))
    values = {
        "decay_adapt": np.array([0.9, 0.5, 0.1]),
        "coupling": np.array([0.1, 0.2, -0.3]),
        "jump": np.array([0.5, 0.1, 0.3]),
        "v_leak": np.array([0.0, 0.1, 0.2]),
    }
    together = snn.AdaptiveLIF(3, np.array([0.9, 0.7, 0.5]), threshold=np.array([0.5, 0.9, 1.3]), **values)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.AdaptiveLIF(
            1, [0.9, 0.7, 0.5][n], threshold=[0.5, 0.9, 1.3][n], **{k: x[n] for k, x in values.items()}
        )
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.a[n]], [alone.v[0], alone.a[0]], rtol=1e-12)


@pytest.mark.parametrize("coupling", [0.0, 0.5, 3.0])
def test_a_constant_input_is_divided_by_the_coupling_at_the_fixed_point(x64, coupling):
    # v = leak + x - a and a = c (v - leak)
    layer = snn.AdaptiveLIF(1, 0.9, 0.95, 1e9, coupling=coupling, v_leak=0.2, input_scale="one_minus_decay")
    state, _ = run(layer, layer.init_state(), np.full((1500, 1), 0.8))
    np.testing.assert_allclose(state.v, 0.2 + 0.8 / (1 + coupling), rtol=1e-9)
    assert state.a is not None
    np.testing.assert_allclose(state.a, coupling * 0.8 / (1 + coupling), rtol=1e-9, atol=1e-12)


def intervals(layer, drive, num_steps=400):
    _, spikes = run(layer, layer.init_state(), np.full((num_steps, 1), drive))
    return np.diff(np.flatnonzero(spikes[:, 0]))


def test_spikes_become_rarer_and_without_a_jump_they_do_not(x64):
    adapting = intervals(snn.AdaptiveLIF(1, 0.9, 0.98, jump=0.05), 0.6)
    assert len(adapting) > 5
    assert adapting[:10].mean() + 1 < adapting[-10:].mean()
    regular = intervals(snn.AdaptiveLIF(1, 0.9, 0.98, jump=0.0), 0.6)
    assert np.ptp(regular[1:]) <= 1
    assert len(regular) > 2 * len(adapting)
    accelerating = intervals(snn.AdaptiveLIF(1, 0.9, 0.98, jump=-0.005), 0.25)
    assert accelerating[-1] < accelerating[0]


def test_a_neuron_that_does_not_adapt_is_a_lif_neuron(x64):
    xs = np.random.default_rng(5).uniform(0, 1, (30, 4))
    adaptive, plain = snn.AdaptiveLIF(4, [0.9, 0.6], 0.9, jump=0.0), snn.LIF(4, [0.9, 0.6])
    state, spikes = run(adaptive, adaptive.init_state(), xs)
    expected_state, expected = run(plain, plain.init_state(), xs)
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_array_equal(state.v, expected_state.v)
    assert 0 < spikes.sum() < spikes.size


@pytest.mark.parametrize("tau_syn", [None, 5e-3])
@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_in_seconds_give_exponential_decays(x64, dt, tau_syn):
    layer = snn.AdaptiveLIF.from_tau(3, 20e-3, 0.1, tau_syn, dt=dt, jump=0.7, threshold=0.6)
    np.testing.assert_allclose(layer.decay_mem.factor, np.exp(-dt / 20e-3), rtol=1e-15)
    np.testing.assert_allclose(layer.adaptation.decay_adapt.factor, np.exp(-dt / 0.1), rtol=1e-15)
    assert layer.adaptation.jump is not None
    assert (float(layer.adaptation.jump), float(layer.firing.threshold)) == (0.7, 0.6)
    if tau_syn is None:
        assert layer.decay_syn is None
    else:
        assert layer.decay_syn is not None
        np.testing.assert_allclose(layer.decay_syn.factor, np.exp(-dt / tau_syn), rtol=1e-15)


@pytest.mark.parametrize(("tau_adapt", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (0.1, 0.0)])
def test_time_constants_must_be_positive(tau_adapt, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.AdaptiveLIF.from_tau(3, 20e-3, tau_adapt, dt=dt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        ({"input_scale": "double"}, "input_scale must be 'unit' or 'one_minus_decay', found 'double'"),
        ({"reset": "twice"}, "reset must be 'subtract', 'zero', 'none' or a value, found 'twice'"),
        ({"decay_constants": [0.9] * 3}, r"\[membrane\] or \[membrane, synapse\], found 3 values"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.AdaptiveLIF(**{"shape": 3, "decay_constants": 0.9, "decay_adapt": 0.9, **options})


def test_parameters_that_are_larger_than_the_neurons_are_refused_where_states_are_made():
    with pytest.raises(ValueError, match=r"neurons of shape \(3,\) cannot have parameters of shape \(4,\)"):
        snn.AdaptiveLIF(3, 0.9, 0.9, jump=jnp.ones(4)).init_state()
