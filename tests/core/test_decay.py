"""Decays: the factor, the leak, the relaxation, and what their limits do to values and gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn


# value, limited value, gradient of straight_through, clip and none
LIMITS = [(-0.5, 0.0), (0.0, 0.0), (0.3, 0.3), (1.0, 1.0), (1.7, 1.0)]


CONSTRAINTS = ["straight_through", "clip", "none"]


def gradient_of_factor(value, constraint):
    return float(jax.grad(lambda value: snn.Factor(value, constraint=constraint).factor)(value))


@pytest.mark.parametrize(("value", "limited"), LIMITS)
@pytest.mark.parametrize("kind", [snn.Factor, snn.Rate])
def test_a_decay_is_limited_to_its_range_unless_asked_otherwise(x64, kind, value, limited):
    assert float(kind(value, constraint="none").value) == value
    learned = [
        eqx.tree_at(lambda decay: decay.value, kind(0.5, constraint=each), jnp.asarray(value)) for each in CONSTRAINTS
    ]
    bounded = {snn.Factor: limited, snn.Rate: 1 - limited}[kind]
    assert [float(decay.factor) for decay in learned[:2]] == [bounded, bounded]
    assert float(learned[2].factor) == {snn.Factor: value, snn.Rate: 1 - value}[kind]


@pytest.mark.parametrize(("value", "limited"), LIMITS)
def test_the_gradient_is_alive_outside_the_range_or_that_of_torch_clamp(value, limited):
    torch = pytest.importorskip("torch")
    assert gradient_of_factor(value, "straight_through") == 1.0
    assert gradient_of_factor(value, "none") == 1.0
    tensor = torch.tensor(value, requires_grad=True)
    tensor.clamp(0, 1).backward()
    assert tensor.grad is not None
    assert gradient_of_factor(value, "clip") == tensor.grad.item() == float(value == limited)


def test_a_decay_beyond_its_bound_learns_its_way_back():
    value = jnp.float32(1.5)
    loss = lambda value: (snn.Factor(value).leak(jnp.float32(1.0)) - 0.5) ** 2  # noqa: E731
    for _ in range(40):
        value = value - 0.2 * jax.grad(loss)(value)
    assert float(loss(value)) < 1e-6


@pytest.mark.parametrize("decay", [snn.Factor(0.8), snn.Rate(0.2)], ids=["Factor", "Rate"])
def test_leak_and_relax_are_their_equations(x64, decay, getkey):
    s, x = jax.random.normal(getkey(), (2, 5))
    d = 0.8
    np.testing.assert_allclose(decay.factor, d, rtol=1e-7)
    np.testing.assert_allclose(decay.leak(s), d * s, rtol=1e-7)
    np.testing.assert_allclose(decay.relax(s, x), d * s + (1 - d) * x, rtol=1e-6)
    np.testing.assert_allclose(decay.relax(s, x, -0.3), d * s + (1 - d) * (x - 0.3), rtol=1e-6)


def test_a_rate_is_kept_as_it_was_given():
    rate = np.float32(1e-3)
    s = jnp.float32(1.0)
    assert 1 - (1 - rate) != rate  # what storing the factor would make of it
    assert snn.Rate(rate).relax(jnp.zeros_like(s), s) == rate
    assert snn.Rate(rate).leak(s) == 1 - rate


@pytest.mark.parametrize("kind", [snn.Factor, snn.Rate])
def test_decays_per_neuron_act_on_their_neuron(kind):
    decay = kind(jnp.array([0.25, 0.5]))
    np.testing.assert_array_equal(decay.leak(jnp.array([4.0, 4.0])), 4 * decay.factor)
    assert decay.factor.shape == (2,)


@pytest.mark.parametrize("kind", [snn.Factor, snn.Rate])
@pytest.mark.parametrize("given", [1, 0.5, True, np.int32(1), np.float64(0.5)])
def test_parameters_are_strongly_typed_arrays_of_the_default_float(kind, given):
    value = kind(given).value
    assert value.dtype == jnp.float32
    assert not value.weak_type


def test_a_floating_array_keeps_its_dtype():
    assert snn.Factor(jnp.float16(0.5)).value.dtype == jnp.float16


def test_a_state_keeps_its_dtype_whatever_that_of_the_parameter(x64):
    for decay in snn.Factor(jnp.float64(0.5)), snn.Rate(jnp.float16(0.5)):
        assert decay.leak(jnp.float32(1.0)).dtype == jnp.float32
        assert decay.relax(jnp.float32(1.0), jnp.float32(1.0)).dtype == jnp.float32


@pytest.mark.parametrize(("tau", "dt"), [(20e-3, 1e-3), (5e-3, 1e-3), (5e-3, 2e-3)])
def test_time_constants_in_seconds_give_exponential_decay(x64, tau, dt):
    lif = snn.LIF.from_tau(3, tau_mem=tau, tau_syn=tau / 2, dt=dt, threshold=0.7)
    assert lif.decay_syn is not None
    np.testing.assert_allclose(lif.decay_mem.factor, np.exp(-dt / tau), rtol=1e-15)
    np.testing.assert_allclose(lif.decay_syn.factor, np.exp(-dt / tau) ** 2, rtol=1e-15)
    assert float(lif.firing.threshold) == 0.7
    li = snn.LI.from_tau(3, tau, dt=dt)
    np.testing.assert_allclose(li.decay_mem.factor, np.exp(-dt / tau), rtol=1e-15)
    assert li.decay_syn is None


@pytest.mark.parametrize(("tau", "dt"), [(0.0, 1e-3), (-1.0, 1e-3), (1e-2, 0.0), (float("nan"), 1e-3)])
@pytest.mark.parametrize("kind", [snn.LIF, snn.LI])
def test_time_constants_must_be_positive(kind, tau, dt):
    with pytest.raises(ValueError, match="tau and dt must be positive times in seconds"):
        kind.from_tau(3, tau, dt=dt)


def test_an_unknown_constraint_is_refused(unchecked):
    with pytest.raises(ValueError, match="constraint must be 'straight_through', 'clip' or 'none', found 'sigmoid'"):
        snn.Factor(0.9, constraint="sigmoid")  # pyright: ignore[reportArgumentType]
