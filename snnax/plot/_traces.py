"""Membrane potentials over time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._axes import COLOURS, GREY, INK, Axes, label, new_axes, note, sequence, time_axis


# More than this many lines in one picture cannot be followed.
DEFAULT_NEURONS = 4


def traces(
    values: Any,
    *,
    spikes: Any = None,
    threshold: Any = None,
    dt: float = 1.0,
    neurons: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Membrane potentials, a line per neuron, with threshold and spikes.

    Spikes are marks above the lines, in the colour of their neuron. A line has gaps where the membrane is NaN or
    infinite, and the legend says since when.

    >>> import numpy as np
    >>> v = np.linspace(0, 1, 50)[:, None] * [1.0, 0.5]
    >>> ax = traces(v, spikes=v > 0.9, threshold=0.9)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['neuron 0', 'neuron 1', 'threshold']

    **Arguments:**

    - `values`: `(time, n)`; further axes are flattened in row-major order.
    - `spikes`: of the shape of `values`; whatever is not 0 is a spike.
    - `threshold`: one for all neurons, or one each, of shape `(n,)`.
    - `dt`: seconds per time step; 1.0 labels the axis in time steps.
    - `neurons`: which ones to draw, counted after flattening; the first four where not given.
    - `ax`: axes to draw into; a new figure where not given.

    **Returns:** the axes; `ax.figure` is the figure.

    **Raises:** `ValueError` for shapes that do not fit, neurons that do not exist, and a `dt` that is not positive.
    """
    array = sequence(values, "values", dt)
    num_steps, num_neurons = array.shape
    fired = _check_spikes(spikes, values, dt)
    chosen = _check_neurons(neurons, num_neurons)
    thresholds = _check_threshold(threshold, num_neurons)
    ax = new_axes(ax, (8.0, 3.5))
    times = np.arange(num_steps) * dt
    shown = np.where(np.isfinite(array[:, chosen]), array[:, chosen], np.nan)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(chosen))]
    for index, neuron in enumerate(chosen):
        ax.plot(times, shown[:, index], color=colours[index], linewidth=1.3, label=_name(neuron, shown[:, index]))
    levels = np.zeros(0) if thresholds is None else thresholds[chosen]
    if len(set(levels)) == 1:
        ax.axhline(levels[0], color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1, label="threshold")
    else:
        for colour, level in zip(colours, levels, strict=False):
            ax.axhline(level, color=colour, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    low, high = _limits(shown, levels)
    row = 0.05 * (high - low)
    if fired is not None:
        # A row each, in the order of the legend.
        high += (len(chosen) + 1) * row
        for index, neuron in enumerate(chosen):
            at = times[fired[:, neuron]]
            style = {"marker": "|", "markersize": 6, "markeredgewidth": 1.4, "linestyle": "none"}
            ax.plot(at, np.full(len(at), high - index * row), color=colours[index], label="_spikes", **style)
    ax.set_ylim(low - row, high + row)
    time_axis(ax, num_steps, dt)
    label(ax, ax.get_xlabel(), "membrane potential $v$")
    if chosen and num_steps:
        _legend(ax, chosen, num_neurons)
    else:
        note(ax, "no time steps" if not num_steps else "no neurons")
    return ax


def _check_spikes(spikes, values, dt):
    if spikes is None:
        return None
    if np.shape(spikes) != np.shape(values):
        raise ValueError(f"spikes must have the shape of values, {np.shape(values)}, found {np.shape(spikes)}")
    return sequence(spikes, "spikes", dt) != 0


def _check_neurons(neurons, num_neurons):
    if neurons is None:
        return list(range(min(num_neurons, DEFAULT_NEURONS)))
    for neuron in neurons:
        if not 0 <= neuron < num_neurons:
            raise ValueError(f"neurons must be in 0 ... {num_neurons - 1} (counted after flattening), found {neuron}")
    return [int(neuron) for neuron in neurons]


def _check_threshold(threshold, num_neurons):
    if threshold is None:
        return None
    levels = np.asarray(threshold, float)
    if levels.size not in (1, num_neurons):
        raise ValueError(f"threshold must be one value or one per neuron ({num_neurons}), found shape {levels.shape}")
    return np.broadcast_to(levels.reshape(-1), num_neurons)


def _name(neuron, trace):
    bad = np.flatnonzero(np.isnan(trace))
    return f"neuron {neuron}" + (f" (not finite\nfrom step {bad[0]})" if len(bad) else "")


def _limits(shown, levels):
    """Lowest and highest value of what is drawn."""
    drawn = np.concatenate([shown[np.isfinite(shown)].astype(float), levels])
    drawn = drawn[np.isfinite(drawn)]
    low, high = (drawn.min(), drawn.max()) if len(drawn) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _legend(ax, chosen, num_neurons):
    title = f"{len(chosen)} of {num_neurons} neurons" if len(chosen) < num_neurons else None
    legend = ax.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9,
        title_fontsize=9, alignment="left", labelcolor=INK, handlelength=1.4,
    )  # fmt: skip
    legend.get_title().set_color(GREY)
