"""Training spread over devices and processes: the weights of one process, no gather, an end when a process dies.

What trains is examples/train_distributed.py, in float64. One device, XLA within a process, and gloo between processes
add up gradients in different orders. That changes their last bits, and in float32 now and then a spike.
"""

import contextlib
import fcntl
import functools
import os
import pathlib
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from snnax.serialisation import Checkpoints


pytestmark = pytest.mark.full


EXAMPLES = pathlib.Path(__file__).parents[3] / "examples"
# What differs is the last bit of sums of 64 gradients, through 12 updates; measured: 1.4e-16
TOLERANCE = 1e-12

# Behind a process: what the first update is compiled to and what it is given, and a failure at one of the updates
PROGRAM = """
import itertools, os, re, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import jax
import numpy as np
import train_distributed as example

failure, process, update = sys.argv.pop(1).split()
train_step, updates = example.train_step, itertools.count()

def watched(mesh, model, state, images, labels):
    number = next(updates)
    if number == 0:
        text = train_step.lower(mesh, model, state, images, labels).compile().compiled.as_text()
        print("collectives:", *re.findall(r" ((?:all-|collective-|reduce-scatter)[a-z-]*)[(]", text))
        shapes = [shard.data.shape for shard in images.addressable_shards]
        print("shards:", *shapes, "of", images.shape)
    if number == int(update) and jax.process_index() == int(process):
        # By now the other process has begun this epoch, and process 0 has saved the one before
        jax.block_until_ready(model)
        if failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise LookupError("sample 7 is broken")
    return train_step(mesh, model, state, images, labels)

example.train_step = watched
example.main(sys.argv[1:])
"""

# What each of two processes with two devices gets of its share, what it refuses, and what it can save
SHARES = """
import sys
import jax, numpy as np, torch
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from snnax.serialisation import load, save
from snnax_interop.data import JaxLoader
from snnax_interop.transfer import TransferStatistics, to_jax

process = int(sys.argv[3])
jax.distributed.initialize(sys.argv[1], 2, process, shutdown_timeout_seconds=60)
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
leading, second, everywhere = (NamedSharding(mesh, spec) for spec in (P("batch"), P(None, "batch"), P()))
pointers = lambda array: [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]
everything = np.arange(16 * 16, dtype=np.float32).reshape(16, 16)
images, labels = torch.from_numpy(everything[8 * process:][:8]).clone(), torch.arange(32, dtype=torch.int32)

# Leading axis: no copy, in leaves of any number of axes
((x, y),) = JaxLoader([(images, labels)], sharding=leading, copy="never")
assert (x.shape, y.shape, x.sharding, y.sharding) == ((16, 16), (64,), leading, leading)
assert pointers(x) == [images.data_ptr(), images[4:].data_ptr()]
assert pointers(y) == [labels.data_ptr(), labels[16:].data_ptr()]
for shard in x.addressable_shards:
    assert np.array_equal(shard.data, everything[shard.index]) and shard.data.shape == (4, 16)
assert jax.jit(lambda x: x.sum())(x) == everything.sum()

# Second axis, with labels of one axis
statistics = TransferStatistics()
frames = images.reshape(2, 4, 16)
z, y = to_jax([frames, labels], sharding=[second, leading], statistics=statistics)
assert (z.shape, y.shape, z.sharding) == ((2, 8, 16), (64,), second)
for number, shard in enumerate(z.addressable_shards):
    assert np.array_equal(shard.data, frames[:, 2 * number:][:, :2]), number
assert statistics == TransferStatistics(labels.nbytes, frames.nbytes, {"placement": frames.nbytes}), statistics

here = to_jax({"a": [frames, images], "b": labels}, sharding={"a": None, "b": leading})
assert here["a"][0].is_fully_addressable and here["a"][1].shape == (8, 16) and here["b"].shape == (64,)

# The same in all processes
whole, number = to_jax([torch.arange(3.0), torch.tensor(2.0)], sharding=everywhere)
assert whole.is_fully_replicated and whole.shape == (3,) and number == 2 and number.shape == ()

# One process in turn with the other along the batch
turns = NamedSharding(Mesh(np.array(jax.devices())[[0, 2, 1, 3]], "batch"), P("batch"))
for number, shard in enumerate(to_jax(images, sharding=turns, copy="never").addressable_shards):
    assert shard.index[0] == slice(8 * number + 4 * process, 8 * number + 4 * process + 4), shard.index
    assert np.array_equal(shard.data, images[4 * number:][:4])

def message(call, kind):
    try:
        call()
    except Exception as error:
        assert type(error).__name__ == kind, error
        return str(error)
    raise AssertionError(f"no {kind}")

other = NamedSharding(Mesh(np.array(jax.devices()[2 - 2 * process:][:2]), "batch"), P("batch"))
for tree, place, expected in (
    ({"a": images[:7]}, leading, ["at 'a': found shape (7, 16)", f"share of process {process}", "drop_last=True"]),
    (torch.tensor(1.0), leading, ["found shape ()"]),
    (labels, second, ["found shape (32,)"]),
    ([images], other, ["at '0': found", f"where process {process} has no device", "jax.devices()"]),
    ([images, labels], (leading, leading), ["a tree of shardings that does not fit", "makes a list of a tuple"]),
    ([images, labels], [leading], ["a tree of shardings that does not fit"]),
):
    found = message(lambda: to_jax(tree, sharding=place), "ValueError")
    assert all(text in found for text in expected), found
assert "JAX had to copy" in message(lambda: to_jax(frames, "never", sharding=second), "TransferError")

# What is whole in this process can be saved without the others, and each loads what its devices need
file = f"{sys.argv[2]}/{process}.ckpt"
assert "at ['x']: found an array in parts on several" in message(lambda: save(file, {"x": x}), "CheckpointError")
keys = jax.jit(lambda: jax.random.split(jax.random.key(1), 4), out_shardings=everywhere)()
replicated = jax.device_put(x, everywhere)
if process == 0:
    save(file, {"x": replicated, "keys": keys})
    like = {"x": x, "keys": jax.device_put(jax.random.split(jax.random.key(0), 4), jax.devices()[1])}
    found = load(file, like)
    assert found["x"].sharding == leading and found["keys"].sharding == like["keys"].sharding
    assert np.array_equal(jax.random.key_data(found["keys"]), jax.random.key_data(keys.addressable_data(0)))
    for shard in found["x"].addressable_shards:
        assert np.array_equal(shard.data, everything[shard.index])
print("ok")
"""

PAGE = """
import sys
import numpy as np
import equinox as eqx
from jax.experimental import multihost_utils
from helpers.pages import DOCS, run_page

names = {"coordinator": sys.argv[1], "num_processes": 2, "folder": sys.argv[2], "process_id": int(sys.argv[3])}
page = run_page(DOCS / "data_parallel.md", **names)
jax, model = page["jax"], page["model"]
assert jax.device_count() == 4 and jax.process_count() == 2 and page["epoch"] == 3
assert page["batches"].statistics.copied_bytes == 0 and page["batches"].statistics.aliased_bytes > 0
(before, _), after = page["initialise"](jax.random.key(0)), model
assert np.abs(np.asarray(before.layers[0].weight) - np.asarray(after.layers[0].weight)).max() > 1e-3
arrays = jax.tree.leaves(eqx.filter(after, eqx.is_array))
assert all(array.is_fully_replicated for array in arrays)
print("value:", float(page["value"]), *(np.asarray(array).sum() for array in arrays))

# As if the last epoch had been lost: the last code goes on from the checkpoint before, to the same weights
multihost_utils.sync_global_devices("all have trained")
if page["process_id"] == 0:
    page["checkpoints"].path(3).unlink()
multihost_utils.sync_global_devices("the checkpoint is gone")
exec((DOCS / "data_parallel.md").read_text().split("```python\\n")[-1].split("```")[0], page)
again = jax.tree.leaves(eqx.filter(page["model"], eqx.is_array))
assert page["model"] is not after and page["epoch"] == 3
for found, expected in zip(again, arrays, strict=True):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def processes(commands: list[list[str]], devices: int, **environment: str):
    """One process per command, which ends with the context."""
    path = os.pathsep.join(filter(None, [str(pathlib.Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": path}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | flags | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def run(commands: list[list[str]], devices: int, **environment: str) -> list[subprocess.CompletedProcess]:
    with processes(commands, devices, **environment) as started:
        results = []
        for process in started:
            out, err = process.communicate(timeout=240)
            results.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
        return results


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A function that runs the example. What is compiled the same way in several runs is compiled once."""
    compiled = str(tmp_path_factory.mktemp("compiled"))
    cache = {"JAX_COMPILATION_CACHE_DIR": compiled, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return functools.partial(run_example, cache | {"JAX_ENABLE_X64": "1"})


def run_example(
    environment: dict[str, str],
    folder: pathlib.Path,
    *options: str,
    processes: int = 2,
    devices: int = 2,
    failure: str = "none -1 -1",
) -> list[subprocess.CompletedProcess]:
    """The results of the processes of a run, whose checkpoints are in `folder`."""
    command = ["-c", PROGRAM, str(EXAMPLES), failure, "--smoke", "--checkpoints", str(folder), *options]
    if processes > 1:
        command += ["--processes", str(processes), "--coordinator", f"localhost:{free_port()}", "--process-id"]
    commands = [[*command, str(index)] for index in range(processes)] if processes > 1 else [command]
    return run(commands, devices, **environment)


def weights(folder: pathlib.Path, step: int = 3) -> list[np.ndarray]:
    """All arrays of a checkpoint, which numpy can read."""
    with np.load(Checkpoints(folder).path(step)) as archive:
        return [archive[name] for name in archive.files if name != "checkpoint.json"]


def assert_succeeded(results: list[subprocess.CompletedProcess]) -> None:
    for result in results:
        assert result.returncode == 0, result.stderr


def digests(results: list[subprocess.CompletedProcess]) -> set[str]:
    return {re.search(r"weights: sha256 (\w+)$", result.stdout, re.MULTILINE)[1] for result in results}


def test_the_share_of_each_process_is_not_copied_and_what_cannot_be_shared_out_is_refused(tmp_path):
    address = f"localhost:{free_port()}"
    results = run([["-c", SHARES, address, str(tmp_path), str(index)] for index in range(2)], devices=2)
    assert_succeeded(results)
    assert [result.stdout.splitlines()[-1] for result in results] == ["ok", "ok"]


def test_the_code_of_the_page_runs_in_two_processes(tmp_path):
    command = ["-c", PAGE, f"localhost:{free_port()}", str(tmp_path)]
    results = run([[*command, str(index)] for index in range(2)], devices=2)
    assert_succeeded(results)
    values = {re.search(r"^value: .*$", result.stdout, re.MULTILINE)[0] for result in results}
    assert len(values) == 1
    assert Checkpoints(tmp_path).steps() == (1, 2, 3)


@pytest.fixture(scope="module")
def once(tmp_path_factory, worker_id):
    """A function that trains in a folder of a name, in one of the processes of the tests; all get the results."""
    folders = tmp_path_factory.getbasetemp()
    folders = folders if worker_id == "master" else folders.parent

    def run_once(name: str, train) -> tuple[list[subprocess.CompletedProcess], pathlib.Path]:
        folder, results = folders / name, folders / f"{name}.pickle"
        with (folders / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not results.exists():
                results.write_bytes(pickle.dumps(train(folder)))
        return pickle.loads(results.read_bytes()), folder

    return run_once


@pytest.fixture(scope="module")
def whole(train, once):
    """Two processes of two devices each that nothing happens to: their results and checkpoints."""
    results, folder = once("whole", train)
    assert_succeeded(results)
    return results, folder


def test_two_processes_end_with_the_same_weights_to_the_bit(whole):
    results, folder = whole
    assert len(digests(results)) == 1
    assert Checkpoints(folder).steps() == (1, 2, 3)
    rates = re.findall(r"^epoch \d: .* ([\d.]+) spikes per neuron and time step$", results[0].stdout, re.MULTILINE)
    assert len(rates) == 3 and all(0.01 < float(rate) < 0.9 for rate in rates)
    changes = [np.abs(after - before).max() for before, after in zip(weights(folder, 1), weights(folder), strict=True)]
    assert sum(change > 1e-3 for change in changes) >= 4


@pytest.mark.parametrize("devices", [1, 4])
def test_two_processes_end_with_the_weights_of_one(whole, train, tmp_path, devices):
    results, folder = whole
    alone = train(tmp_path, processes=1, devices=devices)
    assert_succeeded(alone)
    assert f"1 processes, {devices} devices" in alone[0].stdout
    for found, expected in zip(weights(folder), weights(tmp_path), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    accuracies = {re.search(r"^test accuracy: .*$", each.stdout, re.MULTILINE)[0] for each in (results[0], alone[0])}
    assert len(accuracies) == 1


def test_each_device_has_its_samples_only_and_one_all_reduce_joins_the_gradients(whole):
    for result in whole[0]:
        assert "shards: (16, 64) (16, 64) of (64, 64)\n" in result.stdout
        # Of 12 batches of 32 images of 64 pixels in float32, each with a label
        assert f" {12 * 32 * (64 + 1) * 4} bytes shared, 0 copied;" in result.stdout
        assert "collectives: all-reduce\n" in result.stdout


def run_script(train, folder: pathlib.Path, *options: str) -> subprocess.CompletedProcess:
    """The example as it is called to start its processes itself."""
    command = [str(EXAMPLES / "train_distributed.py"), "--smoke", "--checkpoints", str(folder), *options]
    [result] = run([command], devices=1, **train.args[0])
    return result


def test_the_example_starts_its_processes_itself(whole, train, tmp_path):
    result = run_script(train, tmp_path, "--processes", "2")
    assert_succeeded([result])
    assert "2 processes, 4 devices, 256 digits; after epoch 0\n" in result.stdout
    assert set(re.findall(r"weights: sha256 (\w+)$", result.stdout, re.MULTILINE)) == digests(whole[0])


def test_the_example_says_why_its_processes_failed(train, tmp_path):
    result = run_script(train, tmp_path, "--processes", "2", "--resume", "--timeout", "5")
    assert result.returncode == 1
    assert "found no checkpoint, expected at least one" in result.stderr
    assert re.search(
        r"^the processes ended with the exit codes \[.*\]; go on with --resume$", result.stderr, re.MULTILINE
    )
    result = run_script(train, tmp_path, "--processes", "3")
    assert result.returncode == 2
    assert "found --processes 3; allowed: what divides the batch size, 64" in result.stderr


@pytest.fixture(scope="module")
def lost(train, once):
    """Process 1 is killed in the second of three epochs."""
    return once("lost", lambda folder: train(folder, "--timeout", "10", failure="kill 1 6"))


def assert_ended(result: subprocess.CompletedProcess, cause: str) -> None:
    """By JAX's runtime, not by a time limit."""
    assert result.returncode == -signal.SIGABRT
    assert "This most likely indicates that another task died" in result.stderr
    assert cause in result.stderr


def test_a_process_that_is_killed_ends_the_other(lost):
    (other, dead), folder = lost
    assert dead.returncode == -signal.SIGKILL
    assert_ended(other, "stopped sending heartbeats")
    assert Checkpoints(folder).steps() == (1,)


def test_a_lost_run_resumes_and_ends_with_the_same_weights_to_the_bit(whole, train, lost, tmp_path):
    folder = shutil.copytree(lost[1], tmp_path / "resumed")
    resumed = train(folder, "--resume")
    assert_succeeded(resumed)
    assert "after epoch 1\n" in resumed[0].stdout and "epoch 1: " not in resumed[0].stdout
    assert digests(resumed) == digests(whole[0])
    for found, expected in zip(weights(folder), weights(whole[1]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_lost_run_resumes_in_one_process(whole, train, lost, tmp_path):
    folder = shutil.copytree(lost[1], tmp_path / "resumed")
    assert_succeeded(train(folder, "--resume", processes=1, devices=1))
    for found, expected in zip(weights(folder), weights(whole[1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_a_coordinator_that_is_killed_ends_the_other(train, tmp_path):
    dead, other = train(tmp_path, failure="kill 0 6")
    assert dead.returncode == -signal.SIGKILL
    assert_ended(other, "leader task was preempted/died/restarted")
    assert Checkpoints(tmp_path).steps() == (1,)


def test_a_process_that_raises_an_exception_ends_the_other(train, tmp_path):
    failed, other = train(tmp_path, "--timeout", "5", failure="raise 0 6")
    assert "LookupError: sample 7 is broken" in failed.stderr
    for each in (failed, other):
        assert_ended(each, "Shutdown barrier has failed")
    assert Checkpoints(tmp_path).steps() == (1,)
