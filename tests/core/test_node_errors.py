"""The commonest mistakes, and what is said of them: the node, what was found, what is allowed, what to do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from snnax import engine, snn
from snnax.engine import NodeError


pytestmark = pytest.mark.usefixtures("unchecked")
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel]


def linear(inputs=2, outputs=2):
    return eqx.nn.Linear(inputs, outputs, key=jax.random.key(0))


MODEL = snn.Sequential(linear(), snn.LIF(2, 0.9))
NESTED = snn.Graph(
    {"block": snn.Sequential(snn.Residual(snn.Sequential(linear(), snn.LIF(None, 0.9))))}, {"block": "input"}, "block"
)
VMAP = r"batch them with jax.vmap\(model, in_axes=\(None, 0\)\)"


def run(model, xs, states=None, key=None, **options):
    return model(model.init_states() if states is None else states, xs, key, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("model", "xs", "message"),
    [
        (
            MODEL,
            jnp.ones((4, 5, 2)),
            rf"node '0' \(Linear\): found an input of shape \(5, 2\), expected \(2,\); .*{VMAP}",
        ),
        # A square matrix would be multiplied without an error.
        (
            MODEL,
            jnp.ones((4, 2, 2)),
            rf"node '0' \(Linear\): found an input of shape \(2, 2\), expected \(2,\); .*{VMAP}",
        ),
        (MODEL, jnp.ones((4, 3)), r"node '0' \(Linear\): found an input of shape \(3,\), expected \(2,\)"),
        (MODEL[1:], jnp.ones((4, 3)), r"node '0' \(LIF\): the neurons have shape \(2,\), but .* \(3,\) \(batch with"),
        (snn.Sequential(snn.SpikeCounter(1)), jnp.ones((4, 3)), r"node '0' \(SpikeCounter\): .*shape \(1,\)"),
        (snn.Sequential(snn.Lambda(lambda x: x @ x[None])), jnp.ones((4, 3)), r"node '0' \(Lambda\): .*"),
        (
            snn.Graph({"a": snn.LI(None, 0.9)}, {"a": ["x", "y"]}, "a", ("x", "y")),
            (jnp.ones((4, 1)), jnp.ones((4, 3))),
            r"node 'a' \(LI\): .*inputs are added and must have one shape, found \(1,\), \(3,\); broadcast one of them",
        ),
        (
            snn.Residual(snn.Lambda(lambda x: x.sum(keepdims=True))),
            jnp.ones((4, 3)),
            r"node 'join' \(_Joined\): inputs are added and must have one shape, found \(3,\), \(1,\)",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_told_with_the_node(engine, model, xs, message):
    shapes = tuple(x.shape[1:] for x in xs) if isinstance(xs, tuple) else (2,)
    needs_shape = isinstance(model, snn.Graph)
    with pytest.raises(ValueError, match=message):
        states = model.init_states(input_shape=shapes if needs_shape else None)
        model(states, xs, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_path_goes_through_all_containers(engine):
    states = NESTED.init_states(input_shape=(2,))
    with pytest.raises(NodeError, match=r"node 'block\.0\.0\.0' \(Linear\): found an input of shape \(3,\)") as error:
        NESTED(states, jnp.ones((4, 3)), engine=engine)
    assert (error.value.path, error.value.kind) == ("block.0.0.0", "Linear")
    with pytest.raises(NodeError, match=r"node 'block\.0\.0\.0' \(Linear\): does not take an input of shape"):
        NESTED.init_states(input_shape=(3,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: run(MODEL, jnp.ones((4, 2)), key=0),
            TypeError,
            r"a key is an array as from jax.random.key\(0\), found 0",
        ),
        (
            lambda: MODEL(None, jnp.ones((4, 2))),
            ValueError,
            r"found NoneType .* a list for 2 layers, as from model.init_st",
        ),
        (lambda: MODEL({}, jnp.ones((4, 2))), ValueError, "found dict in the place of states"),
        (lambda: NESTED(None, jnp.ones((4, 2))), ValueError, "found NoneType in the place of states, expected a dict"),
        (
            lambda: run(MODEL, jnp.ones((4, 2)), engine="parallel"),
            TypeError,
            "such as snnax.engine.parallel, found 'para",
        ),
        (
            lambda: snn.Sequential(snn.LIF),
            TypeError,
            r"node '0' of a Sequential is the class LIF, expected a layer: call",
        ),
        (
            lambda: snn.Graph({"a": eqx.nn.Linear}, {"a": "input"}, "a"),
            TypeError,
            "node 'a' of a Graph is the class Lin",
        ),
        (lambda: snn.Parallel(jnp.tanh, snn.LI), TypeError, "node '1' of a Parallel is the class LI"),
        (lambda: snn.Residual(snn.LI), TypeError, "node '0' of a Residual is the class LI"),
    ],
)
def test_an_argument_of_another_kind_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("field", ["vv", "i"])
@pytest.mark.parametrize("place", ["output", "edge", "delayed"])
def test_a_state_without_the_field_is_refused_with_those_it_has(field, place):
    state = snn.State("a", field)
    edges = {"a": "input", "b": {"edge": state, "delayed": snn.Previous(state, shape=(2,))}.get(place, "a")}
    model = snn.Graph({"a": snn.LIF(2, 0.9), "b": snn.LI(2, 0.9)}, edges, state if place == "output" else "b")
    with pytest.raises(
        ValueError, match=rf"'a.{field}' reads '{field}' of the state of 'a', a NeuronState with \['v'\]"
    ):
        run(model, jnp.ones((4, 2)))


class Own(snn.AbstractLayer):
    """A layer of one's own; `order` says what it returns first."""

    order: str = eqx.field(static=True)

    def init_state(self, shape=None, *, key=None):
        return jnp.zeros((*shape, 2))  # pyright: ignore[reportOptionalIterable]: that of None is the test's

    def __call__(self, state, x, *, key=None):
        state = state + x[:, None]
        return (state, x) if self.order == "state" else (x, state)


def test_a_layer_that_needs_its_shape_says_so():
    with pytest.raises(
        ValueError, match=r"node '0' \(Own\): init_state\(None\) failed, pass input_shape to init_states"
    ):
        snn.Sequential(Own("state")).init_states()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_that_returns_its_output_first_is_told(engine):
    xs = jnp.ones((4, 3))
    model = snn.Sequential(Own("state"))
    assert model(model.init_states(input_shape=(3,)), xs, engine=engine)[0][0].sum() == 24
    swapped = snn.Sequential(Own("output"))
    with pytest.raises(
        ValueError, match=r"node '0' \(Own\): a layer returns \(state, output\).* found f32\[3\], expected f32\[3,2\]"
    ):
        swapped([jnp.zeros((3, 2))], xs, engine=engine)


def test_errors_of_tracing_stay_what_they_are():
    model = snn.Sequential(snn.Lambda(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        run(model, jnp.ones((4, 3)))
