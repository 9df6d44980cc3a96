"""Packing, and binning against counts that are made one event at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax.events import Events, frames_by_count, frames_by_time, pack, time_surfaces, voxel_grid


pytestmark = pytest.mark.full


SENSOR = (5, 3, 2)  # width, height, polarities
FIELDS = [("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)]


def recording(count, seed=0, duration=1000, sensor=SENSOR, fields=FIELDS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events: np.ndarray = np.zeros(count, fields)
    width, height, polarities = sensor
    for name, size in (("x", width), ("y", height), ("p", polarities)):
        if name in dict(fields):
            events[name] = rng.integers(0, size, count)
    events["t"] = np.sort(rng.integers(7, duration, count))
    return events


def one(t, x, y=None, p=None) -> np.ndarray:
    """A recording of single values or lists."""
    columns = {"t": t, "x": x, "y": y, "p": p}
    columns = {name: np.atleast_1d(values) for name, values in columns.items() if values is not None}
    events = np.zeros(len(columns["t"]), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        events[name] = values
    return events


def count_one_by_one(events, steps_of):
    """Frames `(time, polarity, height, width)` of one recording, by a loop over its events."""
    pairs = [(step, event) for event, steps in zip(events, steps_of, strict=True) for step in steps]
    frames = np.zeros((1 + max((step for step, _ in pairs), default=0), *SENSOR[::-1]), int)
    for step, event in pairs:
        frames[step, event["p"], event["y"], event["x"]] += 1
    return frames


def test_packed_events_are_those_of_the_recordings_in_their_order():
    recordings = [recording(9), recording(300, 1), recording(0), recording(1, 2)]
    events = pack(recordings, SENSOR)
    assert events.t.shape == events.address.shape == (4, 512)
    assert events.t.dtype == events.address.dtype == np.int32
    assert events.count.tolist() == [9, 300, 0, 1]
    p, y, x = events.coordinates()
    for number, each in enumerate(recordings):
        valid = np.asarray(events.valid[number])
        assert valid[: len(each)].all() and not valid[len(each) :].any()
        np.testing.assert_array_equal(events.t[number, : len(each)], each["t"])
        for found, name in ((p, "p"), (y, "y"), (x, "x")):
            np.testing.assert_array_equal(found[number, : len(each)], each[name])
            assert (np.asarray(found[number, len(each) :]) == -1).all()
        # Padding repeats the last time, so that time never runs backwards
        assert (events.t[number, len(each) :] == (each["t"][-1] if len(each) else 0)).all()


@pytest.mark.parametrize("names", ["xytp", "txyp", "ptyx", "ypxt"])
@pytest.mark.parametrize(
    "types", [(np.int16, np.bool_), (np.uint8, np.uint8), (np.uint16, np.int8), (np.int64, np.int64)]
)
def test_fields_may_have_any_order_and_integer_type(names, types):
    position, polarity = types
    type_of = {"x": position, "y": position, "p": polarity, "t": np.uint32}
    # Addresses beyond the range of the fields' own types
    sensor = (200, 100, 2)
    plain = recording(500, sensor=sensor)
    other = np.zeros(500, [(name, type_of[name]) for name in names] + [("camera", "f8")])
    for name in names:
        other[name] = plain[name]
    first, second = pack([plain], sensor), pack([other], sensor)
    np.testing.assert_array_equal(first.address, second.address)
    np.testing.assert_array_equal(first.t, second.t)
    assert first.address.max() > 2**15


def test_a_sensor_without_y_or_polarity():
    fields = [("t", int), ("x", int), ("p", int)]
    cochlea = recording(50, sensor=(700, 1, 1), fields=fields)
    cochlea["p"] = 1  # as the Heidelberg data sets have it
    events = pack([cochlea], (700, 1, 1))
    assert events.shape == (1, 700)
    np.testing.assert_array_equal(events.address[0, :50], cochlea["x"])
    assert frames_by_time(events, 4, 250).shape == (4, 1, 1, 700)
    without = pack([one([3, 4], [1, 2])], (8, 1, 1))
    assert without.shape == (1, 8)
    assert without.address[0, :3].tolist() == [1, 2, -1]


@pytest.mark.parametrize(
    ("longest", "room"), [(0, 256), (1, 256), (256, 256), (257, 512), (1500, 1536), (4100, 5120), (7152, 7168)]
)
def test_room_grows_in_few_sizes_and_is_aligned(longest, room):
    events = pack([recording(longest), recording(3)], SENSOR)
    assert events.t.shape == (2, room)
    assert events.data.ctypes.data % 64 == 0
    array = jax.device_put(events.data, jax.devices("cpu")[0], may_alias=True)
    assert array.unsafe_buffer_pointer() == events.data.ctypes.data
    assert pack([recording(3)], SENSOR, capacity=3).t.shape == (1, 3)


def test_an_empty_batch_has_no_recordings():
    assert pack([], SENSOR).t.shape == (0, 256)
    assert frames_by_time(pack([], SENSOR), 3, 10).shape == (3, 0, 2, 3, 5)


def test_times_count_from_the_origin():
    each = one([2**40 + 5, 2**40 + 9], [0, 1], [0, 0], [0, 1])
    assert pack([each], SENSOR, 2, origin="first").t.tolist() == [[0, 4]]
    assert pack([each], SENSOR, 2, origin=2**40).t.tolist() == [[5, 9]]
    with pytest.raises(ValueError, match=rf"recording 0 has times from {2**40 + 5} to .*; allowed: 0 to {2**31 - 1}"):
        pack([each], SENSOR)
    with pytest.raises(ValueError, match=r"recording 0 has times from -1 to 3; .*origin=\"first\""):
        pack([one([-1, 3], [0, 1], [0, 0], [0, 1])], SENSOR)
    # Unsigned times do not wrap below zero
    unsigned = one(np.array([5, 9], np.uint64), [0, 1], [0, 0], [0, 1])
    with pytest.raises(ValueError, match="recording 0 has times from -5 to -1"):
        pack([unsigned], SENSOR, origin=10)


def test_unsorted_events_are_refused_or_sorted():
    each = one([5, 9, 8, 8], [0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"recording 1 is not sorted by time: event 2 is at 8, the one before at 9"):
        pack([recording(2), each], SENSOR)
    events = pack([each], SENSOR, 4, sort=True)
    assert events.t.tolist() == [[5, 8, 8, 9]]
    assert events.coordinates()[2].tolist() == [[0, 2, 3, 1]]
    first = pack([each[::-1]], SENSOR, 4, sort=True, origin="first")
    assert first.t.tolist() == [[0, 3, 3, 4]]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (one([1, 2], [5, 0], [0, 0], [0, 0]), ValueError, r"recording 1 has x from 0 to 5; allowed on .*: 0 to 4"),
        (one([1], [0], [3], [0]), ValueError, r"recording 1 has y from 3 to 3; .*0 to 2; check sensor_size"),
        (one([1], [-2], [0], [0]), ValueError, r"recording 1 has x from -2"),
        (one([1, 2], [0, 0], [0, 0], [-1, 1]), ValueError, r"recording 1 has p from -1 to 1; .*map -1 to 0"),
        (one([1], [0], None, [0]), ValueError, r"recording 1 has the fields \('t', 'x', 'p'\); needed: t and x, and y"),
        (np.zeros(3, [("ts", int), ("x", int), ("y", int)]), ValueError, r"needed: t and x, .*rename_fields"),
        (one([0.5], [0], [0], [0]), TypeError, r"recording 1 has t of float64; allowed: integers; .*microseconds"),
        (np.zeros((3, 4)), TypeError, r"recording 1 is float64 \(3, 4\); allowed: a structured array"),
        (np.zeros((2, 3), FIELDS), TypeError, r"recording 1 is .*\(2, 3\); allowed"),
        ([1, 2], TypeError, "recording 1 is list; allowed"),
        (recording(11), ValueError, "recording 1 has 11 events, and capacity is 10; give more room"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_bad_recordings_are_refused_by_number(bad, error, message):
    with pytest.raises(error, match=message):
        pack([recording(10), bad], SENSOR, capacity=10)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_of_packing_are_refused():
    for sensor in ((5, 3), (5, 3, 0), 5, None, (5.0, 3, 2)):
        with pytest.raises(ValueError, match=r"sensor_size is .*; allowed: \(width, height, polarities\)"):
            pack([], sensor)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"capacity is 0; allowed: an int .* from 1 to"):
        pack([], SENSOR, capacity=0)
    flat = one([1], [1], None, [0])
    with pytest.raises(ValueError, match="some recordings of the batch have a field y and some have none"):
        pack([flat, one([1], [1], [0], [0])], (5, 1, 2))
    with pytest.raises(ValueError, match=r"recording 0 has both polarities 0 and 1; sensor_size says that it has 1"):
        pack([one([1, 2], [1, 1], [0, 0], [0, 1])], (5, 1, 1))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int16, jnp.int32, jnp.float32, jnp.bfloat16, bool])
@pytest.mark.parametrize(("window", "overlap"), [(100, 0), (97, 0), (100, 30), (100, 80), (50, 49)])
def test_frames_by_time_are_counts_within_windows(window, overlap, dtype):
    recordings = [recording(200), recording(30, 1), recording(0), recording(1, 2)]
    steps, stride = 12, window - overlap
    frames = np.asarray(frames_by_time(pack(recordings, SENSOR), steps, window, overlap=overlap, dtype=dtype))
    assert frames.shape == (steps, 4, 2, 3, 5) and frames.dtype == dtype
    assert frames.any()
    for number, each in enumerate(recordings):
        within = [
            [k for k in range(steps) if k * stride <= event["t"] - each["t"][0] < k * stride + window] for event in each
        ]
        expected = np.zeros((steps, *SENSOR[::-1]), int)
        counted = count_one_by_one(each, within)
        expected[: len(counted)] = counted
        np.testing.assert_array_equal(
            frames[:, number].astype(int), expected.astype(bool) if dtype is bool else expected
        )


def test_windows_may_begin_at_one_time_for_all():
    recordings = [one([105, 230], [0, 1], [0, 0], [0, 0]), one([20, 150], [0, 1], [0, 0], [0, 0])]
    frames = frames_by_time(pack(recordings, SENSOR), 2, 100, start=50)
    # The event at 20 was before the first window
    assert frames[:, :, 0, 0, :2].tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]]]


BINNED = (frames_by_time, frames_by_count)


@pytest.mark.parametrize("steps", [1, 3, 7, 64])
def test_equal_parts_of_a_recording_lose_no_event(steps):
    recordings = [recording(200), recording(31, 1, 100_000), recording(1, 2), recording(0)]
    events = pack(recordings, SENSOR)
    for binned in BINNED:
        assert binned(events, steps).sum((0, 2, 3, 4)).tolist() == [200, 31, 1, 0]
    by_time, by_count = (np.asarray(binned(events, steps))[:, 0].sum((1, 2, 3)) for binned in BINNED)
    assert by_count[:-1].tolist() == [200 // steps] * (steps - 1)
    width = (recordings[0]["t"][-1] - recordings[0]["t"][0]) // steps
    since = recordings[0]["t"] - recordings[0]["t"][0]
    assert by_time[0] == (since < width).sum() or steps == 1


@pytest.mark.parametrize(("count", "overlap"), [(10, 0), (7, 3), (500, 0), (10, 9)])
def test_frames_by_count_are_of_successive_events(count, overlap):
    recordings = [recording(200), recording(3, 1), recording(0)]
    steps = 9
    frames = np.asarray(frames_by_count(pack(recordings, SENSOR), steps, count, overlap=overlap))
    for number, each in enumerate(recordings):
        expected = np.zeros((steps, *SENSOR[::-1]), int)
        for step in range(steps):
            for event in each[step * (count - overlap) :][:count]:
                expected[step, event["p"], event["y"], event["x"]] += 1
        np.testing.assert_array_equal(frames[:, number], expected)


@pytest.mark.parametrize(
    ("dtype", "count", "most"), [(jnp.uint8, 300, 255), (jnp.int8, 1000, 127), (jnp.int16, 40000, 32767)]
)
def test_counts_stop_at_the_largest_of_their_type_and_never_wrap(dtype, count, most):
    hot = one(np.arange(count), np.zeros(count, int), np.zeros(count, int), np.zeros(count, int))
    frames = frames_by_time(pack([hot], SENSOR), 1, 10**6, dtype=dtype)
    assert int(frames[0, 0, 0, 0, 0]) == most and int(frames.max()) == most
    assert frames_by_time(pack([hot], SENSOR), 1, 10**6)[0, 0, 0, 0, 0] == count


def test_a_recording_alone_is_binned_as_within_a_batch():
    events = pack([recording(80), recording(60, 1)], SENSOR)
    alone = Events(events.data[1], events.shape)
    for binning in (
        lambda events: frames_by_time(events, 5, 100),
        lambda events: frames_by_count(events, 5, 10),
        lambda events: voxel_grid(events, 5),
        lambda events: time_surfaces(events, 5, 100, 50.0),
    ):
        whole = jax.jit(binning)(events)
        assert (np.asarray(whole) != 0).any()
        # Compiled, each for itself, and mapped
        np.testing.assert_array_equal(whole[:, 1], jax.jit(binning)(alone))
        np.testing.assert_array_equal(whole, jax.vmap(binning, out_axes=1)(jax.tree.map(jnp.asarray, events)))


def test_a_voxel_grid_shares_each_event_between_two_bins():
    each = recording(100, duration=5000)
    steps = 6
    grid = voxel_grid(pack([each, recording(0), one([4], [2], [1], [1])], SENSOR), steps)
    assert grid.shape == (steps, 3, 1, 3, 5)
    expected = np.zeros((steps + 2, 3, 5))
    first, last = each["t"][0], each["t"][-1]
    for event in each:
        position = steps * (event["t"] - first) / (last - first)
        below = int(position)
        sign = 1 if event["p"] else -1
        expected[below, event["y"], event["x"]] += sign * (1 - (position - below))
        expected[below + 1, event["y"], event["x"]] += sign * (position - below)
    np.testing.assert_allclose(grid[:, 0, 0], expected[:steps], atol=1e-5)
    assert not grid[:, 1].any()
    # All events at one time: the first bin
    assert grid[:, 2].sum() == grid[0, 2, 0, 1, 2] == 1


def test_time_surfaces_are_the_age_of_the_latest_event_of_a_pixel():
    each = recording(60, duration=3000)
    steps, window, tau = 8, 300, 500.0
    surfaces = np.asarray(time_surfaces(pack([each, recording(0)], SENSOR), steps, window, tau))
    assert surfaces.shape == (steps, 2, 2, 3, 5)
    first = each["t"][0]
    for step in range(steps):
        end = first + (step + 1) * window
        expected = np.zeros(SENSOR[::-1])
        for event in each[each["t"] < end]:
            expected[event["p"], event["y"], event["x"]] = np.exp(-(end - event["t"]) / tau)
        np.testing.assert_allclose(surfaces[step, 0], expected, rtol=1e-6)
    assert not surfaces[:, 1].any() and (surfaces[-1, 0] > 0).sum() > 10


@pytest.mark.parametrize("steps", [0, 1])
def test_no_and_one_time_step(steps):
    events = pack([recording(20)], SENSOR)
    assert frames_by_time(events, steps).shape == frames_by_count(events, steps, 5).shape == (steps, 1, 2, 3, 5)
    assert frames_by_time(events, steps, 10**6).sum() == 20 * steps
    assert voxel_grid(events, steps).shape == (steps, 1, 1, 3, 5)
    assert time_surfaces(events, steps, 100, 10.0).shape == (steps, 1, 2, 3, 5)


EVENTS = pack([recording(4)], SENSOR)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames_by_time(EVENTS, -1), "frames_by_time: steps is -1; allowed: an int .* from 0 to"),
        (lambda: frames_by_time(EVENTS, 3, 0), "frames_by_time: window is 0; allowed: an int .* from 1 to .*, or None"),
        (
            lambda: frames_by_time(EVENTS, 3, 10, overlap=10),
            "overlap is 10; allowed: .* from 0 to 9; overlap is less than window, which is 10",
        ),
        (lambda: frames_by_time(EVENTS, 3, overlap=2), "overlap is 2; allowed: .*give window, too, which is None"),
        (lambda: frames_by_time(EVENTS, 3, start=2), "start needs a window"),
        (
            lambda: frames_by_time(EVENTS, 3, 10, dtype=jnp.complex64),
            "dtype is complex64; allowed: integers, floats, bool",
        ),
        (lambda: frames_by_count(EVENTS, 3, -2), "frames_by_count: count is -2"),
        (lambda: frames_by_count(EVENTS, 2**30, 1), "frames_by_count: 1073741824 time steps of 30 cells each are more"),
        (lambda: voxel_grid(pack([], (5, 3, 1)), 2), r"voxel_grid: events are of shape \(1, 3, 5\); allowed: two"),
        (lambda: voxel_grid(EVENTS, 2, dtype=jnp.int32), "voxel_grid: dtype is int32; allowed: floats"),
        (lambda: time_surfaces(EVENTS, 2, 0, 1.0), "time_surfaces: window is 0; allowed"),
        (lambda: time_surfaces(EVENTS, 2, 10, 0.0), "tau is 0.0; allowed: a number above 0"),
        (lambda: time_surfaces(EVENTS, 2, 10, 1.0, dtype=bool), "time_surfaces: dtype is bool; allowed: floats"),
    ],
)
def test_bad_options_of_binning_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_binning_is_one_program_per_size_and_moves_nothing_to_the_host():
    traced = []

    @jax.jit
    def binned(events):
        traced.append(events.t.shape)
        return frames_by_time(events, 4, 100, dtype=jnp.uint8)

    for seed, count in enumerate((10, 200, 256, 300, 500)):
        binned(pack([recording(count, seed)], SENSOR))
    assert traced == [(1, 256), (1, 512)]
    text = binned.lower(pack([recording(10)], SENSOR)).as_text()
    assert "callback" not in text and "scatter" in text
