"""Networks in training mode: statistics of the batch, running statistics on their way back, dropout from a key."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import nn

from snnax_interop import UnsupportedOptionError, check_equivalence, from_torch, state_dict, to_jax


pytestmark = pytest.mark.full


def frames(time: int = 6, batch: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.rand((time, batch, 1, 4, 4), generator=torch.Generator().manual_seed(seed)) * 3


class PerStep(nn.Module):
    """Batch normalisations inside of the loop, called once per time step."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.bn2 = nn.BatchNorm2d(3, momentum=0.3, bias=False)
        self.lif1 = snntorch.Leaky(beta=0.8, threshold=0.4)
        self.fc = nn.Linear(12, 4)
        self.bn1 = nn.BatchNorm1d(4, eps=1e-3, affine=False)
        self.lif2 = snntorch.Leaky(beta=0.7, threshold=0.3)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for xt in x:
            spk, mem1 = self.lif1(self.bn2(self.conv(xt)), mem1)
            spk, mem2 = self.lif2(self.bn1(self.fc(spk.flatten(1))), mem2)
            out.append(mem2)
        return torch.stack(out)


class Around(nn.Module):
    """One over time and batch folded together before the loop, one over the rates behind it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.before = nn.BatchNorm2d(3)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.4)
        self.fc = nn.Linear(12, 4)
        self.behind = nn.BatchNorm1d(4)

    def forward(self, x):
        steps, batch = x.shape[:2]
        current = self.before(self.conv(x.flatten(0, 1))).view(steps, batch, -1)
        mem, spikes = self.lif.reset_mem(), []
        for t in range(steps):
            spk, mem = self.lif(current[t], mem)
            spikes.append(spk)
        return self.behind(self.fc(torch.stack(spikes).mean(0)))


class Dropped(nn.Module):
    """Dropout as layers of elements and channels, and as a function."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.channels = nn.Dropout2d(p)
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.3)
        self.elements = nn.Dropout(p)
        self.p = p

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x:
            channels = self.channels(self.conv(xt))
            spk, mem = self.lif(channels, mem)
            ones = torch.ones_like(channels) + 0 * channels
            out.append((channels, self.elements(ones), F.dropout(ones, self.p, self.training), spk))
        return [torch.stack(each) for each in zip(*out, strict=True)]


@pytest.fixture(params=[PerStep, Around])
def network(request):
    torch.manual_seed(0)
    return request.param().train()


def test_statistics_of_the_batch_are_those_of_torch(network):
    converted = from_torch(network, (frames(),))
    check_equivalence(network, converted, (frames(7, 9, seed=2),)).raise_if_failed()


def test_running_statistics_return_to_torch(network):
    converted = from_torch(network, (frames(),))
    expected, step = copy.deepcopy(network), eqx.filter_jit(lambda network, x: network.call_and_update(x))
    for seed in range(3):
        x = frames(7, 9, seed=seed)
        out, converted = step(converted, to_jax(x))
        np.testing.assert_allclose(out, expected(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    found = state_dict(converted)
    for key, value in expected.state_dict().items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
        if "running" in key or "tracked" in key:
            assert not torch.equal(value, network.state_dict()[key])
    network.load_state_dict(found, strict=True)


def test_evaluation_afterwards_uses_the_running_statistics(network):
    x = frames(7, 9, seed=2)
    _, converted = from_torch(network, (frames(),)).call_and_update(to_jax(x))
    network.load_state_dict(state_dict(converted), strict=True)
    out = converted.inference_mode()(to_jax(x))
    np.testing.assert_allclose(out, network.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(out - converted(to_jax(x))).max()) > 1e-3


def test_a_network_without_batch_normalisation_stays_itself():
    converted = from_torch(Dropped().eval(), (frames(),))
    _, again = converted.call_and_update(to_jax(frames()))
    assert eqx.tree_equal(converted, again)


def test_a_normalisation_that_is_called_twice_per_step_is_refused():
    class Twice(PerStep):
        def forward(self, x):
            mem, out = self.lif1.reset_mem(), []
            for xt in x:
                spk, mem = self.lif1(self.bn2(self.bn2(self.conv(xt))), mem)
                out.append(spk)
            return torch.stack(out)

    with pytest.raises(UnsupportedOptionError, match=r"'bn2'.*called several times") as caught:
        from_torch(Twice().train(), (frames(),))
    assert caught.value.path == "bn2"
    assert from_torch(Twice().eval(), (frames(),)).report.verification


@pytest.mark.parametrize(("option", "value"), [("momentum", None), ("track_running_stats", False)])
def test_statistics_that_are_kept_otherwise_are_refused(option, value):
    network = PerStep().train()
    setattr(network.bn2, option, value)
    with pytest.raises(UnsupportedOptionError, match=option):
        from_torch(network, (frames(),))


def test_dropout_draws_for_every_sample_step_and_call():
    torch.manual_seed(0)
    converted = from_torch(Dropped().train(), (frames(),))
    run = eqx.filter_jit(lambda converted, x, key: converted(x, key=key))
    x = to_jax(frames(20, 30))
    channels, elements, functional, spikes = run(converted, x, jax.random.key(0))
    assert spikes.any()
    for drawn in (elements, functional):
        assert set(np.unique(drawn)) == {0.0, 2.0}
        assert abs(float((drawn == 0).mean()) - 0.5) < 0.02
        masks = np.asarray(drawn).reshape(20 * 30, -1)
        assert len(np.unique(masks, axis=0)) == len(masks)  # no step and no sample shares another one's
    silent = (np.asarray(channels) == 0).reshape(20, 30, 8, -1)
    assert (silent.all(-1) == silent.any(-1)).all() and 0.4 < silent.mean() < 0.6
    assert not (elements == functional).all()
    again = run(converted, x, jax.random.key(0))
    other = run(converted, x, jax.random.key(1))
    assert all(bool((a == b).all()) for a, b in zip(again, (channels, elements, functional, spikes), strict=True))
    assert not any(bool((a == b).all()) for a, b in zip(other, (channels, elements, functional, spikes), strict=True))


class DropsShared(nn.Module):
    """Dropout of what samples share: of a weight, by a function, and of the mean over the batch, by a layer."""

    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.lif = nn.Linear(16, 8), nn.Dropout(0.5), snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for xt in x.flatten(2):
            weight = F.dropout(self.fc.weight, 0.5, self.training)
            centre = self.drop(xt.mean(0))
            spk, mem = self.lif(F.linear(xt - centre, weight), mem)
            out.append((centre + 0 * xt, F.linear(torch.ones_like(xt), weight), spk))
        return [torch.stack(each) for each in zip(*out, strict=True)]


def test_dropout_of_what_samples_share_is_drawn_once_for_all():
    torch.manual_seed(0)
    network = DropsShared().train()
    converted = from_torch(network, (frames(),))
    check_equivalence(network, converted, (frames(8, 2, seed=3),)).raise_if_failed()
    x = to_jax(frames(20, 30))
    centre, sums, spikes = eqx.filter_jit(lambda converted, x, key: converted(x, key=key))(
        converted, x, jax.random.key(0)
    )
    assert spikes.any() and 0.4 < float((centre == 0).mean()) < 0.6
    for drawn in (centre, sums):
        assert (drawn == drawn[:, :1]).all()  # every sample has the same
        assert len(np.unique(drawn[:, 0], axis=0)) == 20  # and every step another one


def test_dropout_asks_for_a_key():
    converted = from_torch(Dropped().train(), (frames(),))
    with pytest.raises(ValueError, match=r"pass key=jax\.random\.key"):
        converted(to_jax(frames()))


def test_dropout_is_off_where_both_sides_are_compared_and_in_inference():
    torch.manual_seed(0)
    network = Dropped().train()
    converted = from_torch(network, (frames(),))
    check_equivalence(network, converted, (frames(8, 2, seed=3),)).raise_if_failed()
    for found, expected in zip(converted.inference_mode()(to_jax(frames())), network.eval()(frames()), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_training_with_dropout_and_statistics_reaches_every_parameter():
    class Both(PerStep):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.2)

        def forward(self, x):
            return super().forward(self.drop(x)).mean(0)

    torch.manual_seed(0)
    converted = from_torch(Both().train(), (frames(),))

    def loss(converted, x, key):
        out, updated = converted.call_and_update(x, key=key)
        return (out[:, 0] ** 2 + out[:, 1]).sum(), updated

    gradients, updated = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(
        converted, to_jax(frames()), jax.random.key(0)
    )
    found = state_dict(gradients)
    assert all(found[key].abs().max() > 0 for key in ("conv.weight", "bn2.weight", "fc.weight"))
    assert state_dict(updated)["bn2.num_batches_tracked"] == 6
