"""Events through Tonic, a DataLoader and `JaxLoader`, binned by JAX, against Tonic's own transforms."""

import collections
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tonic
import torch
from helpers.recordings import REAL, extract_nmnist, random_events, write_gestures, write_heidelberg, write_nmnist
from tonic.transforms import ToFrame, ToTimesurface, ToVoxelGrid
from torch.utils.data import DataLoader, Subset

from snnax.events import Events, frames_by_count, frames_by_time, time_surfaces, voxel_grid
from snnax_interop import JaxLoader, PackEvents, TransferError, to_jax
from tests.scripts import load_example


pytestmark = pytest.mark.full


SENSOR = (34, 34, 2)
WORKERS: dict = {"multiprocessing_context": "forkserver", "timeout": 60}


@functools.cache
def example():
    return load_example("train_nmnist_events")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """N-MNIST as a user has it on disk: 10,000 files, which Tonic's class asks for."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_nmnist(folder, example().write_recording)
    return folder


@pytest.fixture(scope="module", params=["synthetic", "real"])
def recordings(request, tmp_path_factory):
    """Tonic's data set of files in the format of N-MNIST."""
    if request.param == "synthetic":
        return Subset(
            tonic.datasets.NMNIST(str(request.getfixturevalue("synthetic")), train=False), range(0, 10_000, 333)
        )
    if not REAL.exists():
        pytest.skip(
            "the real recordings of N-MNIST are not beside this checkout: see tests/interop/helpers/recordings.py"
        )
    folder = tmp_path_factory.mktemp("real")
    extract_nmnist(folder)
    return example().NMNIST(str(folder), train=False)


def packed(dataset, batch_size=32, **options):
    """All batches of a data set, on the device."""
    return list(JaxLoader(DataLoader(dataset, batch_size, collate_fn=PackEvents(**options)), prefetch=0))


def compare(binning, transform, dataset, *, atol=0.0, parts=lambda ours, theirs: (ours, theirs)):
    """Each recording's frames against Tonic's, as far as both have them; how much they add up to."""
    total, number = 0.0, 0
    for events, labels in packed(dataset, sensor_size=SENSOR):
        frames = np.asarray(jax.jit(binning)(events))
        for index in range(len(labels)):
            theirs = transform(dataset[number][0].copy())  # Tonic writes to what it is given
            common = min(len(frames), len(theirs))
            ours, theirs = parts(frames[:common, index], theirs[:common])
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
            total += float(np.abs(ours).sum())
            number += 1
    assert number == len(dataset) >= 30
    assert total > 10 * number
    return total


@pytest.mark.parametrize("options", [{}, {"overlap": 1000}, {"overlap": 2900}, {"start": 0}])
def test_frames_by_time_are_those_of_tonic(recordings, options):
    theirs = {"start_time" if name == "start" else name: value for name, value in options.items()}
    compare(
        lambda events: frames_by_time(events, 90, 3000, dtype=jnp.int16, **options),
        ToFrame(SENSOR, time_window=3000, **theirs),
        recordings,
    )


@pytest.mark.parametrize("overlap", [0, 30])
def test_frames_by_count_are_those_of_tonic(recordings, overlap):
    compare(
        lambda events: frames_by_count(events, 20, 100, overlap=overlap, dtype=jnp.uint8),
        ToFrame(SENSOR, event_count=100, overlap=overlap),
        recordings,
    )


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_equal_parts_are_those_of_tonic_and_the_events_that_it_loses(recordings, steps):
    for binning, transform in (
        (frames_by_time, ToFrame(SENSOR, n_time_bins=steps)),
        (frames_by_count, ToFrame(SENSOR, n_event_bins=steps)),
    ):
        compare(
            lambda events, binning=binning: binning(events, steps, dtype=jnp.int16),
            transform,
            recordings,
            parts=lambda ours, theirs: (ours[:-1], theirs[:-1]) if steps > 1 else (ours, np.maximum(ours, theirs)),
        )
        [(events, _)] = packed(recordings, len(recordings), sensor_size=SENSOR)
        counts = binning(events, steps, dtype=jnp.int16).sum((0, 2, 3, 4), dtype=jnp.int32)
        assert counts.tolist() == [len(recording) for recording, _ in recordings]


def test_voxel_grids_are_those_of_tonic(recordings):
    # Tonic computes in float64
    compare(lambda events: voxel_grid(events, 10), ToVoxelGrid(SENSOR, 10), recordings, atol=3e-5)
    with jax.enable_x64(True):
        binning = functools.partial(voxel_grid, steps=10, dtype=jnp.float64)
        compare(binning, ToVoxelGrid(SENSOR, 10), recordings, atol=1e-10)


def test_time_surfaces_are_those_of_tonic(recordings):
    compare(
        lambda events: time_surfaces(events, 25, 10_000, tau=5e4),
        ToTimesurface(SENSOR, 10_000, 5e4),
        recordings,
        atol=2e-7,
    )


def test_every_event_is_counted(recordings):
    counted = 0
    for events, _ in packed(recordings, sensor_size=SENSOR):
        counted += int(frames_by_time(events, 110, 3000, dtype=jnp.uint8).sum(dtype=jnp.int32))
    assert counted == sum(len(recording) for recording, _ in recordings) > 10_000


def test_events_cross_without_a_copy(recordings):
    batches = JaxLoader(DataLoader(recordings, 10, collate_fn=PackEvents(SENSOR)))
    for events, labels in batches:
        assert isinstance(events, Events) and events.shape == (2, 34, 34)
        assert isinstance(events.t, jax.Array) and events.address.dtype == labels.dtype == jnp.int32
    sizes = batches.statistics
    # Labels, 40 bytes, are smaller than what torch aligns
    assert sizes.copied_bytes == 0 and sizes.aliased_bytes > 1000 * len(recordings)


def test_worker_processes_pack_the_same(synthetic):
    dataset = Subset(tonic.datasets.NMNIST(str(synthetic), train=True), range(90))
    alone = packed(dataset, 8, sensor_size=SENSOR, capacity=1024)
    batches = JaxLoader(DataLoader(dataset, 8, collate_fn=PackEvents(SENSOR, capacity=1024), num_workers=2, **WORKERS))
    for (events, labels), (expected, expected_labels) in zip(batches, alone, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, (events, labels), (expected, expected_labels)))
    assert batches.statistics.copied_bytes == 0


def test_nmnist_is_read_as_it_was_written(synthetic):
    dataset = tonic.datasets.NMNIST(str(synthetic), train=True)
    assert len(dataset) == 10_000
    expected = random_events(200 + 40 * 3, SENSOR, 300_000, 3, [(name, int) for name in "xytp"])
    number = dataset.data.index(str(synthetic / "NMNIST" / "Train" / "3" / "00003.bin"))
    [(events, labels)] = packed(Subset(dataset, [number]), sensor_size=SENSOR)
    assert labels.tolist() == [3]
    p, y, x = (np.asarray(each[0, : len(expected)]) for each in events.coordinates())
    for found, name in ((p, "p"), (y, "y"), (x, "x"), (np.asarray(events.t[0, : len(expected)]), "t")):
        np.testing.assert_array_equal(found, expected[name])


@pytest.mark.parametrize(("name", "split", "options"), [
    ("SHD", "train", {"train": True}), ("SHD", "test", {"train": False}), ("SSC", "valid", {"split": "valid"}),
])  # fmt: skip
def test_heidelberg_data_sets_have_channels_and_no_y(tmp_path, name, split, options):
    write_heidelberg(tmp_path, name, split)
    dataset = getattr(tonic.datasets, name)(str(tmp_path), **options)
    [(events, labels)] = packed(dataset, sensor_size=dataset.sensor_size)
    assert events.shape == (1, 700) and labels.dtype == jnp.int32
    steps, window = 30, 40_000
    frames = np.asarray(frames_by_time(events, steps, window, dtype=jnp.uint8))
    for index in range(len(dataset)):
        recording, label = dataset[index]
        theirs = ToFrame(dataset.sensor_size, time_window=window)(recording.copy())
        np.testing.assert_array_equal(frames[: len(theirs), index], theirs[:steps])
        assert theirs.sum() > 10 and labels[index] == label


def test_gestures_have_polarity_as_bool(tmp_path):
    write_gestures(tmp_path)
    dataset = tonic.datasets.DVSGesture(str(tmp_path), train=False)
    assert len(dataset) == 100
    events, labels = packed(dataset, 50, sensor_size=dataset.sensor_size)[0]
    frames = np.asarray(frames_by_time(events, 19, 100_000, dtype=jnp.uint8))
    for index in range(50):
        theirs = ToFrame(dataset.sensor_size, time_window=100_000)(dataset[index][0].copy())
        np.testing.assert_array_equal(frames[: len(theirs), index], theirs)
        assert theirs.sum() > 200 and labels[index] == dataset[index][1]


def sliced(dataset, folder):
    slicer = tonic.slicers.SliceByTime(time_window=100_000)
    return tonic.SlicedDataset(dataset, slicer, metadata_path=str(folder / "slices"))


def in_memory(dataset, folder):
    return tonic.MemoryCachedDataset(dataset)


def on_disk(dataset, folder):
    return tonic.DiskCachedDataset(dataset, str(folder / "cache"))


@pytest.mark.parametrize("wrap", [sliced, in_memory, on_disk])
def test_tonic_s_wrappers_of_data_sets(synthetic, tmp_path, wrap):
    dataset = Subset(tonic.datasets.NMNIST(str(synthetic), train=True), range(0, 10_000, 1000))
    wrapped = wrap(dataset, tmp_path)
    assert len(wrapped) >= len(dataset)
    for _ in range(2):  # the second time from the cache
        [(events, labels)] = packed(wrapped, len(wrapped), sensor_size=SENSOR, origin="first")
        frames = np.asarray(frames_by_time(events, 30, 10_000, dtype=jnp.int16))
        total = 0
        for index in range(len(wrapped)):
            recording, label = wrapped[index]
            theirs = ToFrame(SENSOR, time_window=10_000, include_incomplete=True)(recording.copy())
            np.testing.assert_array_equal(frames[: len(theirs), index], theirs[:30])
            total += theirs.sum()
            assert labels[index] == label
        assert total > 1000
    if wrap is on_disk:
        assert len(list((tmp_path / "cache").glob("*.hdf5"))) == len(dataset)


CACHED = """
import resource, signal, sys
import tonic
from torch.utils.data import DataLoader, Subset
from snnax_interop import JaxLoader, PackEvents

source, cache, room = sys.argv[1:]
dataset = Subset(tonic.datasets.NMNIST(source, train=True), range(0, 10_000, 1000))
cached = tonic.DiskCachedDataset(dataset, cache)
if int(room):  # bytes per file: what a full disk is to a program
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
batches = JaxLoader(DataLoader(cached, 5, collate_fn=PackEvents((34, 34, 2))))
print(sum(int(events.count.sum()) for events, _ in batches), sum(len(recording) for recording, _ in dataset))
"""


def test_a_full_disk_under_tonic_s_cache_is_an_error_and_leaves_no_sample_cut_short(synthetic, tmp_path):
    cache = tmp_path / "cache"

    def run(room):
        command = [sys.executable, "-c", CACHED, str(synthetic), str(cache), str(room)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    full = run(4000)
    assert full.returncode != 0 and full.stdout == ""
    assert "File too large" in full.stderr  # HDF5 itself ends the process
    # Tonic finds that it cannot read the file, and makes it anew
    assert len(list(cache.iterdir())) >= 1
    for _ in range(2):
        counted, expected = map(int, run(0).stdout.split())
        assert counted == expected > 1000


SAMPLE = random_events(20, SENSOR, 1000, 0, [(name, int) for name in "xytp"])
Sample = collections.namedtuple("Sample", ["events", "label"])


def test_recordings_are_found_anywhere_in_a_sample():
    pack = PackEvents(SENSOR, capacity=32)
    nested = [{"left": SAMPLE, "more": [SAMPLE[:5], torch.ones(3)], "name": "a", "weight": np.float32(2)}] * 2
    batch = to_jax(pack(nested))
    assert batch["left"].count.tolist() == [20, 20] and batch["more"][0].count.tolist() == [5, 5]
    assert batch["more"][1].shape == (2, 3) and batch["name"] == ["a", "a"] and batch["weight"].tolist() == [2, 2]
    assert pack([Sample(SAMPLE, 3), Sample(SAMPLE[:0], 4)]).label.tolist() == [3, 4]
    assert isinstance(pack([Sample(SAMPLE, 3)]), Sample)


@pytest.mark.parametrize(("labels", "dtype"), [
    ([1, 2], torch.int32), ([np.int64(1), np.uint8(3)], torch.int32), ([1, 2**40], torch.int64),
    ([True, False], torch.bool), ([torch.tensor(1), torch.tensor(2)], torch.int64),
])  # fmt: skip
def test_labels_become_what_jax_takes_without_a_copy(labels, dtype):
    _, collated = PackEvents(SENSOR)([(SAMPLE, label) for label in labels])
    assert collated.dtype == dtype and collated.tolist() == [int(label) for label in labels]
    if labels[-1] == 2**40:
        with pytest.raises(TransferError, match="values outside int32"):
            to_jax(collated)


def test_an_empty_recording_has_empty_frames():
    events, _ = to_jax(PackEvents(SENSOR)([(SAMPLE[:0], 0), (SAMPLE, 1)]))
    for binned in (
        frames_by_time(events, 5),
        frames_by_count(events, 5),
        voxel_grid(events, 5),
        time_surfaces(events, 5, 9, 9.0),
    ):
        assert not binned[:, 0].any() and binned[:, 1].any()


def altered(**fields):
    events = SAMPLE.copy()
    for name, value in fields.items():
        events[name][3] = value
    return events


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("bad", "options", "error", "message"), [
    (altered(x=34), {}, ValueError, "recording 1 has x from .* to 34; allowed .*: 0 to 33; check"),
    (altered(t=-1), {}, ValueError, "recording 1 is not sorted by time: event 3 is at -1"),
    (altered(t=-1), {"sort": True}, ValueError, "recording 1 has times from -1 to .*origin=\"first\""),
    (np.concatenate([SAMPLE] * 2), {"sort": True, "capacity": 32}, ValueError, "recording 1 has 40 events"),
    (torch.ones(3), {}, TypeError, "recording 1 is Tensor; allowed: a structured array|'recordings'"),
])  # fmt: skip
def test_bad_recordings_surface_through_the_loader(bad, options, error, message, workers):
    pack, extra = PackEvents(SENSOR, **options), WORKERS if workers else {}
    loader = DataLoader([(SAMPLE, 0), (bad, 1)], 2, collate_fn=pack, num_workers=workers, **extra)
    with pytest.raises(error, match=message):
        list(JaxLoader(loader))


def test_samples_without_events_are_refused():
    with pytest.raises(
        TypeError, match=r"found samples of \(ndarray of int16 \(4, 2, 34, 34\), int\); allowed: .*structured"
    ):
        PackEvents(SENSOR)([(np.zeros((4, 2, 34, 34), np.int16), 1)])
    with pytest.raises(ValueError, match="sensor_size is"):
        PackEvents((34, 34, 0))
    with pytest.raises(ValueError, match="capacity is -1"):
        PackEvents(SENSOR, -1)
    assert repr(PackEvents(SENSOR, 512, sort=True)) == "PackEvents((34, 34, 2), 512, origin=0, unit=1, sort=True)"


def test_the_peculiarities_of_tonic_that_are_not_copied():
    """What `frames_by_time` and `pack` say of Tonic 1.7 holds for the installed one."""
    events = np.array([(0, 0, t, 1) for t in (0, 10, 25, 29)], [(name, int) for name in "xytp"])
    # The last window, which the recording does not fill, is dropped
    assert ToFrame((1, 1, 2), time_window=10)(events).sum((1, 2, 3)).tolist() == [1, 1]
    # Events of the remainder of a division are lost
    assert ToFrame((1, 1, 2), n_time_bins=3)(events).sum() == 3
    assert ToFrame((1, 1, 2), n_event_bins=3)(events).sum() == 3
    # The caller's array is written to
    alone = events.copy()
    ToFrame((1, 1, 1), time_window=10)(alone)
    assert alone["p"].tolist() == [0, 0, 0, 0]
