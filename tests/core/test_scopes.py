"""Programs name the layers that their operations belong to, by their paths in the model."""

import re
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from snnax import engine, snn


pytestmark = pytest.mark.full


ENGINES = {run.__name__: run for run in (engine.stepwise, engine.layerwise, engine.parallel, engine.checkpointed)}
XS = jnp.ones((5, 4))
# By path: layers with weights, and layers with none.
WEIGHTS = {"fc", "back", "block/2/0/0", "rec/connection", "sides/1"}
OTHERS = {"block/0", "block/1", "block/2/0/1", "block/2/join", "rec/neuron/neuron", "sides/0", "sides/join", "li"}
WITHOUT_STATE = {"block/1", "block/2/join", "sides/join"}


def model() -> snn.Graph:
    """Every kind of container, a feedback loop through one of them, and layers around layers."""
    keys = iter(jax.random.split(jax.random.key(0), 8))
    linear = lambda inputs: eqx.nn.Linear(inputs, 3, use_bias=False, key=next(keys))  # noqa: E731
    lif = lambda: snn.LIF(3, 0.9, 0.1)  # noqa: E731
    return snn.Graph(
        {
            "fc": linear(4),
            "rec": snn.Recurrent(snn.Refractory(lif(), 2), linear(3)),
            "block": snn.Sequential(lif(), jnp.tanh, snn.Residual(linear(3), lif())),
            "back": linear(3),
            "sides": snn.Parallel(snn.LI(3, 0.5), linear(3)),
            "li": snn.LI(3, 0.9),
        },
        {
            "fc": "input",
            "rec": "fc",
            "block": ["rec", "back"],
            "back": snn.Previous("block"),
            "sides": "block",
            "li": "sides",
        },
        "li",
    )


def loss(arrays: Any, rest: Any, run: Any) -> jax.Array:
    whole = eqx.combine(arrays, rest)
    _, outs = whole(whole.init_states(input_shape=(4,)), XS, engine=run)
    return jnp.sum(outs[-1])


def operations(jaxpr: Any, outside: str = "") -> Iterator[tuple[str, str]]:
    """Name and scope of every operation of a program, also within its loops."""
    for equation in jaxpr.eqns:
        scope = f"{outside}/{equation.source_info.name_stack}"
        yield equation.primitive.name, scope
        for inner in jaxprs_in_params(equation.params):
            yield from operations(inner, scope)


def layer_of(scope: str) -> str:
    """A scope without what transformations and `equinox` write into it: `/transpose(jvp(fc))/vmap()` -> `fc`."""
    before = ""
    while before != scope:
        before, scope = scope, re.sub(r"\b(transpose|jvp|vmap)\(([^()]*)\)", r"\2", scope)
    parts = [part for part in scope.split("/") if part and not part.startswith("eqx.")]
    return "/".join(part for part in parts if part not in ("checkpoint", "rematted_computation"))


def program(run: Any, gradient: bool) -> list[tuple[str, str]]:
    arrays, rest = eqx.partition(model(), eqx.is_inexact_array)
    function = lambda arrays: loss(arrays, rest, run)  # noqa: E731
    return list(operations(jax.make_jaxpr(jax.grad(function) if gradient else function)(arrays).jaxpr))


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
@pytest.mark.parametrize("name", ENGINES)
def test_operations_are_named_by_the_layers_that_they_belong_to(name, gradient):
    found = program(ENGINES[name], gradient)
    layers = {layer_of(scope) for _, scope in found}
    assert layers >= WEIGHTS | OTHERS
    assert {layer_of(scope) for primitive, scope in found if primitive == "dot_general"} == WEIGHTS


@pytest.mark.parametrize("name", ENGINES)
def test_operations_of_the_backward_pass_are_named_as_those_of_the_forward_pass(name):
    backward = [scope for _, scope in program(ENGINES[name], True) if "transpose(" in scope]
    assert {layer_of(scope) for scope in backward} >= (WEIGHTS | OTHERS) - WITHOUT_STATE


@pytest.mark.parametrize("name", ["stepwise", "layerwise"])
def test_the_text_of_a_lowered_program_shows_the_names(name):
    arrays, rest = eqx.partition(model(), eqx.is_inexact_array)
    lowered = jax.jit(lambda arrays: loss(arrays, rest, ENGINES[name])).lower(arrays)
    text = lowered.as_text(debug_info=True)
    for path in ("fc", "block/0", "block/2/0/0", "li"):
        assert re.search(rf'[/"]{path}[/"]', text), path


def test_a_layer_that_is_looped_over_names_its_loop():
    for name in ("layerwise", "checkpointed"):
        loops = {layer_of(scope) for primitive, scope in program(ENGINES[name], False) if primitive == "scan"}
        assert {"rec", "li", "sides/0"} <= loops
