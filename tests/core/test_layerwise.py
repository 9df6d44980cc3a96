"""How single layers run over time: the choice of a method, sequence layers, and what is left in a loop."""
# Options are spread from dictionaries, and refusals are given what they refuse.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false, reportIndexIssue=false

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn

from .networks import lif, linear
from .test_engines import assert_equal_trees, equations, products


pytestmark = pytest.mark.full


def primitives(function, *arguments):
    arrays, static = eqx.partition(arguments, eqx.is_array)
    program = jax.make_jaxpr(lambda arrays: function(*eqx.combine(arrays, static)))(arrays).jaxpr
    return [(name, equation) for name, equation, _ in equations(program)]


def scans(function, *arguments):
    return sum(name == "scan" for name, _ in primitives(function, *arguments))


@pytest.fixture
def model(getkey):
    block = snn.Sequential(linear(getkey), snn.LI(3, [0.9, 0.5]))
    return snn.Sequential(linear(getkey), snn.LIF(3, 0.9, reset="none"), lif(), block)


def test_linear_recurrences_have_no_loop_in_parallel(model):
    states, xs = model.init_states(), jnp.ones((9, 3))
    run = lambda method, states, xs: model(states, xs, engine=method)  # noqa: E731
    assert scans(run, engine.layerwise, states, xs) == 3
    assert scans(run, engine.parallel, states, xs) == 1


@pytest.mark.parametrize(
    ("methods", "count"),
    [({"1": "parallel"}, 2), ({"3.1": "parallel"}, 2), ({"1": "parallel", "3.1": "parallel"}, 1), ({}, 3)],
)
def test_single_layers_may_run_in_parallel(model, methods, count):
    states, xs = model.init_states(), jnp.ones((9, 3))
    run = functools.partial(engine.layerwise, methods=methods)
    assert scans(lambda xs: model(states, xs, engine=run), xs) == count
    rest = {"1": "sequential", "3.1": "sequential"} | {}
    override = functools.partial(engine.parallel, methods={**rest, **methods})
    assert scans(lambda xs: model(states, xs, engine=override), xs) == count


def test_a_single_layer_may_be_checkpointed(x64, model, getkey):
    states, xs = model.init_states(), 3 * jax.random.normal(getkey(), (10, 3))
    run = functools.partial(engine.layerwise, methods={"2": "checkpointed"})
    names = [name for name, _ in primitives(lambda xs: model(states, xs, engine=run), xs)]
    assert any("remat" in name or "checkpoint" in name for name in names)
    grad = lambda run: eqx.filter_grad(lambda model: model(states, xs, engine=run)[1][-1].sum())(model)  # noqa: E731
    assert_equal_trees(grad(run), grad(engine.stepwise))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"9": "parallel"}, r"methods names '9', but the model has the layers \['0', '1', '2', '3', '3.0', '3.1'\]"),
        ({"0": "parallel"}, r"methods names '0' \(Linear\), which is no layer with a state"),
        (
            {"2": "parallel"},
            r"'2' \(LIF\) is no linear recurrence and cannot run in parallel: neurons need reset='none'",
        ),
        ({"1": "fast"}, r"methods\['1'\] must be one of \('sequential', 'parallel', 'checkpointed'\), found 'fast'"),
    ],
)
@pytest.mark.parametrize("run", [engine.layerwise, engine.parallel, engine.checkpointed])
def test_a_method_that_cannot_be_is_refused(model, methods, message, run, unchecked):
    with pytest.raises(ValueError, match=message):
        model(model.init_states(), jnp.ones((4, 3)), engine=functools.partial(run, methods=methods))


@pytest.mark.parametrize("order", ["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"])
@pytest.mark.parametrize("scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("decay", [snn.Factor, snn.Rate, snn.SigmoidRate])
def test_every_synapse_order_is_the_same_in_parallel(x64, getkey, order, scale, decay):
    options = {"synapse_order": order, "input_scale": scale, "v_leak": jnp.array([0.1, -0.2, 0.3])}
    per_neuron = decay(jnp.array([0.2, 0.4, 0.6]))
    nodes = {"li": snn.LI(3, [per_neuron, decay(0.3)], **options), "fc": linear(getkey)}
    nodes["lif"] = snn.LIF(3, [decay(0.3), per_neuron], 0.4, "none", **options)
    model = snn.Graph(nodes, {"li": "input", "fc": snn.State("li", "i"), "lif": ["li", "fc"]}, snn.State("lif", "v"))
    xs = jax.random.normal(getkey(), (11, 3))
    states = jax.tree.map(lambda x: x + 0.3, model.init_states())

    def value(model, run):
        after, outs = model(states, xs, engine=run)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((after, outs))), (after, outs)

    results = [
        eqx.filter_jit(eqx.filter_value_and_grad(value, has_aux=True))(model, run)
        for run in (engine.parallel, engine.stepwise)
    ]
    assert_equal_trees(*results)
    spikes = results[0][0][1][1][2]
    assert 0 < spikes.sum() < spikes.size
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(results[0][1]))


@pytest.mark.parametrize(
    "layer",
    [
        snn.SLSTM(3, 4, 0.1, key=jax.random.key(0)),
        snn.LeakyParallel(3, 4, key=jax.random.key(0)),
        snn.DelayedLinear(3, 4, 5, key=jax.random.key(0)),
    ],
    ids=["SLSTM", "LeakyParallel", "DelayedLinear"],
)
def test_input_projections_are_out_of_the_loop(layer):
    model = snn.Sequential(layer)
    found = products(model, model.init_states(), jnp.ones((7, 3)), engine.layerwise)
    assert [7 in shape for inside, shape in found if not inside] == [True]
    assert all(inside for inside, _ in products(model, model.init_states(), jnp.ones((7, 3)), engine.stepwise))


def test_a_state_that_is_read_keeps_a_sequence_layer_in_the_loop(x64, getkey):
    nodes = {"cell": snn.SLSTM(3, 3, 0.1, key=getkey()), "li": snn.LI(3, 0.5)}
    model = snn.Graph(nodes, {"cell": "input", "li": [snn.State("cell", "c"), "cell"]}, "li")
    xs = jax.random.normal(getkey(), (6, 3))
    found, expected = (model(model.init_states(), xs, engine=run) for run in (engine.layerwise, engine.stepwise))
    assert_equal_trees(found, expected)
    assert jnp.any(expected[1][0] != 0)


def test_walk_lists_all_nodes_by_path(model):
    assert [path for path, _ in engine.walk(model)] == ["0", "1", "2", "3", "3.0", "3.1"]
    assert dict(engine.walk(model))["3.1"] is model[3][1]
    np.testing.assert_array_equal(dict(engine.walk(model))["0"].weight, model[0].weight)
