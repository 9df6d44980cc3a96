"""Metrics are compared with snnTorch, and with counts made one by one."""
# pyright: reportArgumentType=false, reportCallIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import metrics, snn


pytestmark = pytest.mark.full


T, BATCH, CLASSES = 15, 60, 4


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def functional():
    return pytest.importorskip("snntorch.functional")


def spikes(shape=(BATCH, T, CLASSES), rate=0.4, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape) < rate, dtype)


LABELS = jnp.asarray(np.random.default_rng(1).integers(0, CLASSES, BATCH))


def test_accuracies_equal_those_of_snntorch_where_all_neurons_spike(torch, functional):
    xs = spikes()
    assert xs.any(1).all()
    reference = torch.tensor(np.asarray(jnp.moveaxis(xs, 0, 1))), torch.tensor(np.asarray(LABELS))
    found = {
        "accuracy_rate": metrics.accuracy_rate(xs, LABELS),
        "accuracy_temporal": metrics.accuracy_first_spike(xs, LABELS),
    }
    for name, accuracy in found.items():
        assert 0 < accuracy < 1
        np.testing.assert_allclose(accuracy, getattr(functional.acc, name)(*reference), rtol=1e-6)
    assert found["accuracy_rate"] != found["accuracy_temporal"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_predictions_are_found_one_by_one(x64, dtype):
    predictions = {"rate": [], "first": []}
    xs = spikes((200, 5, CLASSES), 0.15, dtype=dtype)
    for sample in np.asarray(xs.astype(jnp.float32)):
        counts = [sum(train) for train in sample.T]
        firsts = [list(train).index(1) if 1 in train else 99 for train in sample.T]
        predictions["rate"].append(counts.index(max(counts)) if max(counts) else -1)
        predictions["first"].append(firsts.index(min(firsts)) if min(firsts) < 99 else -1)
    assert set(predictions["rate"]) == set(predictions["first"]) == {-1, 0, 1, 2, 3}
    assert predictions["rate"] != predictions["first"]
    assert jax.vmap(metrics.predict_rate)(xs).tolist() == predictions["rate"]
    assert jax.jit(jax.vmap(metrics.predict_first_spike))(xs).tolist() == predictions["first"]


@pytest.mark.parametrize("predict", [metrics.predict_rate, metrics.predict_first_spike])
def test_ties_go_to_the_lowest_index_and_silence_or_nan_to_no_class(predict):
    assert predict(jnp.array([[0.0, 1.0, 1.0]])) == 1
    assert predict(jnp.zeros((3, 4))) == -1
    assert predict(jnp.zeros((0, 4))) == -1
    assert predict(jnp.array([[0.0, 1.0, jnp.nan]])) == -1


def test_bfloat16_spikes_are_counted_beyond_256():
    # 399 is no number of bfloat16, and would be 400.
    xs = jnp.ones((400, 2), jnp.bfloat16).at[0, 0].set(0)
    assert metrics.predict_rate(xs) == 1


def test_a_silent_sample_is_wrong_for_every_label():
    for accuracy in (metrics.accuracy_rate, metrics.accuracy_first_spike):
        assert accuracy(jnp.zeros((CLASSES, T, CLASSES)), jnp.arange(CLASSES)) == 0
        assert accuracy(jnp.eye(CLASSES)[:, None], jnp.arange(CLASSES)) == 1


def test_firing_rates_are_counted_per_layer():
    hidden = jnp.zeros((10, 4)).at[:, 0].set(1).at[:3, 1].set(1).at[0, 2].set(-2.5)
    image = jnp.zeros((10, 2, 1, 3)).at[::2, 0, 0, 0].set(0.5)
    rates = metrics.firing_rates([hidden, {"image": image}])
    np.testing.assert_allclose(rates.mean[0], (1 + 0.3 + 0.1) / 4, rtol=1e-6)
    np.testing.assert_allclose(rates.silent[0], 1 / 4)
    np.testing.assert_allclose(rates.saturated[0], 1 / 4)
    np.testing.assert_allclose(rates.mean[1]["image"], 0.5 / 6, rtol=1e-6)
    np.testing.assert_allclose(rates.silent[1]["image"], 5 / 6, rtol=1e-6)
    assert rates.saturated[1]["image"] == 0


def test_a_neuron_is_silent_in_a_batch_when_it_is_so_in_all_samples():
    xs = jnp.zeros((2, 5, 3)).at[0, :, 0].set(1).at[:, :, 1].set(1)
    rates = metrics.firing_rates(xs, axis=(0, 1))
    np.testing.assert_allclose([rates.mean, rates.silent, rates.saturated], [0.5, 1 / 3, 1 / 3], rtol=1e-6)
    samples = jax.jit(jax.vmap(metrics.firing_rates))(xs)
    np.testing.assert_allclose(samples.silent, [1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(samples.saturated, [2 / 3, 1 / 3], rtol=1e-6)


def test_firing_rates_take_the_outputs_of_a_model(getkey):
    model = snn.Sequential(eqx.nn.Linear(6, 8, key=getkey()), snn.LIF(8, 0.9))
    _, outs = model(model.init_states(), spikes((T, 6)))
    rates = metrics.firing_rates(outs[1:])
    assert 0 < rates.mean[0] < 1
    np.testing.assert_allclose(rates.mean[0], outs[1].mean(), rtol=1e-6)


def test_a_nan_makes_the_rates_of_its_layer_nan():
    rates = metrics.firing_rates([jnp.ones((3, 2)).at[0, 0].set(jnp.nan), jnp.ones((1, 2))])
    assert jnp.isnan(rates.mean[0]) and jnp.isnan(rates.silent[0]) and jnp.isnan(rates.saturated[0])
    assert rates.mean[1] == rates.saturated[1] == 1
    assert rates.silent[1] == 0


def sparse(layer, seed=0):
    """Some weights are 0, and the bias is not."""
    kept = np.random.default_rng(seed).uniform(size=layer.weight.shape) < 0.7
    assert not kept.all()
    return eqx.tree_at(lambda m: m.weight, layer, jnp.where(kept, layer.weight, 0))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_operations_of_a_linear_layer_are_spikes_times_their_synapses(getkey, use_bias, dtype):
    layer = sparse(eqx.nn.Linear(7, 5, use_bias=use_bias, dtype=dtype, key=getkey()))
    xs = -2.5 * spikes((T, 7), dtype=dtype)
    fan_out = [
        sum(float(weight != 0) for weight in column) for column in np.asarray(layer.weight.astype(jnp.float32)).T
    ]
    expected = sum(fan_out[neuron] for _, neuron in zip(*np.nonzero(np.asarray(xs != 0)), strict=True))
    assert expected > 50
    assert metrics.synaptic_operations(layer, xs) == expected
    assert eqx.filter_jit(metrics.synaptic_operations)(layer, xs) == expected
    assert jax.vmap(lambda x: metrics.synaptic_operations(layer, x))(xs[None])[0] == expected


def test_operations_of_a_convolution_leave_its_padding_out(getkey):
    layer = sparse(eqx.nn.Conv2d(2, 3, 3, stride=2, padding=1, key=getkey()))
    xs = spikes((4, 2, 6, 5))
    weight, expected = np.asarray(layer.weight), 0.0
    for _, channel, row, column in zip(*np.nonzero(np.asarray(xs)), strict=True):
        for out, i, j in np.ndindex(3, 3, 3):
            # The output position (y, x) reads the input at (2 y - 1 + i, 2 x - 1 + j).
            y, x = (row + 1 - i) / 2, (column + 1 - j) / 2
            inside = y in range(3) and x in range(3)
            expected += float(inside and weight[out, channel, i, j] != 0)
    assert expected > 100
    assert metrics.synaptic_operations(layer, xs) == expected


@pytest.mark.parametrize(
    "layer",
    [
        lambda key: eqx.nn.Conv1d(4, 6, 3, groups=2, dilation=2, key=key),
        lambda key: eqx.nn.ConvTranspose1d(4, 6, 3, stride=2, key=key),
    ],
)
def test_operations_of_other_convolutions_are_those_of_the_matrix_that_they_are(getkey, layer):
    layer = layer(getkey())
    xs = spikes((T, 4, 9))
    # The response to each single input is a column of the matrix.
    bias = layer(jnp.zeros((4, 9)))
    columns = jax.vmap(lambda x: layer(x.reshape(4, 9)) - bias)(jnp.eye(36)).reshape(36, -1)
    fan_out = (abs(columns) > 1e-6).sum(1)
    expected = (xs.reshape(T, 36) @ fan_out.astype(jnp.float32)).sum()
    assert expected > 100
    assert metrics.synaptic_operations(layer, xs) == expected


def test_no_time_steps_are_no_operations(getkey):
    assert metrics.synaptic_operations(eqx.nn.Linear(7, 5, key=getkey()), jnp.zeros((0, 7))) == 0


class Doubling(eqx.nn.Linear):
    def __call__(self, x, *, key=None):
        return 2 * super().__call__(x, key=key)


@pytest.mark.parametrize(
    "layer",
    [
        lambda key: eqx.nn.LayerNorm(7),
        lambda key: snn.LIF(7, 0.9),
        lambda key: Doubling(7, 5, key=key),
        lambda key: snn.Sequential(eqx.nn.Linear(7, 5, key=key)),
        lambda key: jnp.tanh,
    ],
)
def test_operations_of_an_unknown_layer_are_refused(getkey, layer):
    layer = layer(getkey())
    found = type(layer).__name__
    with pytest.raises(TypeError, match=rf"synapses of Linear, Conv, .* found {found}: call it for each linear layer"):
        metrics.synaptic_operations(layer, spikes((T, 7)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: metrics.predict_rate(x), ValueError, r"predict_rate takes .*\(time, classes\), .*\(60, 15, 4\)"),
        (lambda x: metrics.predict_first_spike(x), ValueError, r"predict_first_spike takes .*\(60, 15, 4\)"),
        (lambda x: metrics.predict_rate(x[0].astype(int)), TypeError, "predict_rate takes floating point .*int32"),
        (lambda x: metrics.predict_first_spike(x[0] > 0), TypeError, "predict_first_spike takes .*found bool"),
        (lambda x: metrics.accuracy_rate(x[0], LABELS), ValueError, r"\(batch, time, classes\), found the shape"),
        (lambda x: metrics.accuracy_rate(x, LABELS[1:]), ValueError, r"one label per sample \(60,\), .*\(59,\)"),
        (lambda x: metrics.accuracy_first_spike(x, LABELS.astype(jnp.float32)), TypeError, "as labels, found float32"),
        (lambda x: metrics.accuracy_first_spike(x[:0], LABELS[:0]), ValueError, "at least one sample"),
        (lambda x: metrics.firing_rates([]), ValueError, r"found none in \[\]"),
        (lambda x: metrics.firing_rates(x, axis=3), ValueError, r"the axes \(3,\), found .*\(60, 15, 4\)"),
        (lambda x: metrics.firing_rates(x[:0]), ValueError, r"at least one time step .*\(0, 15, 4\)"),
        (lambda x: metrics.firing_rates([x, x > 0]), TypeError, "floating point spikes, found bool"),
        (
            lambda x: metrics.synaptic_operations(eqx.nn.Linear(7, 5, key=jax.random.key(0)), x[0]),
            ValueError,
            r"Linear with weights \(5, 7\) does not take spikes of shape \(15, 4\)",
        ),
        (
            lambda x: metrics.synaptic_operations(eqx.nn.Conv2d(1, 2, 3, key=jax.random.key(0)), x[0]),
            ValueError,
            r"Conv2d with weights \(2, 1, 3, 3\) does not take spikes of shape \(15, 4\)",
        ),
    ],
)
def test_a_bad_argument_is_refused(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(spikes())


def test_a_membrane_that_is_nan_shows_in_the_rates():
    model = snn.Sequential(snn.LIF(2, 0.9), snn.Lambda(jnp.tanh), snn.LIF(2, 0.9))
    healthy = model(model.init_states(input_shape=(2,)), jnp.ones((5, 2)))
    broken = eqx.tree_at(lambda model: model[2].integration.decay_mem.value, model, jnp.float32(jnp.nan))
    states, outs = broken(broken.init_states(input_shape=(2,)), jnp.ones((5, 2)))
    assert jnp.isfinite(outs[2]).all(), "a loss of spikes is finite"
    assert jnp.isfinite(jnp.array(metrics.firing_rates(outs).mean)).all()
    rates = metrics.firing_rates(outs, states=states)
    assert [bool(jnp.isnan(rate)) for rate in rates.mean] == [False, False, True]
    assert jnp.isnan(rates.silent[2]) and jnp.isnan(rates.saturated[2])
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, *(metrics.firing_rates(healthy[1], states=s) for s in (None, healthy[0])))
    )
    with pytest.raises(ValueError, match="states are not those of outs, layer by layer"):
        metrics.firing_rates(outs, states=states[:2])
