"""One network for every kind of wiring: name -> function of `(getkey, num_steps)` that gives a case.

Thresholds are low and inputs large, so that every network spikes.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from snnax import Repeat, snn


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, its input sequences, the shape of its input where the network does not know it, and a key."""

    model: Any
    xs: Any
    input_shape: Any = None
    key: Any = None


CASES = {}


def case(build):
    CASES[build.__name__] = build
    return build


def normal(getkey, *shape):
    return 2 * jax.random.normal(getkey(), shape)


def linear(getkey, inputs=3, outputs=3):
    layer = eqx.nn.Linear(inputs, outputs, key=getkey())
    return eqx.tree_at(lambda layer: layer.weight, layer, 2 * layer.weight)


def lif(size=3, **options):
    return snn.LIF(size, [0.7, 0.5], 1.0, **options)


@case
def chain(getkey, num_steps):
    return Case(
        snn.Sequential(linear(getkey, 4), lif(), jnp.tanh, linear(getkey), lif(reset_delay=True), snn.LI(3, 0.7)),
        normal(getkey, num_steps, 4),
    )


@case
def convolutions(getkey, num_steps):
    return Case(
        snn.Sequential(
            eqx.nn.Conv2d(2, 3, 3, key=getkey()),
            snn.LIF((3, 4, 4), 0.9, 0.2, detach_reset=False),
            eqx.nn.AvgPool2d(2, 2),
            snn.flatten(),
            linear(getkey, 12),
            snn.IF(3, 0.2, "zero"),
        ),
        normal(getkey, num_steps, 2, 6, 6),
    )


@case
def sequential_in_sequential(getkey, num_steps):
    block = snn.Sequential(linear(getkey), lif(), snn.Sequential(jnp.tanh, linear(getkey)))
    return Case(
        snn.Sequential(block, lif(), snn.Sequential(linear(getkey), snn.LI(3, 0.5))), normal(getkey, num_steps, 3)
    )


@case
def sequential_in_graph_with_fan_in(getkey, num_steps):
    nodes = {"fc": linear(getkey), "block": snn.Sequential(linear(getkey), lif()), "out": snn.LI(3, 0.9)}
    edges = {"fc": "input", "block": ["input", "fc"], "out": ["block", "fc"]}
    return Case(snn.Graph(nodes, edges, "out"), normal(getkey, num_steps, 3))


@case
def graph_in_sequential_in_graph(getkey, num_steps):
    inner = snn.Graph(
        {"fc": linear(getkey), "lif": lif()}, {"fc": "x", "lif": ["fc", snn.Previous("lif", shape=(3,))]}, "lif", ["x"]
    )
    nodes = {"block": snn.Sequential(inner, linear(getkey)), "lif": lif()}
    return Case(snn.Graph(nodes, {"block": "input", "lif": "block"}, "lif"), normal(getkey, num_steps, 3))


@case
def skip_connection(getkey, num_steps):
    nodes = {"a": linear(getkey), "lif": lif(), "b": linear(getkey), "join": snn.Lambda(lambda x, y: x * jnp.tanh(y))}
    edges = {"a": "input", "lif": "a", "b": "lif", "join": ["a", "b"]}
    return Case(snn.Graph(nodes, edges, "join"), normal(getkey, num_steps, 3))


@case
def several_inputs_and_outputs(getkey, num_steps):
    nodes = {"a": linear(getkey, 2), "b": linear(getkey, 4), "lif": lif(), "li": snn.LI(3, 0.9)}
    edges = {"a": "x", "b": "y", "lif": ["a", "b"], "li": ["lif", "x_late"], "x_late": snn.Previous("a")}
    nodes["x_late"] = jnp.sin
    model = snn.Graph(nodes, edges, ["li", "b", snn.State("lif", "i"), snn.Previous("y")], inputs=("x", "y"))
    return Case(model, (normal(getkey, num_steps, 2), normal(getkey, num_steps, 4)), ((2,), (4,)))


@case
def several_outputs_inside(getkey, num_steps):
    inner = snn.Graph({"c": snn.Value(jnp.array([0.5, -0.2, 0.1])), "lif": lif()}, {"lif": "input"}, ["c", "lif"])
    nodes = {"inner": inner, "product": snn.Lambda(lambda pair: pair[0] * pair[1] + pair[0]), "lif": lif()}
    edges = {"inner": "input", "product": "inner", "lif": ["product", "input"]}
    return Case(snn.Graph(nodes, edges, "lif"), normal(getkey, num_steps, 3))


@case
def several_inputs_inside(getkey, num_steps):
    inner = snn.Graph({"fc": linear(getkey), "lif": lif()}, {"fc": "x", "lif": ["fc", "y"]}, "lif", inputs=("x", "y"))
    edges = {"fc": "input", "inner": ["input", "fc"], "out": "inner"}
    return Case(
        snn.Graph({"fc": linear(getkey), "inner": inner, "out": snn.LI(3, 0.9)}, edges, "out"),
        normal(getkey, num_steps, 3),
    )


@case
def self_feedback(getkey, num_steps):
    model = snn.Graph({"fc": linear(getkey), "lif": lif()}, {"fc": "input", "lif": ["fc", snn.Previous("lif")]}, "lif")
    return Case(model, normal(getkey, num_steps, 3), (3,))


@case
def stateless_self_feedback(getkey, num_steps):
    edges = {"mix": ["input", snn.Previous("mix")], "lif": "mix"}
    return Case(snn.Graph({"mix": linear(getkey), "lif": lif()}, edges, "lif"), normal(getkey, num_steps, 3), (3,))


@case
def cycle_of_two(getkey, num_steps):
    nodes = {"in": linear(getkey), "a": lif(), "fc": linear(getkey), "b": lif(), "out": linear(getkey)}
    edges = {"in": "input", "a": ["in", snn.Previous("b")], "fc": "a", "b": "fc", "out": "b"}
    return Case(snn.Graph(nodes, edges, "out"), normal(getkey, num_steps, 3), (3,))


@case
def feedback_through_a_layer(getkey, num_steps):
    nodes = {"fc": linear(getkey, 4), "rec": linear(getkey), "lif": lif(), "out": snn.LI(3, 0.9)}
    edges = {"fc": "input", "rec": snn.Previous("lif"), "lif": ["fc", "rec"], "out": "lif"}
    return Case(snn.Graph(nodes, edges, "out"), normal(getkey, num_steps, 4), (4,))


@case
def feedback_of_a_membrane_past_a_container(getkey, num_steps):
    block = snn.Sequential(linear(getkey), lif(), linear(getkey))
    nodes = {"block": block, "lif": lif(), "out": snn.LI(3, 0.9)}
    edges = {
        "block": [snn.Previous(snn.State("lif", "v")), "input"],
        "lif": "block",
        "out": ["lif", snn.State("lif", "i")],
    }
    return Case(snn.Graph(nodes, edges, "out"), normal(getkey, num_steps, 3), (3,))


@case
def one_source_read_now_and_late(getkey, num_steps):
    nodes = {"a": lif(), "fc": linear(getkey), "b": lif()}
    late = [snn.Previous("a"), snn.Previous(snn.State("a", "v")), snn.Previous("input")]
    edges = {"a": "input", "fc": ["a", *late], "b": ["fc", "a", snn.State("a", "v"), snn.State("a", "i"), *late]}
    return Case(snn.Graph(nodes, edges, "b"), normal(getkey, num_steps, 3), (3,))


@case
def states_as_sources(getkey, num_steps):
    nodes = {"a": lif(), "fc": linear(getkey), "b": snn.LI(3, 0.8)}
    edges = {"a": "input", "fc": snn.State("a", "v"), "b": ["fc", snn.State("a", "i")]}
    outputs = [snn.State("b", "v"), snn.Previous(snn.State("a", "v")), "a"]
    return Case(snn.Graph(nodes, edges, outputs), normal(getkey, num_steps, 3), (3,))


@case
def tied_layers(getkey, num_steps):
    fc, neurons = linear(getkey), lif()
    nodes = {"fc1": fc, "lif1": neurons, "fc2": fc, "lif2": neurons}
    edges = {"fc1": "input", "lif1": "fc1", "fc2": ["lif1", snn.Previous("lif2")], "lif2": "fc2"}
    return Case(snn.Graph(nodes, edges, "lif2"), normal(getkey, num_steps, 3), (3,))


@case
def repeated_input(getkey, num_steps):
    model = snn.Sequential(linear(getkey, 4), jnp.tanh, lif(), linear(getkey), lif())
    return Case(model, Repeat(3 * normal(getkey, 4), num_steps))


@case
def repeated_beside_varying_input(getkey, num_steps):
    nodes = {"a": linear(getkey), "b": linear(getkey), "mix": linear(getkey), "lif": lif(), "loop": lif()}
    edges = {"a": "still", "b": "moving", "mix": ["a", "b"], "lif": ["mix", "a"], "block": ["a", "lif", "still"]}
    edges["loop"] = ["block", "a", snn.Previous("loop"), snn.Previous("a")]
    nodes["block"] = snn.Sequential(linear(getkey), lif())
    model = snn.Graph(nodes, edges, ["loop", "a", snn.Previous("a")], inputs=("still", "moving"))
    xs = Repeat(3 * normal(getkey, 3), num_steps), normal(getkey, num_steps, 3)
    return Case(model, xs, ((3,), (3,)))


@case
def learnable_constant(getkey, num_steps):
    nodes = {"bias": snn.Value(normal(getkey, 3)), "fc": linear(getkey), "fc2": linear(getkey), "lif": lif()}
    edges = {"fc": "bias", "fc2": "input", "lif": ["fc", "fc2", "bias", snn.Previous("bias")]}
    return Case(snn.Graph(nodes, edges, "lif"), normal(getkey, num_steps, 3), (3,))


@case
def dropout(getkey, num_steps):
    block = snn.Sequential(eqx.nn.Dropout(0.5), linear(getkey), lif(), eqx.nn.Dropout(0.5))
    nodes = {
        "fc": linear(getkey),
        "drop": eqx.nn.Dropout(0.5),
        "block": block,
        "lif": lif(),
        "noisy": eqx.nn.Dropout(0.25),
    }
    edges = {
        "fc": ["input", "noisy"],
        "drop": "fc",
        "block": "drop",
        "noisy": snn.Previous("lif"),
        "lif": ["fc", "block"],
    }
    return Case(snn.Graph(nodes, edges, "lif"), normal(getkey, num_steps, 3), (3,), getkey())


@case
def dropout_of_a_repeated_input(getkey, num_steps):
    model = snn.Sequential(linear(getkey), eqx.nn.Dropout(0.5), linear(getkey), lif())
    return Case(model, Repeat(3 * normal(getkey, 3), num_steps), None, getkey())
