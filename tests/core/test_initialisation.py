"""Initial weights are judged by simulation: the membranes fluctuate, and the layers fire, as was asked for."""
# pyright: reportArgumentType=false, reportCallIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import initialisation, snn


pytestmark = pytest.mark.full


P, BETA, ALPHA = 0.1, 0.8, 0.6


def bernoulli(key, *shape, rate=P):
    return jax.random.bernoulli(key, rate, shape).astype(jnp.float32)


def membranes(layer, xs, *decays, **options):
    """Membranes that are never reset, without the start, where they still charge."""
    model = snn.Sequential(layer, snn.LI(None, list(map(snn.Factor, decays)), **options))
    _, outs = model(model.init_states(input_shape=xs.shape[1:]), xs)
    return np.asarray(outs[-1])[100:]


@pytest.mark.parametrize("input_scale", ["unit", "one_minus_decay"])
@pytest.mark.parametrize("decays", [(BETA,), (BETA, ALPHA), (0.0,)])
@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_membranes_fluctuate_as_asked_for(getkey, decays, input_scale, mean):
    threshold, std = 1.5, 0.4
    layer = initialisation.fluctuation_driven(
        eqx.nn.Linear(300, 200, key=getkey()),
        key=getkey(),
        input_rate=P,
        decay_mem=decays[0],
        decay_syn=decays[1] if len(decays) == 2 else None,
        input_scale=input_scale,
        threshold=threshold,
        std=std,
        mean=mean,
    )
    v = membranes(layer, bernoulli(getkey(), 4100, 300), *decays, input_scale=input_scale)
    # Over time, averaged over neurons: 4000 steps, correlated over about ten, of 200 neurons.
    np.testing.assert_allclose(np.sqrt(v.var(0).mean()), threshold * std, rtol=0.03)
    # The means of single neurons differ by their weights; their average by that over the square root of 200.
    spread = v.mean(0).std() / np.sqrt(200)
    assert abs(v.mean() - threshold * mean) < 4 * spread
    assert mean == 0 or 4 * spread < threshold * mean / 2


def test_a_large_mean_takes_its_part_of_the_fluctuation(getkey):
    """Of few inputs with a large mean weight, that alone is a fifth of the variance."""
    layer = eqx.nn.Linear(20, 3000, key=getkey())
    layer = initialisation.fluctuation_driven(layer, key=getkey(), input_rate=0.5, decay_mem=0.0, std=0.5, mean=1.0)
    assert 0.15 < (layer.weight.mean() ** 2 / jnp.mean(layer.weight**2)) < 0.25
    v = membranes(layer, bernoulli(getkey(), 2100, 20, rate=0.5), 0.0)
    np.testing.assert_allclose(v.var(0).mean(), 0.5**2, rtol=0.04)


@pytest.mark.parametrize("kind", ["conv", "groups"])
def test_a_convolution_fluctuates_inside_of_its_border(getkey, kind):
    layer = eqx.nn.Conv2d(8, 40, 3, padding=1, groups=4 if kind == "groups" else 1, key=getkey())
    layer = initialisation.fluctuation_driven(layer, key=getkey(), input_rate=P, decay_mem=BETA, std=0.7)
    v = membranes(layer, bernoulli(getkey(), 2100, 8, 7, 7), BETA)
    inside, corner = v[:, :, 1:-1, 1:-1].var(0).mean(), v[:, :, ::6, ::6].var(0).mean()
    # 40 filters give the mean square weight; with 2 * 9 inputs each (groups) its error is five per cent.
    np.testing.assert_allclose(np.sqrt(inside), 0.7, rtol=0.1)
    assert 0.3 < corner / inside < 0.6, "four of nine inputs of a corner are inside"


def test_a_poisson_process_would_fluctuate_more(getkey):
    """That the variance of a Bernoulli process is not taken for that of a Poisson process: p (1 - p), not p."""
    layer = eqx.nn.Linear(400, 300, key=getkey())
    layer = initialisation.fluctuation_driven(layer, key=getkey(), input_rate=0.5, decay_mem=0.5, std=1.0)
    v = membranes(layer, bernoulli(getkey(), 2100, 400, rate=0.5), 0.5)
    np.testing.assert_allclose(v.var(0).mean(), 1.0, rtol=0.05)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("use_bias", [True, False])
def test_weights_keep_their_dtype_and_biases_become_zero(x64, getkey, dtype, use_bias):
    layer = eqx.nn.Linear(300, 200, use_bias=use_bias, dtype=dtype, key=getkey())
    options = {"input_rate": 0.5, "decay_mem": 0.0, "std": 1.0}
    drawn = initialisation.fluctuation_driven(layer, key=getkey(), **options)
    assert drawn.weight.dtype == dtype
    # 1 / sqrt(300 / 4); 60000 draws.
    np.testing.assert_allclose(drawn.weight.astype(jnp.float32).std(), 1 / np.sqrt(75), rtol=0.02)
    assert (drawn.bias is None) if not use_bias else jnp.all(drawn.bias == 0)
    again = initialisation.fluctuation_driven(layer, key=getkey(), **options)
    assert jnp.any(drawn.weight != again.weight)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_rate": 0.0}, ValueError, "between 0 and 1 .*found 0.0"),
        ({"input_rate": 1.0}, ValueError, "between 0 and 1 .*found 1.0"),
        ({"input_rate": float("nan")}, ValueError, "between 0 and 1 .*found nan"),
        ({"decay_mem": 1.0}, ValueError, r"decay_mem must lie in \[0, 1\).*found 1.0"),
        ({"decay_syn": -0.1}, ValueError, r"decay_syn must lie in \[0, 1\).*found -0.1"),
        ({"input_scale": "none"}, ValueError, "'unit' or 'one_minus_decay', found 'none'"),
        ({"std": 0.0}, ValueError, "found std=0.0, threshold=1.0"),
        ({"threshold": -1.0}, ValueError, "found std=0.5, threshold=-1.0"),
        ({"mean": 50.0}, ValueError, "mean potential 50.0 already fluctuate by std=.*found the smaller std=0.5"),
        ({"key": None}, ValueError, "found key=None: pass key="),
        ({"layer": eqx.nn.LayerNorm(3)}, TypeError, "found LayerNorm: call it for each"),
    ],
)
def test_a_bad_argument_of_fluctuation_driven_is_refused(unchecked, getkey, options, error, message):
    valid = {"layer": eqx.nn.Linear(20, 3, key=getkey()), "key": getkey(), "input_rate": P, "decay_mem": BETA}
    initialisation.fluctuation_driven(**valid)
    with pytest.raises(error, match=message):
        initialisation.fluctuation_driven(**{**valid, **options})


def test_a_missing_key_is_refused(getkey):
    with pytest.raises(TypeError, match="key"):
        initialisation.fluctuation_driven(eqx.nn.Linear(2, 3, key=getkey()), input_rate=P, decay_mem=BETA)


def rates(model, xs, key=None):
    """The rate of every spiking layer of a chain, at any depth, by running the model as a user would."""
    keys = None if key is None else jax.random.split(key, xs.shape[0])

    def run(x, key):
        return model(model.init_states(input_shape=jax.ShapeDtypeStruct(x.shape[1:], x.dtype)), x, key)[1]

    outs = jax.vmap(run, in_axes=(0, None if keys is None else 0))(xs, keys)
    return [out.mean() for layer, out in zip(model.layers, outs, strict=True) if isinstance(layer, snn.LIF)]


def deep(getkey, scale=1.0):
    layers = []
    for _ in range(10):
        linear = eqx.nn.Linear(40, 40, key=getkey())
        layers += [eqx.tree_at(lambda m: m.weight, linear, scale * linear.weight), snn.LIF(40, 0.9)]
    return snn.Sequential(*layers)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_a_deep_net_fires_in_every_layer_after_calibration(getkey, scale):
    xs = bernoulli(getkey(), 6, 40, 40)
    # The weights of each layer scaled, not the biases; without biases, it is silent beyond the first layers.
    model = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) and x.shape == (40,) else x, deep(getkey, scale))
    before = rates(model, xs)
    assert scale == 100 or before[-1] == 0
    assert scale != 100 or max(before) > 0.3
    after = rates(initialisation.calibrate(model, xs, rate=0.15), xs)
    assert len(after) == 10
    np.testing.assert_allclose(after, 0.15, rtol=0.021)


def test_only_the_weights_before_spiking_layers_change_and_by_one_number_each(getkey):
    model = snn.Sequential(
        eqx.nn.Linear(30, 20, key=getkey()),
        eqx.nn.Linear(20, 50, key=getkey()),
        jnp.tanh,
        snn.LIF(50, 0.9),
        eqx.nn.Linear(50, 3, key=getkey()),
        snn.LI(3, 0.9),
    )
    xs = bernoulli(getkey(), 4, 30, 30)
    calibrated = initialisation.calibrate(model, xs, rate=0.1)
    gain = calibrated[1].weight / model[1].weight
    assert abs(gain[0, 0] - 1) > 0.1
    np.testing.assert_allclose(gain, gain[0, 0], rtol=1e-5)
    restored = eqx.tree_at(lambda m: m.layers[1].weight, calibrated, model[1].weight)
    assert eqx.tree_equal(restored, model)


def test_a_nested_convolutional_net_is_calibrated_as_the_same_flat_one(getkey):
    conv, linear = eqx.nn.Conv2d(2, 4, 3, key=getkey()), eqx.nn.Linear(64, 10, key=getkey())
    layers = [conv, snn.LIF(None, 0.8), snn.flatten(), linear, snn.LIF(None, [0.9, 0.5])]
    flat = snn.Sequential(*layers)
    nested = snn.Sequential(snn.Sequential(snn.Sequential(*layers[:1]), layers[1]), snn.Sequential(*layers[2:]))
    xs = bernoulli(getkey(), 4, 25, 2, 6, 6)
    calibrated = initialisation.calibrate(flat, xs, rate=0.2)
    np.testing.assert_allclose(rates(calibrated, xs), 0.2, rtol=0.021)
    found = initialisation.calibrate(nested, xs, rate=0.2)
    assert jax.tree.structure(found) == jax.tree.structure(nested)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(calibrated), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jnp.any(found[0][0][0].weight != conv.weight)
    assert jnp.any(found[1][1].weight != linear.weight)


def test_a_layer_that_already_fires_at_the_rate_stays_as_it_is(getkey):
    xs = bernoulli(getkey(), 6, 40, 40)
    model = initialisation.calibrate(deep(getkey), xs, rate=0.1)
    assert eqx.tree_equal(initialisation.calibrate(model, xs, rate=0.1), model)


def test_dropout_gets_its_keys(getkey):
    linears = [eqx.nn.Linear(40, 60, key=getkey()), eqx.nn.Linear(60, 60, key=getkey())]
    model = snn.Sequential(linears[0], snn.LIF(60, 0.9), eqx.nn.Dropout(0.5), linears[1], snn.LIF(60, 0.9))
    xs = bernoulli(getkey(), 8, 50, 40)
    calibrated = initialisation.calibrate(model, xs, rate=0.1, key=getkey())
    # Under another draw of the dropout, which moves the rate a little.
    np.testing.assert_allclose(rates(calibrated, xs, getkey()), 0.1, rtol=0.1)
    with pytest.raises(RuntimeError, match="requires a key"):
        initialisation.calibrate(model, xs, rate=0.1)


def test_spiking_layers_without_weights_before_them_are_left_alone(getkey):
    model = snn.Sequential(snn.LIF(30, 0.9), eqx.nn.Linear(30, 40, key=getkey()), snn.LIF(40, 0.9))
    xs = 2 * bernoulli(getkey(), 4, 30, 30)
    first, second = rates(initialisation.calibrate(model, xs, rate=0.25), xs)
    assert first == rates(model, xs)[0]
    np.testing.assert_allclose(second, 0.25, rtol=0.021)


def test_a_rate_that_jumps_over_the_target_ends_above_silence():
    linear = eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))
    linear = eqx.tree_at(lambda m: m.weight, linear, jnp.full((1, 1), 1e-3))
    model = snn.Sequential(linear, snn.IF(1, reset="zero"))
    # One input in four steps: the rate is 0 or 1/4.
    xs = jnp.zeros((1, 4, 1)).at[0, 0].set(1)
    calibrated = initialisation.calibrate(model, xs, rate=0.02)
    _, outs = calibrated(calibrated.init_states(), xs[0])
    assert outs[-1].mean() == 0.25


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_other_dtypes_are_kept(x64, getkey, dtype):
    model = snn.Sequential(eqx.nn.Linear(30, 40, dtype=dtype, key=getkey()), snn.LIF(40, 0.9))
    xs = bernoulli(getkey(), 4, 30, 30).astype(dtype)
    calibrated = initialisation.calibrate(model, xs, rate=0.2)
    assert calibrated[0].weight.dtype == dtype
    np.testing.assert_allclose(rates(calibrated, xs)[0].astype(jnp.float32), 0.2, rtol=0.03)


def test_progress_is_shown_by_what_wraps_the_segments(getkey):
    seen = []

    def progress(segments):
        for segment in segments:
            seen.append((len(segments), segment.paths))
            yield segment

    initialisation.calibrate(deep(getkey), bernoulli(getkey(), 2, 30, 40), progress=progress)
    assert seen == [(10, [(2 * index,), (2 * index + 1,)]) for index in range(10)]


def chain(*layers):
    return snn.Sequential(*layers)


LINEAR, LIF = eqx.nn.Linear(4, 4, key=jax.random.key(0)), snn.LIF(4, 0.9)
GRAPH = snn.Graph(
    {"fc": eqx.nn.Linear(4, 4, key=jax.random.key(1)), "lif": snn.LIF(4, 0.9)},
    {"fc": "input", "lif": "fc"},
    outputs="lif",
)
XS = jnp.ones((2, 10, 4))


@pytest.mark.parametrize(
    ("model", "xs", "options", "error", "message"),
    [
        (GRAPH, XS, {}, TypeError, "snn.Sequential front to back, found Graph"),
        (chain(LINEAR, LIF, GRAPH), XS, {}, TypeError, r"found layer 2 \(Graph\); allowed is snn.Sequential"),
        (chain(chain(LINEAR, LIF), chain(GRAPH)), XS, {}, TypeError, r"found layer 1.0 \(Graph\)"),
        (chain(LINEAR, snn.LI(4, 0.9)), XS, {}, ValueError, r"before a spiking layer, found \['Linear', 'LI'\]"),
        (chain(LIF), XS, {}, ValueError, r"before a spiking layer, found \['LIF'\]"),
        (
            chain(LINEAR, LIF, chain(eqx.nn.LayerNorm(4)), snn.LIF(4, 0.9)),
            XS,
            {},
            TypeError,
            r"before layer 3 \(LIF\), but layer 2.0 \(LayerNorm\) with parameters; allowed are Linear, Conv, ",
        ),
        (chain(LINEAR, LIF), 0 * XS, {}, ValueError, r"layer 1 \(LIF\) cannot be made .*between 0 and 0 spikes"),
        (
            chain(LINEAR, LIF, chain(GRAPH.nodes["fc"], eqx.nn.LayerNorm(4), snn.LIF(4, 0.9, 100.0))),
            XS,
            {},
            ValueError,
            r"layer 2.2 \(LIF\) cannot be made to fire at the rate 0.1: weights .* larger gave rates between 0 and 0",
        ),
        (
            chain(eqx.tree_at(lambda m: m.bias, LINEAR, jnp.full(4, 5.0)), LIF),
            XS,
            {},
            ValueError,
            r"weights .* smaller gave rates between .* its bias must not decide alone",
        ),
        (chain(LINEAR, LIF), XS, {"rate": 0.0}, ValueError, "between 0 and 1 .*found 0.0"),
        (chain(LINEAR, LIF), XS, {"rate": 1.5}, ValueError, "between 0 and 1 .*found 1.5"),
        (chain(LINEAR, LIF), XS, {"tolerance": 0.0}, ValueError, "positive, found 0.0"),
        (chain(LINEAR, LIF), XS[0, 0], {}, ValueError, r"\(batch, time, ...\), found the shape \(4,\)"),
        (chain(LINEAR, LIF), XS[:, :0], {}, ValueError, r"found the shape \(2, 0, 4\)"),
        (chain(LINEAR, LIF), XS[..., :3], {}, ValueError, r"does not take an input of shape .*3"),
        (chain(LINEAR, LIF), XS.at[0, 0, 0].set(jnp.nan), {}, ValueError, "inputs that are numbers, found NaN"),
        (chain(LINEAR, LIF), XS.astype(int), {}, TypeError, "floating point inputs, found int32"),
    ],
)
def test_a_bad_argument_of_calibrate_is_refused(unchecked, model, xs, options, error, message):
    with pytest.raises(error, match=message):
        initialisation.calibrate(model, xs, **options)


def test_calibration_under_jit_is_refused():
    model = chain(LINEAR, LIF)
    with pytest.raises(TypeError, match=r"found a traced array: call it outside of jax.jit"):
        jax.jit(lambda xs: initialisation.calibrate(model, xs)[0].weight)(XS)
