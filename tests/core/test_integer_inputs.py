"""Frames of integers and Booleans are numbers to all layers: nothing is cut, wrapped or joined by `or`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .layers import EXAMPLES, KEY, SHAPE


pytestmark = pytest.mark.usefixtures("unchecked")
DTYPES = [jnp.bool_, jnp.uint8, jnp.int8, jnp.int16, jnp.int32]
STATELESS = {
    "OneToOne": snn.OneToOne(0.5),
    "MaxPool": snn.MaxPool(2, padding=1),
    "AvgPool": snn.AvgPool(2),
    "SpikingMaxPool": snn.SpikingMaxPool(2),
    "Residual": snn.Residual(snn.Lambda(lambda x: x)),
    "Parallel": snn.Parallel(snn.Lambda(lambda x: x), snn.Lambda(lambda x: x)),
    "fan-in": snn.Graph({"out": eqx.nn.Identity()}, {"out": ["input", "input"]}, "out"),
}


def outputs(node, xs):
    model = node if isinstance(node, snn.AbstractModel) else snn.Sequential(node)
    if isinstance(node, snn.BatchNorm):
        model = eqx.nn.inference_mode(model)
    states = model.init_states(input_shape=xs.shape[1:])
    states, outs = model(states, xs, KEY, engine=engine.stepwise)
    return states, outs[-1]


def frames(shape):
    return np.asarray(jax.random.bernoulli(KEY, 0.7, (5, *shape)))


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_layers_compute_on_integers_as_on_floats(kind):
    example = EXAMPLES[kind]
    layer, xs = example.make(example.shape if example.has_shape else None), 3 * frames(example.shape)
    expected = outputs(layer, jnp.asarray(xs, jnp.float32))
    assert jnp.any(expected[1] != 0)
    run = eqx.filter_jit(outputs)
    for dtype in (jnp.uint8, jnp.int32):
        found = run(layer, jnp.asarray(xs, dtype))
        assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_functions_and_sums_compute_on_integers_as_on_floats(name, dtype):
    most = 1 if dtype is jnp.bool_ else min(jnp.iinfo(dtype).max, 1000)
    xs = np.asarray(most * frames((2, 4, 4)), np.float32)
    expected = outputs(STATELESS[name], jnp.asarray(xs))[1]
    found = outputs(STATELESS[name], jnp.asarray(xs, dtype))[1]
    assert expected.max() > 0 and found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("run", [engine.stepwise, engine.layerwise, engine.parallel, engine.checkpointed])
def test_membranes_of_bytes_are_not_cut_in_any_engine(run):
    model = snn.Sequential(snn.LI(2, 0.9))
    _, outs = model(model.init_states(), jnp.full((4, 2), 200, jnp.uint8), engine=run)
    np.testing.assert_allclose(outs[-1][:, 0], [200.0, 380.0, 542.0, 687.8], rtol=1e-6)


def test_floats_of_half_precision_stay_what_they_are():
    _, out = outputs(snn.LIF(SHAPE, 0.9, 0.5), jnp.ones((3, *SHAPE), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16 and out.sum() > 0
