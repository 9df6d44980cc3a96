"""From recordings on disk to frames on the device: Tonic's frames, copied or shared, and events that become frames.

All read the same N-MNIST recordings through Tonic's class and a torch DataLoader, take turns in one run, and end with
frames `(time, batch, 2, 34, 34)` in JAX:

- (a) `ToFrame`, `PadTensors`, a copy of the batch by NumPy; float32, as `PadTensors` makes them
- (b) the same through `JaxLoader`, which shares its memory, and loads the next batches in a thread
- (c) `PackEvents` and `JaxLoader`; `frames_by_time` makes the frames within `jit`; int16, as those of `ToFrame`

The second table: how long a training step of 20 ms waits for its batch. The step is a compiled function that leaves the
processor idle, as one on an accelerator does. "20 ms, idle" and "20 ms, busy" are loaders that alone take as long as
the step; busy in Python, which holds the interpreter's lock.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from tonic.collation import PadTensors
from tonic.transforms import ToFrame
from torch.utils.data import DataLoader, IterableDataset

from snnax.events import Events, frames_by_time
from snnax_interop import JaxLoader, PackEvents, worker_options


sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples"))
from train_nmnist_events import NMNIST, write_synthetic


BATCH_SIZE = 32
NUM_STEPS, WINDOW = 100, 3000
STEP = 0.020  # seconds


class Timed(IterableDataset):
    """Batches that take `seconds` each to load."""

    def __init__(self, count: int, seconds: float, busy: bool):
        self.count, self.seconds, self.busy = count, seconds, busy

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(self.count):
            end = time.perf_counter() + self.seconds
            if self.busy:
                while time.perf_counter() < end:
                    pass
            else:
                time.sleep(self.seconds)
            yield torch.full((1024,), float(number))


@jax.jit
def binned(events: Events) -> jax.Array:
    return frames_by_time(events, NUM_STEPS, WINDOW, dtype=jnp.int16)


@jax.jit
def idle_step(batch: jax.Array) -> jax.Array:
    """Reads the batch, and takes 20 ms in which the processor is free."""

    def sleep(value: Any) -> Any:
        time.sleep(STEP)
        return value

    total = batch.sum(dtype=jnp.float32)
    return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), jnp.float32), total)


class Path:
    """One way to the device; every `iter()` is an epoch."""

    def __init__(self, name: str, folder: str, workers: int):
        frames = name != "c"
        dataset = NMNIST(folder, transform=ToFrame(NMNIST.sensor_size, time_window=WINDOW) if frames else None)
        collate = PadTensors(batch_first=False) if frames else PackEvents(NMNIST.sensor_size)
        options = worker_options(workers)
        self.loader = DataLoader(dataset, BATCH_SIZE, drop_last=True, collate_fn=collate, **options)
        self.name = name

    def batches(self, prefetch: int) -> Iterator[tuple[jax.Array, int, int]]:
        """Frames on the device, bytes that went there, and how many of them were copied on the host."""
        if self.name == "a":
            for frames, labels in self.loader:
                host = np.array(frames.numpy())
                yield jnp.asarray(host), host.nbytes + labels.nbytes, host.nbytes + labels.nbytes
            return
        loader = JaxLoader(self.loader, prefetch=prefetch)
        before = 0
        for data, labels in loader:
            moved = sum(array.nbytes for array in jax.tree.leaves((data, labels)))
            # Not those that went to another device, which is no copy on the host
            total = loader.statistics.copied_bytes - loader.statistics.reasons.get("placement", 0)
            copied, before = total - before, total
            yield binned(data) if self.name == "c" else data, moved, copied


def epoch(path: Path, limit: int) -> tuple[float, float, float]:
    """Seconds, bytes moved and bytes copied on the host, per batch."""
    count, moved, copied = 0, 0, 0
    start = time.perf_counter()
    for frames, more, copies in path.batches(prefetch=2):
        jax.block_until_ready(frames)
        count, moved, copied = count + 1, moved + more, copied + copies
        if count == limit:
            break
    return (time.perf_counter() - start) / count, moved / count, copied / count


def waiting(batches: Iterator[Any], skip: int = 3) -> tuple[float, int]:
    """Which share of the time the steps wait for data, and how many steps that is taken from."""
    waited, total, count = 0.0, 0.0, 0
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        loaded = time.perf_counter()
        if batch is None:
            return waited / total if total else float("nan"), max(count - skip, 0)
        jax.block_until_ready(idle_step(batch))
        if count >= skip:  # the first ones compile, and find nothing loaded yet
            waited += loaded - start
            total += time.perf_counter() - start
        count += 1


def report_throughput(folder: str, rounds: int, limit: int) -> None:
    print("| | workers | batches / s | MB to the device per batch | MB copied on the host per batch | times (a) |")
    print("|---|---|---|---|---|---|")
    for workers in (0, 2):
        paths = [Path(name, folder, workers) for name in "abc"]
        for path in paths:
            epoch(path, limit)  # compiles, starts the workers, fills the cache of the file system
        runs = [[epoch(path, limit) for path in paths] for _ in range(rounds)]
        medians = [
            [statistics.median(values) for values in zip(*each, strict=True)] for each in zip(*runs, strict=True)
        ]
        for path, (seconds, moved, copied) in zip(paths, medians, strict=True):
            columns = [
                f"({path.name})",
                str(workers),
                f"{1 / seconds:.1f}",
                f"{moved / 1e6:.2f}",
                f"{copied / 1e6:.4f}",
            ]
            print(f"| {' | '.join([*columns, f'{medians[0][0] / seconds:.1f}'])} |", flush=True)


def report_waiting(folder: str, count: int) -> None:
    print(f"\n| loader | prefetch | waiting, of a {1e3 * STEP:.0f} ms step |")
    print("|---|---|---|")
    rows: list[tuple[str, Callable[[int], Iterator[Any]]]] = [
        (f"{1e3 * STEP:.0f} ms, {'busy' if busy else 'idle'}",
         lambda prefetch, busy=busy: iter(JaxLoader(Timed(count, STEP, busy), prefetch)))
        for busy in (False, True)
    ]  # fmt: skip
    for name in "abc":
        path = Path(name, folder, 0)
        rows.append((f"({name})", lambda prefetch, path=path: (frames for frames, *_ in path.batches(prefetch))))
    for name, batches in rows:
        for prefetch in (0, 2):
            if name == "(a)" and prefetch:
                continue  # a plain loop
            share, steps = waiting(batches(prefetch))
            print(f"| {name} | {prefetch} | {share:.1%} ({steps} steps) |", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder that holds NMNIST/Train; synthetic recordings without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="few batches, for CI")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data
        if folder is None:
            write_synthetic(pathlib.Path(temporary), *((80, 1) if options.smoke else (1000, 1)))
            folder = temporary
        dataset = NMNIST(folder)
        counts = [len(dataset[index][0]) for index in range(0, len(dataset), 10)]
        kind = "SYNTHETIC recordings" if options.data is None else "recordings"
        print(f"{len(dataset)} {kind}, {np.mean(counts):.0f} events each; {jax.devices()[0].device_kind}\n")
        report_throughput(folder, *((1, 2) if options.smoke else (options.rounds, 30)))
        report_waiting(folder, 10 if options.smoke else 300)


if __name__ == "__main__":
    main()
