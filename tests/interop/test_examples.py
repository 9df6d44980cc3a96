"""The example scripts run as a newcomer runs them, in their small form."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest
import torch
from matplotlib.image import imread


EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def one_thread():
    """Several threads of torch on cores that other tests keep busy wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert re.search(r"torch epoch 1: .*loss=\d", err) and re.search(r"JAX epoch 1: .*loss=\d", err)

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = (pixels := imread(path)).shape
    assert width > height > 400
    assert 0.01 < np.mean(pixels[..., :3].min(-1) < 0.5) < 0.5
