"""Going on from states: in pieces as in one run, and from where the torch module is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snnax_interop import from_torch, hidden_states, to_jax


pytestmark = pytest.mark.full


NEURONS = {
    "Leaky": lambda: snntorch.Leaky(beta=0.9, init_hidden=True),
    "Synaptic": lambda: snntorch.Synaptic(alpha=0.7, beta=0.9, init_hidden=True),
    "Alpha": lambda: snntorch.Alpha(alpha=0.9, beta=0.7, init_hidden=True, threshold=0.5),
    "RLeaky": lambda: snntorch.RLeaky(beta=0.9, linear_features=6, init_hidden=True),
    "RSynaptic": lambda: snntorch.RSynaptic(alpha=0.7, beta=0.9, all_to_all=False, V=0.3, init_hidden=True),
    "SLSTM": lambda: snntorch.SLSTM(6, 6, threshold=0.1, init_hidden=True),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(4, 6), NEURONS[name](), nn.Linear(6, 3), snntorch.Leaky(beta=0.8, threshold=0.2, init_hidden=True)
    )


def inputs(steps: int = 12) -> torch.Tensor:
    return torch.rand((steps, 3, 4), generator=torch.Generator().manual_seed(2)) * 6


@pytest.mark.parametrize("name", NEURONS)
def test_pieces_are_one_run_and_go_on_where_torch_is(name):
    net, x = network(name), inputs()
    converted = from_torch(net, (x[0],), loop="outside")
    net[1].reset_mem(), net[3].reset_mem()
    with torch.no_grad():
        early = torch.stack([net(x[t]) for t in range(5)])
        kept = hidden_states(net)
        late = torch.stack([net(x[t]) for t in range(5, 12)])
    assert early.any() and late.any() and set(kept) == {"1", "3"}
    whole = converted(to_jax(x))
    first, states = converted.run(to_jax(x[:5]))
    second, last = converted.run(to_jax(x[5:]), states=states)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), whole)
    np.testing.assert_array_equal(converted(to_jax(x[5:]), states=kept), late.numpy())
    assert not jnp.array_equal(converted(to_jax(x[5:])), second)
    for path, fields in converted.final_states(to_jax(x)).items():
        for field, value in fields.items():
            np.testing.assert_allclose(last[path][field], value, rtol=1e-6)
            np.testing.assert_allclose(states[path][field], kept[path][field], rtol=1e-4, atol=1e-6)


def test_a_network_that_was_not_called_has_no_states():
    assert hidden_states(network("Leaky")) == {}


def test_states_left_out_start_from_their_beginning():
    net, x = network("Leaky"), to_jax(inputs())
    converted = from_torch(net, (inputs()[0],), loop="outside")
    _, states = converted.run(x)
    outputs, _ = converted.run(x, states={"3": states["3"]})
    zeros = jax.tree.map(jnp.zeros_like, states["1"])
    np.testing.assert_array_equal(outputs, converted(x, states={**states, "1": zeros}))
    np.testing.assert_array_equal(converted(x, states={}), converted(x))


def test_gradients_are_cut_or_not_as_the_caller_likes():
    net, x = network("Leaky"), to_jax(inputs())
    converted = from_torch(net, (inputs()[0],), loop="outside")

    def loss(converted, cut):
        _, states = converted.run(x[:5])
        states = jax.lax.stop_gradient(states) if cut else states
        return jnp.sum(converted.run(x[5:], states=states)[1]["3"]["v"])

    through, cut = (eqx.filter_grad(loss)(converted, cut).parameters["0.weight"] for cut in (False, True))
    assert jnp.any(cut != 0) and not jnp.allclose(through, cut)


class Cells(nn.Module):
    """Norse hands states over; several samples, time first."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 6), norse.LIFCell(p=norse.LIFParameters(v_th=torch.as_tensor(0.1)))

    def forward(self, x):
        state, out = None, []
        for xt in x:
            spikes, state = self.lif(self.fc(xt), state)
            out.append(spikes)
        return torch.stack(out)


def test_states_of_norse():
    torch.manual_seed(0)
    net, x = Cells(), inputs()
    converted = from_torch(net, (x,))
    _, states = converted.run(to_jax(x[:5]))
    assert set(states["lif"]) == {"v", "i"} and hidden_states(net) == {}
    late = converted(to_jax(x[5:]), states=states)
    assert late.any()
    np.testing.assert_array_equal(late, converted(to_jax(x))[5:])


@pytest.mark.parametrize(
    ("states", "match"),
    [
        ({"lif9": {"v": jnp.zeros((3, 6))}}, r"the network has no neuron 'lif9'\. Allowed: lif"),
        ({"lif": {"v": jnp.zeros((3, 6))}}, "the state of 'lif' has the fields v, i, found v"),
    ],
)
def test_states_that_do_not_fit_are_refused(states, match):
    torch.manual_seed(0)
    converted = from_torch(Cells(), (inputs(),))
    with pytest.raises(ValueError, match=match):
        converted(to_jax(inputs()), states=states)


class Scaled(Cells):
    def forward(self, x):
        state, out = None, []
        for xt in x:
            spikes, state = self.lif(self.fc(xt), state)
            state = state._replace(v=state.v * 0.9)
            out.append(spikes)
        return torch.stack(out)


def test_a_state_that_forward_changes_cannot_be_given():
    torch.manual_seed(0)
    converted = from_torch(Scaled(), (inputs(),))
    states = converted.final_states(to_jax(inputs()))
    with pytest.raises(ValueError, match="the state of 'lif' does not stay with it"):
        converted(to_jax(inputs()), states=states)
