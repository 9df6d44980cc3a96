"""States before the first step own their memory: a program that takes it takes nothing of the model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from snnax import snn

from .layers import EXAMPLES


class Foreign(snn.AbstractLayer):
    """A layer of somebody else, that starts from its parameter and knows no shape."""

    first: jax.Array

    def init_state(self, shape=None, *, key=None):
        return snn.NeuronState(self.first, i=self.first)

    def __call__(self, state, x, *, key=None):
        return snn.NeuronState(state.v + x, i=state.i), state.v


RESTING = {
    "v_leak": snn.LIF(3, 0.9, v_leak=jnp.zeros(3)),
    "v_rest": snn.QIF(3, 0.9, v_rest=jnp.zeros(3)),
    "v0 and u0": snn.Izhikevich(3, v0=jnp.full(3, -70.0), u0=jnp.zeros(3)),
    "statistics": snn.BatchNorm(3, inference=True),
    "inside": snn.Recurrent(snn.Refractory(snn.LIF(3, 0.9, v_leak=jnp.zeros(3)), 2.0), snn.OneToOne(0.5)),
    "tied": snn.Sequential(layer := snn.LIF(3, 0.9, v_leak=jnp.zeros(3)), layer),
    "foreign": Foreign(jnp.zeros(3)),
}


def donating(model, states, xs):
    run = jax.jit(lambda states, xs: eqx.filter(model(states, xs), eqx.is_array), donate_argnums=0)
    return run(states, xs)


@pytest.mark.parametrize("name", RESTING)
def test_donated_states_take_nothing_of_the_model_with_them(name):
    model = RESTING[name] if isinstance(RESTING[name], snn.AbstractModel) else snn.Sequential(RESTING[name])
    states, _ = donating(model, model.init_states(), jnp.ones((2, 3)))
    donating(model, states, jnp.ones((2, 3)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    donating(model, model.init_states(), jnp.ones((2, 3)))


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_no_layer_hands_out_its_own_memory(kind):
    example = EXAMPLES[kind]
    layer = example.make(example.shape if example.has_shape else None)
    layer = jax.tree.map(
        lambda x: jnp.broadcast_to(x, example.shape) + 0 if eqx.is_array(x) and x.ndim == 0 else x, layer
    )
    pointer = lambda x: x.unsafe_buffer_pointer()  # noqa: E731
    own = {pointer(x) for x in jax.tree.leaves(layer) if eqx.is_array(x) and x.dtype != jax.dtypes.prng_key and x.size}
    states = [pointer(x) for x in jax.tree.leaves(layer.init_state(example.shape)) if x.size]
    assert states and len(set(states)) == len(states) and not own & set(states)
