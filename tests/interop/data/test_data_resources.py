"""What a `JaxLoader` holds on to over many batches, and what is left when data, workers or the user give up."""

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from snnax_interop import JaxLoader, worker_options


pytestmark = [pytest.mark.full, pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")]


def resources() -> tuple[int, int, int]:
    """Open files, threads, and bytes of memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), threading.active_count(), pages * os.sysconf("SC_PAGE_SIZE")


def check_constant(loader: JaxLoader, batch_bytes: int) -> None:
    """Look at four points of an epoch, of which the first is behind the start-up."""
    points = [len(loader) * part // 4 for part in (1, 2, 3)]
    seen = []
    for number, batch in enumerate(loader):
        assert batch[0].nbytes == batch_bytes
        if number in points:
            seen.append(resources())
    files, threads, memory = zip(*seen, strict=True)
    # The files of worker batches come and go with those that are prepared ahead
    assert max(files) - min(files) <= 2 * (loader.prefetch + 4)
    assert len(set(threads)) == 1
    assert max(memory) - min(memory) < 2e6  # half of the batches are 8 MB or more


def test_ten_thousand_batches_take_constant_memory_and_files():
    dataset = TensorDataset(torch.zeros(20_000, 4096))
    loader = JaxLoader(DataLoader(dataset, batch_size=2), copy="always", seed=0)
    assert len(loader) == 10_000
    before = resources()
    check_constant(loader, 2 * 4096 * 4)
    assert resources()[:2] == before[:2]


def test_batches_of_workers_take_constant_memory_and_files():
    dataset = TensorDataset(torch.zeros(1_000, 4096))
    check_constant(JaxLoader(DataLoader(dataset, batch_size=2, **worker_options(2, timeout=60))), 2 * 4096 * 4)


class Trouble(Dataset):
    """Does something bad at sample 4."""

    def __init__(self, kind: str):
        self.kind = kind

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 4:
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "hanging":
                time.sleep(100)
            if self.kind == "no network":
                raise ConnectionResetError("by the server")
            if self.kind == "full disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "cache.h5")
        return torch.ones(3)


def no_worker_is_left() -> bool:
    gc.collect()  # an error refers to itself, and by its traceback to torch's iterator, also without a JaxLoader
    for process in multiprocessing.active_children():
        process.join(timeout=20)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("killed", RuntimeError, r"DataLoader worker .*exited unexpectedly"),
        ("hanging", RuntimeError, r"DataLoader timed out after 3 seconds"),
        ("no network", ConnectionResetError, r"(?s)Caught ConnectionResetError in DataLoader worker.*by the server"),
        ("full disk", OSError, r"(?s)Caught OSError in DataLoader worker process 0.*in __getitem__.*No space left"),
    ],
)
def test_trouble_in_a_worker_surfaces_and_ends_everything(kind, error, message, prefetch, monkeypatch):
    # How long torch waits for a worker to end by itself
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    loader = JaxLoader(DataLoader(Trouble(kind), batch_size=2, **worker_options(1, timeout=3)), prefetch)
    for _ in JaxLoader(DataLoader(TensorDataset(torch.ones(2)), **worker_options(1, timeout=60))):
        pass  # the server is up
    with pytest.raises(error, match=message):
        for batch in loader:
            np.testing.assert_array_equal(batch, np.ones((2, 3)))
    assert not [thread for thread in threading.enumerate() if thread.name == "JaxLoader"]
    del loader
    assert no_worker_is_left()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_full_disk_here_surfaces_with_its_number(prefetch):
    with pytest.raises(OSError, match=r"No space left on device: 'cache.h5'") as caught:
        list(JaxLoader(DataLoader(Trouble("full disk"), batch_size=2), prefetch))
    assert caught.value.errno == errno.ENOSPC


def test_frames_of_nan_and_infinity_pass_unchanged():
    frames = torch.full((4, 2, 3), float("nan"))
    frames[1] = float("inf")
    (batch,) = JaxLoader(DataLoader(frames, batch_size=4))
    np.testing.assert_array_equal(batch, frames)


INTERRUPTED = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
sys.path.insert(0, sys.argv[1])
from test_data_resources import Trouble
from snnax_interop import JaxLoader, worker_options
from torch.utils.data import DataLoader

if __name__ == "__main__":
    workers, hanging = int(sys.argv[2]), sys.argv[3] == "loading"
    dataset = Trouble("hanging" if hanging else "")
    for number, batch in enumerate(JaxLoader(DataLoader(dataset, batch_size=2, **worker_options(workers)))):
        if number == 1:
            print("ready", flush=True)
            if not hanging:
                time.sleep(100)
"""


@pytest.mark.parametrize("where", ["loading", "computing"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_from_the_terminal_ends_all_processes_soon(workers, where, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, script, str(Path(__file__).parent), str(workers), where]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=60)
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all processes
        _, errors = process.communicate(timeout=60)  # waits for all that hold the output
        assert "KeyboardInterrupt" in errors.splitlines()[-1], errors
        assert process.returncode in (-signal.SIGINT, 130)
        # A sample that is being loaded here is waited for up to five seconds
        assert time.monotonic() - start < 20
        with pytest.raises(ProcessLookupError, match="No such process"):
            for _ in range(100):
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    finally:
        process.kill()
