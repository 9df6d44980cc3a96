"""The spike response model: its filters in closed form, its recurrence, and the LIF neuron that it contains."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn

from .reference import detached, neuron, spike
from .test_adaptation import agree, differentiable, run


SIZE, NUM_STEPS = 6, 7
GIVEN = {
    "decay_mem": 0.83,
    "decay_syn": 0.61,
    "decay_ref": 0.7,
    "response": 1.4,
    "threshold": 0.8,
    "amplitude": 1.7,
}


def reference(detach_reset, at_threshold):
    def steps(p, state, drives):
        i, u, r, outs = state["i"], state["u"], state["r"], []
        v = state["v"]
        for x in drives:
            i = p["decay_syn"] * i + x
            u = p["decay_mem"] * u + i
            v = u - r
            z = spike(v - p["threshold"], at_threshold)
            r = p["decay_ref"] * r + p["response"] * (detached(z) if detach_reset else z)
            outs.append(z * p["amplitude"])
        return outs, {"v": v, "i": i, "u": u, "r": r}

    return steps


@pytest.mark.parametrize("at_threshold", [False, True])
@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
def test_spikes_states_and_gradients_follow_the_equations(x64, detach_reset, at_threshold):
    random = np.random.default_rng(3)
    xs = random.uniform(-1.5, 1.5, (NUM_STEPS, SIZE))
    first = {k: random.uniform(-0.5, 0.8, SIZE) for k in ("v", "i", "u", "r")}

    def build(p):
        decays = [p[f"decay_{each}"] for each in ("mem", "syn", "ref")]
        options = {"detach_reset": detach_reset, "spike_at_threshold": at_threshold, "amplitude": p["amplitude"]}
        return snn.SRM(SIZE, decays, p["threshold"], response=p["response"], **options)

    agree(build, GIVEN, first, xs, reference(detach_reset, at_threshold))


def test_gradients_below_threshold_equal_finite_differences(x64, getkey):
    xs, first = jax.random.normal(getkey(), (5, 3)), jax.random.normal(getkey(), (3, 3))

    def membrane(decay_mem, decay_syn, decay_ref, first, xs):
        layer = snn.SRM(3, [decay_mem, decay_syn, decay_ref], 1e9)
        state, _ = run(layer, snn.SRMState(jnp.zeros(3), *first), xs)
        return jnp.sin(state.v).sum()

    differentiable(membrane, np.array([0.9, 0.8, 0.7]), 0.6, np.array([0.5, 0.6, 0.7]), first, xs)


def membranes(layer, xs):
    def step(state, x):
        state, z = layer(state, x)
        return state, (state.v, z)

    return map(np.asarray, jax.lax.scan(step, layer.init_state(), jnp.asarray(xs))[1])


def test_the_response_to_one_input_is_a_double_exponential(x64):
    xs, t = np.zeros((60, 1)), np.arange(60)
    xs[0] = 1.3
    v, _ = membranes(snn.SRM(1, [0.9, 0.6, 0.5], 1e9), xs)
    np.testing.assert_allclose(v[:, 0], 1.3 * (0.9 ** (t + 1) - 0.6 ** (t + 1)) / (0.9 - 0.6), rtol=1e-11)


def test_a_spike_leaves_an_exponential_behind_from_the_next_step_on(x64):
    xs = np.random.default_rng(4).uniform(0, 1.0, (40, 3))
    v, z = membranes(snn.SRM(3, [0.9, 0.6, 0.8], 1.0, response=1.5), xs)
    free, _ = membranes(snn.SRM(3, [0.9, 0.6, 0.8], 1e9), xs)
    t = np.arange(40)[:, None] - np.arange(40)
    after = np.where(t >= 1, 1.5 * 0.8 ** np.maximum(t - 1.0, 0), 0.0)
    np.testing.assert_allclose(v, free - after @ z, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(z, v > 1.0)
    assert 0 < z.sum() < z.size


@pytest.mark.parametrize("detach_reset", [False, True])
def test_with_one_decay_and_a_response_of_decay_times_threshold_it_is_a_lif_neuron(x64, detach_reset):
    xs, zeros = np.random.default_rng(5).uniform(0, 1.0, (25, 4)), np.zeros(4)
    given = {"gain": 1.0, "decay_mem": 0.9, "decay_syn": 0.6, "threshold": 0.8}
    options = {"reset": "subtract", "synapse_order": "decay-jump-read", "detach_reset": detach_reset}
    outs, v, i = neuron(xs, zeros, zeros, given, **options)
    weights = np.cos(np.arange(xs.size)).reshape(xs.shape)

    def loss(p):
        decays, theta = [p["decay_mem"], p["decay_syn"], p["decay_mem"]], p["threshold"]
        layer = snn.SRM(4, decays, theta, response=p["decay_mem"] * theta, detach_reset=detach_reset)
        state, z = run(layer, layer.init_state(), p["gain"] * jnp.asarray(xs))
        return jnp.sum(weights * z), (z, state)

    arguments = {k: jnp.asarray(x) for k, x in given.items()}
    gradients, (z, state) = jax.jit(jax.grad(loss, has_aux=True))(arguments)
    np.testing.assert_array_equal(z, [out.value for out in outs])
    assert 0 < z.sum() < z.size
    # The LIF membrane is kept after its reset, that of the SRM before.
    np.testing.assert_allclose(state.v - 0.8 * z[-1], v.value, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(state.i, i.value, rtol=1e-12)
    expected = sum(out.tangent @ weight for out, weight in zip(outs, weights, strict=True))
    assert np.all(expected != 0)
    np.testing.assert_allclose([gradients[k] for k in given], expected, rtol=1e-9)


def test_a_response_of_the_threshold_alone_is_another_neuron(x64):
    xs, zeros = np.random.default_rng(5).uniform(0, 1.0, (25, 4)), np.zeros(4)
    given = {"gain": 1.0, "decay_mem": 0.9, "decay_syn": 0.6, "threshold": 0.8}
    outs, *_ = neuron(xs, zeros, zeros, given, reset="subtract", synapse_order="decay-jump-read")
    _, z = membranes(snn.SRM(4, [0.9, 0.6, 0.9], 0.8, response=0.8), xs)
    assert np.any(z != [out.value for out in outs])


def test_a_slower_refractoriness_makes_spikes_rarer(x64):
    xs = np.full((200, 3), 0.5)
    layer = snn.SRM(3, [0.8, 0.5, np.array([0.5, 0.9, 0.97])], 0.8, response=1.0)
    _, z = membranes(layer, xs)
    counts = z.sum(0)
    assert 200 > counts[0] > counts[1] > counts[2] > 0


def test_all_parameters_act_per_neuron(x64):
    xs = np.random.default_rng(2).uniform(0, 1.5, (12, 3))
    mem, syn, ref = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.9, 0.7, 0.5]])
    threshold, response = np.array([[0.7, 0.8, 1.2], [1.0, 1.5, 2.0]])
    together = snn.SRM(3, [mem, syn, ref], threshold, response=response)
    state, spikes = run(together, together.init_state(), xs)
    assert 0 < spikes.sum() < spikes.size
    for n in range(3):
        one = snn.SRM(1, [mem[n], syn[n], ref[n]], threshold[n], response=response[n])
        alone, z = run(one, one.init_state(), xs[:, [n]])
        np.testing.assert_array_equal(spikes[:, n], z[:, 0])
        np.testing.assert_allclose([state.v[n], state.r[n]], [alone.v[0], alone.r[0]], rtol=1e-12)


@pytest.mark.parametrize("dt", [1e-3, 2e-3])
def test_time_constants_in_seconds_give_exponential_decays(x64, dt):
    layer = snn.SRM.from_tau(3, 20e-3, 5e-3, 50e-3, dt=dt, response=0.7)
    decays = layer.decay_mem, layer.decay_syn, layer.decay_ref
    for decay, tau in zip(decays, (20e-3, 5e-3, 50e-3), strict=True):
        np.testing.assert_allclose(decay.factor, np.exp(-dt / tau), rtol=1e-15)
    assert float(layer.response) == 0.7


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (1e-2, 0.0)])
def test_time_constants_must_be_positive(tau, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        snn.SRM.from_tau(3, 1e-2, 1e-2, tau, dt=dt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay_constants": 0.9}, r"\[membrane, synapse, refractoriness\], found 1 values"),
        ({"decay_constants": [0.9] * 2}, r"\[membrane, synapse, refractoriness\], found 2 values"),
        ({"decay_constants": [0.9] * 4}, r"\[membrane, synapse, refractoriness\], found 4 values"),
        ({"reset_delay": True}, r"the reset of SRM .*cannot wait: reset_delay must be False, found True"),
        ({"reset_delay": "undone"}, "reset_delay must be False, found 'undone'"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.SRM(**{"shape": 3, "decay_constants": [0.9, 0.8, 0.7], **options})
