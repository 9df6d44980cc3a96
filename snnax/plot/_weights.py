"""Weights: one matrix or set of kernels as an image, or a histogram for every array of a model."""

import math
from typing import Any, overload

import jax
import numpy as np

from ._axes import (
    BLUE,
    GREEN,
    GREY,
    INK,
    VERMILLION,
    Axes,
    Figure,
    as_numbers,
    colormap,
    colour_bar,
    label,
    new_axes,
    round_ticks,
    tidy,
)


# Kernels per direction: more of them are too small to see.
MAX_KERNELS = 16


@overload
def weights(tree: jax.Array | np.ndarray, *, ax: Axes | None = None) -> Axes: ...  # pyright: ignore[reportOverlappingOverload]
@overload
def weights(tree: Any, *, ax: None = None) -> Figure: ...
def weights(tree: Any, *, ax: Axes | None = None) -> Axes | Figure:
    """The weights of one layer, or of a whole model.

    An array is drawn as an image, red above zero and blue below, with the same scale for both. A tree, such as a
    model, becomes a figure with a histogram for every floating point array of more than one element, under its path.
    Weights that are NaN or infinite are green in the image, and counted in the title.

    >>> import equinox as eqx, jax
    >>> layer = eqx.nn.Linear(8, 4, key=jax.random.key(0))
    >>> weights(layer.weight).get_ylabel()
    'output'
    >>> [ax.get_title(loc="left") for ax in weights({"hidden": layer}).axes]
    ['hidden.weight', 'hidden.bias']

    **Arguments:**

    - `tree`: a matrix `(outputs, inputs)`; kernels `(outputs, inputs, width)` or `(outputs, inputs, height, width)`,
      of which up to 16 x 16 are drawn; or a pytree.
    - `ax`: axes to draw an array into; a new figure where not given.

    **Returns:** the axes for an array, the figure for a tree.

    **Raises:** `ValueError` for an array with another number of axes or without elements, for a tree without arrays to
    draw, and for a tree together with `ax`.
    """
    if isinstance(tree, jax.Array | np.ndarray):
        return _image(as_numbers(tree, "weights"), ax)
    if ax is not None:
        raise ValueError("a tree needs axes for every array, found ax; leave it out, or give one array")
    leaves = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_weight(leaf)]
    if not leaves:
        raise ValueError(f"found no floating point array of more than one element in {type(tree).__name__}")
    return _histograms(leaves)


def _is_weight(leaf):
    return isinstance(leaf, jax.Array | np.ndarray) and jax.numpy.issubdtype(leaf.dtype, np.floating) and leaf.size > 1


def _image(array, ax):
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise ValueError(
            "weights must have shape (outputs, inputs), (outputs, inputs, width) or (outputs, inputs, height, width) "
            f"and elements, found shape {array.shape}; give a dict for histograms, {{name: weights}}"
        )
    array = array.astype(float)
    shown = array[:MAX_KERNELS, :MAX_KERNELS] if array.ndim > 2 else array
    # Kernels side by side: (outputs, inputs, height, width) -> (outputs * height, inputs * width).
    size = (1, *shown.shape[2:])[-2:] if array.ndim > 2 else (1, 1)
    tiles = shown.reshape(*shown.shape[:2], *size)
    picture = tiles.transpose(0, 2, 1, 3).reshape(shown.shape[0] * size[0], shown.shape[1] * size[1])
    ratio = picture.shape[1] / picture.shape[0]
    long = not 1 / 6 <= ratio <= 6
    # As wide as the picture needs: pixels are squares unless that makes it a thin line.
    width, height = (4.0, 4.0) if long else (min(4.0 * ratio, 8.0), min(4.0, 8.0 / ratio))
    ax = new_axes(ax, (width + 1.9, height + 0.8), "compressed")
    ax.spines[:].set_visible(False)
    largest = np.abs(array[np.isfinite(array)]).max(initial=0.0) or 1.0
    image = ax.imshow(
        np.ma.masked_invalid(picture), cmap=colormap("RdBu_r").with_extremes(bad=GREEN), vmin=-largest, vmax=largest,
        interpolation="nearest", aspect="auto" if long else "equal",
    )  # fmt: skip
    colour_bar(image, ax, "weight", pad=max(0.02, 0.1 / width))
    if array.ndim > 2:
        _separate(ax, shown.shape[:2], size)
    else:
        round_ticks(ax.xaxis, 6, integer=True)
        round_ticks(ax.yaxis, 6, integer=True)
    label(ax, "input", "output")
    ax.set_title("; ".join(_remarks(array, shown)), loc="left", fontsize=9, color=INK)
    return ax


def _remarks(array, shown):
    """What the picture does not show by itself."""
    if shown.shape != array.shape:
        rows, columns = zip(shown.shape[:2], array.shape[:2], strict=True)
        yield f"kernels of {rows[0]} of {rows[1]} outputs, {columns[0]} of {columns[1]} inputs"
    if bad := array.size - int(np.isfinite(array).sum()):
        yield f"{bad} of {array.size} weights are not finite (green)"


def _separate(ax, counts, size):
    """White lines between kernels, and one tick in the middle of each."""
    (rows, columns), (height, width) = counts, size
    for row in range(1, rows):
        ax.axhline(row * height - 0.5, color="white", linewidth=1.5)
    for column in range(1, columns):
        ax.axvline(column * width - 0.5, color="white", linewidth=1.5)
    ax.set_xticks((np.arange(columns) + 0.5) * width - 0.5, range(columns))
    ax.set_yticks((np.arange(rows) + 0.5) * height - 0.5, range(rows))
    ax.tick_params(length=0)


def _histograms(leaves):
    columns = min(len(leaves), 3)
    rows = math.ceil(len(leaves) / columns)
    figure = Figure(figsize=(max(3.0 * columns, 4.0), 2.2 * rows), dpi=120, layout="constrained")
    for index, (path, leaf) in enumerate(leaves):
        ax = figure.add_subplot(rows, columns, index + 1)
        tidy(ax)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        values = as_numbers(leaf, name).astype(float).reshape(-1)
        finite = values[np.isfinite(values)]
        ax.hist(finite, bins=int(np.clip(math.sqrt(len(finite)), 5, 60)), color=BLUE)
        ax.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set_title(name, loc="left", fontsize=9, color=INK)
        if len(finite) < len(values):
            text = f"{len(values) - len(finite)} of {len(values)} not finite"
            ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=VERMILLION)
        round_ticks(ax.xaxis, 5)
        round_ticks(ax.yaxis, 5, integer=True)
        label(ax, "value", "count" if index % columns == 0 else "")
    return figure
