"""Losses are compared with snnTorch, values and gradients, and where it differs with closed forms."""
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from snnax import losses


pytestmark = pytest.mark.full


# snnTorch adds some losses up in float32, whatever the dtype of the outputs.
FLOAT32, FLOAT64 = 1e-6, 1e-12
T, BATCH, CLASSES = 20, 5, 4
CLASS_LOSSES = {
    "rate_cross_entropy": losses.rate_cross_entropy,
    "count_cross_entropy": losses.count_cross_entropy,
    "count_mse": losses.count_mse,
    "max_membrane_cross_entropy": losses.max_membrane_cross_entropy,
    "first_spike_cross_entropy": losses.first_spike_cross_entropy,
}
SEQUENCE_LOSSES = {
    "membrane_mse": lambda xs: losses.membrane_mse(xs, jnp.full(xs.shape[1:], 0.5)),
    "first_spike_mse": lambda xs: losses.first_spike_mse(xs, jnp.full(xs.shape[1:], 2.0)),
    "van_rossum": lambda xs: losses.van_rossum(xs, jnp.roll(xs, 1, 0), tau=5e-3, dt=1e-3),
    "rate_bounds": lambda xs: losses.rate_bounds([xs], lower=0.45, upper=0.5),
    "sparsity": lambda xs: losses.sparsity({"a": xs, "b": xs[:, :1]}),
}
EVERY_LOSS = {**{name: lambda xs, loss=loss: loss(xs, 2) for name, loss in CLASS_LOSSES.items()}, **SEQUENCE_LOSSES}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def functional():
    return pytest.importorskip("snntorch.functional")


def spikes(shape=(T, BATCH, CLASSES), rate=0.4, seed=0, dtype=None):
    drawn = np.random.default_rng(seed).uniform(size=shape) < rate
    assert drawn.any() and not drawn.all()
    return jnp.asarray(drawn, dtype or jnp.result_type(float))


def membranes(shape=(T, BATCH, CLASSES)):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape))


LABELS = jnp.array([0, 3, 1, 1, 2])


def assert_equal_to_torch(torch, loss, reference, xs, tolerance):
    """Value and gradient of the mean over a batch, of sequences `(time, batch, ...)`."""

    def batched(xs):
        return jnp.mean(jax.vmap(loss, in_axes=(1, 0))(xs, LABELS))

    found, gradient = jax.value_and_grad(batched)(xs)
    inputs = torch.tensor(np.asarray(xs), requires_grad=True)
    expected = reference(inputs, torch.tensor(np.asarray(LABELS), dtype=torch.long))
    expected.sum().backward()
    np.testing.assert_allclose(found, expected.detach().numpy().squeeze(), rtol=tolerance)
    np.testing.assert_allclose(gradient, inputs.grad.numpy(), rtol=tolerance, atol=tolerance / 100)
    assert jnp.count_nonzero(gradient) >= BATCH * CLASSES
    assert found > 0


@pytest.mark.parametrize("outputs", [spikes, membranes])
def test_rate_cross_entropy_equals_that_of_snntorch(x64, torch, functional, outputs):
    assert_equal_to_torch(torch, losses.rate_cross_entropy, functional.ce_rate_loss(), outputs(), FLOAT32)


def test_count_cross_entropy_equals_that_of_snntorch(x64, torch, functional):
    assert_equal_to_torch(torch, losses.count_cross_entropy, functional.ce_count_loss(), spikes(), FLOAT64)


@pytest.mark.parametrize(("correct", "incorrect"), [(1.0, 0.0), (0.75, 0.25)])
def test_count_mse_equals_that_of_snntorch(x64, torch, functional, correct, incorrect):
    def loss(xs, label):
        return losses.count_mse(xs, label, correct_rate=correct, incorrect_rate=incorrect)

    reference = functional.mse_count_loss(correct_rate=correct, incorrect_rate=incorrect)
    assert_equal_to_torch(torch, loss, reference, spikes(), FLOAT64)


def test_max_membrane_cross_entropy_equals_that_of_snntorch(x64, torch, functional):
    reference = functional.ce_max_membrane_loss()
    assert_equal_to_torch(torch, losses.max_membrane_cross_entropy, reference, membranes(), FLOAT64)


@pytest.mark.parametrize(("on", "off"), [(1.0, 0.0), (1.5, 0.25)])
def test_membrane_mse_equals_that_of_snntorch(x64, torch, functional, on, off):
    def loss(v, label):
        return losses.membrane_mse(v, off + (on - off) * jax.nn.one_hot(label, CLASSES))

    reference = functional.mse_membrane_loss(on_target=on, off_target=off)
    assert_equal_to_torch(torch, loss, reference, membranes(), FLOAT32)


def test_membrane_mse_of_a_target_sequence_is_the_mean_square(x64):
    v, target = membranes((T, 2, 3)), membranes((2 * T, 2, 3))[T:]
    found, gradient = jax.value_and_grad(losses.membrane_mse)(v, target)
    np.testing.assert_allclose(found, np.mean(np.square(np.asarray(v) - np.asarray(target))), rtol=FLOAT64)
    np.testing.assert_allclose(gradient, 2 * (v - target) / v.size, rtol=FLOAT64)


def test_the_first_spike_losses_have_the_values_of_snntorch(x64, torch, functional):
    xs = spikes()
    assert jnp.all(xs.any(0)), "snnTorch takes a silent neuron to spike in the last step"
    inputs, labels = torch.tensor(np.asarray(xs)), torch.tensor(np.asarray(LABELS), dtype=torch.long)
    expected = functional.ce_temporal_loss()(inputs, labels)
    found = jax.vmap(losses.first_spike_cross_entropy, in_axes=(1, 0))(xs, LABELS).mean()
    np.testing.assert_allclose(found, expected.numpy(), rtol=FLOAT64)
    assert len(np.unique(losses.first_spike_times(xs))) > 2
    target = np.random.default_rng(2).uniform(0, T, (BATCH, CLASSES))
    expected = functional.mse_temporal_loss(target_is_time=True)(inputs, torch.tensor(target))
    found = jax.vmap(losses.first_spike_mse, in_axes=(1, 0))(xs, jnp.asarray(target)).mean()
    np.testing.assert_allclose(found, expected.numpy(), rtol=FLOAT64)


def first_spike_time(train):
    """Independent of the products: the index of the first entry that is 1."""
    return next((time for time, spike in enumerate(train) if spike), len(train))


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_the_gradient_of_a_first_spike_is_by_how_much_a_flipped_spike_moves_it(x64, rate):
    xs = spikes((12, 9), rate)
    found = losses.first_spike_times(xs)
    np.testing.assert_array_equal(found, [first_spike_time(train) for train in xs.T])
    assert (found == 12).any() == (rate == 0.02), "silent neurons are tested, and neurons that spike"
    assert (found < 12).any()
    gradient = jax.grad(lambda xs: losses.first_spike_times(xs).sum())(xs)
    for time, neuron in np.ndindex(12, 9):
        with_spike, without = (np.asarray(xs[:, neuron].at[time].set(spike)) for spike in (1.0, 0.0))
        assert gradient[time, neuron] == first_spike_time(with_spike) - first_spike_time(without)
    assert jnp.count_nonzero(gradient) > 9


def test_a_neuron_that_never_spikes_learns_to_be_first(x64):
    silent = jnp.zeros((T, 3))
    cross_entropy = jax.grad(losses.first_spike_cross_entropy)(silent, 1)
    assert jnp.all(cross_entropy[:, 1] < 0) and jnp.all(cross_entropy[:, [0, 2]] > 0)
    squared = jax.grad(losses.first_spike_mse)(silent, jnp.array([0.0, T, T]))
    assert jnp.all(squared[:, 0] < 0) and jnp.all(squared[:, 1:] == 0)


def test_the_temperature_is_in_time_steps(x64):
    xs = jnp.zeros((T, 2)).at[3, 0].set(1).at[8, 1].set(1)
    found = losses.first_spike_cross_entropy(xs, 0, temperature=2.5)
    np.testing.assert_allclose(found, np.log(1 + np.exp(-5 / 2.5)), rtol=FLOAT64)


@pytest.mark.parametrize(("tau", "dt"), [(10e-3, 1e-3), (2e-3, 5e-3), (1.0, 1e-4)])
def test_the_distance_of_van_rossum_is_its_closed_form(x64, tau, dt):
    a, b = spikes((40, 3), 0.3, 0), spikes((40, 3), 0.2, 1)
    expected = []
    for x, y in zip(np.asarray(a).T, np.asarray(b).T, strict=True):
        times = dt * np.arange(40)
        kernel = np.exp(-np.abs(times[:, None] - times) / tau) / 2
        expected.append(x @ kernel @ x + y @ kernel @ y - 2 * x @ kernel @ y)
    found, gradient = jax.value_and_grad(lambda a: losses.van_rossum(a, b, tau=tau, dt=dt))(a)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-10)
    assert found > 0.1 and jnp.all(gradient != 0)
    # Quadratic in the spikes, so that central differences have no truncation error.
    check_grads(lambda a: losses.van_rossum(jnp.asarray(a), b, tau=tau, dt=dt), (a,), order=1, modes=["rev"])
    assert losses.van_rossum(a, a, tau=tau, dt=dt) == 0


def test_the_distance_of_van_rossum_is_the_integral_over_filtered_trains(x64):
    a, b = spikes((8, 1), 0.4, 0), spikes((8, 1), 0.4, 3)
    tau, dt = 3e-3, 1e-3
    # The filtered trains in continuous time, integrated in the middle of steps of a microsecond.
    fine = np.arange(0, 0.08, 1e-6) + 0.5e-6
    since = fine[:, None] - dt * np.arange(8)
    filtered = np.where(since >= 0, np.exp(-since / tau), 0.0) @ np.asarray(a - b)
    expected = np.sum(filtered**2) * 1e-6 / tau
    np.testing.assert_allclose(losses.van_rossum(a, b, tau=tau, dt=dt), expected, rtol=1e-5)


@pytest.mark.parametrize("late", [1, 4])
def test_a_late_spike_costs_what_the_filter_has_forgotten(x64, late):
    a, b = jnp.zeros((30, 1)).at[5].set(1), jnp.zeros((30, 1)).at[5 + late].set(1)
    found = losses.van_rossum(a, b, tau=6e-3, dt=1e-3)
    np.testing.assert_allclose(found, 1 - np.exp(-late / 6), rtol=FLOAT64)


def test_rates_beyond_their_bounds_cost_their_squared_distance(x64):
    rates = {"a": [0.0, 0.1, 0.5, 1.0], "b": [0.3, 0.9]}
    trains = {
        name: jnp.stack([jnp.zeros(10).at[: round(10 * rate)].set(1) for rate in layer], axis=1)
        for name, layer in rates.items()
    }
    below = np.mean([0.2**2, 0.1**2, 0, 0])
    above = np.mean([0, 0, 0, 0.4**2]) + np.mean([0, 0.3**2])
    np.testing.assert_allclose(losses.rate_bounds(trains, lower=0.2), below, rtol=FLOAT64)
    np.testing.assert_allclose(losses.rate_bounds(trains, upper=0.6), above, rtol=FLOAT64)
    found, gradient = jax.value_and_grad(lambda x: losses.rate_bounds(x, lower=0.2, upper=0.6))(trains)
    np.testing.assert_allclose(found, below + above, rtol=FLOAT64)
    # d/dz = 2 (r - bound) / (time steps * neurons of the layer)
    np.testing.assert_allclose(gradient["a"][0], 2 * np.array([-0.2, -0.1, 0, 0.4]) / (10 * 4), atol=1e-15)
    np.testing.assert_allclose(gradient["b"][0], 2 * np.array([0, 0.3]) / (10 * 2), atol=1e-15)
    assert losses.rate_bounds(trains, lower=0.0, upper=1.0) == 0


def test_the_sum_of_spikes_is_the_sparsity_of_snntorch(x64, torch, functional):
    xs = spikes()
    found, gradient = jax.value_and_grad(lambda x: losses.sparsity(x, reduction="sum"))(xs)
    np.testing.assert_allclose(1e-5 * found, functional.l1_rate_sparsity(1e-5)(torch.tensor(np.asarray(xs))).numpy())
    np.testing.assert_array_equal(gradient, 1)
    trees = [xs, {"b": xs[:, 0] * 0}]
    np.testing.assert_allclose(losses.sparsity(trees), xs.sum() / (T * BATCH * CLASSES + T * CLASSES), rtol=FLOAT64)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("name", EVERY_LOSS)
def test_losses_are_finite_scalars_in_float32_at_least_and_gradients_keep_the_dtype(x64, name, dtype):
    xs = spikes((300, CLASSES), dtype=dtype)
    loss, gradient = jax.jit(jax.value_and_grad(EVERY_LOSS[name]))(xs)
    assert loss.shape == ()
    assert loss.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    assert gradient.dtype == dtype
    assert jnp.isfinite(loss) and jnp.all(jnp.isfinite(gradient))
    assert loss > 0 and jnp.any(gradient != 0)
    # 300 spikes would not be counted in bfloat16.
    np.testing.assert_allclose(loss, EVERY_LOSS[name](xs.astype(jnp.float64)), rtol=1e-5)


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_vmap_gives_the_loss_of_each_sample(x64, name):
    # Not spikes: of them, all samples would have the same largest and mean square value.
    xs = jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, T, CLASSES)))
    expected = jnp.stack([EVERY_LOSS[name](x) for x in xs])
    np.testing.assert_allclose(jax.vmap(EVERY_LOSS[name])(xs), expected, rtol=FLOAT64)
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_one_time_step_is_enough(name):
    # One step of rolling back is no step: van Rossum's distance to itself is 0.
    xs = jnp.array([[1.0, 0.0, 1.0, 0.0]])
    assert (EVERY_LOSS[name](xs) > 0) == (name != "van_rossum")


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_nan_is_not_hidden(name):
    assert jnp.isnan(EVERY_LOSS[name](spikes((T, CLASSES)).at[2, 1].set(jnp.nan)))


def test_without_time_steps_counts_are_zero_and_first_spikes_never_come():
    empty = jnp.zeros((0, 3))
    np.testing.assert_allclose(losses.count_cross_entropy(empty, 0), np.log(3), rtol=1e-6)
    np.testing.assert_allclose(losses.first_spike_cross_entropy(empty, 0), np.log(3), rtol=1e-6)
    assert losses.van_rossum(empty, empty, tau=1e-3, dt=1e-3) == 0
    assert losses.first_spike_times(empty).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "rate_cross_entropy",
        "count_mse",
        "max_membrane_cross_entropy",
        "membrane_mse",
        "first_spike_mse",
        "rate_bounds",
        "sparsity",
    ],
)
def test_a_mean_over_no_time_steps_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} needs at least one time step, found the shape \(0, 4\)"):
        EVERY_LOSS[name](jnp.zeros((0, 4)))


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_integers_and_scalars_are_refused(unchecked, name):
    with pytest.raises(TypeError, match=r"(first_spike_times|" + name + ") takes floating point .*found int32"):
        EVERY_LOSS[name](jnp.ones((T, CLASSES), jnp.int32))


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_bad_label_or_batch_is_refused(unchecked, name):
    loss, xs = CLASS_LOSSES[name], spikes((T, CLASSES))
    with pytest.raises(ValueError, match=rf"{name} of 4 classes takes labels from 0 to 3, found 4"):
        loss(xs, 4)
    with pytest.raises(ValueError, match="labels from 0 to 3, found -1"):
        loss(xs, jnp.array(-1))
    with pytest.raises(TypeError, match=f"{name} takes an integer class index as label, found float32"):
        loss(xs, jnp.array(1.0))
    with pytest.raises(ValueError, match=rf"{name} takes one label, found the shape \(2,\): batch with jax.vmap"):
        loss(xs, jnp.array([1, 2]))
    with pytest.raises(ValueError, match=rf"{name} takes one sample \(time, classes\), found the shape \(20, 5, 4\)"):
        loss(spikes(), 1)
    assert jnp.isfinite(jax.jit(loss)(xs, 3))
    assert jnp.isnan(jax.jit(loss)(xs, 4)) and jnp.isnan(jax.jit(loss)(xs, -1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: losses.count_mse(x, 0, correct_rate=1.5), ValueError, r"correct_rate .* \[0, 1\] .*found 1.5"),
        (lambda x: losses.count_mse(x, 0, incorrect_rate=-0.1), ValueError, r"incorrect_rate .*found -0.1"),
        (lambda x: losses.first_spike_cross_entropy(x, 0, temperature=0.0), ValueError, "positive, found 0.0"),
        (lambda x: losses.first_spike_mse(x, jnp.zeros(3)), ValueError, r"target per neuron \(4,\), found \(3,\)"),
        (lambda x: losses.first_spike_mse(x, jnp.arange(4)), TypeError, "floating point target times, found int32"),
        (lambda x: losses.membrane_mse(x, x[:3]), ValueError, r"\(20, 4\) or \(4,\) like v, found \(3, 4\)"),
        (lambda x: losses.membrane_mse(x, jnp.arange(4)), TypeError, "floating point target, found int32"),
        (lambda x: losses.van_rossum(x, x[1:], tau=1.0, dt=1.0), ValueError, r"\(20, 4\) and \(19, 4\)"),
        (lambda x: losses.van_rossum(x, x, tau=0.0, dt=1.0), ValueError, "found tau=0.0, dt=1.0"),
        (lambda x: losses.van_rossum(x, x, tau=1.0, dt=-1.0), ValueError, "found tau=1.0, dt=-1.0"),
        (lambda x: losses.rate_bounds(x), ValueError, "found neither lower nor upper"),
        (lambda x: losses.rate_bounds(x, lower=0.5, upper=0.1), ValueError, "found lower=0.5, upper=0.1"),
        (lambda x: losses.rate_bounds([], lower=0.5), ValueError, r"at least one spike sequence .*found none in \[\]"),
        (lambda x: losses.rate_bounds(x[0, 0], lower=0.5), ValueError, r"found the shape \(\)"),
        (lambda x: losses.sparsity(x, reduction="max"), ValueError, "'mean' or 'sum', found 'max'"),
        (lambda x: losses.sparsity({}), ValueError, "found none in {}"),
    ],
)
def test_a_bad_argument_is_refused(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(spikes((T, CLASSES)))
