"""Times near the ends of their type are binned exactly, in the unit that holds them, or refused; none wraps around."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import events
from snnax.events import Events, frames_by_time, pack, time_surfaces, voxel_grid


HOUR = 3600 * 10**6  # microseconds
LAST = 2**31 - 1
SENSOR = (3, 2, 2)


def recording(times, seed=0):
    rng = np.random.default_rng(seed)
    found = np.zeros(len(times), [("x", np.int16), ("y", np.int16), ("p", np.int8), ("t", np.int64)])
    found["t"] = times
    for name, size in zip("xyp", SENSOR, strict=True):
        found[name] = rng.integers(0, size, len(times))
    return found


def counts(found, edges):
    """Frames of one recording in NumPy, with 64 bits."""
    frames = np.zeros((len(edges) - 1, 2, 2, 3))
    for event in found:
        step = np.searchsorted(edges, event["t"], side="right") - 1
        if 0 <= step < len(frames):
            frames[step, event["p"], event["y"], event["x"]] += 1
    return frames


@pytest.mark.parametrize("times", [[0, 5, LAST - 9, LAST], [LAST - 30, LAST - 20, LAST - 1, LAST]], ids=["all", "end"])
@pytest.mark.parametrize("window", [1, 10, 2**20, LAST])
def test_windows_up_to_the_last_time_have_their_events(times, window):
    found = recording(times)
    frames = frames_by_time(pack([found], SENSOR), 4, window)
    edges = times[0] + window * np.arange(5, dtype=np.int64)
    np.testing.assert_array_equal(np.asarray(frames)[:, 0], counts(found, edges))
    assert frames.sum() >= 1


def test_hours_of_microseconds_are_packed_in_a_larger_unit():
    times = np.sort(np.random.default_rng(1).integers(7 * HOUR, 10 * HOUR, 200))
    found = recording(times)
    events = pack([found], SENSOR, origin="first", unit=1000)
    frames = frames_by_time(events, 6, HOUR // 2 // 1000)
    # Windows that are a multiple of the unit have the events of the exact times.
    edges = times[0] + HOUR // 2 * np.arange(7)
    np.testing.assert_array_equal(np.asarray(frames)[:, 0], counts(found, edges))
    assert frames.sum() == 200
    with pytest.raises(
        ValueError, match=r"recording 0 has times from \d+ to \d+; .*origin=\"first\" and a unit of \d+"
    ):
        pack([found], SENSOR)


def test_times_of_64_bits_are_refused_where_jax_would_cut_them_and_exact_where_not():
    data = np.array([[0, 3 * HOUR], [0, 1]])
    for call in (lambda: Events(data, (1, 2)),):
        with pytest.raises(ValueError, match=rf"found times or addresses from 0 to {3 * HOUR}; .*pack .*unit=1000"):
            call()
    with jax.enable_x64(True):
        frames = frames_by_time(Events(data, (1, 2)), 4, HOUR)
        assert frames[:, 0].tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]
        surfaces = time_surfaces(Events(data, (1, 2)), 4, HOUR, float(HOUR))
        np.testing.assert_allclose(surfaces[:, 0, 0], np.exp([-1.0, -2.0, -3.0, -4.0]), rtol=1e-6)


def test_surfaces_fall_from_1_to_0_however_old_their_events():
    events = Events(jnp.array([[0, 2_000_000_000], [0, 1]], jnp.int32), (1, 2))
    surfaces = np.asarray(time_surfaces(events, 16, 300_000_000, 1e9))[:, 0]
    ages = 3e8 * np.arange(1, 17)
    np.testing.assert_allclose(surfaces[:, 0], np.exp(-ages / 1e9), rtol=1e-5)
    np.testing.assert_allclose(surfaces[6:, 1], np.exp(-(ages[6:] - 2e9) / 1e9), rtol=1e-5)
    assert not surfaces[:6, 1].any() and surfaces.max() <= 1


def test_a_grid_over_all_times_shares_every_event_out():
    found = recording([0, 2**30, 2**31 - 2, LAST])
    found["p"] = 1
    grid = voxel_grid(pack([found], SENSOR), 4)
    assert grid.shape == (4, 1, 1, 2, 3)
    assert jnp.isfinite(grid).all() and (grid >= 0).all() and 2 <= grid.sum() <= 4


untyped: Any = events
BINNED = Events(jnp.array([[0, 5, 9], [0, 1, 0]], jnp.int32), (1, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: untyped.frames_by_time(BINNED, 3, 1e4),
            r"frames_by_time: window is 10000.0; .* an int .*; write 10000",
        ),
        (lambda: untyped.frames_by_time(BINNED, 3, 0.5), r"frames_by_time: window is 0.5; allowed: an int"),
        (
            lambda: untyped.frames_by_time(BINNED, 3, 2**40),
            r"window is 1099511627776; .*times are int32: use times of a larger un",
        ),
        (lambda: untyped.frames_by_time(BINNED, 3.0, 4), r"frames_by_time: steps is 3.0; allowed: an int .*; write 3"),
        (lambda: untyped.frames_by_time(BINNED, True, 4), r"steps is True; allowed: an int"),
        (lambda: untyped.frames_by_time(BINNED, 3, 4, start=0.5), r"start is 0.5; allowed: an int"),
        (lambda: untyped.frames_by_time(BINNED, 3, 4, start=2**35), r"start is 34359738368; allowed: an int"),
        (lambda: untyped.frames_by_time(BINNED, 3, 4, overlap=1.5), r"overlap is 1.5; allowed: an int"),
        (lambda: untyped.frames_by_count(BINNED, 3, 2.0), r"frames_by_count: count is 2.0; allowed: an int .*write 2"),
        (lambda: untyped.time_surfaces(BINNED, 3, 1e4, 1.0), r"time_surfaces: window is 10000.0; .*write 10000"),
        (lambda: untyped.time_surfaces(BINNED, 3, 10, "1"), r"time_surfaces: tau is '1'; allowed: a number above 0"),
        (lambda: untyped.voxel_grid(BINNED, 3.0), r"voxel_grid: steps is 3.0; allowed: an int"),
        (lambda: untyped.pack([], SENSOR, 2.5), r"pack: capacity is 2.5; allowed: an int"),
        (lambda: untyped.pack([], SENSOR, unit=0), r"pack: unit is 0; allowed: an int"),
        (lambda: untyped.pack([], SENSOR, origin="last"), r"pack: origin is 'last'; allowed: an int .*, or \"first\""),
    ],
)
def test_options_that_are_no_whole_numbers_are_refused(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()
