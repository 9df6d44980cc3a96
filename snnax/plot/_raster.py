"""Which neuron spiked when."""

from typing import Any

import numpy as np

from ._axes import INK, Axes, colour_bar, label, new_axes, note, round_ticks, sequence, time_axis


# Up to here every spike is a mark; beyond, marks cover each other and drawing takes seconds.
MAX_MARKS = 50_000
# Cells of the density image, fewer than it has pixels: single ones are noise.
MAX_CELLS = (500, 250)


def raster(spikes: Any, *, dt: float = 1.0, ax: Axes | None = None, color: str = INK) -> Axes:
    """Spike raster: time to the right, neurons upwards, a mark per spike.

    More than 50 000 spikes are drawn as an image of their density, with a colour bar: the mean firing rate of every
    cell of neurons and time steps.

    >>> import numpy as np
    >>> ax = raster(np.eye(20), dt=1e-3)
    >>> ax.get_xlabel(), len(ax.lines[0].get_xdata())
    ('time (s)', 20)
    >>> ax.figure.savefig("/dev/null", format="png")

    **Arguments:**

    - `spikes`: `(time, n)`; further axes are flattened in row-major order. Whatever is not 0 is a spike.
    - `dt`: seconds per time step; 1.0 labels the axis in time steps.
    - `ax`: axes to draw into; a new figure where not given.
    - `color`: of the marks.

    **Returns:** the axes; `ax.figure` is the figure.

    **Raises:** `ValueError` for another shape, for NaN, and for a `dt` that is not positive.
    """
    array = sequence(spikes, "spikes", dt)
    if np.isnan(array).any():
        step, neuron = np.argwhere(np.isnan(array))[0]
        raise ValueError(
            f"spikes must be 0 or not 0, found NaN at time step {step}, neuron {neuron}; see the membranes"
        )
    num_steps, num_neurons = array.shape
    ax = new_axes(ax)
    steps, neurons = np.nonzero(array)
    if len(steps) > MAX_MARKS:
        _density(ax, array != 0, dt)
    else:
        # As high as the row of a neuron, but always visible.
        height = ax.get_window_extent().height * 72 / ax.figure.dpi
        size = float(np.clip(0.7 * height / max(num_neurons, 1), 1.0, 14.0))
        style = {"marker": "|", "markersize": size} if size > 2 else {"marker": "s", "markersize": 1.2, "mew": 0}
        ax.plot(steps * dt, neurons, linestyle="none", color=color, **style)
        if not len(steps):
            note(ax, "no spikes" if array.size else "no time steps" if num_neurons else "no neurons")
    time_axis(ax, num_steps, dt)
    ax.set_ylim(-0.5, max(num_neurons, 1) - 0.5)
    round_ticks(ax.yaxis, integer=True)
    label(ax, ax.get_xlabel(), "neuron")
    return ax


def _density(ax, spikes, dt):
    """An image of the mean firing rate over cells of time steps and neurons."""
    sums, counts = spikes, np.ones((1, 1), int)
    for axis, cells in enumerate(MAX_CELLS):
        length = spikes.shape[axis]
        # Cells of equal size, but for the last one: others show as stripes.
        starts = np.arange(0, length, -(-length // cells))
        sums = np.add.reduceat(sums, starts, axis=axis, dtype=np.int64)
        widths = np.diff(np.append(starts, length))
        counts = counts * (widths[:, None] if axis == 0 else widths)
    # The last cells are drawn as large as the others; the limits of the axes cut them off.
    ends = [sums.shape[axis] * -(-spikes.shape[axis] // MAX_CELLS[axis]) - 0.5 for axis in (0, 1)]
    extent = (-0.5 * dt, ends[0] * dt, -0.5, ends[1])
    image = ax.imshow(
        (sums / counts).T, origin="lower", aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, extent=extent
    )
    colour_bar(image, ax, "firing rate (spikes per time step)")
