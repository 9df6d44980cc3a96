"""Checkpointed runs: memory that grows with the square root of time, for any number of steps."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from snnax import engine, snn

from .networks import linear
from .test_engines import assert_equal_trees


pytestmark = pytest.mark.full


def gradient_memory(run, num_steps, size=64):
    """Bytes that XLA plans beside arguments and results for the gradient of a loss on the last membrane."""
    keys = jax.random.split(jax.random.key(0))
    recurrent = snn.Recurrent(snn.LIF(size, 0.9), eqx.nn.Linear(size, size, key=keys[0]))
    model = snn.Sequential(recurrent, eqx.nn.Linear(size, size, key=keys[1]), snn.LI(size, 0.9))
    states = model.init_states(input_shape=(size,))

    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    step = jax.jit(lambda arrays, xs: eqx.filter_grad(loss(run, states))(eqx.combine(arrays, static), xs))
    analysis = step.lower(arrays, jnp.ones((num_steps, size))).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def loss(run, states):
    return lambda model, xs: model(states, xs, engine=run)[0][-1].v.sum()


@pytest.mark.usefixtures("optimised")
def test_memory_grows_with_the_square_root_of_time():
    steps = [256, 1024, 4096]
    plain = [gradient_memory(engine.layerwise, num_steps) for num_steps in steps]
    chunked = [gradient_memory(engine.checkpointed, num_steps) for num_steps in steps]
    assert plain[2] > 3.5 * plain[1] > 12 * plain[0], "without chunks, memory is linear"
    assert chunked[2] < 2.5 * chunked[1] < 6.25 * chunked[0]
    assert chunked[2] < plain[2] / 10


@pytest.mark.usefixtures("optimised")
def test_a_prime_number_of_steps_takes_no_more_memory_than_its_neighbour():
    prime, even = gradient_memory(engine.checkpointed, 1021), gradient_memory(engine.checkpointed, 1024)
    # Cutting off the remainder copies the input once; the states are as many.
    copy = 4 * 1021 * 64
    assert prime < 1.5 * even + copy
    assert prime < gradient_memory(engine.layerwise, 1021) / 5


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100, None])
@pytest.mark.parametrize("num_steps", [0, 1, 7, 11])
def test_any_chunk_gives_the_same(x64, getkey, chunk, num_steps):
    model = snn.Sequential(linear(getkey), snn.LIF(3, [0.7, 0.5]), linear(getkey), snn.LI(3, 0.9))
    xs = 2 * jax.random.normal(getkey(), (num_steps, 3))
    states = jax.tree.map(lambda x: x + 0.2, model.init_states())

    @functools.partial(eqx.filter_value_and_grad, has_aux=True)
    def value(model, run):
        results = model(states, xs, engine=run)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(results)), results

    chunked = functools.partial(engine.checkpointed, chunk=chunk)
    both = eqx.filter_jit(lambda model: (value(model, chunked), value(model, engine.stepwise)))
    assert_equal_trees(*both(model))


def test_a_chunk_of_no_steps_is_refused():
    model = snn.Sequential(snn.LIF(3, 0.9))
    with pytest.raises(ValueError, match="a chunk has at least one time step, found 0"):
        model(model.init_states(), jnp.ones((4, 3)), engine=functools.partial(engine.checkpointed, chunk=0))


def test_a_layer_that_needs_the_whole_sequence_is_named():
    model = snn.Sequential(snn.Sequential(snn.BatchNorm(3, statistics="sequence")), snn.LIF(3, 0.9))
    with pytest.raises(ValueError, match=r"the layers \['0.0'\] need the whole sequence at once; .*layerwise"):
        model(model.init_states(input_shape=(3,)), jnp.ones((4, 3)), engine=engine.checkpointed)
