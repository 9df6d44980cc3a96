"""`JaxLoader` beside other processes and devices: worker processes, shards, the end of the interpreter."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from snnax_interop.data import JaxLoader


pytestmark = pytest.mark.full


class Squares(Dataset):
    """At module level and importable, because worker processes unpickle it."""

    def __init__(self, size: int, *, bad: int | None = None):
        self.size = size
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.bad:
            raise LookupError(f"sample {index} is broken")
        return torch.full((4,), float(index)), index * index


def workers(**options) -> dict:
    return dict(num_workers=1, multiprocessing_context="forkserver", timeout=60, **options)


def run(code: str, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "JaxLoader"]


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    assert not threads()
    for process in multiprocessing.active_children():
        process.join(timeout=20)
    assert not multiprocessing.active_children()


def test_workers_by_fork_are_warned_of():
    for loader in (
        DataLoader(Squares(4), num_workers=1, multiprocessing_context="fork"),
        DataLoader(Squares(4), num_workers=1, multiprocessing_context=multiprocessing.get_context("fork")),
    ):
        with pytest.warns(UserWarning, match=r"by fork.*worker_options\(num_workers\)") as caught:
            JaxLoader(loader)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JaxLoader(DataLoader(Squares(4), multiprocessing_context=None))
        JaxLoader(DataLoader(Squares(4), num_workers=1, multiprocessing_context="forkserver"))
        JaxLoader(DataLoader(Squares(4), num_workers=1, multiprocessing_context="spawn"))


def test_the_default_start_method_is_looked_at_and_not_fixed():
    code = """
import multiprocessing, warnings
from torch.utils.data import DataLoader
from snnax_interop.data import JaxLoader
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    JaxLoader(DataLoader([1, 2], num_workers=1))
    forks = multiprocessing.get_all_start_methods()[0] == "fork"
    assert [str(w.message)[:36] for w in caught] == ["the DataLoader starts its workers by"] * forks, caught
    assert not forks or caught[0].filename == "<string>", caught[0].filename
    assert multiprocessing.get_start_method(allow_none=True) is None
    multiprocessing.set_start_method("spawn")
    JaxLoader(DataLoader([1, 2], num_workers=1))
    assert len(caught) == forks
"""
    run(code)


def test_batches_of_worker_processes_arrive_without_a_copy():
    batches = JaxLoader(DataLoader(Squares(10), batch_size=4, **workers()))
    result = list(batches)
    assert [y.tolist() for _, y in result] == [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81]]
    assert result[2][0][:, 0].tolist() == [8, 9]
    assert batches.statistics.reasons == {"dtype": 40}
    assert batches.statistics.aliased_bytes == 10 * 4 * 4


def test_an_error_in_a_worker_process_surfaces_and_ends_the_workers():
    batches = JaxLoader(DataLoader(Squares(8, bad=5), batch_size=2, **workers()))
    seen = []
    with pytest.raises(LookupError, match=r"(?s)Caught LookupError in DataLoader worker.*sample 5 is broken"):
        for _, y in batches:
            seen.append(y.tolist())
    assert seen == [[0, 1], [4, 9]]
    gc.collect()  # the error refers to itself, and by its traceback to torch's iterator, also without a JaxLoader


def test_break_ends_worker_processes_and_persistent_ones_serve_the_next_epoch():
    batches = JaxLoader(DataLoader(Squares(40), batch_size=2, **workers(persistent_workers=True)))
    for _ in batches:
        break
    (before,) = multiprocessing.active_children()
    # Such a loader has one iterator for all epochs, so that a new epoch has to end the one before
    first = iter(batches)
    next(first)
    time.sleep(0.5)  # by now its thread waits for room, and would go on waiting
    second = iter(batches)
    assert len(threads()) == 1
    assert next(first, None) is None
    assert [y.tolist() for _, y in second] == [[(2 * n) ** 2, (2 * n + 1) ** 2] for n in range(20)]
    assert multiprocessing.active_children() == [before]
    del batches, first, second
    before.join(timeout=20)
    assert before.exitcode is not None

    started = []
    for _ in JaxLoader(DataLoader(Squares(40), batch_size=2, **workers())):
        started = multiprocessing.active_children()
        break
    assert len(started) == 1
    started[0].join(timeout=20)
    assert started[0].exitcode is not None


def test_over_two_devices_each_shard_shares_its_part():
    code = """
import jax, numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
from snnax_interop.data import JaxLoader
from snnax_interop.transfer import TransferStatistics, to_jax, to_torch
assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("batch",))
sharding = jax.sharding.NamedSharding(mesh, jax.P("batch"))
x = torch.arange(8 * 16, dtype=torch.float32).reshape(8, 16)
(batch,) = JaxLoader([x], sharding=sharding, copy="never")
assert batch.sharding == sharding
pointers = [shard.data.unsafe_buffer_pointer() for shard in batch.addressable_shards]
assert pointers == [x.data_ptr(), x[4:].data_ptr()], pointers
assert np.array_equal(batch, x)

loader = JaxLoader(DataLoader(TensorDataset(x), batch_size=3), sharding=sharding)
try:
    list(loader)
except ValueError as error:
    assert "at '0': found shape (3, 16)" in str(error) and "drop_last=True" in str(error), error
else:
    raise AssertionError("3 samples over 2 devices")

# The second shard starts 8 bytes behind a multiple of 64
statistics = TransferStatistics()
odd = torch.arange(36.0)
array = to_jax(odd, sharding=sharding, statistics=statistics)
assert np.array_equal(array, odd)
assert statistics == TransferStatistics(72, 72, {"placement": 72}), statistics
try:
    to_jax(odd, sharding=sharding, copy="never")
except Exception as error:
    assert type(error).__name__ == "TransferError" and "JAX had to copy" in str(error), error
else:
    raise AssertionError("copied under never")

# An array from host memory is not committed, so it mixes with parameters on the mesh
weights = jax.device_put(np.ones(16, np.float32), jax.sharding.NamedSharding(mesh, jax.P()))
assert (weights @ to_jax(x[0])).shape == ()

statistics = TransferStatistics()
assert to_torch(batch, statistics=statistics).tolist() == x.tolist()
assert statistics.reasons == {"placement": x.nbytes}
"""
    run(code, XLA_FLAGS="--xla_force_host_platform_device_count=2")


def test_a_program_may_exit_in_the_middle_of_an_epoch():
    code = """
import itertools, torch
from snnax_interop.data import JaxLoader
class Endless:
    def __iter__(self):
        yield from (torch.ones(1000) for _ in itertools.count())
batches = iter(JaxLoader(Endless()))
next(batches)
"""
    run(code)
