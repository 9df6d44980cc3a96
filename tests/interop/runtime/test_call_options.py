"""What a call of a conversion takes besides arrays: constant inputs, an engine; what it refuses, and where to."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.torch_networks import CASES

from snnax import Repeat, engine
from snnax_interop import from_torch, to_jax


OVER_TIME = [
    "time first",
    "batch first",
    "convolutional frames",
    "time last",
    "filled by index",
    "folded time",
    "sequential, loop outside",
    "norse cells",
]


@functools.cache
def conversion(name: str):
    """A case, its conversion, and its input as JAX has it."""
    case = CASES[name]
    net, inputs = case.build().eval(), case.inputs(case.example)
    example = tuple(x[0] for x in inputs) if case.loop == "outside" else inputs
    converted = from_torch(net, example, loop=case.loop)
    [x] = map(to_jax, case.inputs(case.example, 1))
    return converted, x


@pytest.mark.parametrize("name", OVER_TIME)
@pytest.mark.full
def test_an_input_that_stays_the_same_is_given_once(name):
    converted, x = conversion(name)
    [spec] = converted.plan.inputs
    once = jnp.take(x, 0, spec.time_axis)
    given, expected = Repeat(once, 7), jnp.stack([once] * 7, spec.time_axis)
    assert converted.num_steps(given) == converted.num_steps(expected)
    found, wanted = converted.run(given), converted.run(expected)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    spikes = converted.spikes(given)
    assert all(each.any() for each in spikes.values())


def test_what_depends_on_a_repeated_input_alone_is_computed_once():
    converted, x = conversion("time first")

    def products(given) -> list[bool]:
        """Of each matrix product, in order, whether it is of all time steps."""
        shapes = re.findall(r"f32\[([\d,]*)\] = dot_general", str(jax.make_jaxpr(converted)(given)))
        return ["9" in shape.split(",") for shape in shapes]

    assert products(jnp.broadcast_to(x[0], (9, *x.shape[1:]))) == [True, True]
    assert products(Repeat(x[0], 9)) == [False, True]


def test_a_network_that_runs_as_long_as_it_always_does_takes_the_repeated_input_too():
    converted, x = conversion("static input, global bound")
    [steps] = converted.num_steps(x)
    for a, b in zip(converted(Repeat(x, steps)), converted(x), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=rf"is repeated 3 times, and forward runs \[{steps}\].*converted\.model"):
        converted(Repeat(x, 3))
    # The model runs as long as it is told.
    model = converted.model
    _, outs = jax.vmap(lambda sample: model(model.init_states(), Repeat(sample, 2 * steps)))(x)
    expected = converted.spikes(x)["lif2"]
    np.testing.assert_allclose(outs[list(model.named_nodes).index("lif2")][:, :steps].swapaxes(0, 1), expected)
    assert expected.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: Repeat(x, 3), r"must have shape \(batch, 12\) at each of its repeated steps, found \(5, 3, 12\)"),
        (
            lambda x: Repeat(x[0, :, :3], 3),
            r"must have shape \(batch, 12\) at each of its repeated steps, found \(3, 3\)",
        ),
        (lambda x: Repeat(list(x[0]), 3), "must be a JAX or NumPy array, found list"),
        (lambda x: Repeat(x[0].astype(int), 3), "must have dtype float32, found int32"),
    ],
    ids=["with time", "features", "list", "dtype"],
)
def test_a_repeated_input_that_does_not_fit_is_refused(make, message):
    converted, x = conversion("time first")
    with pytest.raises((ValueError, TypeError), match=message):
        converted(make(x))


@pytest.mark.parametrize("run", [engine.stepwise, engine.checkpointed, functools.partial(engine.layerwise, methods={})])
@pytest.mark.parametrize("name", ["time first", "static input, global bound"])
@pytest.mark.full
def test_an_engine_is_that_of_the_models(name, run):
    converted, x = conversion(name)
    seen = []

    def engine_that_is_seen(model, *arguments, **options):
        seen.append(model)
        return run(model, *arguments, **options)

    found = converted(x, engine=engine_that_is_seen)
    assert len(seen) == len(converted.plan.loops)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(converted(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert jax.tree.leaves(converted.run(x, engine=engine_that_is_seen)) and len(seen) == 2 * len(converted.plan.loops)
    converted.call_and_update(x, engine=engine_that_is_seen)
    assert len(seen) == 3 * len(converted.plan.loops)


@pytest.mark.parametrize("method", ["__call__", "run"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": jnp.ones(5, bool)}, r"no argument 'mask'; .*converted\.model\(states, xs, mask=mask\)"),
        ({"burnin": 2}, r"no argument 'burnin'; .*converted\.run\(first\)"),
        ({"x": jnp.ones(5)}, "no argument 'x'; allowed: key, states, engine; inputs are given by their position"),
    ],
)
def test_what_only_a_model_takes_is_refused_with_where_it_goes(method, options, message):
    converted, x = conversion("time first")
    with pytest.raises(TypeError, match=message):
        getattr(converted, method)(x, **options)
