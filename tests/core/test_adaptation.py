"""Adaptation against its recurrence and closed forms; what tests of whole neurons share is here as well.

`agree` compares a layer with a reference that is written with dual numbers: spikes exactly, states and gradients
closely. `fire` is threshold and reset of one time step as the literature and the frameworks write them.
"""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate

from .reference import Dual, detached, lift, parameters, spike


STATES_RTOL, GRADIENTS_RTOL = 1e-10, 1e-8


def run(layer, state, xs):
    """The state after a sequence, and the outputs of all time steps."""
    states, (out,) = snn.Sequential(layer)([state], jnp.asarray(xs))
    return states[0], out


def fire(v, charge, theta, target, *, reset, reset_delay=False, detach_reset=True, keep_input=True, at_threshold=False):
    """`(membrane, spikes, membrane before the reset)`; `target` is where a reset that does not subtract goes."""
    late = spike(v - theta, at_threshold)
    late = detached(late) if detach_reset or reset_delay == "undone" else late
    if not reset_delay or reset == "none":
        mem = charge(v)
    elif reset == "subtract":
        mem = charge(v) - late * theta
    elif keep_input:
        mem = charge(v - late * (v - target))
    else:
        mem = charge(v)
        mem = mem - late * (mem - target)
    z = spike(mem - theta, at_threshold)
    if reset == "none" or reset_delay is True:
        return mem, z, mem
    now = detached(z) if detach_reset else z
    now = now - late if reset_delay == "undone" else now
    return (mem - now * theta if reset == "subtract" else mem - now * (mem - target)), z, mem


def differentiable(function, *arguments, zero=()) -> None:
    """Gradients of a scalar function equal central differences in one random direction for each of its arguments.

    All elements of all gradients are nonzero; those of the arguments whose indices are in `zero` are zero.
    """
    random, step = np.random.default_rng(8), 1e-5
    arguments = tuple(map(jnp.asarray, arguments))
    value = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(arguments)))))
    gradients = value(*arguments)[1]
    for index, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        direction = jnp.asarray(random.normal(size=argument.shape))
        up, down = (
            value(*arguments[:index], argument + sign * step * direction, *arguments[index + 1 :])[0]
            for sign in (1, -1)
        )
        found, expected = jnp.sum(gradient * direction), (up - down) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=f"argument {index}")
        assert jnp.all(gradient == 0) if index in zero else jnp.all(gradient != 0), f"argument {index}"


def agree(build, given: dict[str, float], first: dict[str, np.ndarray], xs: np.ndarray, reference) -> None:
    """A layer equals its reference in outputs, last state, and gradients of every parameter, input and first state.

    `build(p)` makes the layer; `reference(p, state, drives)` returns the outputs of all steps and the last state. Both
    multiply what they are given: all inputs by `gain`, and all first states by `start`.
    """
    given = {"gain": 1.0, "start": 1.0, **given}
    p = parameters(given, xs.shape[1])
    outs, last = reference(p, {k: p["start"] * x for k, x in first.items()}, [p["gain"] * x for x in xs])
    weights = np.cos(np.arange(1.0, xs.size + 1)).reshape(xs.shape)

    def loss(q):
        layer = build(q)
        kind: Any = type(layer.init_state())
        state, out = run(layer, kind(**{k: q["start"] * x for k, x in first.items()}), q["gain"] * jnp.asarray(xs))
        found = {k: getattr(state, k) for k in last}
        traces = sum(jnp.sum(weights[n] * found[k]) for n, k in enumerate(last))
        return jnp.sum(weights * out) + traces, (out, found)

    q = {k: jnp.asarray(x) for k, x in given.items()}
    (_, (out, found)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(q)
    np.testing.assert_array_equal(out, [each.value for each in outs])
    assert 0 < np.count_nonzero(out) < out.size, "asleep or saturated"
    for k in last:
        np.testing.assert_allclose(found[k], last[k].value, rtol=STATES_RTOL, atol=1e-13, err_msg=k)
        assert np.any(last[k].value != first[k]), k
    expected = sum(each.tangent @ weight for each, weight in zip(outs, weights, strict=True))
    expected = expected + sum(last[k].tangent @ weights[n] for n, k in enumerate(last))
    assert np.all(expected != 0), dict(zip(given, expected, strict=True))
    for index, k in enumerate(given):
        np.testing.assert_allclose(gradients[k], expected[index], rtol=GRADIENTS_RTOL, err_msg=k)


def inverse(x: Dual) -> Dual:
    return Dual(1 / x.value, -x.tangent / x.value**2)


def exp(x: Dual) -> Dual:
    return Dual(np.exp(x.value), np.exp(x.value) * x.tangent)


def log(x: Dual) -> Dual:
    return Dual(np.log(x.value), x.tangent / x.value)


RHO, SIZE = 0.7, 5


@pytest.fixture
def sequence(x64):
    """Membranes before and after, spikes, and a first trace."""
    random = np.random.default_rng(0)
    before, after = random.normal(size=(2, 6, SIZE))
    return before, after, random.integers(0, 2, (6, SIZE)).astype(float), random.normal(size=SIZE)


def trace(adaptation, a, before, after, spikes, v_rest):
    for b, c, z in zip(before, after, spikes, strict=True):
        a = adaptation.jumped(adaptation.following(a, b, c, v_rest), z)
    return a


@pytest.mark.parametrize("decay", [float, lambda d: snn.Rate(1 - d), lambda d: snn.SigmoidRate.from_rate(1 - d)])
@pytest.mark.parametrize("jump", [None, 0.4])
@pytest.mark.parametrize("coupling", [None, 1.3])
@pytest.mark.parametrize("reads", ["before", "after"])
def test_the_trace_follows_membrane_and_spikes(sequence, decay, jump, coupling, reads):
    before, after, spikes, first = sequence
    adaptation = snn.Adaptation(decay(RHO), coupling=coupling, jump=jump, acts_on="current", reads=reads)
    found = trace(adaptation, jnp.asarray(first), *map(jnp.asarray, (before, after, spikes)), -0.3)
    a = first
    for v, z in zip(before if reads == "before" else after, spikes, strict=True):
        a = RHO * a + (1 - RHO) * (coupling or 0.0) * (v + 0.3) + (1 - RHO if jump is None else jump) * z
    np.testing.assert_allclose(found, a, rtol=1e-12, atol=1e-14)
    assert np.all(np.abs(a - first) > 1e-3)


@pytest.mark.parametrize("scale", [None, 2.5])
def test_a_current_is_scaled_and_leaves_the_threshold_alone(scale):
    adaptation = snn.Adaptation(RHO, scale=scale, acts_on="current")
    a, base = jnp.array([0.5, -1.0]), jnp.array(0.75)
    np.testing.assert_array_equal(adaptation.current(a), (scale or 1.0) * a)
    assert adaptation.threshold(base, a) is base


@pytest.mark.parametrize("scale", [None, 2.5])
@pytest.mark.parametrize(("reads", "factor"), [("before", 1.0), ("after", RHO)])
def test_a_threshold_is_moved_by_the_trace_before_or_after_its_decay(x64, scale, reads, factor):
    adaptation = snn.Adaptation(RHO, scale=scale, acts_on="threshold", reads=reads)
    a = jnp.array([0.5, -1.0])
    np.testing.assert_allclose(adaptation.threshold(jnp.array(0.75), a), 0.75 + factor * (scale or 1.0) * a, rtol=1e-15)
    assert adaptation.current(a) == 0.0


@pytest.mark.parametrize(("jump", "height"), [(None, 1 - RHO), (0.4, 0.4)])
def test_a_spike_decays_geometrically(x64, jump, height):
    adaptation = snn.Adaptation(RHO, jump=jump, acts_on="threshold")
    a, nothing = adaptation.jumped(jnp.zeros(1), jnp.ones(1)), jnp.zeros(1)
    for t in range(5):
        np.testing.assert_allclose(a, height * RHO**t, rtol=1e-12)
        a = adaptation.jumped(adaptation.following(a, nothing, nothing, 0.0), nothing)


def test_without_a_jump_the_trace_is_the_running_mean_of_the_spikes(x64):
    spikes = np.random.default_rng(1).uniform(size=(4000, 3)) < np.array([0.1, 0.5, 0.9])
    adaptation = snn.Adaptation(0.999, acts_on="threshold")

    def step(a, z):
        return (a := adaptation.jumped(adaptation.following(a, a, a, 0.0), z)), a

    _, traces = jax.lax.scan(step, jnp.asarray(spikes.mean(0)), jnp.asarray(spikes, float))
    np.testing.assert_allclose(traces.mean(0), [0.1, 0.5, 0.9], atol=0.03)
    every = jax.lax.scan(step, jnp.zeros(3), jnp.ones((20000, 3)))[0]
    np.testing.assert_allclose(every, 1.0, rtol=1e-8)


def test_the_trace_of_a_clamped_membrane_is_its_distance_to_rest(x64):
    adaptation = snn.Adaptation(RHO, coupling=jnp.array([0.5, -2.0]), acts_on="current")
    a, v = jnp.zeros(2), jnp.array([0.8, 0.8])
    for _ in range(200):
        a = adaptation.following(a, v, 99 * v, 0.3)
    np.testing.assert_allclose(a, [0.25, -1.0], rtol=1e-12)


def test_all_parameters_act_per_neuron(x64):
    values = {"coupling": np.array([0.1, 0.2]), "jump": np.array([0.3, 0.4]), "scale": np.array([0.5, 0.6])}
    decays = np.array([0.9, 0.5])
    made = snn.Adaptation(decays, **values, acts_on="current")
    a, v, z = jnp.array([1.0, -1.0]), jnp.array([0.5, 0.7]), jnp.ones(2)
    expected = decays * a + (1 - decays) * values["coupling"] * v + values["jump"]
    np.testing.assert_allclose(made.jumped(made.following(a, v, v, 0.0), z), expected, rtol=1e-12)
    np.testing.assert_allclose(made.current(a), values["scale"] * a, rtol=1e-15)


@pytest.mark.parametrize("reads", ["before", "after"])
def test_gradients_equal_finite_differences(sequence, reads):
    before, after, spikes, first = sequence

    def total(decay, coupling, jump, scale, first, before, after, spikes, v_rest):
        made = snn.Adaptation(decay, coupling=coupling, jump=jump, scale=scale, acts_on="threshold", reads=reads)
        a = trace(made, first, before, after, spikes, v_rest)
        return jnp.sum(made.threshold(jnp.ones(()), a) ** 2)

    zero = [6 if reads == "before" else 5]
    differentiable(total, RHO, 0.3, 0.4, 1.5, first, before, after, spikes, 0.2, zero=zero)


@pytest.mark.parametrize("detach", [False, True])
def test_a_detached_jump_hides_the_spike_but_not_the_trace(x64, detach):
    def threshold_after(x, jump):
        adaptation = snn.Adaptation(RHO, jump=jump, acts_on="threshold", detach=detach)
        neuron = snn.ALIF(1, 0.5, RHO, 1.0, "none", surrogate=surrogate.StraightThrough())
        neuron = eqx.tree_at(lambda neuron: neuron.adaptation, neuron, adaptation)
        state, spikes = neuron(neuron.init_state(), x)
        assert spikes.shape == (1,)
        assert state.a is not None
        return state.a[0]

    a, (dx, djump) = jax.value_and_grad(threshold_after, argnums=(0, 1))(jnp.array([1.5]), jnp.array(0.4))
    assert a == 0.4  # it spiked
    assert dx.tolist() == [0.0 if detach else 0.4]
    assert djump == 1.0


def test_the_defaults_are_a_running_mean_with_unit_scale():
    made = snn.Adaptation(RHO, acts_on="threshold")
    assert (made.coupling, made.jump, made.scale) == (None, None, None)
    assert (made.reads, made.detach) == ("before", False)
    assert len(jax.tree.leaves(made)) == 1


def test_parameters_are_float_leaves():
    made = snn.Adaptation(0.9, coupling=1, jump=2, scale=3, acts_on="current")
    assert [leaf.dtype.name for leaf in jax.tree.leaves(made)] == ["float32"] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acts_on": "membrane"}, "acts_on must be 'current' or 'threshold', found 'membrane'"),
        ({"reads": "never"}, "reads must be 'before' or 'after', found 'never'"),
    ],
)
def test_unknown_options_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        snn.Adaptation(**{"decay_adapt": RHO, "acts_on": "current", **options})


def test_the_reference_of_a_reset_knows_what_a_delay_loses():
    v = lift(np.array([2.0]), Dual(np.zeros(1), np.zeros((1, 1))))
    options = {"reset": "zero", "reset_delay": True}
    kept, lost = (
        fire(v, lambda v: v + 0.5, lift(1.0, v), lift(0.0, v), keep_input=k, **options) for k in (True, False)
    )
    assert (kept[0].value, lost[0].value) == (0.5, 0.0)
