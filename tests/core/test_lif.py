"""LIF neurons: every synapse order, input scale and reset against a reference in NumPy, values and gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from snnax import snn

from .reference import neuron


ORDERS = ["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"]
RESETS = ["subtract", "zero", "value", "none"]
PARAMETERS = {
    "gain": 1.3,
    "decay_mem": 0.83,
    "decay_syn": 0.61,
    "threshold": 0.7,
    "v_reset": -0.15,
    "v_leak": 0.11,
    "amplitude": 1.7,
}
NUM_STEPS, SIZE = 4, 7


def lif(p, synapse_order, input_scale, reset, **options):
    decays = [p["decay_mem"], p["decay_syn"]] if synapse_order else p["decay_mem"]
    if synapse_order:
        options["synapse_order"] = synapse_order
    value = p["v_reset"] if reset == "value" else reset
    leak = p["v_leak"] if input_scale == "one_minus_decay" else None
    return snn.LIF(SIZE, decays, p["threshold"], value, v_leak=leak, input_scale=input_scale, **options)


@pytest.mark.parametrize("detach_reset", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset_delay", [False, True, "undone"], ids=["at once", "delayed", "undone"])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("synapse_order", [None, *ORDERS])
@pytest.mark.full
def test_spikes_states_and_gradients_follow_the_equations(
    x64, synapse_order, input_scale, reset, reset_delay, detach_reset
):
    random = np.random.default_rng(1)
    xs, v, i = random.uniform(-1.5, 2.0, (NUM_STEPS, SIZE)), *random.uniform(-0.5, 1.5, (2, SIZE))
    if input_scale == "one_minus_decay":
        xs = xs * 4  # to spike as often
    used = {"gain", "decay_mem", "threshold", "amplitude"}
    used |= {"decay_syn"} if synapse_order else set()
    used |= {"v_leak"} if input_scale == "one_minus_decay" else set()
    used |= {"v_reset"} if reset == "value" else set()
    given = {name: value for name, value in PARAMETERS.items() if name in used}
    options = {"reset": reset, "reset_delay": reset_delay, "detach_reset": detach_reset}
    options |= {"synapse_order": synapse_order, "input_scale": input_scale}
    outs, last_v, last_i = neuron(xs, v, i, given, **options)
    weights = np.cos(np.arange(xs.size)).reshape(xs.shape)

    def loss(p):
        layer = lif(p, amplitude=p["amplitude"], **options)
        state, found = snn.NeuronState(jnp.asarray(v), jnp.asarray(i) if synapse_order else None), []
        for x in xs:
            state, out = layer(state, p["gain"] * x)
            found.append(out)
        found = jnp.stack(found)
        value = jnp.sum(weights * found) + jnp.sum(weights[0] * state.v)
        return value + (jnp.sum(weights[1] * state.i) if synapse_order else 0.0), (found, state)

    gradients, (found, state) = jax.grad(loss, has_aux=True)({k: jnp.asarray(x) for k, x in given.items()})
    np.testing.assert_array_equal(found, [out.value for out in outs])
    np.testing.assert_allclose(state.v, last_v.value, rtol=1e-12, atol=1e-14)
    assert 0 < np.count_nonzero(found) < found.size
    expected = (
        sum(out.tangent @ weight for out, weight in zip(outs, weights, strict=True)) + last_v.tangent @ weights[0]
    )
    if synapse_order:
        np.testing.assert_allclose(state.i, last_i.value, rtol=1e-12)
        expected = expected + last_i.tangent @ weights[1]
    assert np.all(expected != 0)
    np.testing.assert_allclose([gradients[k] for k in given], expected, rtol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_below_threshold_equal_finite_differences(x64, getkey, order):
    xs = jax.random.normal(getkey(), (5, 3))

    def membrane(decay_mem, decay_syn, v_leak, xs):
        options = {"v_leak": v_leak, "synapse_order": order, "input_scale": "one_minus_decay"}
        model = snn.Sequential(snn.LIF(3, [decay_mem, decay_syn], 1e9, "none", **options))
        return model(model.init_states(), xs)[0][0].v

    arguments = jnp.array([0.9, 0.8, 0.7]), jnp.array(0.6), jnp.array([0.1, 0.2, -0.3]), xs
    check_grads(membrane, arguments, order=1, modes=["fwd", "rev"], rtol=1e-7)
    jacobians = jax.jacrev(membrane, argnums=(0, 1, 2, 3))(*arguments)
    assert all(jnp.any(jacobian != 0) for jacobian in jacobians)


def test_decays_thresholds_and_resets_act_per_neuron(x64):
    xs, ones = np.random.default_rng(2).uniform(0, 2, (9, 3)), np.ones(3)
    decays, thresholds, values = np.array([0.9, 0.5, 0.1]), np.array([0.5, 0.9, 1.3]), np.array([0.0, 0.2, -0.2])
    layer = snn.LIF(3, [decays, decays / 2], thresholds, values)
    model = snn.Sequential(layer)
    states, outs = model(model.init_states(), jnp.asarray(xs))
    for n in range(3):
        given = {
            "decay_mem": decays[n],
            "decay_syn": decays[n] / 2,
            "threshold": thresholds[n],
            "v_reset": values[n],
            "gain": 1.0,
        }
        one = neuron(xs[:, [n]], 0 * ones[:1], 0 * ones[:1], given, reset="value", synapse_order="decay-jump-read")
        assert outs[0][:, n].tolist() == [out.value[0] for out in one[0]]
        np.testing.assert_allclose(states[0].v[n], one[1].value[0], rtol=1e-12)
    assert 0 < outs[0].sum() < outs[0].size


def test_membranes_rest_at_the_leak_potential():
    layer = snn.LIF((2, 3), 0.9, v_leak=0.25, input_scale="one_minus_decay")
    state = layer.init_state()
    assert state.v.shape == (2, 3)
    assert state.i is None
    state, spikes = layer(state, jnp.zeros((2, 3)))
    np.testing.assert_allclose(state.v, 0.25, rtol=1e-7)
    assert not spikes.any()


def test_a_spike_takes_no_time():
    state, spikes = (layer := snn.LIF(1, 0.9))(layer.init_state(), jnp.array([1.5]))
    assert spikes.tolist() == [1.0]
    assert state.v.tolist() == [0.5]


def test_the_leak_potential_learns_through_the_initial_state():
    @eqx.filter_grad
    def gradient(layer):
        return layer.init_state().v.sum()

    assert gradient(snn.LIF(3, 0.9, v_leak=0.1, input_scale="one_minus_decay")).v_leak == 3.0


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("kind", [snn.LIF, snn.LI])
def test_there_are_one_or_two_decays(kind, count):
    with pytest.raises(ValueError, match=rf"\[membrane\] or \[membrane, synapse\], found {count} values"):
        kind(3, [0.9] * count)


@pytest.mark.parametrize("kind", [snn.LIF, snn.LI])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synapse_order": "jump"}, r"synapse_order must be one of \('decay-jump-read', .*\), found 'jump'"),
        ({"input_scale": "double"}, "input_scale must be 'unit' or 'one_minus_decay', found 'double'"),
        ({"shape": (3, -1)}, r"a shape has no negative sizes, found \(3, -1\)"),
    ],
)
def test_options_that_are_unknown_or_do_not_go_together_are_refused(unchecked, kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**({"shape": 3, "decay_constants": 0.9} | options))


def test_a_shape_must_be_integers(unchecked):
    with pytest.raises(TypeError, match="float"):
        snn.LIF((2.5,), 0.9)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", [lambda **o: snn.LIF(3, 0.9, **o), lambda **o: snn.IF(3, **o)])
@pytest.mark.parametrize("shape", [(2, 3), (4,)])
def test_parameters_that_are_larger_than_the_neurons_are_refused_where_states_are_made(make, shape):
    with pytest.raises(ValueError, match=r"neurons of shape \(3,\) cannot have parameters of shape"):
        make(threshold=jnp.ones(shape)).init_state()
