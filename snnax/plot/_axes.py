"""What all pictures share: matplotlib, colours, empty axes, the time axis.

The only file that imports matplotlib, and never its pyplot: a figure is an object that belongs to the caller, not a
global that has to be closed. Colours are those of Okabe & Ito, which colour-blind readers tell apart, but for the
purple, which is Tol's: darker, so that it can be read as text.
"""

import math
from typing import Any, Literal

import numpy as np


try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes as Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Figure
    from matplotlib.image import AxesImage
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as _error:
    if (_error.name or "").split(".")[0] != "matplotlib":
        raise  # matplotlib is there; something that it needs is not
    raise ImportError(
        "snnax.plot needs matplotlib, which is not installed; in a checkout of snnax-bridge, install it with:\n"
        "pip install '.[plot]'"
    ) from _error


BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
Layout = Literal["constrained", "compressed"]
INK, GREY, PALE = "#222222", "#767676", "#E4E4E4"


def new_axes(ax: Axes | None, size: tuple[float, float] = (7.0, 3.5), layout: Layout = "constrained") -> Axes:
    """The given axes, or those of a new figure of this size in inches; without the lines above and to the right."""
    if ax is None:
        ax = Figure(figsize=size, dpi=120, layout=layout).add_subplot()
    tidy(ax)
    return ax


def tidy(ax: Axes) -> None:
    """Thin grey lines to the left and below only, and ticks as quiet."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)


def label(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)


def time_axis(ax: Axes, num_steps: int, dt: float) -> None:
    """The x axis in time steps where `dt` is 1, else in seconds; half a step of room on either side."""
    ax.set_xlim(-0.5 * dt, (max(num_steps, 1) - 0.5) * dt)
    ax.set_xlabel("time (time steps)" if dt == 1 else "time (s)", color=INK)
    if dt == 1:
        round_ticks(ax.xaxis, integer=True)


def colormap(name: str) -> Any:
    return colormaps[name]


def round_ticks(axis: Axis, most: int = 8, *, integer: bool = False) -> None:
    """Up to so many ticks at multiples of 1, 2 or 5 times a power of ten."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=integer))


def colour_bar(image: AxesImage, ax: Axes, text: str, pad: float = 0.02) -> None:
    """A colour bar to the right; `pad` is the gap as a share of the width of the axes."""
    bar = ax.figure.colorbar(image, ax=ax, pad=pad)
    bar.set_label(text, color=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(color=GREY, labelcolor=INK, labelsize=9)


def note(ax: Axes, text: str) -> None:
    """Said in the middle of axes that have nothing else to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)


def sequence(values: Any, name: str, dt: float) -> np.ndarray:
    """An array `(time, ...)` as `(time, neurons)`.

    **Raises:** `ValueError` for an array without an axis of neurons or of no numbers, and for a `dt` that is not
    positive.
    """
    if not (dt > 0 and math.isfinite(dt)):
        raise ValueError(f"dt must be a positive number of seconds, or 1.0 for time steps, found {dt!r}")
    array = as_numbers(values, name)
    if array.ndim < 2:
        raise ValueError(
            f"{name} must be an array of shape (time, n), found shape {array.shape}; add an axis to one neuron, "
            f"{name}[:, None], or to one time step, {name}[None]"
        )
    return array.reshape(array.shape[0], math.prod(array.shape[1:]))


def as_numbers(values: Any, name: str) -> np.ndarray:
    """Any real array, also of bfloat16, as bool, integer, float32 or float64.

    **Raises:** `ValueError` for anything else.
    """
    array = np.asarray(values)
    if array.dtype.type.__module__ == "ml_dtypes" or array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be an array of real numbers, found dtype {array.dtype}")
    return array
