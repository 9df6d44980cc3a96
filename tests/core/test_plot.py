"""Pictures show what is in the arrays: asserted on what was drawn, and on the pixels."""

import subprocess
import sys
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from snnax import plot, snn


pytestmark = pytest.mark.full


SILENT, SATURATED, FINE = "#d55e00", "#aa4499", "#0072b2"


def pixels(drawn, tmp_path):
    """The picture as it is saved: (height, width, colour)."""
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    figure.savefig(tmp_path / "picture.png")
    picture = matplotlib.image.imread(tmp_path / "picture.png")[..., :3]
    assert picture.std() > 0.01, "the picture is blank"
    return picture


def has_colour(picture, colour):
    rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return bool(np.any(np.all(np.abs(picture - rgb) < 0.01, axis=-1)))


def spike_train(num_steps, num_neurons, share=0.1):
    return np.random.default_rng(0).random((num_steps, num_neurons)) < share


def xs(line):
    return np.asarray(line.get_xdata())


def ys(line):
    return np.asarray(line.get_ydata())


def legend(ax):
    found = ax.get_legend()
    assert found is not None, "there is no legend"
    return found


def texts(ax):
    return [text.get_text() for text in ax.texts]


DTYPES = [bool, np.int32, np.float16, np.float64, jnp.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_raster_has_a_mark_at_every_spike(tmp_path, dtype):
    spikes = spike_train(80, 12)
    ax = plot.raster(jnp.asarray(spikes.astype(dtype)) if dtype is jnp.bfloat16 else spikes.astype(dtype))
    (line,) = ax.lines
    steps, neurons = np.nonzero(spikes)
    assert len(steps) > 50
    assert set(zip(xs(line), ys(line), strict=True)) == set(zip(steps, neurons, strict=True))
    assert len(xs(line)) == spikes.sum()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (time steps)", "neuron")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 79.5), (-0.5, 11.5))
    pixels(ax, tmp_path)


def test_a_raster_in_seconds_has_its_marks_at_seconds(tmp_path):
    spikes = np.zeros((50, 2, 3))
    spikes[10, 1, 2] = 1
    ax = plot.raster(spikes, dt=2e-3, color="#ff0000")
    (line,) = ax.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[0.02, 5]])
    assert ax.get_xlabel() == "time (s)"
    np.testing.assert_allclose(ax.get_xlim(), (-1e-3, 0.099))
    red, green, blue = np.moveaxis(pixels(ax, tmp_path), -1, 0)
    assert np.any((red > green + 0.4) & (red > blue + 0.4)), "no mark is red"


@pytest.mark.parametrize("shape", [(5003, 701), (400_000, 2), (50, 40_000)])
def test_a_raster_of_many_spikes_is_an_image_of_their_density(tmp_path, shape):
    spikes = spike_train(*shape, share=0.2)
    spikes[:, : shape[1] // 2] = False
    ax = plot.raster(spikes)
    (image,) = ax.images
    assert not ax.lines
    cells = np.asarray(image.get_array()).T
    assert cells.size <= 500 * 250
    width, height = (-(-length // most) for length, most in zip(shape, (500, 250), strict=True))
    first = spikes[:width, -(shape[1] % height or height) :]
    np.testing.assert_allclose(cells[0, -1], first.mean())
    left, right, bottom, top = image.get_extent()
    assert (left, bottom) == (-0.5, -0.5)
    assert shape[0] <= right + 0.5 < shape[0] + width
    assert shape[1] <= top + 0.5 < shape[1] + height
    assert ax.get_ylim() == (-0.5, shape[1] - 0.5)
    assert ax.figure.axes[1].get_ylabel() == "firing rate (spikes per time step)"
    picture = pixels(ax, tmp_path)
    middle = picture[:, 150:500].mean((1, 2))
    assert middle[60:140].mean() < middle[220:300].mean() - 0.05, "the upper half of the neurons spikes"


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 3), "no time steps"), ((5, 0), "no neurons"), ((5, 3), "no spikes"), ((0, 0), "no neurons")],
)
def test_a_raster_without_spikes_says_so(tmp_path, shape, message):
    ax = plot.raster(np.zeros(shape))
    assert texts(ax) == [message]
    pixels(ax, tmp_path)


def test_traces_are_lines_with_a_threshold_and_marks_at_spikes(tmp_path):
    v = np.random.default_rng(0).normal(size=(60, 2, 5))
    z = v > 1
    ax = plot.traces(v, spikes=z, threshold=2.0, dt=1e-3, neurons=[7, 0])
    lines = {line.get_label(): line for line in ax.lines}
    for neuron in (7, 0):
        np.testing.assert_allclose(xs(lines[f"neuron {neuron}"]), np.arange(60) * 1e-3)
        np.testing.assert_array_equal(ys(lines[f"neuron {neuron}"]), v.reshape(60, 10)[:, neuron])
    assert set(ys(lines["threshold"])) == {2.0}
    marks = [line for line in ax.lines if line.get_label() == "_spikes"]
    for line, neuron in zip(marks, (7, 0), strict=True):
        np.testing.assert_allclose(xs(line), np.flatnonzero(z.reshape(60, 10)[:, neuron]) * 1e-3)
        assert len(xs(line)) > 0
        assert line.get_color() == lines[f"neuron {neuron}"].get_color()
        assert np.all(ys(line) > v.reshape(60, 10)[:, [7, 0]].max()), "marks lie above the lines"
        assert np.all(ys(line) < ax.get_ylim()[1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "membrane potential $v$")
    assert legend(ax).get_title().get_text() == "2 of 10 neurons"
    assert has_colour(pixels(ax, tmp_path), to_hex(lines["neuron 7"].get_color()))


def test_the_first_neurons_are_drawn_where_none_are_chosen():
    ax = plot.traces(jnp.zeros((5, 9)))
    assert [line.get_label() for line in ax.lines] == [f"neuron {index}" for index in range(4)]
    assert legend(ax).get_title().get_text() == "4 of 9 neurons"
    assert legend(plot.traces(jnp.zeros((5, 2)))).get_title().get_text() == ""


def test_thresholds_of_neurons_have_the_colours_of_their_neurons():
    ax = plot.traces(np.zeros((5, 3)), threshold=jnp.array([0.5, 1.0, 2.0]), neurons=[2, 0])
    lines = ax.lines
    assert [ys(line)[0] for line in lines[2:]] == [2.0, 0.5]
    assert [line.get_color() for line in lines[2:]] == [line.get_color() for line in lines[:2]]
    assert ax.get_ylim()[1] > 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_membrane_that_is_not_finite_is_a_gap_and_said_in_the_legend(tmp_path, bad):
    v = np.random.default_rng(0).normal(size=(30, 2))
    v[20:, 1] = bad
    ax = plot.traces(v, threshold=1.0)
    assert [text.get_text() for text in legend(ax).get_texts()] == [
        "neuron 0",
        "neuron 1 (not finite\nfrom step 20)",
        "threshold",
    ]
    assert np.isnan(ys(ax.lines[1])[20:]).all()
    assert np.isfinite(ax.get_ylim()).all()
    pixels(ax, tmp_path)


@pytest.mark.parametrize("v", [np.zeros((0, 3)), np.zeros((4, 0)), np.full((4, 2), np.nan), np.ones((1, 1))])
def test_traces_of_nothing_or_of_constants_are_drawn(tmp_path, v):
    ax = plot.traces(v, spikes=np.zeros(v.shape), threshold=None if v.shape[1] == 0 else 1.0)
    assert texts(ax) == (["no time steps"] if len(v) == 0 else ["no neurons"] if v.shape[1] == 0 else [])
    pixels(ax, tmp_path)


def test_rates_are_means_over_time_and_neurons(tmp_path):
    hidden = spike_train(100, 40, 0.3).astype(np.float32)
    hidden[:, :10] = 0
    hidden[:, 10:12] = 1
    layers = [hidden, np.zeros((100, 4, 2)), np.ones((100, 3), bool), np.full((100, 2), 0.5)]
    ax = plot.rates(layers, names=["hidden", "dead", "stuck", "linear"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["hidden", "dead", "stuck", "linear"]
    assert ax.get_xlabel() == "firing rate (spikes per time step)"
    assert texts(ax) == ["25 % silent, 5 % saturated", "all silent", "all saturated", "real values, not spikes"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([xs(line)[0] for line in dots], [hidden.mean(), 0, 1])
    assert [ys(line)[0] for line in dots] == [0, 1, 2]
    assert [to_hex(line.get_color()) for line in dots] == [FINE, SILENT, SATURATED]
    bars = [line for line in ax.lines if line.get_linewidth() == 7]
    np.testing.assert_allclose(xs(bars[0]), np.percentile(hidden.mean(0), [5, 95]))
    picture = pixels(ax, tmp_path)
    assert all(has_colour(picture, colour) for colour in (FINE, SILENT, SATURATED))


def test_a_network_that_is_awake_has_no_colour_of_a_warning(tmp_path):
    ax = plot.rates([np.eye(5)])
    assert texts(ax) == ["all active"]
    picture = pixels(ax, tmp_path)
    assert has_colour(picture, FINE)
    assert not has_colour(picture, SILENT)


@pytest.mark.parametrize(
    ("layer", "remark"),
    [
        (np.zeros((0, 3)), "no time steps"),
        (np.zeros((3, 0)), "no neurons"),
        (np.full((3, 2), np.nan), "real values, not spikes"),
        (-np.eye(3), "real values, not spikes"),
        (np.concatenate([np.eye(300), np.zeros((300, 1))], 1), "1 % silent"),
        (np.concatenate([np.eye(300)[:, :1], np.zeros((300, 300))], 1), "99 % silent"),
        (3 * np.eye(2), "all saturated"),
    ],
)
def test_the_remark_of_a_layer_is_true(tmp_path, layer, remark):
    if remark == "all saturated":
        layer = 3 * np.ones((2, 2))  # counts beyond one per step
    ax = plot.rates([layer])
    assert texts(ax) == [remark]
    pixels(ax, tmp_path)


def test_the_outputs_of_a_model_are_named_by_their_places(getkey):
    model = snn.Sequential(eqx.nn.Linear(4, 6, key=getkey()), snn.LIF(6, 0.9, 0.1))
    _, outs = model(model.init_states(), jax.random.normal(getkey(), (50, 4)))
    ax = plot.rates(outs)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["layer 0", "layer 1"]
    assert texts(ax)[0] == "real values, not spikes"
    ax = plot.rates({"a": {"b": outs[1]}, "c": [outs[1]]})
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a.b", "c.0"]
    assert all(xs(line)[0] > 0 for line in ax.lines if line.get_marker() == "o")


def test_a_matrix_is_drawn_around_zero(tmp_path):
    matrix = np.linspace(-0.5, 2.0, 24, dtype=np.float32).reshape(4, 6)
    ax = plot.weights(jnp.asarray(matrix))
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), matrix)
    assert image.get_clim() == (-2.0, 2.0)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("input", "output", "")
    assert ax.figure.axes[1].get_ylabel() == "weight"
    red, blue = image.cmap(1.0)[:3], image.cmap(0.0)[:3]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    pixels(ax, tmp_path)


def test_weights_that_are_not_finite_are_green_and_counted(tmp_path):
    matrix = np.ones((4, 6))
    matrix[1, 2], matrix[2, 3] = np.nan, np.inf
    ax = plot.weights(matrix)
    assert ax.get_title(loc="left") == "2 of 24 weights are not finite (green)"
    assert ax.images[0].get_clim() == (-1, 1)
    assert has_colour(pixels(ax, tmp_path), "#009e73")


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.full((2, 2), np.nan), np.ones((1, 500)), np.ones((500, 1))])
def test_odd_matrices_are_drawn(tmp_path, matrix):
    pixels(plot.weights(matrix), tmp_path)


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 2, 4, 5), (20, 17, 2, 2)])
def test_kernels_are_drawn_side_by_side(tmp_path, shape):
    kernels = np.random.default_rng(0).normal(size=shape)
    ax = plot.weights(kernels)
    picture = np.asarray(ax.images[0].get_array())
    height, width = (1, *shape[2:])[-2:]
    rows, columns = min(shape[0], 16), min(shape[1], 16)
    assert picture.shape == (rows * height, columns * width)
    corner = picture[(rows - 1) * height :, width : 2 * width]
    np.testing.assert_array_equal(corner, kernels[rows - 1, 1].reshape(height, width))
    assert len(ax.get_xticks()) == columns
    assert ax.get_title(loc="left") == ("kernels of 16 of 20 outputs, 16 of 17 inputs" if shape[0] == 20 else "")
    pixels(ax, tmp_path)


def test_a_model_becomes_a_histogram_for_every_array(tmp_path, getkey):
    model = snn.Sequential(
        eqx.nn.Linear(4, 6, key=getkey()), snn.LIF(6, np.full(6, 0.9)), eqx.nn.Linear(6, 2, key=getkey())
    )
    model = eqx.tree_at(lambda m: m.layers[0].bias, model, jnp.array([jnp.nan, 1, 2, 3, 4, jnp.inf]))
    figure = plot.weights(model)
    axes = {ax.get_title(loc="left"): ax for ax in figure.axes}
    names = [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.integration.decay_mem.value",
        "layers.2.weight",
        "layers.2.bias",
    ]
    assert list(axes) == names
    assert sum(patch.get_height() for patch in axes["layers.0.weight"].patches) == 24
    assert sum(patch.get_height() for patch in axes["layers.0.bias"].patches) == 4
    assert texts(axes["layers.0.bias"]) == ["2 of 6 not finite"]
    assert axes["layers.0.weight"].get_ylabel() == "count"
    assert has_colour(pixels(figure, tmp_path), FINE)


SEQUENCE, MATRIX = np.zeros((5, 3)), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plot.raster(np.zeros(5)),
            r"spikes must be an array of shape \(time, n\), found shape \(5,\); add an axis",
        ),
        (lambda: plot.raster(np.array(["a"])), "spikes must be an array of real numbers, found dtype <U1"),
        (lambda: plot.raster(np.array([[0, np.nan]])), "found NaN at time step 0, neuron 1"),
        (lambda: plot.raster(SEQUENCE, dt=0.0), r"dt must be a positive number of seconds, or 1\.0 .*, found 0\.0"),
        (lambda: plot.raster(SEQUENCE, dt=float("nan")), "dt must be a positive number of seconds.* found nan"),
        (lambda: plot.traces(np.zeros(5)), r"values must be an array of shape \(time, n\), found shape \(5,\)"),
        (lambda: plot.traces(SEQUENCE, dt=-1.0), r"dt must be a positive .*, found -1\.0"),
        (lambda: plot.traces(SEQUENCE, spikes=SEQUENCE.T), r"shape of values, \(5, 3\), found \(3, 5\)"),
        (lambda: plot.traces(SEQUENCE, threshold=[1.0, 2.0]), r"one value or one per neuron \(3\), found shape \(2,\)"),
        (lambda: plot.traces(SEQUENCE, neurons=[0, 3]), r"neurons must be in 0 \.\.\. 2 .*, found 3"),
        (lambda: plot.traces(SEQUENCE, neurons=[-1]), r"neurons must be in 0 \.\.\. 2 .*, found -1"),
        (lambda: plot.traces(SEQUENCE + 1j), "values must be an array of real numbers, found dtype complex128"),
        (lambda: plot.rates([]), r"outputs must hold at least one array of shape \(time, \.\.\.\), found none"),
        (lambda: plot.rates([SEQUENCE], names=["a", "b"]), "names must be one for each of the 1 arrays, found 2"),
        (lambda: plot.rates([SEQUENCE, np.zeros(())]), r"outputs layer 1 must be .* \(time, \.\.\.\), found a scalar"),
        (lambda: plot.weights(np.zeros(3)), r"weights must have shape .*, found shape \(3,\); give a dict"),
        (lambda: plot.weights(np.zeros((0, 3))), r"weights must have shape .* and elements, found shape \(0, 3\)"),
        (lambda: plot.weights(np.zeros((1,) * 5)), r"weights must have shape .*, found shape \(1, 1, 1, 1, 1\)"),
        (lambda: plot.weights({"a": 1}), "found no floating point array of more than one element in dict"),
        (
            lambda: plot.weights({"a": MATRIX}, ax=cast(Any, Figure().add_subplot())),
            "found ax; leave it out, or give one array",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plot.raster(np.eye(3), ax=ax),
        lambda ax: plot.traces(np.eye(3), ax=ax),
        lambda ax: plot.rates([np.eye(3)], ax=ax),
        lambda ax: plot.weights(np.eye(3), ax=ax),
    ],
)
def test_given_axes_are_drawn_into_and_returned(tmp_path, draw):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(right) is right
    assert not left.lines
    assert not left.images
    assert right.lines or right.images
    pixels(figure, tmp_path)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_importing_snnax_does_not_import_matplotlib_and_plotting_not_its_global_state():
    code = "import sys, snnax; assert 'matplotlib' not in sys.modules\n"
    code += "import numpy, snnax.plot as plot; assert 'matplotlib' in sys.modules\n"
    code += "plot.raster(numpy.eye(3)); plot.rates([numpy.eye(3)]); plot.traces(numpy.eye(3))\n"
    code += "plot.weights(numpy.eye(3)).figure.savefig('/dev/null', format='png')\n"
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_says_how_to_install_it():
    code = "import sys; sys.modules['matplotlib'] = None\nimport snnax\ntry:\n    import snnax.plot\n"
    done = run(code + "except ImportError as error:\n    sys.stdout.write(str(error))")
    assert done.returncode == 0, done.stderr
    assert "pip install '.[plot]'" in done.stdout.splitlines()
    assert "matplotlib" in done.stdout
