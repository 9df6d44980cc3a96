"""A step that does not count leaves nothing behind: no gradient and no NaN, also where zeros would give `0 / 0`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


pytestmark = pytest.mark.full


ENGINES = {
    "stepwise": engine.stepwise,
    "layerwise": engine.layerwise,
    "checkpointed": functools.partial(engine.checkpointed, chunk=2),
}
MASKS = {
    "trailing": [1, 1, 1, 1, 0, 0, 0, 0],
    "leading": [0, 0, 0, 1, 1, 1, 1, 0],
    "between": [1, 0, 0, 1, 0, 1, 1, 1],
    "none": [0, 0, 0, 0, 0, 0, 0, 0],
}
KEY = jax.random.key(3)


def divided(x):
    """The share of each element: its gradient at zero is NaN."""
    return x / x.sum()


def linear(seed=0):
    layer = eqx.nn.Linear(3, 3, use_bias=False, key=jax.random.key(seed))
    return eqx.tree_at(lambda layer: layer.weight, layer, jnp.abs(layer.weight) + 0.1)


class Ratio(snn.AbstractLayer):
    """A layer that divides by its input and by its state."""

    scale: jax.Array

    def init_state(self, shape=None, *, key=None):
        return snn.NeuronState(jnp.ones(3))

    def __call__(self, state, x, *, key=None):
        v = self.scale * state.v / x.sum() + 1 / state.v
        return snn.NeuronState(v), v


def spiking(**options):
    """Awake in every step that counts, and silent in one on zeros."""
    return snn.LIF(3, 0.1, 0.01, **options)


NETWORKS = {
    "of the input": lambda: snn.Sequential(linear(), snn.Lambda(divided), snn.LI(3, 0.9)),
    "of a root": lambda: snn.Sequential(linear(), snn.Lambda(lambda x: jnp.sqrt(x).sum(keepdims=True)), snn.LI(1, 0.9)),
    "of spikes": lambda: snn.Sequential(linear(), spiking(), snn.Lambda(divided), linear(1), snn.LI(3, 0.9)),
    "of spikes late": lambda: snn.Sequential(
        linear(), spiking(reset_delay=True), snn.Lambda(divided), linear(1), snn.LI(3, 0.9)
    ),
    "in a layer": lambda: snn.Sequential(linear(), Ratio(jnp.array(0.5)), linear(1)),
    "in a cycle": lambda: snn.Graph(
        {"fc": linear(), "share": snn.Lambda(lambda x, z: x / (x.sum() + z.sum())), "lif": spiking(), "out": linear(1)},
        {"fc": "input", "share": ["fc", snn.Previous("lif", shape=(3,))], "lif": "share", "out": "lif"},
        "out",
    ),
    "of a delayed value": lambda: snn.Graph(
        {"fc": linear(), "lif": spiking(), "share": snn.Lambda(lambda z, x: (1 + z) / x.sum()), "out": snn.LI(3, 0.9)},
        {"fc": "input", "lif": "fc", "share": [snn.Previous("lif"), "lif"], "out": "share"},
        "out",
    ),
    "nested": lambda: snn.Sequential(
        snn.Residual(snn.Sequential(linear(), spiking())), snn.Parallel(snn.Lambda(divided), spiking()), linear(1)
    ),
    "in a delay": lambda: snn.Sequential(linear(), snn.Delay(jnp.ones(3, int)), spiking(), snn.LI(3, 0.9)),
}


def inputs():
    return jax.random.uniform(KEY, (8, 3), minval=0.5)


def loss(model, xs, **options):
    states, outs = model(model.init_states(input_shape=(3,)), xs, **options)
    leaves = jax.tree.leaves((outs[-1], states))
    return sum((leaf**2).sum() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))


@functools.cache
def results(name):
    """Losses and gradients by mask and engine, and of the steps that count alone; one program for all."""
    with jax.enable_x64(True):
        model, xs = NETWORKS[name](), jnp.asarray(inputs(), jnp.float64)
        model = jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, model)
        of = eqx.filter_value_and_grad(lambda arguments, **options: loss(*arguments, **options))
        masks = jnp.array(list(MASKS.values()), bool)

        @eqx.filter_jit
        def program(model, xs):
            def padded(mask, run):
                return of((model, jnp.where(mask[:, None], xs, jnp.nan)), engine=run, mask=mask)

            together = {label: jax.vmap(functools.partial(padded, run=run))(masks) for label, run in ENGINES.items()}
            return together, {name: of((model, xs[np.flatnonzero(mask)])) for name, mask in MASKS.items()}

        together, alone = jax.device_get(program(model, xs))
        found = {(name, "alone"): result for name, result in alone.items()}
        for number, mask in enumerate(MASKS):
            for label, results in together.items():
                found[mask, label] = jax.tree.map(lambda x: x[number], results)  # noqa: B023
        return found


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_steps_that_count_alone(name, mask):
    value, (expected, inputs) = results(name)[mask, "alone"]
    assert mask == "none" or any(np.any(leaf) for leaf in jax.tree.leaves(expected))
    for run in ENGINES:
        masked, (gradients, of_inputs) = results(name)[mask, run]
        np.testing.assert_allclose(masked, value, rtol=1e-9)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11, err_msg=run)
        counts = np.array(MASKS[mask], bool)
        np.testing.assert_allclose(of_inputs[counts], inputs, rtol=1e-8, atol=1e-11)
        assert not np.any(of_inputs[~counts])
