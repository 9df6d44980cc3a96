"""The examples in JAX alone run as a newcomer runs them, in their small form, and load no torch."""

import contextlib
import io
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from snnax.serialisation import Checkpoints
from tests.scripts import EXAMPLES, load_example
from tests.terminal import Terminal


# What is compiled here runs for long.
pytestmark = [pytest.mark.full, pytest.mark.usefixtures("optimised")]


@pytest.fixture(autouse=True)
def standard_promotion():
    """The schedules of optax mix integers and floats, which the other tests of the core forbid."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def check_figure(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = (pixels := imread(path)).shape
    assert width > height > 400
    # Something is drawn, on much that is not.
    assert 0.005 < np.mean(pixels[..., :3].min(-1) < 0.5) < 0.5


def percent(pattern, out):
    [found] = re.findall(rf"^{pattern}: ([\d.]+)%$", out, re.MULTILINE)
    return float(found)


def test_digits_are_learned_and_a_resumed_run_gives_the_same_weights_to_the_bit(tmp_path, capsys):
    example = load_example("train_digits_conv")

    def run(name, *options, stderr=io.StringIO):
        figure = tmp_path / name / "figure.png"
        with contextlib.redirect_stderr(stderr()) as err:
            example.main(["--smoke", "--output", str(figure), "--checkpoints", str(tmp_path / name / "run"), *options])
        check_figure(figure)
        return capsys.readouterr().out, err.getvalue()

    out, err = run("whole", stderr=Terminal)
    assert re.search(r"^data: 600 handwritten digits to train on, 200 held out$", out, re.MULTILINE)
    assert re.search(r"^1 +BatchNorm +.*\(24,\)", out, re.MULTILINE)
    assert re.search(r"epoch 1: .*loss=\d", err)
    # Chance is 10 %.
    assert percent("test accuracy", out) > 40
    rates = re.findall(r"^firing rate of conv \d: ([\d.]+) spikes per time step", out, re.MULTILINE)
    assert len(rates) == 2 and all(0.01 < float(rate) < 0.9 for rate in rates)

    stopped, err = run("stopped", "--stop-after", "1")
    assert "loss=" not in err  # a bar, which is for terminals
    assert len(re.findall(r"^epoch 1: loss .*, test accuracy", stopped, re.MULTILINE)) == 1
    resumed, _ = run("stopped", "--resume")
    assert re.search(r"^resumed: after epoch 1$", resumed, re.MULTILINE)
    digests = [re.findall(r"^weights: sha256 (\w+)$", each, re.MULTILINE) for each in (out, stopped, resumed)]
    assert digests[0] == digests[2] != digests[1]
    whole, again = (Checkpoints(tmp_path / name / "run") for name in ("whole", "stopped"))
    assert whole.latest() == again.latest() == 2
    assert percent("test accuracy", resumed) == percent("test accuracy", out)

    with pytest.raises(SystemExit, match=r"holds a run of .*use its options"):
        run("stopped", "--resume", "--seed", "1")


def test_synthetic_speech_is_learned_with_and_without_recurrence(tmp_path, capsys):
    path = tmp_path / "folder" / "figure.png"
    load_example("train_shd_like").main(["--smoke", "--output", str(path)])
    out, err = capsys.readouterr()

    assert re.search(r"^data: SYNTHETIC, 20 classes, .* 60 to 100 time steps", out, re.MULTILINE)
    assert re.search(r"^1 +Recurrent ", out, re.MULTILINE) and re.search(r"^1 +LIF ", out, re.MULTILINE)
    for name in ("feed-forward", "recurrent"):
        # Chance is 5 %, with a standard deviation of 1.1 %.
        assert percent(f"test accuracy, {name}", out) > 10
        [rate] = re.findall(rf"^firing rate, {name}: ([\d.]+) spikes per time step", out, re.MULTILINE)
        assert 0.005 < float(rate) < 0.3
        assert re.search(rf"^{name}, epoch 1: loss .*, test accuracy", out, re.MULTILINE)
    assert re.search(r"^recurrence brings [+-][\d.]+ percentage points; chance is 5.0%$", out, re.MULTILINE)
    assert "loss=" not in err
    check_figure(path)


def test_the_synthetic_classes_cannot_be_told_apart_by_counting():
    data = load_example("train_shd_like").make_data(0, 2000)
    spikes, labels = np.asarray(data.spikes), np.asarray(data.labels)
    assert set(np.unique(spikes)) == {0, 1}
    assert not spikes[~np.asarray(data.mask)].any()
    counts = spikes.sum(1)
    centres = np.stack([counts[:1500][labels[:1500] == label].mean(0) for label in range(20)])
    nearest = ((counts[1500:, None] - centres) ** 2).sum(-1).argmin(-1)
    # Of 500 samples 5 % by chance, with a standard deviation of 1 %.
    assert np.mean(nearest == labels[1500:]) < 0.12


def test_every_neuron_of_the_gallery_spikes(tmp_path, capsys):
    path = tmp_path / "folder" / "gallery.png"
    load_example("gallery").main(["--output", str(path)])
    counts = re.findall(r": (\d+) spikes$", capsys.readouterr().out, re.MULTILINE)
    assert len(counts) == 18 and all(int(count) > 0 for count in counts)
    check_figure(path)
    assert imread(path).shape[1] == 1600 and path.stat().st_size < 400_000


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_bars_are_for_terminals(path):
    calls = re.findall(r"\btqdm\((.*)\)", path.read_text())
    assert ("tqdm" in path.read_text()) == bool(calls)
    assert all("disable=None" in call for call in calls)


@pytest.mark.parametrize("name", ["train_digits_conv", "train_shd_like", "gallery"])
def test_the_example_loads_no_torch(name):
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
