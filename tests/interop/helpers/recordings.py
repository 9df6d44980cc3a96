"""Files of events in the formats of the published data sets, as Tonic's classes read them without the network."""

import os
import pathlib
import tarfile

import h5py
import numpy as np


# Real recordings of N-MNIST, where they lie beside the project; they are not part of it (CC BY-SA 4.0)
REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "nmnist_small.tgz"


def random_events(count, sensor_size, duration, seed, dtype):
    rng = np.random.default_rng(seed)
    events = np.zeros(count, dtype)
    for name, size in zip(("x", "y", "p"), sensor_size, strict=True):
        if name in events.dtype.names:
            # A few pixels have many events, as in real recordings
            events[name] = np.minimum(rng.exponential(size / 4, count).astype(int), size - 1)
    events["t"] = np.sort(rng.integers(0, duration, count))
    return events


def extract_nmnist(folder):
    with tarfile.open(REAL) as archive:
        archive.extractall(folder, filter="data")


def write_nmnist(folder, write_recording, different=20, count=10_000):
    """As many files as Tonic asks for, which are links to a few; the archives that it looks for are empty."""
    for part, archive in (("Train", "train.zip"), ("Test", "test.zip")):
        dtype = [(name, int) for name in "xytp"]
        first = [folder / "NMNIST" / part / str(label % 10) / f"{label:05}.bin" for label in range(different)]
        for seed, path in enumerate(first):
            write_recording(path, random_events(200 + 40 * seed, (34, 34, 2), 300_000, seed, dtype))
        for number in range(different, count):
            source = first[number % different]
            os.link(source, source.with_name(f"{number:05}.bin"))
        (folder / "NMNIST" / archive).touch()


def write_heidelberg(folder, name, split, count=6, seed=0):
    """SHD and SSC: spike times as seconds in float16, units of 700 channels."""
    rng = np.random.default_rng(seed)
    root = folder / name
    root.mkdir(parents=True, exist_ok=True)
    lengths = rng.integers(50, 400, count)
    with h5py.File(root / f"{name.lower()}_{split}.h5", "w") as file:
        times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype(np.uint16))
        for index, length in enumerate(lengths):
            times[index] = np.sort(rng.uniform(0, 1.2, length)).astype(np.float16)
            units[index] = rng.integers(0, 700, length).astype(np.uint16)
        file["labels"] = rng.integers(0, 20, count).astype(np.uint16)
        file["extra/keys"] = np.array([f"digit {number}".encode() for number in range(20)])
        file["extra/speaker"] = rng.integers(0, 12, count).astype(np.uint16)
    (root / f"{name.lower()}_{split}.h5.zip").touch()


def write_gestures(folder, count=100):
    """DVSGesture: one array of columns x, y, p, t in milliseconds per gesture, 11 for each user and lighting."""
    root = folder / "DVSGesture"
    for index in range(count):
        path = root / "ibmGestureTest" / f"user{index // 11 + 1:02}_led" / f"{index % 11}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        events = random_events(300 + index, (128, 128, 2), 2_000, index, [(name, int) for name in "xypt"])
        np.save(path, np.stack([events[name] for name in "xypt"], axis=1))
    (root / "ibmGestureTest.tar.gz").touch()
