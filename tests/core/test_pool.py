"""Pooling against NumPy loops and Equinox: values, where the gradient goes, and that it is no scatter."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate


pytestmark = pytest.mark.full


# Input shape, kernel size, stride, padding.
CASES = {
    "1d": ((3, 9), 2, None, 0),
    "1d, padded": ((3, 9), 3, 2, 1),
    "1d, with gaps": ((2, 11), 2, 4, 0),
    "2d": ((2, 6, 8), 2, None, 0),
    "2d, overlapping": ((2, 7, 6), 3, 1, 1),
    "2d, one size each": ((3, 7, 8), (3, 2), (1, 3), (1, 0)),
    "3d": ((2, 4, 5, 4), 2, None, 0),
    "3d, one size each": ((1, 5, 4, 6), (3, 1, 2), (2, 2, 1), (1, 0, 1)),
    "the whole input": ((2, 3, 4), (3, 4), None, 0),
}
each_case = pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CASES.values(), ids=CASES)
POOLS: dict[Any, Any] = {snn.MaxPool: (np.max, -np.inf), snn.AvgPool: (np.mean, 0.0)}
each_pool = pytest.mark.parametrize("kind", POOLS)


def per_axis(size, shape):
    return (size,) * (len(shape) - 1) if isinstance(size, int) else size


def cuts(shape, kernel, stride, padding):
    """The index of every output, and where its window lies in the padded input."""
    sizes = [per_axis(size, shape) for size in (kernel, kernel if stride is None else stride, padding)]
    counts = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], *sizes, strict=True)]
    for index in np.ndindex(shape[0], *counts):
        starts = [i * s for i, s in zip(index[1:], sizes[1], strict=True)]
        yield index, (index[0], *(slice(a, a + k) for a, k in zip(starts, sizes[0], strict=True)))


def padded(x, padding, fill):
    return np.pad(x, [(0, 0), *((p, p) for p in per_axis(padding, x.shape))], constant_values=fill)


def unpadded(x, padding, shape):
    return x[:, *(slice(p, p + n) for p, n in zip(per_axis(padding, shape), shape[1:], strict=True))]


def pooled(x, kernel, stride, padding, reduce, fill):
    wide, found = padded(x, padding, fill), dict(cuts(x.shape, kernel, stride, padding))
    out = np.empty(np.max(list(found), axis=0) + 1)
    for index, cut in found.items():
        out[index] = reduce(wide[cut])
    return out


def normal(shape):
    return np.random.default_rng(0).normal(size=shape)


def spikes(shape):
    return np.random.default_rng(1).integers(0, 2, shape).astype(float)


def pulled_back(pool, x):
    """A weight for every output, and the gradient of the weighted sum."""
    weights = normal(jax.eval_shape(pool, x).shape)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(pool(x) * jnp.asarray(weights))))
    return weights, gradient(jnp.asarray(x))


@each_case
@each_pool
def test_pools_are_loops_over_windows(x64, kind, shape, kernel, stride, padding):
    x = normal(shape) - 3  # nearly all negative: padding is no maximum
    found = eqx.filter_jit(kind(kernel, stride, padding))(jnp.asarray(x))
    expected = pooled(x, kernel, stride, padding, *POOLS[kind])
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert np.all(expected != 0)


@each_case
@each_pool
def test_pools_are_those_of_equinox(kind, shape, kernel, stride, padding):
    x = jnp.asarray(normal(shape), jnp.float32)
    theirs = getattr(eqx.nn, f"{kind.__name__}{len(shape) - 1}d")
    expected = theirs(kernel, kernel if stride is None else stride, padding)(x)
    found = eqx.filter_jit(kind(kernel, stride, padding))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@each_case
@pytest.mark.parametrize("draw", [normal, spikes])
def test_the_first_of_equal_elements_gets_the_gradient(x64, draw, shape, kernel, stride, padding):
    x = draw(shape)
    weights, found = pulled_back(snn.MaxPool(kernel, stride, padding), x)
    wide = padded(x, padding, -np.inf)
    expected = np.zeros(wide.shape)
    for index, cut in cuts(shape, kernel, stride, padding):
        window = wide[cut]
        expected[cut][np.unravel_index(np.argmax(window), window.shape)] += weights[index]
    expected = unpadded(expected, padding, shape)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert np.any(expected != 0)
    assert np.any(expected == 0)


@each_case
def test_every_element_of_a_window_gets_its_share_of_the_gradient_of_a_mean(x64, shape, kernel, stride, padding):
    weights, found = pulled_back(snn.AvgPool(kernel, stride, padding), normal(shape))
    expected = np.zeros(padded(np.zeros(shape), padding, 0.0).shape)
    for index, cut in cuts(shape, kernel, stride, padding):
        expected[cut] += weights[index] / expected[cut].size
    np.testing.assert_allclose(found, unpadded(expected, padding, shape), rtol=1e-12, atol=1e-14)
    assert np.any(expected != 0)


@pytest.mark.parametrize("place", [(0, 2, 2), (0, 2, 3), (0, 3, 3)], ids=["first", "middle", "last"])
@each_pool
def test_nan_is_the_result_of_its_window_and_of_no_other(kind, place):
    x = normal((2, 6, 6))
    expected = pooled(x, 2, None, 0, *POOLS[kind])
    x[place], expected[0, 1, 1] = np.nan, np.nan
    np.testing.assert_allclose(kind(2)(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5)
    assert snn.SpikingMaxPool(2, threshold=-9.0)(jnp.asarray(x, jnp.float32)).sum() == expected.size - 1


@each_case
def test_a_spiking_pool_spikes_where_one_element_is_above_threshold(x64, shape, kernel, stride, padding):
    x = normal(shape)
    run = eqx.filter_jit(lambda pool: pool(jnp.asarray(x)))
    counts = []
    for threshold in (-1.5, 0.8, 1.6, 3.0):
        out = run(snn.SpikingMaxPool(kernel, stride, padding, threshold=threshold))
        expected = pooled(x > threshold, kernel, stride, padding, np.any, False)
        np.testing.assert_array_equal(out, expected)
        counts.append(expected.sum())
    assert counts[0] > counts[-1], "always or never a spike"


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.99])
def test_a_spiking_pool_on_spikes_is_a_pool(threshold):
    x = jnp.asarray(spikes((2, 7, 8)), jnp.float32)
    out = snn.SpikingMaxPool((3, 2), 2, 1, threshold=threshold)(x)
    np.testing.assert_array_equal(out, snn.MaxPool((3, 2), 2, 1)(x))
    assert 0 < snn.SpikingMaxPool(2, threshold=threshold)(x).sum() < out.size * 2
    assert not jnp.any(snn.SpikingMaxPool(2, threshold=1.0)(x)), "at threshold is not above it"


@pytest.mark.parametrize(
    ("options", "slope"),
    [
        ({}, lambda x: 1 / (1 + 10 * abs(x)) ** 2),
        ({"surrogate": surrogate.ATan()}, lambda x: 1 / (1 + (np.pi * x) ** 2)),
    ],
    ids=["SuperSpike", "ATan"],
)
def test_the_gradient_of_a_spiking_pool_is_the_surrogate_at_its_maximum(x64, options, slope):
    x, threshold = normal((2, 4, 6)), 0.7
    pool = snn.SpikingMaxPool(2, threshold=threshold, **options)
    weights = normal((2, 2, 3))
    value = lambda pool, x: jnp.sum(pool(x) * jnp.asarray(weights))  # noqa: E731
    for_pool, gradient = eqx.filter_jit(eqx.filter_grad(lambda both: value(*both)))((pool, jnp.asarray(x)))
    expected, of_threshold = np.zeros(x.shape), 0.0
    for index, cut in cuts(x.shape, 2, None, 0):
        steep = slope(x[cut].max() - threshold) * weights[index]
        expected[cut][np.unravel_index(np.argmax(x[cut]), x[cut].shape)] += steep
        of_threshold -= steep
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    np.testing.assert_allclose(for_pool.threshold, of_threshold, rtol=1e-12)
    assert of_threshold != 0


def gradient_program(pool, x):
    return str(jax.make_jaxpr(jax.grad(lambda x: pool(x).sum()))(x))


@pytest.mark.parametrize("pool", [snn.MaxPool(3, 2, 1), snn.AvgPool(3, 2, 1), snn.SpikingMaxPool(3, 2, 1)])
def test_the_gradient_needs_no_scatter_and_no_window_reduction(pool):
    x = jnp.zeros((2, 8, 8))
    slow = [word for word in ("scatter", "reduce_window") if word in gradient_program(eqx.nn.MaxPool2d(3, 2, 1), x)]
    assert slow, "what is looked for is not what Equinox does"
    assert not any(word in gradient_program(pool, x) for word in ("scatter", "reduce_window", "gather"))


@pytest.mark.parametrize("pool", [snn.MaxPool(2), snn.AvgPool(2), snn.SpikingMaxPool(2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_kept(pool, dtype):
    out = pool(jnp.ones((1, 4), dtype))
    assert out.dtype == jnp.dtype(dtype)
    assert out.tolist() == [[1.0, 1.0]]


def test_pools_are_layers_of_a_model_and_tell_the_shape(getkey):
    model = snn.Sequential(snn.MaxPool(2), snn.IF(None), snn.AvgPool(2), snn.flatten)
    xs = jax.random.uniform(getkey(), (5, 2, 8, 8))
    states = model.init_states(input_shape=(2, 8, 8))
    _, outs = model(states, xs)
    assert (states[1].v.shape, outs[-1].shape) == ((2, 4, 4), (5, 8))
    np.testing.assert_array_equal(outs[0], jnp.stack([snn.MaxPool(2)(x) for x in xs]))
    assert jnp.any(outs[-1] != 0)


def test_slices_are_the_elements_of_dilated_windows():
    x = normal((2, 9, 8))
    found = snn.window_slices(jnp.asarray(x, jnp.float32), (1, 3, 2), (1, 2, 1), (1, 2, 3))
    assert len(found) == 6
    for k, (row, column) in enumerate(np.ndindex(3, 2)):
        expected = x[:, 2 * row : 2 * row + 5 : 2, 3 * column : 3 * column + 5]
        np.testing.assert_array_equal(found[k], expected.astype(np.float32))


@each_pool
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0,), "kernel_size must be one size of at least 1, or 2 of them, found 0"),
        (((2, 2, 2),), r"kernel_size must be .* or 2 of them, found \(2, 2, 2\)"),
        ((2, 0), "stride must be one size of at least 1, or 2 of them, found 0"),
        ((2, (1,)), r"stride must be .* found \(1,\)"),
        ((2, 1, -1), "padding must be one size of at least 0, or 2 of them, found -1"),
        ((3, 1, 2), r"padding must be at most half of the kernel size, found \(2, 2\) for \(3, 3\)"),
        ((6,), r"the windows \(6, 6\) are larger than the input of shape \(1, 5, 6\), padding \(0, 0\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, sizes, message):
    with pytest.raises(ValueError, match=message):
        kind(*sizes)(jnp.zeros((1, 5, 6)))
    with pytest.raises(ValueError, match=message):
        snn.SpikingMaxPool(*sizes)(jnp.zeros((1, 5, 6)))
