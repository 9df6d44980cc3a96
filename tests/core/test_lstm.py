"""Spiking LSTMs against their equations in NumPy, and against the LSTM cell of Equinox."""
# Refusals are given what they refuse.
# pyright: reportArgumentType=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import engine, snn


pytestmark = pytest.mark.full


INPUTS, HIDDEN, NUM_STEPS, THRESHOLD = 3, 5, 12, 0.1
IMAGE = (2, 4, 6)
RTOL, ATOL = 1e-10, 1e-12
ENGINES = [engine.stepwise, engine.layerwise, engine.checkpointed]


def run(layer, xs, **options):
    model = snn.Sequential(layer)
    xs = jnp.asarray(xs)
    states, outs = eqx.filter_jit(model)(model.init_states(input_shape=xs.shape[1:]), xs, **options)
    return states[0], np.asarray(outs[-1])


def normal(*shape):
    return 2 * np.random.default_rng(0).normal(size=shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(i, f, g, o, c):
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def reset(h, before, how):
    """The spike of the last step resets the new hidden state."""
    late = (before > THRESHOLD).astype(float)
    if how == "subtract":
        return h - late * THRESHOLD
    return h if how == "none" else h - late * (h - (0.0 if how == "zero" else how))


def slstm(cell, xs, how):
    h, c, spikes = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    leaves = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    w_ih, w_hh, b_ih, b_hh = (0.0 if leaf is None else np.asarray(leaf) for leaf in leaves)
    for x in xs:
        before = h
        h, c = lstm(*np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4), c)
        h = reset(h, before, how)
        spikes.append(h > THRESHOLD)
    return h, c, np.array(spikes, float)


def convolved(weight, x):
    """Odd kernels, zeros beyond the border: the sum over all shifts."""
    sizes = weight.shape[2:]
    wide = np.pad(x, [(0, 0), *((size // 2, size // 2) for size in sizes)])
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for place in np.ndindex(*sizes):
        cut = wide[:, *(slice(k, k + n) for k, n in zip(place, x.shape[1:], strict=True))]
        out += np.einsum("oi,i...->o...", weight[:, :, *place], cut)
    return out


def sconvlstm(cell, xs, how, pool):
    weight = np.asarray(cell.weight)
    bias = 0.0 if cell.bias is None else np.asarray(cell.bias).reshape(-1, *(1,) * (xs.ndim - 2))
    h = np.zeros((cell.out_channels, *xs.shape[2:]))
    c, spikes = h, []
    for x in xs:
        before = h
        i, f, o, g = np.split(convolved(weight, np.concatenate([x, h])) + bias, 4)
        h, c = lstm(i, f, g, o, c)
        h = reset(h, before, how)
        spikes.append(pool(h) > THRESHOLD)
    return h, c, np.array(spikes, float)


def assert_agrees(found, expected):
    (state, out), (h, c, spikes) = found, expected
    np.testing.assert_array_equal(out, spikes)
    np.testing.assert_allclose(state.v, h, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(state.c, c, rtol=RTOL, atol=ATOL)
    assert 0 < spikes.sum() < spikes.size


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize("how", ["none", "subtract", "zero", -0.3])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_spiking_lstm_follows_its_equations(x64, getkey, how, use_bias, run_with):
    cell = snn.SLSTM(INPUTS, HIDDEN, THRESHOLD, how, use_bias=use_bias, key=getkey())
    xs = normal(NUM_STEPS, INPUTS)
    expected = slstm(cell, xs, how)
    assert_agrees(run(cell, xs, engine=run_with), expected)
    if how != "none":
        assert np.any(expected[0] != slstm(cell, xs, "none")[0]), "the reset plays no part"


def test_without_reset_it_is_an_lstm(x64, getkey):
    cell, xs = snn.SLSTM(INPUTS, HIDDEN, THRESHOLD, key=getkey()), jnp.asarray(normal(NUM_STEPS, INPUTS))
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    where = lambda lstm: (lstm.weight_ih, lstm.weight_hh, lstm.bias)  # noqa: E731
    weights = cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh
    theirs = eqx.tree_at(where, eqx.nn.LSTMCell(INPUTS, HIDDEN, key=getkey()), weights)
    zeros = jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)
    upstream = jnp.asarray(normal(HIDDEN))

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def ours(arguments):
        cell, xs = arguments
        (state,), outs = snn.Sequential(cell)([cell.init_state()], xs)
        return jnp.sum(state.v * upstream), (state.v, state.c, outs[-1])

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def expected(arguments):
        lstm, xs = arguments
        step = lambda state, x: (lstm(x, state), lstm(x, state)[0] > THRESHOLD)  # noqa: E731
        (h, c), spikes = jax.lax.scan(step, zeros, xs)
        return jnp.sum(h * upstream), (h, c, spikes.astype(h.dtype))

    (_, found), (of_cell, of_xs) = ours((cell, xs))
    (_, wanted), (of_theirs, of_their_xs) = expected((theirs, xs))
    gradients = of_cell.weight_ih, of_cell.weight_hh, of_cell.bias_ih, of_cell.bias_hh, of_xs
    their_gradients = of_theirs.weight_ih, of_theirs.weight_hh, of_theirs.bias, of_theirs.bias, of_their_xs
    for a, b in zip((*found, *gradients), (*wanted, *their_gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=ATOL)
        assert jnp.any(b != 0)
    assert 0 < found[2].sum() < found[2].size


@pytest.mark.parametrize("run_with", ENGINES)
@pytest.mark.parametrize(("how", "use_bias"), [("none", True), ("subtract", True), ("zero", False)])
@pytest.mark.parametrize(
    ("shape", "kernel"), [((2, 7), 3), (IMAGE, (1, 3)), ((2, 3, 4, 3), (3, 3, 1))], ids=["1d", "2d", "3d"]
)
def test_a_convolutional_one_follows_its_equations(x64, getkey, shape, kernel, how, use_bias, run_with):
    options = {"num_spatial_dims": len(shape) - 1, "use_bias": use_bias, "key": getkey()}
    cell, xs = snn.SConvLSTM(2, 3, kernel, THRESHOLD, how, **options), normal(5, *shape)
    expected = sconvlstm(cell, xs, how, lambda h: h)
    assert_agrees(run(cell, xs, engine=run_with), expected)
    if how != "none":
        assert np.any(expected[0] != sconvlstm(cell, xs, "none", lambda h: h)[0]), "the reset plays no part"


def blocks(reduce):
    """2 by 2 pooling."""
    return lambda h: reduce(h.reshape(h.shape[0], h.shape[1] // 2, 2, h.shape[2] // 2, 2), axis=(2, 4))


@pytest.mark.parametrize("how", ["none", "subtract"])
@pytest.mark.parametrize(("pool", "reduce"), [(snn.MaxPool(2), np.max), (snn.AvgPool(2), np.mean)])
def test_pooling_acts_on_what_spikes_and_not_on_the_state(x64, getkey, pool, reduce, how):
    cell = snn.SConvLSTM(2, 3, 3, THRESHOLD, how, pool=pool, key=getkey())
    xs = normal(8, *IMAGE)
    state, out = run(cell, xs)
    assert_agrees((state, out), sconvlstm(cell, xs, how, blocks(reduce)))
    assert (out.shape, state.v.shape) == ((8, 3, 2, 3), (3, 4, 6))


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_weights_are_uniform_within_the_bounds_of_torch(getkey, kind):
    if kind == "dense":
        cell = snn.SLSTM(20, 64, key=getkey())
        leaves, bound = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh), 1 / 8
    else:
        cell = snn.SConvLSTM(10, 6, 3, key=getkey())
        leaves, bound = (cell.weight, cell.bias), 1 / 12
    for leaf in leaves:
        assert leaf is not None
        assert 0.7 * bound < leaf.max() <= bound
        assert -bound <= leaf.min() < -0.7 * bound
    assert len({float(leaf.ravel()[0]) for leaf in leaves if leaf is not None}) == len(leaves)


def test_a_threshold_of_one_never_spikes(getkey):
    cell = snn.SLSTM(INPUTS, HIDDEN, key=getkey())
    loud = eqx.tree_at(lambda cell: cell.weight_ih, cell, 1e3 * cell.weight_ih)
    state, out = run(loud, jnp.ones((NUM_STEPS, INPUTS)))
    assert not out.any()
    assert 0.5 < jnp.abs(state.v).max() <= 1


DENSE = snn.SLSTM(2, 3, key=jax.random.key(0))
CONVOLUTIONAL = snn.SConvLSTM(2, 3, 3, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda key: snn.SLSTM(2, 3, reset_delay=False, key=key),
            "always waits one time step: reset_delay must be True",
        ),
        (lambda key: snn.SConvLSTM(2, 3, 3, reset_delay="undone", key=key), "must be True, found 'undone'"),
        (lambda key: snn.SLSTM(2, 3, reset="half", key=key), "reset must be .* found 'half'"),
        (lambda key: snn.SConvLSTM(2, 3, 3, reset=0.3, key=key), "must be 'none', 'subtract' or 'zero', found 0.3"),
        (lambda key: snn.SConvLSTM(2, 3, 2, key=key), "kernel_size must give odd sizes for 2 axes, .* found 2"),
        (lambda key: snn.SConvLSTM(2, 3, (3, 3, 3), key=key), r"odd sizes for 2 axes.* found \(3, 3, 3\)"),
        (lambda key: snn.SConvLSTM(2, 3, -1, key=key), "odd sizes for 2 axes.* found -1"),
        (lambda _: DENSE.init_state((3,)), r"SLSTM was built for inputs of shape \(2,\), found \(3,\)"),
        (lambda _: DENSE(DENSE.init_state(), jnp.ones((1, 2))), r"inputs of shape \(2,\), found \(1, 2\)"),
        (lambda _: CONVOLUTIONAL.init_state(), "SConvLSTM takes its spatial shape .*: pass input_shape to init_states"),
        (lambda _: CONVOLUTIONAL.init_state((2, 4)), r"of 2 channels and 2 spatial axes, found the shape \(2, 4\)"),
        (
            lambda _: CONVOLUTIONAL(CONVOLUTIONAL.init_state((2, 4, 4)), jnp.ones((3, 4, 4))),
            r"SConvLSTM takes inputs of 2 channels and 2 spatial axes, found the shape \(3, 4, 4\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(unchecked, getkey, build, message):
    with pytest.raises(ValueError, match=message):
        build(getkey())
