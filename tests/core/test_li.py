"""Leaky integrators have closed forms: sums of exponentials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from snnax import snn


BETA, ALPHA, LEAK = 0.83, 0.61, 0.17
# After a jump at time 0: the exponent of alpha in the drive at time t, and in the current that is kept.
EXPONENTS = {
    "decay-jump-read": lambda t: (t, t),
    "jump-read-decay": lambda t: (t, t + 1),
    "read-decay-jump": lambda t: (t - 1, t),
    "jump-decay-read": lambda t: (t + 1, t + 1),
}


def membranes(layer, xs):
    model = snn.Sequential(layer)
    states, (out,) = model(model.init_states(), jnp.asarray(xs))
    np.testing.assert_array_equal(out[-1], states[0].v)
    return out, states[0].i


def kernel(exponent, num_steps):
    """Lower triangular: the effect at time t of an input at time s."""
    t = np.arange(num_steps)[:, None] - np.arange(num_steps)
    powers = exponent(t)
    return np.where((t >= 0) & (powers >= 0), ALPHA ** np.maximum(powers, 0.0), 0.0)


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("order", [None, *EXPONENTS])
def test_membranes_are_sums_of_exponentials(x64, order, input_scale):
    xs = np.random.default_rng(0).normal(size=(9, 4))
    t = np.arange(9)[:, None] - np.arange(9)
    leaky = np.where(t >= 0, BETA ** np.maximum(t, 0.0), 0.0)
    drive = xs if order is None else kernel(lambda t: EXPONENTS[order](t)[0], 9) @ xs
    options = {} if order is None else {"synapse_order": order}
    decays = [BETA] if order is None else [BETA, ALPHA]
    if input_scale == "unit":
        expected = leaky @ drive
    else:
        options["v_leak"] = LEAK
        expected = LEAK + (1 - BETA) * leaky @ drive
    found, current = membranes(snn.LI(4, decays, input_scale=input_scale, **options), xs)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    if order is not None:
        kept = kernel(lambda t: EXPONENTS[order](t)[1], 9)[-1] @ xs
        np.testing.assert_allclose(current, kept, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
def test_a_rate_gives_the_same_as_its_factor(x64, input_scale):
    xs = np.random.default_rng(0).normal(size=(9, 4))
    factors = membranes(snn.LI(4, [BETA, ALPHA], input_scale=input_scale), xs)
    rates = membranes(snn.LI(4, [snn.Rate(1 - BETA), snn.Rate(1 - ALPHA)], input_scale=input_scale), xs)
    np.testing.assert_allclose(rates[0], factors[0], rtol=1e-12)
    np.testing.assert_allclose(rates[1], factors[1], rtol=1e-12)


@pytest.mark.parametrize("decay", [snn.Factor, snn.Rate])
@pytest.mark.parametrize("order", EXPONENTS)
def test_gradients_equal_finite_differences(x64, getkey, order, decay):
    def run(decay_mem, decay_syn, v_leak, xs):
        options = {"v_leak": v_leak, "synapse_order": order, "input_scale": "one_minus_decay"}
        return membranes_of(snn.LI(3, [decay(decay_mem), decay(decay_syn)], **options), xs)

    def membranes_of(layer, xs):
        model = snn.Sequential(layer)
        return model(model.init_states(), xs)[1][-1]

    arguments = jnp.array([0.5, 0.3, 0.7]), jnp.array(0.6), jnp.array(0.2), jax.random.normal(getkey(), (4, 3))
    check_grads(run, arguments, order=1, modes=["rev"], rtol=1e-7)
    gradients = jax.grad(lambda *a: run(*a).sum(), argnums=(0, 1, 2, 3))(*arguments)
    assert all(jnp.all(gradient != 0) for gradient in gradients[:3])


def test_the_output_is_the_membrane_in_the_dtype_of_the_input():
    layer = snn.LI(2, 0.5)
    state, out = layer(layer.init_state(), jnp.array([1.0, 1 / 3], jnp.bfloat16))
    assert state.v.dtype == jnp.float32
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, state.v.astype(jnp.bfloat16))
