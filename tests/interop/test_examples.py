"""The example scripts run as a newcomer runs them, in their small form."""

import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from snnax.serialisation import Checkpoints
from tests.scripts import EXAMPLES, load_example


pytestmark = pytest.mark.full


@pytest.fixture
def one_thread():
    """Several threads of torch on cores that other tests keep busy wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_migrating_from_snntorch_ends_with_equal_predictions_and_a_figure(tmp_path, capsys):
    path = tmp_path / "folder" / "figure.png"
    load_example("migrate_snntorch").main(["--smoke", "--output", str(path)])
    out, err = capsys.readouterr()

    assert re.search(r"^lif1 +snntorch\.Leaky +LIF ", out, re.MULTILINE)
    assert re.findall(r"^equivalence in float64: (\w+), [1-9]", out, re.MULTILINE) == ["ok", "ok"]
    assert re.search(r"^gradient +4 .* equal$", out, re.MULTILINE)
    assert re.search(r"^equal predictions: 125 of 125 test samples$", out, re.MULTILINE)
    assert re.search(r"^output spikes that differ in float32: \d+ of [1-9]", out, re.MULTILINE)
    times = dict(re.findall(r"^(JAX|torch, threads: 1) +([\d.]+) ms$", out, re.MULTILINE))
    assert float(times["JAX"]) > 0 and float(times["torch, threads: 1"]) > 0
    assert re.search(r"^JAX is [\d.]+ times as fast", out, re.MULTILINE)
    # Training in JAX changed the predictions, so equal ones need weights that have come back.
    accuracy = dict(re.findall(r"^(torch|JAX) epoch 1: test accuracy ([\d.]+)%$", out, re.MULTILINE))
    assert float(accuracy["JAX"]) > float(accuracy["torch"])
    assert "loss=" not in err  # a bar, which is for terminals

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = (pixels := imread(path)).shape
    assert width > height > 400
    assert 0.01 < np.mean(pixels[..., :3].min(-1) < 0.5) < 0.5


def test_a_run_on_events_that_was_killed_resumes_to_the_same_weights_to_the_bit(tmp_path):
    def start(name, *options):
        script, folder = EXAMPLES / "train_nmnist_events.py", tmp_path / name
        command = [sys.executable, str(script), "--smoke", "--output", str(folder), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), folder

    def finish(name, *options):
        process, folder = start(name, *options)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out, err, folder

    out, err, folder = finish("whole")
    assert re.search(r"^data: 192 SYNTHETIC recordings to train on, 64 held out", out, re.MULTILINE)
    assert re.search(r"^trained: 30 steps in .* [1-9]\d+ bytes shared, 0 copied$", out, re.MULTILINE)
    # Chance is 10 %, with a standard deviation of 4 %
    assert float(re.search(r"^test accuracy: ([\d.]+)%$", out, re.MULTILINE)[1]) > 30
    assert "loss=" not in err
    assert len(re.findall(r"^epoch \d+: loss .*, test accuracy", out, re.MULTILINE)) == 5
    height, width, _ = (pixels := imread(folder / "figure.png")).shape
    assert width > height > 400
    assert 0.01 < np.mean(pixels[..., :3].min(-1) < 0.5) < 0.5

    # kill -9 in the middle of the first epoch, which has six steps
    shutil.copytree(folder / "synthetic", tmp_path / "killed" / "synthetic")
    process, killed = start("killed")
    checkpoints, deadline = Checkpoints(killed / "checkpoints"), time.monotonic() + 300
    while checkpoints.latest() is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    step = checkpoints.latest()
    assert step is not None and step < 6
    resumed, _, _ = finish("killed", "--resume")
    assert re.search(rf"^resumed: after training step {step}$", resumed, re.MULTILINE)
    assert re.search(rf"^trained: {30 - step} steps", resumed, re.MULTILINE)
    [before, after] = [re.search(r"^weights: sha256 (\w+)$", each, re.MULTILINE)[1] for each in (out, resumed)]
    assert before == after
