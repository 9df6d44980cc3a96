"""Stepwise defines what a model computes; layerwise computes the same, with everything stateless out of the loop."""

import functools
import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from snnax import Repeat, engine, snn

from .networks import CASES, lif, linear


pytestmark = pytest.mark.full


# Both engines do the same arithmetic in float64; only the order of sums differs (matrix products, gradients over time).
RTOL, ATOL = 1e-10, 1e-12


def weighted(tree):
    """A number that depends on every element, each with a weight of its own."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum(
        (jnp.sum(leaf * jnp.cos(jnp.arange(1.0, leaf.size + 1.0)).reshape(leaf.shape)) for leaf in leaves),
        jnp.zeros(()),
    )


def evaluate(run, model, states, xs, key):
    """Outputs, final states, and the gradients with respect to parameters, first states and inputs."""

    @eqx.filter_value_and_grad(has_aux=True)
    def value(arguments):
        model, states, xs = arguments
        after, outs = model(states, xs, key, engine=run)
        return weighted((after, outs)), (after, outs)

    (_, results), gradients = value((model, states, xs))
    return results, gradients


ENGINES = (engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel)


@eqx.filter_jit
def every(model, states, xs, key):
    return tuple(evaluate(run, model, states, xs, key) for run in ENGINES)


def first_states(case):
    """States that are not zero, so that their gradients are not trivial."""
    states = case.model.init_states(input_shape=case.input_shape)
    leaves, structure = jax.tree.flatten(states)
    return jax.tree.unflatten(structure, [leaf + 0.1 * (k + 1) for k, leaf in enumerate(leaves)])


def assert_equal_trees(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL, err_msg=jax.tree_util.keystr(path))


MASK = jnp.array([False, True, True, False, True, True, False])
SHORT = [0, 1, 2]


class Results(NamedTuple):
    """What a network computes; by engine where it says `every`. The tests say what of it equals what."""

    every: tuple[Any, ...]  # results and gradients of seven time steps
    masked: dict[str, Any]  # results of seven time steps of which some do not count, by engine
    counted: Any  # of those that do, stepwise
    continued: Any  # results of three time steps and then four; None with dropout, of which each call has its own
    whole: Any  # of these seven


def built(name, num_steps):
    """A case with the same parameters whatever the number of time steps."""
    seeds = itertools.count()
    return CASES[name](lambda: jax.random.key(next(seeds)), num_steps)


@functools.cache
def results(name) -> Results:
    """One program: most of the time of these tests goes into compiling, of many small programs the most."""

    with jax.enable_x64(True):
        case = built(name, len(MASK))
        xs, keys = counted(case)
        broken = jax.tree.map(
            lambda x: x if isinstance(x, Repeat) else jnp.where(MASK.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.nan),
            case.xs,
            is_leaf=lambda x: isinstance(x, Repeat),
        )

        @eqx.filter_jit
        def program(model, states, case_xs, broken, xs, keys):
            whole = continued = None
            if "dropout" not in name:
                early, late = split(case_xs, 3)
                between, first = model(states, early)
                after, second = model(between, late)
                continued = after, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
                whole = model(states, case_xs)
            counting = None if keys is None else keys[MASK]
            return Results(
                every=tuple(evaluate(run, model, states, case_xs, case.key) for run in ENGINES),
                masked={run.__name__: model(states, broken, keys, engine=run, mask=MASK) for run in ENGINES},
                counted=model(states, xs, counting, engine=engine.stepwise),
                continued=continued,
                whole=whole,
            )

        return jax.device_get(program(case.model, first_states(case), case.xs, broken, xs, keys))


@functools.cache
def short(name) -> tuple[Any, dict[int, tuple[Any, ...]]]:
    """First states, and the results of every engine by the number of time steps."""
    with jax.enable_x64(True):
        case = built(name, SHORT[0])

        @eqx.filter_jit
        def program(model, states, xs):
            return {n: tuple(model(states, x, case.key, engine=run) for run in ENGINES) for n, x in xs.items()}

        states = first_states(case)
        return jax.device_get((states, program(case.model, states, {n: built(name, n).xs for n in SHORT})))


@pytest.mark.parametrize("name", CASES)
def test_engines_agree_in_outputs_states_and_gradients(name):
    stepwise, *others = results(name).every
    for found in others:
        assert_equal_trees(found, stepwise)
    (_, outs), gradients = stepwise
    rasters = [out for out in jax.tree.leaves(outs) if np.all((out == 0) | (out == 1))]
    assert all(raster.sum() > 0 for raster in rasters), "a silent layer"
    assert any(raster.sum() < raster.size for raster in rasters), "no spikes, or nothing else"
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("num_steps", SHORT)
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_on_short_sequences(name, num_steps):
    states, runs = short(name)
    stepwise, *others = runs[num_steps]
    for found in others:
        assert_equal_trees(found, stepwise)
    assert all(out.shape[0] == num_steps for out in jax.tree.leaves(stepwise[1]))
    if num_steps == 0:
        assert_equal_trees(stepwise[0], states)


@pytest.mark.parametrize("name", ["chain", "feedback_through_a_layer", "repeated_input"])
def test_gradients_agree_on_the_empty_sequence(x64, getkey, name):
    case = CASES[name](getkey, 0)
    stepwise, *others = every(case.model, first_states(case), case.xs, case.key)
    for found in others:
        assert_equal_trees(found, stepwise)


def counted(case):
    """The steps that count of all inputs, and the keys of all steps."""
    is_repeat = lambda x: isinstance(x, Repeat)  # noqa: E731
    pick = lambda x: Repeat(x.value, int(MASK.sum())) if is_repeat(x) else x[MASK]  # noqa: E731
    keys = None if case.key is None else jax.random.split(case.key, MASK.size)
    return jax.tree.map(pick, case.xs, is_leaf=is_repeat), keys


@pytest.mark.parametrize("run", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_steps_that_do_not_count_leave_states_alone_and_outputs_zero(name, run):
    (states, outs), (expected_states, expected) = results(name).masked[run.__name__], results(name).counted
    assert_equal_trees(states, expected_states)
    assert_equal_trees(jax.tree.map(lambda x: x[np.asarray(MASK)], outs), expected)
    assert not any(np.any(x[~np.asarray(MASK)]) for x in jax.tree.leaves(outs))


def test_gradients_do_not_see_steps_that_do_not_count(x64, getkey):
    case = CASES["feedback_through_a_layer"](getkey, MASK.size)
    states, (xs, _) = first_states(case), counted(case)

    def loss(model, xs, **options):
        return weighted([x.sum(0) for x in jax.tree.leaves(model(states, xs, **options))])

    broken = jnp.where(MASK[:, None], case.xs, jnp.nan)
    found = eqx.filter_jit(eqx.filter_grad(lambda model: loss(model, broken, mask=MASK)))(case.model)
    expected = eqx.filter_jit(eqx.filter_grad(lambda model: loss(model, xs)))(case.model)
    assert_equal_trees(found, expected)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(found))


def test_samples_of_different_length_end_in_their_own_states(x64, getkey):
    case = CASES["chain"](getkey, 7)
    lengths, states = jnp.array([7, 3, 0]), first_states(case)
    masks = jnp.arange(7)[None] < lengths[:, None]
    xs = jnp.stack([case.xs, 2 * case.xs, 3 * case.xs])
    after, _ = jax.jit(jax.vmap(lambda xs, mask: case.model(states, xs, mask=mask)))(xs, masks)
    for sample, length in enumerate(lengths.tolist()):
        alone, _ = eqx.filter_jit(case.model)(states, xs[sample, :length])
        assert_equal_trees(jax.tree.map(lambda x: x[sample], after), alone)  # noqa: B023


@pytest.mark.parametrize("run", ENGINES)
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (jnp.ones(3, bool), ValueError, r"one value for each of 2 time steps, found the shape \(3,\)"),
        (jnp.ones(2), TypeError, "a mask is Boolean, True where a time step counts; found float32"),
    ],
)
def test_a_mask_of_another_kind_is_refused(run, mask, error, message):
    model = snn.Sequential(snn.LIF(3, 0.9))
    with pytest.raises(error, match=message):
        model(model.init_states(), jnp.ones((2, 3)), engine=run, mask=mask)


@pytest.mark.parametrize("run", ENGINES)
def test_keys_may_be_given_step_by_step(getkey, run):
    model, xs, key = snn.Sequential(eqx.nn.Dropout(0.5)), jnp.ones((5, 64)), getkey()
    split = jax.random.split(key, 5)
    assert eqx.tree_equal(model([None], xs, key, engine=run), model([None], xs, split, engine=run))
    legacy = jax.random.key_data(split)
    assert model([None], xs, legacy, engine=run)[1][0].shape == (5, 64)
    with pytest.raises(ValueError, match="one key, or one for each of 5 time steps, found 4"):
        model([None], xs, split[:4], engine=run)


@pytest.mark.parametrize("name", ["chain", "feedback_through_a_layer", "dropout", "repeated_beside_varying_input"])
def test_the_first_steps_have_no_gradient_when_they_are_burned_in(x64, getkey, name):
    case = CASES[name](getkey, 7)
    states = first_states(case)
    keys = None if case.key is None else jax.random.split(case.key, 7)

    @eqx.filter_jit
    def truncated(model, run):
        @eqx.filter_value_and_grad(has_aux=True)
        def value(model):
            results = model(states, case.xs, case.key, engine=run, burnin=3)
            return weighted(results), results

        return value(model)

    @eqx.filter_jit
    def by_hand(model):
        early, late = split(case.xs, 3)

        @eqx.filter_value_and_grad(has_aux=True)
        def value(model):
            first = None if keys is None else keys[:3]
            between, outs = jax.lax.stop_gradient(model(states, early, first, engine=engine.stepwise))
            after, more = model(between, late, None if keys is None else keys[3:], engine=engine.stepwise)
            results = after, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, more)
            return weighted(results), results

        return value(model)

    @eqx.filter_jit
    def whole(model):
        @eqx.filter_value_and_grad(has_aux=True)
        def value(model):
            results = model(states, case.xs, case.key)
            return weighted(results), results

        return value(model)

    expected = by_hand(case.model)
    (_, results), gradient = whole(case.model)
    for run in ENGINES:
        found = truncated(case.model, run)
        assert_equal_trees(found, expected)
        assert_equal_trees(found[0][1], results)
        assert not eqx.tree_equal(gradient, found[1]), "the first steps have no part in the gradient anyway"


@pytest.mark.parametrize("burnin", [-1, 3])
def test_a_burn_in_beyond_the_sequence_is_refused(burnin):
    model = snn.Sequential(snn.LIF(3, 0.9))
    with pytest.raises(ValueError, match=f"burnin is a number of time steps, at most 2 here, found {burnin}"):
        model(model.init_states(), jnp.ones((2, 3)), burnin=burnin)


def split(xs, at):
    is_repeat = lambda x: isinstance(x, Repeat)  # noqa: E731
    early = jax.tree.map(lambda x: Repeat(x.value, at) if is_repeat(x) else x[:at], xs, is_leaf=is_repeat)
    late = jax.tree.map(lambda x: Repeat(x.value, x.num_steps - at) if is_repeat(x) else x[at:], xs, is_leaf=is_repeat)
    return early, late


@pytest.mark.parametrize("name", [name for name in CASES if "dropout" not in name])
def test_going_on_from_the_returned_states_equals_one_long_run(name):
    assert_equal_trees(results(name).continued, results(name).whole)


@pytest.mark.parametrize("run", ENGINES)
@pytest.mark.parametrize("name", ["chain", "cycle_of_two", "sequential_in_graph_with_fan_in", "states_as_sources"])
def test_a_batch_is_what_its_samples_are(x64, getkey, name, run):
    cases = [CASES[name](getkey, 5) for _ in range(3)]
    model, states = cases[0].model, first_states(cases[0])

    @eqx.filter_jit
    def runs(xs):
        sample = lambda xs: model(states, xs, engine=run)[1]  # noqa: E731
        return jax.vmap(sample)(xs), jax.lax.map(sample, xs)

    assert_equal_trees(*runs(jnp.stack([case.xs for case in cases])))


@pytest.mark.parametrize("run", [engine.layerwise, engine.stepwise])
def test_a_batch_of_repeated_inputs_is_a_repeated_batch(getkey, run):
    model = snn.Sequential(linear(getkey), lif())
    values = 5 * jax.random.normal(getkey(), (4, 3))
    states = model.init_states()
    _, outs = jax.vmap(lambda xs: model(states, xs, engine=run))(Repeat(values, 6))
    assert outs[-1].shape == (4, 6, 3)
    np.testing.assert_array_equal(outs[-1][2], model(states, Repeat(values[2], 6), engine=run)[1][-1])


@pytest.mark.parametrize("repeat", [False, True])
def test_dropout_differs_at_every_step_and_is_the_same_in_both_engines(getkey, repeat):
    model = snn.Sequential(eqx.nn.Dropout(0.5), snn.Sequential(eqx.nn.Dropout(0.5)), eqx.nn.Dropout(0.5))
    xs, key = Repeat(jnp.ones(64), 5) if repeat else jnp.ones((5, 64)), getkey()
    masks, expected = (
        model([None, [None], None], xs, key, engine=run)[1] for run in (engine.layerwise, engine.stepwise)
    )
    assert eqx.tree_equal(masks, expected)
    for mask in masks:
        assert len({step.tobytes() for step in np.asarray(mask)}) == 5
    ratios = np.asarray(masks[1] / jnp.where(masks[0] > 0, masks[0], 1.0))
    assert np.any((np.asarray(masks[0]) > 0) & (ratios == 0)), "the layers share their masks"
    other = model([None, [None], None], xs, getkey())[1]
    assert not eqx.tree_equal(masks, other)


def equations(jaxpr, inside=()):
    """All equations of a program, each with the names of the primitives around it."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield name, equation, inside
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr)
        ):
            if isinstance(parameter, core.ClosedJaxpr | core.Jaxpr):
                program = parameter.jaxpr if isinstance(parameter, core.ClosedJaxpr) else parameter
                yield from equations(program, (*inside, name))


def products(model, states, xs, run):
    """Matrix products and convolutions: (inside a scan?, shape of the result)."""
    arrays, static = eqx.partition((model, states, xs), eqx.is_array)

    def forward(arrays):
        model, states, xs = eqx.combine(arrays, static)
        return model(states, xs, engine=run)

    program = jax.make_jaxpr(forward)(arrays).jaxpr
    return [
        ("scan" in inside, equation.outvars[0].aval.shape)
        for name, equation, inside in equations(program)
        if name in ("dot_general", "conv_general_dilated")
    ]


@pytest.mark.parametrize(
    ("name", "in_scan"),
    [
        ("chain", 0),
        ("convolutions", 0),
        ("sequential_in_sequential", 0),
        ("sequential_in_graph_with_fan_in", 0),
        ("skip_connection", 0),
        ("tied_layers", 1),  # the second of two uses is in a loop
        ("cycle_of_two", 1),  # of three linear layers
        ("feedback_through_a_layer", 1),  # of two
    ],
)
def test_stateless_layers_are_out_of_the_loop(getkey, name, in_scan):
    case = CASES[name](getkey, 7)
    states = case.model.init_states(input_shape=case.input_shape)
    stepwise = products(case.model, states, case.xs, engine.stepwise)
    layerwise = products(case.model, states, case.xs, engine.layerwise)
    assert all(inside for inside, _ in stepwise)
    assert len(stepwise) == len(layerwise) > in_scan
    assert sum(inside for inside, _ in layerwise) == in_scan
    assert all(shape[0] == 7 or 7 in shape for inside, shape in layerwise if not inside)


def test_what_reads_only_repeated_inputs_is_computed_once(getkey):
    model = snn.Sequential(linear(getkey), jnp.tanh, snn.Sequential(linear(getkey)), lif())
    assert products(model, model.init_states(), Repeat(jnp.ones(3), 7), engine.layerwise) == [(False, (3,))] * 2
    varying = products(model, model.init_states(), jnp.ones((7, 3)), engine.layerwise)
    assert [(inside, sorted(shape)) for inside, shape in varying] == [(False, [3, 7])] * 2


def test_a_function_of_repeated_and_varying_inputs_repeats_only_what_varies(getkey):
    weight = linear(getkey)
    nodes = {"mix": snn.Lambda(lambda still, moving: weight(still) * moving)}
    model = snn.Graph(nodes, {"mix": ["still", "moving"]}, "mix", inputs=("still", "moving"))
    xs = Repeat(jnp.ones(3), 7), jnp.ones((7, 3))
    assert products(model, model.init_states(), xs, engine.layerwise) == [(False, (3,))]


def test_a_constant_is_computed_once_also_where_a_key_is_given(getkey):
    nodes = {"bias": snn.Value(jnp.ones(3)), "fc": linear(getkey), "lif": lif()}
    model = snn.Graph(nodes, {"fc": "bias", "lif": ["fc", "input"]}, "lif")
    states, xs, key = model.init_states(), jnp.ones((7, 3)), getkey()
    with_key = lambda *args, **_: engine.layerwise(*args, key=key)  # noqa: E731
    assert products(model, states, xs, with_key) == [(False, (3,))]


def test_a_repeated_input_becomes_a_sequence_in_the_outputs():
    model = snn.Sequential(jnp.tanh)
    _, outs = model(model.init_states(), Repeat(jnp.ones(2), 3))
    assert outs[-1].shape == (3, 2)
    assert Repeat({"a": jnp.ones(2)}, 3).sequence()["a"].shape == (3, 2)
    assert Repeat(jnp.float32(1), 0).sequence().shape == (0,)


def test_both_engines_compile_under_jit_without_being_told_apart(getkey):
    case = CASES["feedback_through_a_layer"](getkey, 7)
    states = case.model.init_states(input_shape=case.input_shape)
    results = [
        eqx.filter_jit(case.model)(states, case.xs, engine=run)[1][-1] for run in (engine.layerwise, engine.stepwise)
    ]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_an_engine_may_be_given_by_the_user(getkey):
    seen = []

    def spy(model, states, xs, *, key=None):
        seen.append(key)
        return engine.stepwise(model, states, xs, key=key)

    model = snn.Sequential(snn.LIF(3, 0.9))
    model(model.init_states(), jnp.ones((2, 3)), engine=spy)
    assert seen == [None]
