"""Functions with a gradient of their own: `torch.autograd.Function`s of users and frameworks, recorded."""

import functools

import norse.torch.functional.threshold as norse
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snnax.surrogate import Derivative
from snnax_interop import RecordingError, check_equivalence, from_torch, to_jax


pytestmark = pytest.mark.full


class Spike(torch.autograd.Function):
    """SuperSpike as tutorials write it: a write at a mask, and a backward with a constant of the class."""

    scale = 4.0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        out = torch.zeros_like(x)
        out[x > 0] = 1.0
        return out

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output.clone() / (Spike.scale * torch.abs(x) + 1.0) ** 2


class Boxcar(torch.autograd.Function):
    """`>=`, a number as an argument, and a gradient that is written at a mask."""

    @staticmethod
    def forward(ctx, x, width):
        ctx.save_for_backward(x)
        ctx.width = width
        return x.ge(0).float()

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        grad = grad_output.clone()
        grad[x.abs() > ctx.width] = 0
        return grad / (2 * ctx.width), None


class Apart(torch.autograd.Function):
    """The newer form, in which the context is set up apart."""

    @staticmethod
    def forward(x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * torch.exp(-(x**2) * torch.as_tensor(2.0).sqrt())


class Threshold(torch.autograd.Function):
    """Membrane and threshold apart, with a gradient for both."""

    @staticmethod
    def forward(ctx, v, theta):
        ctx.save_for_backward(v, theta)
        return (v > theta).to(v.dtype)

    @staticmethod
    def backward(ctx, grad_output):
        v, theta = ctx.saved_tensors
        slope = torch.relu(1 - (v - theta).abs())
        return grad_output * slope, -grad_output * slope


class Rounded(torch.autograd.Function):
    """No spikes: levels, with a gradient that passes between two bounds."""

    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward((x >= low) & (x <= high))
        return torch.round(torch.clamp(x, low, high))

    @staticmethod
    def backward(ctx, grad_output):
        (inside,) = ctx.saved_tensors
        return torch.where(inside, grad_output, torch.zeros_like(grad_output)), None, None


class Filled(torch.autograd.Function):
    """A tensor of the input's size that is filled, and the larger of two tensors."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        out = torch.zeros(x.shape)
        out[x > 0] = 1
        return out

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * torch.max(torch.zeros(1), 1 - x.abs() / 2)


class Flat(torch.autograd.Function):
    """Spikes without any gradient."""

    @staticmethod
    def forward(ctx, x):
        return torch.heaviside(x, torch.zeros(1, dtype=x.dtype))

    @staticmethod
    def backward(ctx, grad_output):
        return None


class Neuron(nn.Module):
    """A leaky neuron that is written by hand around a function of membrane and threshold."""

    def __init__(self, spike):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(5, 8)
        self.theta = nn.Parameter(torch.full((8,), 0.6))
        self.out = nn.Linear(8, 3)
        self.spike = spike

    def forward(self, x):
        v, outs = torch.zeros(x.shape[1], 8), []
        for t in range(x.shape[0]):
            v = 0.9 * v + self.fc(x[t])
            z = self.spike(v, self.theta)
            v = v - z.detach() * self.theta
            outs.append(self.out(z) + v.mean(-1, keepdim=True))
        return torch.stack(outs)


def of_distance(function):
    return lambda v, theta: function(v - theta)


SPIKES = {
    "mask": of_distance(Spike.apply),
    "number": of_distance(lambda x: Boxcar.apply(x, 0.4)),
    "context apart": of_distance(Apart.apply),
    "two tensors": Threshold.apply,
    "levels": of_distance(lambda x: Rounded.apply(x, 0.0, 3.0)),
    "filled": of_distance(Filled.apply),
    "flat": of_distance(Flat.apply),
    "snntorch atan": of_distance(snntorch.surrogate.atan()),
    "snntorch fast sigmoid": of_distance(snntorch.surrogate.fast_sigmoid(slope=5)),
    "snntorch sigmoid": of_distance(snntorch.surrogate.sigmoid(slope=3)),
    "snntorch straight through": of_distance(snntorch.surrogate.straight_through_estimator()),
    "norse super": of_distance(norse.superspike_fn),
    "norse triangle": of_distance(functools.partial(norse.triangle_fn, alpha=0.4)),
    "norse tanh": of_distance(lambda x: norse.heavi_tanh_fn(x, 2.0)),
    "norse circ": of_distance(lambda x: norse.heavi_circ_fn(x, 0.5)),
    "norse erfc": of_distance(lambda x: norse.heavi_erfc_fn(x, 2.0)),
}


def inputs(seed, steps=6, batch=2):
    return (torch.rand((steps, batch, 5), generator=torch.Generator().manual_seed(seed)) * 4,)


@pytest.mark.parametrize("name", SPIKES)
def test_values_and_gradients_are_those_of_the_function(name):
    net = Neuron(SPIKES[name])
    converted = from_torch(net, inputs(0))
    report = check_equivalence(net, converted, inputs(1, steps=9, batch=3))
    report.raise_if_failed()
    assert (report.spikes > 0) == (name not in ("two tensors", "levels"))
    assert any(each.kind == "gradient" for each in report.comparisons)


class Static(nn.Module):
    """The same input at every time step; nothing but the spikes says that this is time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x, steps=6):
        v1 = z1 = torch.zeros(x.shape[0], 8)
        v2 = z2 = total = torch.zeros(x.shape[0], 3)
        for _ in range(steps):
            v1 = 0.6 * v1 * (1 - z1) + self.first(x)
            z1 = Boxcar.apply(v1 - 0.3, 0.5)
            v2 = 0.6 * v2 * (1 - z2) + self.second(z1)
            z2 = Boxcar.apply(v2 - 0.3, 0.5)
            total = total + z2
        return total / steps


class FromNumber(nn.Module):
    """A membrane that begins at the number 0, so that the first step lacks a product; time is the second axis."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.out = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.fc(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        v, spikes = 0, []
        for t in range(x.shape[1]):
            v = 0.5 * v + x[:, t, ...]
            z = Spike.apply(v - 0.4)
            v = (1 - z) * v
            spikes.append(z)
        return self.out(torch.stack(spikes, dim=1)).mean(1)


@pytest.mark.parametrize(
    ("make", "shape", "other"), [(Static, (2, 5), (3, 5)), (FromNumber, (2, 6, 5), (3, 8, 5))], ids=["static", "number"]
)
def test_a_loop_of_spikes_that_are_written_by_hand_is_time(make, shape, other):
    generator = torch.Generator().manual_seed(0)
    net = make()
    converted = from_torch(net, (torch.rand(shape, generator=generator) * 4,))
    report = check_equivalence(net, converted, (torch.rand(other, generator=generator) * 4,))
    report.raise_if_failed()
    assert report.spikes > 0


def test_spikes_that_prove_nothing_are_reported():
    net = Neuron(SPIKES["mask"])
    nn.init.zeros_(net.fc.bias)
    with pytest.warns(UserWarning, match="check_equivalence shows nothing: no neuron spikes"):
        report = check_equivalence(net, from_torch(net, inputs(0)), (inputs(1)[0] * 0,))
    assert not report.ok
    assert report.silent == ("Spike",)


class Noisy(Spike):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > torch.rand_like(x)).float()


class Clipped(Spike):
    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.clamp(-0.1, 0.1)


class Mixing(Spike):
    @staticmethod
    def backward(ctx, grad_output):
        return grad_output - grad_output.mean(0)


class Looking(Spike):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.ones_like(x) if x.max() > 0 else torch.zeros_like(x)


class Writing(Spike):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_(0, 1)


class Double(Spike):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).float(), x


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Noisy, "Noisy calls .*rand_like"),
        (Clipped, "Clipped has a backward that is not linear in the gradient"),
        (Mixing, "Mixing calls .*mean"),
        (Looking, "Looking (calls .*max|takes values out of a tensor)"),
        (Writing, "Writing writes into its argument"),
        (Double, "Double returns a tuple"),
    ],
)
def test_functions_that_are_not_elementwise_are_refused_with_their_line(kind, what):
    with pytest.raises(RecordingError, match=rf"(?s){what}.*\n.*test_custom_functions\.py:\d+: found = kind\.apply"):
        from_torch(Neuron(lambda v, theta: of_kind(kind, v - theta)), inputs(0))


def of_kind(kind, x):
    found = kind.apply(x)
    return found[0] if isinstance(found, tuple) else found


# As the surrogate of a framework's neuron


class Leaky(nn.Module):
    def __init__(self, spike_grad):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(5, 8)
        self.lif = snntorch.Leaky(beta=0.9, spike_grad=spike_grad)

    def forward(self, x):
        mem, outs = self.lif.init_leaky(), []
        for xt in x:
            spikes, mem = self.lif(self.fc(xt), mem)
            outs.append(spikes)
        return torch.stack(outs)


@pytest.mark.parametrize("spike", [Spike.apply, lambda x: Apart.apply(x)])
def test_a_neuron_takes_the_surrogate_that_its_function_computes(spike):
    net = Leaky(spike)
    converted = from_torch(net, inputs(0))
    assert isinstance(converted.model[1].firing.surrogate, Derivative)
    report = check_equivalence(net, converted, inputs(1, steps=9, batch=3))
    report.raise_if_failed()
    assert report.spikes > 0
    np.testing.assert_array_equal(converted(to_jax(inputs(2)[0])), net(*inputs(2)).detach())
