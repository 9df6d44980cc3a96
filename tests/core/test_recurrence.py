"""Linear recurrences without a loop: values and gradients against a loop in NumPy, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from snnax.engine import linear_recurrence

from .test_engines import equations


pytestmark = pytest.mark.full


def loop(decay, xs, first):
    values, v = [], first
    for x in xs:
        v = decay * v + x
        values.append(v)
    return np.array(values).reshape(xs.shape)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 7, 64, 101])
@pytest.mark.parametrize("decay_shape", [(), (4,), (1,), (3, 4), (3, 1)])
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0, 1.2])
def test_values_are_those_of_a_loop(x64, num_steps, decay_shape, decay):
    random = np.random.default_rng(0)
    decays = decay * random.uniform(0.8, 1.0, decay_shape)
    xs, first = random.normal(size=(num_steps, 3, 4)), random.normal(size=(3, 4))
    found = jax.jit(linear_recurrence)(decays, xs, first)
    np.testing.assert_allclose(found, loop(decays, xs, first), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 2, 13])
@pytest.mark.parametrize("decay_shape", [(), (1,), (3,)])
def test_gradients_equal_finite_differences(x64, num_steps, decay_shape, getkey):
    decay = jnp.full(decay_shape, 0.7)
    xs, first = jax.random.normal(getkey(), (num_steps, 3)), jax.random.normal(getkey(), (3,))
    value = lambda *arguments: jnp.sin(linear_recurrence(*map(jnp.asarray, arguments)))  # noqa: E731
    check_grads(jax.jit(value), (decay, xs, first), order=1, modes=["rev"], rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda *arguments: value(*arguments).sum(), argnums=(0, 1, 2)))
    gradients = gradient(decay, xs, first)
    assert all(jnp.all(leaf != 0) for leaf in gradients)


def test_the_gradient_of_no_steps_is_zero():
    gradients = jax.grad(lambda *arguments: linear_recurrence(*arguments).sum(), argnums=(0, 1, 2))(
        jnp.float32(0.5), jnp.zeros((0, 3)), jnp.ones(3)
    )
    assert gradients[1].shape == (0, 3)
    assert not any(jnp.any(leaf) for leaf in gradients)


def test_the_backward_pass_keeps_the_values_and_nothing_else_of_their_size():
    xs = jnp.ones((50, 3))
    _, backward = jax.vjp(linear_recurrence, jnp.float32(0.9), xs, jnp.ones(3))
    kept = [leaf for leaf in jax.tree.leaves(backward) if getattr(leaf, "shape", ()) == xs.shape]
    assert len(kept) == 1


def test_there_is_no_loop_over_time():
    program = jax.make_jaxpr(linear_recurrence)(jnp.float32(0.9), jnp.ones((64, 3)), jnp.ones(3)).jaxpr
    names = [name for name, _, _ in equations(program)]
    assert "scan" not in names and "while" not in names
    assert len(names) < 300, "more than O(log time) passes"


def test_it_runs_per_sample():
    xs = jnp.arange(24.0).reshape(2, 4, 3)
    together = jax.vmap(lambda xs: linear_recurrence(jnp.float32(0.5), xs, jnp.zeros(3)))(xs)
    np.testing.assert_allclose(together[1], loop(0.5, np.asarray(xs[1]), np.zeros(3)), rtol=1e-6)
