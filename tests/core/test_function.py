"""Stateless nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


@pytest.mark.parametrize("layer", [snn.flatten, snn.flatten(), snn.Flatten()], ids=["function", "factory", "class"])
@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_flatten_is_row_major_and_leaves_time_alone(layer, run):
    xs = jnp.arange(48.0).reshape(2, 2, 3, 4)
    model = snn.Sequential(layer)
    _, (out,) = model(model.init_states(), xs, engine=run)
    np.testing.assert_array_equal(out, np.asarray(xs).reshape(2, 24))


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)])
def test_flatten_gives_one_axis_whatever_comes_in(shape):
    assert snn.flatten(jnp.zeros(shape)).shape == (int(np.prod(shape)),)


def test_a_lambda_gets_its_inputs_in_the_order_of_its_edges():
    def graph(edges):
        return snn.Graph({"minus": snn.Lambda(jnp.subtract)}, {"minus": edges}, "minus", inputs=("a", "b"))

    xs = jnp.ones((4, 2)), jnp.full((4, 2), 3.0)
    for edges, expected in (["a", "b"], -2.0), (["b", "a"], 2.0):
        model = graph(edges)
        assert (model(model.init_states(), xs)[1][-1] == expected).all()


def test_any_other_node_gets_the_sum_of_its_inputs():
    model = snn.Graph({"double": lambda x: 2 * x}, {"double": ["a", "b", "a"]}, "double", inputs=("a", "b"))
    xs = jnp.ones((4, 2)), jnp.full((4, 2), 3.0)
    assert (model(model.init_states(), xs)[1][-1] == 10.0).all()


def test_a_value_is_the_same_at_every_step_and_learns():
    def total(value):
        model = snn.Graph({"bias": snn.Value(value)}, {}, "bias")
        return model(model.init_states(), jnp.zeros(5))[1][-1]

    assert total(jnp.array([1.0, 2.0])).tolist() == [[1.0, 2.0]] * 5
    assert jax.grad(lambda value: total(value).sum())(jnp.ones(2)).tolist() == [5.0, 5.0]
