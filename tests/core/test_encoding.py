"""Encoders are compared with their closed forms and with snnTorch's `spikegen`."""
# pyright: reportArgumentType=false, reportCallIssue=false

from fractions import Fraction

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from snnax import encoding


pytestmark = pytest.mark.full


DTYPES = [jnp.float32, jnp.float64, jnp.bfloat16]
ENCODERS = {
    "rate": lambda x: encoding.rate(x, 7, key=jax.random.key(0)),
    "latency": lambda x: encoding.latency(x, 7),
    "delta": lambda x: encoding.delta(jnp.stack([x, 2 * x])),
    "population": lambda x: encoding.population(x, 7, 0.0, 1.0),
    "regular": lambda x: encoding.regular(x, 7),
}
SPIKING = [name for name in ENCODERS if name != "population"]


@pytest.fixture
def spikegen():
    return pytest.importorskip("snntorch.spikegen")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def values(shape=(40,), dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).uniform(0, 1, shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encoder", SPIKING)
def test_spikes_are_zeros_and_ones_in_the_dtype_of_the_values(x64, encoder, dtype):
    spikes = ENCODERS[encoder](values(dtype=dtype))
    assert spikes.dtype == dtype
    assert set(np.unique(spikes.astype(jnp.float32))) == {0.0, 1.0}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_jit_and_vmap_change_nothing(encoder):
    xs = values((3, 5))
    expected = jnp.stack([ENCODERS[encoder](x) for x in xs])
    assert jnp.any(expected != 0)
    np.testing.assert_array_equal(jax.vmap(ENCODERS[encoder])(xs), expected)
    # The exponential function may differ by an ulp under jit.
    np.testing.assert_allclose(jax.jit(jax.vmap(ENCODERS[encoder]))(xs), expected, rtol=1e-6)


@pytest.mark.parametrize("encoder", SPIKING)
def test_no_gradient_passes_through_spikes(encoder):
    xs = values()
    weights = jnp.arange(1.0, 41.0)
    value, gradient = jax.value_and_grad(lambda x: (ENCODERS[encoder](x) * weights[None]).sum())(xs)
    assert value > 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("num_steps", [0, 1])
@pytest.mark.parametrize("code", ["logarithmic", "linear"])
@pytest.mark.parametrize("otherwise", ["silent", "last"])
def test_sequences_may_have_no_or_one_time_step(num_steps, code, otherwise):
    xs = values((2, 3))
    assert encoding.rate(xs, num_steps, key=jax.random.key(0)).shape == (num_steps, 2, 3)
    spikes = encoding.latency(xs, num_steps, code=code, otherwise=otherwise)
    assert spikes.shape == (num_steps, 2, 3)
    assert spikes.sum() == 6 * num_steps
    np.testing.assert_array_equal(encoding.regular(xs, num_steps), jnp.ones((num_steps, 2, 3)))
    assert encoding.delta(values((num_steps, 2)), start="first").sum() == 0
    assert encoding.delta(values((num_steps, 2))).shape == (num_steps, 2)


def test_each_sample_of_a_batch_is_drawn_with_its_own_key(getkey):
    keys = jax.random.split(getkey(), 3)
    found = jax.jit(jax.vmap(lambda x, key: encoding.rate(x, 50, key=key)))(jnp.full((3, 4), 0.5), keys)
    for spikes, key in zip(found, keys, strict=True):
        np.testing.assert_array_equal(spikes, encoding.rate(jnp.full((4,), 0.5), 50, key=key))
    assert jnp.all(jnp.any(found[:1] != found[1:], axis=(1, 2)))


def test_the_rate_of_spikes_is_the_intensity_clipped_to_a_probability(getkey):
    intensities = jnp.array([-1.0, 0.0, 0.1, 0.5, 0.93, 1.0, 3.0])
    spikes = encoding.rate(intensities, 20000, key=getkey())
    probability = np.clip(np.asarray(intensities), 0, 1)
    # Five standard deviations of a mean of 20000 Bernoulli draws; exact at 0 and 1.
    tolerance = 5 * np.sqrt(probability * (1 - probability) / 20000)
    assert np.all(np.abs(spikes.mean(0) - probability) <= tolerance + 1e-7)


def test_spikes_are_independent_from_one_step_to_the_next_and_between_neurons(getkey):
    spikes = np.asarray(encoding.rate(jnp.full((2,), 0.4), 20000, key=getkey()))
    centred = spikes - spikes.mean(0)
    variance = 0.4 * 0.6
    # Five standard deviations of a mean of 20000 products of independent values with this variance.
    tolerance = 5 * variance / np.sqrt(20000)
    assert abs((centred[1:] * centred[:-1]).mean(0)).max() < tolerance
    assert abs((centred[:, 0] * centred[:, 1]).mean()) < tolerance
    assert abs(centred.var(0) - variance).max() < tolerance


def test_a_small_probability_in_bfloat16_is_kept(getkey):
    spikes = encoding.rate(jnp.full((200,), 0.001, jnp.bfloat16), 5000, key=getkey())
    # A million draws with p = 0.001: five standard deviations are 16 per cent.
    assert abs(spikes.astype(jnp.float32).mean() / 0.001 - 1) < 0.16


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_regular_spikes_are_at_whole_multiples_of_their_distance(x64, dtype):
    # In exact arithmetic, with intensities of two decimals, none of which but four is a binary number.
    expected = np.zeros((300, 101))
    for percent in range(1, 101):
        times = [int(Fraction(100 * k, percent)) for k in range(300)]
        expected[[time for time in times if time < 300], percent] = 1
    np.testing.assert_array_equal(encoding.regular(jnp.arange(101).astype(dtype) / 100, 300), expected)
    np.testing.assert_array_equal(expected.sum(0), 3 * np.arange(101))


def test_a_long_regular_sequence_has_the_count_of_its_intensity():
    # Of 2^19 steps in float32: rounding may move a spike by a step, but none is lost.
    intensities = jnp.array([-1.0, 0.0, 1e-6, 0.001, 0.1, 0.7, 1.0, 2.0])
    counts = encoding.regular(intensities, 2**19).sum(0)
    assert counts.tolist() == [0, 0, 1, 525, 52429, 367002, 2**19, 2**19]


@pytest.mark.parametrize("rate", [0.07, 0.3, 0.5, 0.83, 1.0])
def test_regular_spikes_are_those_of_snntorch(spikegen, rate):
    # Not of 200 steps, at which snnTorch rounds 14 / 0.07 to the step after the last one.
    expected = spikegen.target_rate_code(num_steps=190, rate=rate)[0].numpy()
    assert expected.sum() >= 190 * rate
    np.testing.assert_array_equal(encoding.regular(jnp.array(rate), 190), expected)


@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_the_linear_code_equals_that_of_snntorch(spikegen, torch, num_steps):
    xs = values((3, 40))
    expected = spikegen.latency(torch.tensor(np.asarray(xs)), num_steps=num_steps, normalize=True, linear=True)
    found = encoding.latency(xs, num_steps, code="linear", otherwise="last")
    assert expected.sum() == xs.size
    np.testing.assert_array_equal(found, expected.numpy())
    clipped = spikegen.latency(torch.tensor(np.asarray(xs)), num_steps, normalize=True, linear=True, clip=True)
    np.testing.assert_array_equal(encoding.latency(xs, num_steps, code="linear"), clipped.numpy())


@pytest.mark.parametrize(("tau", "threshold"), [(5.0, 0.01), (8.0, 0.2)])
def test_the_logarithmic_code_equals_that_of_snntorch(spikegen, torch, tau, threshold):
    xs = values((3, 400))
    options = {"tau": tau, "threshold": threshold}
    expected = spikegen.latency(torch.tensor(np.asarray(xs)), num_steps=12, clip=True, bypass=True, **options).numpy()
    assert expected.sum() > 400
    assert len(np.unique(expected.argmax(0))) > 2
    np.testing.assert_array_equal(encoding.latency(xs, 12, **options), expected)


@pytest.mark.parametrize("code", ["logarithmic", "linear"])
def test_larger_values_spike_earlier_and_each_neuron_once(code):
    xs = jnp.linspace(0, 1, 101)
    spikes = encoding.latency(xs, 30, code=code, threshold=0.1, otherwise="last")
    np.testing.assert_array_equal(spikes.sum(0), 1)
    times = spikes.argmax(0)
    assert jnp.all(jnp.diff(times) <= 0)
    assert len(np.unique(times)) > 10
    silent = encoding.latency(xs, 30, code=code, threshold=0.1).sum(0)
    np.testing.assert_array_equal(silent[:11], 0)
    assert silent[11:].sum() > 80


def test_the_logarithmic_code_is_the_time_at_which_an_rc_circuit_charges():
    tau, threshold = 20.0, 0.3
    xs = jnp.array([0.35, 0.5, 0.9])
    times = encoding.latency(xs, 100, tau=tau, threshold=threshold).argmax(0)
    # v' = (x - v) / tau, integrated by Euler in small steps.
    v, crossed = np.zeros(3), np.full(3, np.nan)
    for step in range(100000):
        v += (np.asarray(xs) - v) / tau * 1e-3
        crossed = np.where(np.isnan(crossed) & (v >= threshold), (step + 1) * 1e-3, crossed)
    np.testing.assert_array_equal(times, np.round(crossed))


@pytest.mark.parametrize("code", ["logarithmic", "linear"])
def test_a_value_at_the_threshold_has_no_spike_time(code):
    at, above = encoding.latency(jnp.array([0.25, 0.26]), 10, code=code, threshold=0.25, tau=1.0).sum(0)
    assert (at, above) == (0, 1)


def test_values_beyond_the_range_are_clipped():
    assert encoding.latency(jnp.array([5.0, -5.0]), 10, code="linear").argmax(0).tolist() == [0, 0]
    assert encoding.latency(jnp.array([5.0, -5.0]), 10, code="linear").sum(0).tolist() == [1, 0]


@pytest.mark.parametrize("off_spikes", [False, True])
@pytest.mark.parametrize("start", ["zero", "first"])
def test_changes_are_those_of_snntorch(spikegen, torch, off_spikes, start):
    xs = jnp.cumsum(jax.random.normal(jax.random.key(0), (50, 6)), axis=0)
    expected = spikegen.delta(
        torch.tensor(np.asarray(xs)), threshold=0.7, padding=start == "first", off_spike=off_spikes
    ).numpy()
    assert set(np.unique(expected)) == ({-1, 0, 1} if off_spikes else {0, 1})
    found = encoding.delta(xs, 0.7, off_spikes=off_spikes, start=start)
    np.testing.assert_array_equal(found, expected)


def test_a_change_of_exactly_the_threshold_is_an_event():
    assert encoding.delta(jnp.array([0.5, 0.75, 0.5]), 0.25, off_spikes=True).tolist() == [1, 1, -1]


@pytest.mark.parametrize(("num_neurons", "width"), [(1, None), (1, 0.7), (5, None), (5, 0.3)])
def test_tuning_curves_are_gaussian(x64, num_neurons, width):
    xs = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, (4, 2)))
    centres = {1: [0.5], 5: [-2.0, -0.75, 0.5, 1.75, 3.0]}[num_neurons]
    sigma = width or {1: 5.0, 5: 1.25}[num_neurons]
    expected = np.exp(-((np.asarray(xs)[..., None] - np.array(centres)) ** 2) / (2 * sigma**2))
    found = encoding.population(xs, num_neurons, -2.0, 3.0, width=width)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    gradient = jax.grad(lambda x: encoding.population(x, num_neurons, -2.0, 3.0, width=width).sum())(xs)
    slope = -(np.asarray(xs)[..., None] - np.array(centres)) / sigma**2 * expected
    np.testing.assert_allclose(gradient, slope.sum(-1), rtol=1e-10)
    assert np.all(slope != 0)


def test_the_population_spikes_with_its_activity_as_probability(getkey):
    activity = encoding.population(jnp.array([0.2, 0.9]), 4, 0.0, 1.0)
    spikes = encoding.rate(activity, 20000, key=getkey())
    assert spikes.shape == (20000, 2, 4)
    # Five standard deviations of a mean of 20000 draws are at most 0.018.
    np.testing.assert_allclose(spikes.mean(0), activity, atol=0.018)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: encoding.rate(x, -1, key=jax.random.key(0)), ValueError, "num_steps >= 0, found -1"),
        (lambda x: encoding.rate(x, 3), TypeError, "key"),
        (lambda x: encoding.rate(x, 3, key=None), ValueError, "found key=None: pass key="),
        (lambda x: encoding.regular(x, -1), ValueError, "num_steps >= 0, found -1"),
        (lambda x: encoding.latency(x, -2), ValueError, "num_steps >= 0, found -2"),
        (lambda x: encoding.latency(x, 5, threshold=1.0), ValueError, "between 0 and 1, found 1.0"),
        (lambda x: encoding.latency(x, 5, threshold=0.0), ValueError, "between 0 and 1, found 0.0"),
        (lambda x: encoding.latency(x, 5, threshold=float("nan")), ValueError, "between 0 and 1, found nan"),
        (lambda x: encoding.latency(x, 5, tau=0.0), ValueError, "tau of latency must be positive"),
        (lambda x: encoding.latency(x, 5, code="log"), ValueError, "'logarithmic', 'linear'.*found 'log'"),
        (lambda x: encoding.latency(x, 5, otherwise="first"), ValueError, "'silent', 'last'.*found 'first'"),
        (lambda x: encoding.delta(x, 0.0), ValueError, "must be positive, found 0.0"),
        (lambda x: encoding.delta(x, start="last"), ValueError, "'zero', 'first'.*found 'last'"),
        (lambda x: encoding.delta(x[0]), ValueError, "time-major sequence .* found a scalar"),
        (lambda x: encoding.population(x, 0, 0.0, 1.0), ValueError, "num_neurons >= 1, found 0"),
        (lambda x: encoding.population(x, 3, 1.0, 1.0), ValueError, "lower < upper, found lower=1.0, upper=1.0"),
        (lambda x: encoding.population(x, 3, 0.0, 1.0, width=0.0), ValueError, "must be positive, found 0.0"),
    ],
)
def test_a_bad_argument_is_refused(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call(values())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nan_and_integers_are_refused(unchecked, encoder):
    with pytest.raises(ValueError, match=f"{encoder} encodes numbers, found NaN in [12] of"):
        ENCODERS[encoder](jnp.array([0.5, jnp.nan, 0.1]))
    with pytest.raises(TypeError, match=f"{encoder} encodes floating point values, found int32"):
        ENCODERS[encoder](jnp.arange(3))


@pytest.mark.parametrize("encoder", SPIKING)
def test_nan_in_a_traced_call_never_spikes(encoder):
    spikes = jax.jit(ENCODERS[encoder])(jnp.array([0.9, jnp.nan]))
    np.testing.assert_array_equal(spikes[:, 1], 0)
    assert spikes[:, 0].sum() > 0


@pytest.mark.parametrize("encoder", ENCODERS)
def test_annotations_refuse_integers(encoder):
    with pytest.raises(jaxtyping.TypeCheckError, match="Type-check error"):
        ENCODERS[encoder](jnp.arange(3))


def test_arrays_of_numpy_are_taken_without_type_checks(unchecked):
    xs = np.array([0.2, 0.8], np.float32)
    np.testing.assert_array_equal(encoding.latency(xs, 5), encoding.latency(jnp.asarray(xs), 5))
