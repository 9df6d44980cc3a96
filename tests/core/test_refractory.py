"""Refractory periods: no spike within them, and the equations in NumPy with derivatives by dual numbers."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn, surrogate

from .reference import Dual, detached, lift, parameters, spike


SIZE, NUM_STEPS = 6, 14
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]


def run(layer, xs, **options):
    states, (out,) = snn.Sequential(layer)([layer.init_state()], xs, **options)
    return states[0], out


def relu(x):
    return Dual(np.maximum(x.value, 0), x.tangent * (x.value > 0))


def reference(xs, given, weight=None):
    """A LIF neuron that subtracts its threshold, in a refractory period, with a recurrent weight per neuron."""
    p = parameters(given, xs.shape[1])
    v = rho = z = lift(0.0, p["decay"])
    outs = []
    for x in xs:
        drive = p["gain"] * x if weight is None else p["gain"] * x + z * weight
        charged = p["decay"] * v + drive
        fired = spike(charged - p["threshold"], False)
        charged = charged - detached(fired) * p["threshold"]
        waits = spike(rho, False)
        v = (1.0 - waits) * charged + waits * v
        z = (1.0 - waits) * fired
        rho = (1.0 - z) * relu(rho - waits) + z * p["period"]
        outs.append(z)
    return outs, v, rho


def weights(shape):
    return np.cos(np.arange(1.0, np.prod(shape) + 1)).reshape(shape)


@pytest.mark.parametrize("recurrent", [False, True], ids=["alone", "in a recurrent layer"])
@pytest.mark.parametrize("period", [0.0, 1.0, 2.0, 2.5, 4.0])
def test_spikes_states_and_gradients_follow_the_equations(x64, period, recurrent):
    random = np.random.default_rng(0)
    xs = random.uniform(-0.5, 2.0, (NUM_STEPS, SIZE))
    weight = random.uniform(-0.8, 0.8, SIZE) if recurrent else None
    given = {"gain": 1.2, "decay": 0.8, "threshold": 0.9, "period": period}
    outs, v, rho = reference(xs, given, weight)

    def loss(p):
        layer = snn.Refractory(snn.LIF(SIZE, p["decay"], p["threshold"]), p["period"])
        layer = snn.Recurrent(layer, snn.OneToOne(jnp.asarray(weight))) if recurrent else layer
        state, found = run(layer, p["gain"] * jnp.asarray(xs))
        inner = state.neuron if recurrent else state
        value = jnp.sum(weights(xs.shape) * found) + jnp.sum(weights(SIZE) * inner.v) + jnp.sum(inner.rho)
        return value, (found, inner)

    gradients, (found, state) = jax.grad(loss, has_aux=True)({name: jnp.asarray(x) for name, x in given.items()})
    np.testing.assert_array_equal(found, [out.value for out in outs])
    np.testing.assert_allclose(state.v, v.value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(state.rho, rho.value, rtol=1e-12, atol=1e-14)
    assert 0 < found.sum() < found.size
    expected = sum(out.tangent @ weight for out, weight in zip(outs, weights(xs.shape), strict=True))
    expected = expected + v.tangent @ weights(SIZE) + rho.tangent.sum(1)
    assert np.all(expected != 0)
    for name, value in zip(given, expected, strict=True):
        np.testing.assert_allclose(gradients[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("run_with", ENGINES)
def test_a_neuron_waits_for_its_own_period_and_no_longer(run_with):
    period = jnp.array([0.0, 1.0, 2.0, 2.5, 5.0])
    _, out = run(snn.Refractory(snn.IF(5, reset="zero"), period), jnp.full((19, 5), 1.5), engine=run_with)
    for neuron, wait in enumerate([0, 1, 2, 3, 5]):
        assert np.flatnonzero(out[:, neuron]).tolist() == list(range(0, 19, wait + 1))


def test_spikes_of_strong_noise_keep_their_distance(getkey):
    xs = jax.random.normal(getkey(), (200, 8)) + 0.5
    period = jnp.arange(8.0)
    _, out = run(snn.Refractory(snn.LIF(8, 0.9), period), xs)
    free = run(snn.LIF(8, 0.9), xs)[1]
    for neuron in range(8):
        distances = np.diff(np.flatnonzero(out[:, neuron]))
        assert distances.min() > neuron
        assert distances.size > 5
    np.testing.assert_array_equal(out[:, 0], free[:, 0])
    assert np.diff(np.flatnonzero(free[:, 7])).min() <= 7, "the period does nothing"


def test_the_membrane_stands_still_while_synapse_goes_on():
    layer = snn.Refractory(snn.LIF(1, [0.9, 0.5], 0.8, "zero"), 3)
    state = layer.init_state()
    state, z = layer(state, jnp.ones(1))
    assert z.tolist() == [1.0]
    membranes, currents = [], []
    for _ in range(4):
        state, _ = layer(state, jnp.zeros(1))
        membranes.append(float(state.v[0]))
        currents.append(float(state.i[0]))
    assert membranes[:3] == [0.0, 0.0, 0.0]
    assert membranes[3] > 0
    assert currents == [0.5, 0.25, 0.125, 0.0625]


def test_the_adaptation_goes_on_and_is_a_state():
    layer = snn.Refractory(snn.ALIF(1, 0.9, 0.5), 3)
    state, _ = layer(layer.init_state(), jnp.full(1, 2.0))
    before = float(state.a[0])
    state, _ = layer(state, jnp.zeros(1))
    assert 0 < state.a[0] < before


def test_graded_spikes_are_refused_and_graded_behind_it():
    with pytest.raises(ValueError, match=r"the neuron has an amplitude, .* put snn.OneToOne\(amplitude\) behind"):
        snn.Refractory(snn.IF(1, reset="zero", amplitude=1.5), 2)
    model = snn.Sequential(snn.Refractory(snn.IF(1, reset="zero"), 2), snn.OneToOne(1.5))
    _, outs = model(model.init_states(), jnp.full((7, 1), 1.5))
    assert outs[-1][:, 0].tolist() == [1.5, 0, 0, 1.5, 0, 0, 1.5]


def test_the_period_learns_through_the_surrogate_that_is_given(x64, getkey):
    xs = jax.random.uniform(getkey(), (NUM_STEPS, SIZE), maxval=2.0)

    def gradient(kind):
        layer = snn.Refractory(snn.LIF(SIZE, 0.8), 2.0, surrogate=kind)
        return eqx.filter_grad(lambda layer: run(layer, xs)[1].sum())(layer).period

    found = [float(gradient(kind)) for kind in (surrogate.SuperSpike(), surrogate.ATan(), surrogate.Triangular(3.0))]
    assert len(set(found)) == 3
    assert all(value != 0 for value in found)
    assert float(gradient(surrogate.NoGradient())) == 0


def test_a_graph_reads_the_waiting_time(getkey):
    nodes = {"neuron": snn.Refractory(snn.IF(SIZE), 3)}
    model = snn.Graph(nodes, {"neuron": "input"}, ["neuron", snn.State("neuron", "rho"), snn.State("neuron", "v")])
    xs = jax.random.uniform(getkey(), (NUM_STEPS, SIZE), maxval=2.0)
    _, outs = model(model.init_states(), xs)
    spikes, rho, v = outs[-1]
    assert jnp.all(rho[spikes == 1] == 3)
    assert jnp.all(rho[1:][(spikes[:-1] == 1)] == 2)
    assert v.shape == spikes.shape
    assert 0 < spikes.sum() < spikes.size


@pytest.mark.parametrize("period", [-1, -0.5, float("nan")])
def test_periods_below_zero_are_refused(period):
    with pytest.raises(ValueError, match=f"period must be 0 or more, found {period}"):
        snn.Refractory(snn.IF(3), period)


def test_what_is_no_layer_is_refused(unchecked):
    with pytest.raises(TypeError, match="neuron must be a layer with a state, found"):
        snn.Refractory(jnp.tanh, 2)
