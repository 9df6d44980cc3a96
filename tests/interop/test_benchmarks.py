"""Every benchmark runs, in its small form; what it measures is nobody's test."""

import pathlib
import subprocess
import sys

import pytest


pytestmark = pytest.mark.full


BENCHMARKS = sorted(pathlib.Path(__file__).parents[2].glob("benchmarks/*.py"))
SCRIPTS = [path for path in BENCHMARKS if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_runs(script):
    command = [sys.executable, str(script), "--smoke"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) >= 3


def test_the_benchmarks_are_found():
    assert {"conversion", "pooling", "training_step"} <= {path.stem for path in SCRIPTS}
