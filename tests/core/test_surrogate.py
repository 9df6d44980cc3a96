"""Spikes are exact forward; backward, each surrogate is the derivative of its own relaxation and of its docstring."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from snnax import snn, surrogate


# The derivatives of the docstrings, written in NumPy.
CLOSED_FORMS = {
    "SuperSpike": (surrogate.SuperSpike(), lambda x: 1 / (1 + 10 * abs(x)) ** 2),
    "SuperSpike of slope 3": (surrogate.SuperSpike(3.0), lambda x: 1 / (1 + 3 * abs(x)) ** 2),
    "FastSigmoid": (surrogate.FastSigmoid(), lambda x: 1 / (1 + 25 * abs(x)) ** 2),
    "FastSigmoid of slope 4": (surrogate.FastSigmoid(slope=4.0), lambda x: 1 / (1 + 4 * abs(x)) ** 2),
    "ATan": (surrogate.ATan(), lambda x: 1 / (1 + (np.pi * x) ** 2)),
    "ATan of alpha 5": (surrogate.ATan(alpha=5.0), lambda x: 2.5 / (1 + (np.pi / 2 * 5 * x) ** 2)),
    "Sigmoid": (surrogate.Sigmoid(), lambda x: 25 / (2 + 2 * np.cosh(25 * x))),
    "Sigmoid of slope 2": (surrogate.Sigmoid(slope=2.0), lambda x: 2 / (2 + 2 * np.cosh(2 * x))),
    "Triangular": (surrogate.Triangular(), lambda x: np.maximum(0, 1 - abs(x))),
    "Triangular, half as wide": (surrogate.Triangular(0.5, 0.3), lambda x: 0.3 * np.maximum(0, 1 - abs(x) / 0.5)),
    "StraightThrough": (surrogate.StraightThrough(), np.ones_like),
    "NoGradient": (surrogate.NoGradient(), np.zeros_like),
    "Relaxed": (surrogate.Relaxed(jnp.sin), np.cos),
    "Derivative": (surrogate.Derivative(jnp.cos), np.cos),
}
each_surrogate = pytest.mark.parametrize(("spike", "closed_form"), CLOSED_FORMS.values(), ids=CLOSED_FORMS)
EDGES = jnp.array([-jnp.inf, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, jnp.inf, jnp.nan])


def slope(spike, x):
    return jax.vjp(spike, x)[1](jnp.ones_like(x))[0]


def test_every_exported_surrogate_has_a_closed_form():
    concrete = {name for name in vars(surrogate) if name[0].isupper() and not name.startswith("Abstract")}
    assert concrete == {name.split(" ")[0].rstrip(",") for name in CLOSED_FORMS}


@each_surrogate
def test_spikes_are_exactly_zero_or_one(spike, closed_form):
    assert spike(EDGES).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert spike(EDGES, at_threshold=True).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]


@each_surrogate
@pytest.mark.parametrize("at_threshold", [False, True])
def test_the_gradient_is_the_closed_form(x64, spike, closed_form, at_threshold):
    x = np.linspace(-2.0, 2.0, 401)  # including 0
    found = slope(lambda x: spike(x, at_threshold=at_threshold), jnp.asarray(x))
    # s (1 - s) of Sigmoid cancels where s is within an ulp of 1; times the slope of 25.
    np.testing.assert_allclose(found, closed_form(x), rtol=1e-12, atol=25 * np.finfo(float).eps)


@each_surrogate
def test_the_gradient_is_the_slope_of_the_relaxation(x64, spike, closed_form):
    if isinstance(spike, surrogate.Derivative):
        pytest.skip("given by its derivative, it has no relaxation")
    # The grid avoids the kinks of Triangular (0, width) and of |x|.
    x, h = np.arange(-1.97, 2.0, 0.047), 1e-5
    assert np.abs(x[:, None] - [0, 1, -1, 0.5, -0.5]).min() > h
    difference = (spike.relaxation(jnp.asarray(x + h)) - spike.relaxation(jnp.asarray(x - h))) / (2 * h)
    # Truncation: h^2 / 6 times the third derivative, at most 2 * 25^3.
    np.testing.assert_allclose(slope(spike, jnp.asarray(x)), difference, rtol=0, atol=h**2 / 6 * 2 * 25**3)


@each_surrogate
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_shape_and_dtype_are_kept_forward_and_backward(x64, spike, closed_form, dtype):
    x = jnp.linspace(-1, 1, 6).reshape(3, 1, 2).astype(dtype)
    for result in spike(x), slope(spike, x), jax.jvp(spike, (x,), (x,))[1]:
        assert result.shape == x.shape
        assert result.dtype == x.dtype


@each_surrogate
def test_jit_and_vmap_change_nothing(spike, closed_form):
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    np.testing.assert_array_equal(jax.jit(spike)(x), spike(x))
    np.testing.assert_array_equal(jax.vmap(spike)(x), spike(x))
    np.testing.assert_allclose(jax.vmap(jax.vmap(jax.grad(spike)))(x), slope(spike, x), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: slope(spike, x))(x), slope(spike, x), rtol=1e-6)


@each_surrogate
def test_the_backward_pass_keeps_at_most_one_array(spike, closed_form):
    _, backward = jax.vjp(spike, jnp.linspace(-1, 1, 7))
    kept = [leaf for leaf in jax.tree.leaves(backward) if jnp.size(leaf) > 1]
    assert len(kept) <= 1


@pytest.mark.parametrize("x", [-1e4, 1e4])
@each_surrogate
def test_gradients_are_finite_far_from_threshold(spike, closed_form, x):
    assert jnp.isfinite(jax.grad(spike)(jnp.float32(x)))


class Annealed(surrogate.AbstractSurrogate):
    """A surrogate of a user, with an array for a field."""

    slope: Array

    def relaxation(self, x):
        return jnp.tanh(self.slope * x)


def test_a_slope_held_in_an_array_works_under_jit_and_gets_no_gradient():
    model = snn.Sequential(snn.LIF(3, 0.9, surrogate=Annealed(jnp.float32(2.0))))

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(model, xs):
        return model(model.init_states(), xs)[1][-1].sum()

    gradients = gradient(model, jnp.full((5, 3), 0.3)).layers[0]
    assert gradients.decay_mem.value != 0
    assert gradients.firing.surrogate.slope == 0
    assert slope(Annealed(jnp.float32(3.0)), jnp.zeros(1)).tolist() == [3.0]


def test_a_surrogate_without_relaxation_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        surrogate.AbstractSurrogate()  # pyright: ignore[reportAbstractUsage]


FAR = [1e-3, 1.0, 29.0, 31.0, 1e3, 1e7, 1e18, 1e25, 3e38, float("inf")]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(
    "kind",
    [
        surrogate.SuperSpike(),
        surrogate.FastSigmoid(),
        surrogate.SuperSpike(100.0),
        surrogate.ATan(),
        surrogate.Sigmoid(),
        surrogate.Triangular(),
        surrogate.StraightThrough(),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_slopes_are_numbers_and_fall_however_far_from_threshold(kind, dtype):
    distances = jnp.array([x for x in FAR if x == float("inf") or x <= float(jnp.finfo(dtype).max)]).astype(dtype)
    for side in (distances, -distances):
        slopes = jax.vmap(jax.grad(kind))(side).astype(jnp.float32)
        assert slopes.shape == distances.shape and jnp.isfinite(slopes).all() and jnp.all(slopes >= 0)
        assert jnp.all(jnp.diff(slopes) <= 0) and slopes[0] > 0.5


@pytest.mark.parametrize("kind", [surrogate.SuperSpike(7.0), surrogate.FastSigmoid()])
def test_slopes_of_the_fast_sigmoid_are_its_formula_to_rounding(x64, kind):
    x = jnp.concatenate([-jnp.logspace(-6, 9, 31), jnp.zeros(1), jnp.logspace(-6, 9, 31)])
    np.testing.assert_allclose(jax.vmap(jax.grad(kind))(x), 1 / (1 + kind.slope * jnp.abs(x)) ** 2, rtol=1e-14)
    second = jax.vmap(jax.grad(jax.grad(kind.relaxation)))(x[x != 0])
    expected = -2 * kind.slope * jnp.sign(x) / (1 + kind.slope * jnp.abs(x)) ** 3
    np.testing.assert_allclose(second, expected[x != 0], rtol=1e-12)
