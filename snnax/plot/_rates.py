"""How much every layer spikes, and where a network is silent or saturated."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ._axes import BLUE, GREY, INK, PALE, PURPLE, VERMILLION, Axes, as_numbers, label, new_axes


@dataclasses.dataclass(frozen=True)
class LayerRates:
    """Firing rates of the neurons of a layer, in spikes per time step; None where its output is no spikes."""

    name: str
    rates: np.ndarray | None
    reason: str = ""

    @property
    def silent(self) -> float:
        """Share of neurons that never spike."""
        return 0.0 if self.rates is None else float(np.mean(self.rates == 0))

    @property
    def saturated(self) -> float:
        """Share of neurons that spike at every time step."""
        return 0.0 if self.rates is None else float(np.mean(self.rates >= 1))

    @property
    def colour(self) -> str:
        return VERMILLION if self.silent == 1 else PURPLE if self.saturated == 1 else BLUE

    @property
    def remark(self) -> str:
        if self.rates is None:
            return self.reason
        if 1 in (self.silent, self.saturated):
            return "all silent" if self.silent else "all saturated"
        shares = [(self.silent, "silent"), (self.saturated, "saturated")]
        return ", ".join(f"{_percent(share)} {name}" for share, name in shares if share) or "all active"


def rates(outputs: Any, *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Mean firing rate of every layer (dot) and its spread over the neurons (bar: 5th to 95th percentile).

    To the right: the share of neurons that are silent (no spike at all) and saturated (a spike at every time step). A
    layer of silent neurons only is vermillion, one of saturated neurons only is purple: neither learns. Layers whose
    outputs are no spike counts, such as those of a linear layer, have a row without a dot.

    >>> import numpy as np
    >>> ax = rates([np.eye(4), np.zeros((4, 3))], names=["hidden", "readout"])
    >>> [text.get_text() for text in ax.texts]
    ['all active', 'all silent']

    **Arguments:**

    - `outputs`: the list of every layer's output sequence `(time, ...)`, as a model returns it; or any pytree of such.
    - `names`: one for every array; their paths in the tree where not given.
    - `ax`: axes to draw into; a new figure where not given.

    **Returns:** the axes; `ax.figure` is the figure.

    **Raises:** `ValueError` without an array, for another number of names, and for an array without a time axis.
    """
    leaves = jax.tree_util.tree_leaves_with_path(outputs)
    if not leaves:
        raise ValueError("outputs must hold at least one array of shape (time, ...), found none")
    if names is not None and len(names) != len(leaves):
        raise ValueError(f"names must be one for each of the {len(leaves)} arrays, found {len(names)}")
    labels = [_path_name(path) for path, _ in leaves] if names is None else names
    layers = [_layer_rates(name, values) for name, (_, values) in zip(labels, leaves, strict=True)]
    ax = new_axes(ax, (7.0, 1.1 + 0.38 * len(layers)))
    for row, layer in enumerate(layers):
        ax.axhline(row, color=PALE, linewidth=0.8, zorder=0)
        fine = layer.rates is not None and layer.colour == BLUE
        ax.text(
            1.04, row, layer.remark, transform=ax.get_yaxis_transform(), va="center", fontsize=9,
            color=GREY if layer.rates is None else INK if fine else layer.colour,
            weight="normal" if fine or layer.rates is None else "bold",
        )  # fmt: skip
        if layer.rates is not None:
            low, high = np.percentile(layer.rates, [5, 95])
            ax.plot([low, high], [row, row], color=layer.colour, alpha=0.35, linewidth=7, solid_capstyle="butt")
            ax.plot([layer.rates.mean()], [row], color=layer.colour, marker="o", markersize=7, clip_on=False, zorder=3)
    ax.set_yticks(range(len(layers)), labels)
    ax.tick_params(axis="y", length=0, pad=8)
    ax.set_ylim(len(layers) - 0.5, -0.5)
    highest = max((float(layer.rates.max()) for layer in layers if layer.rates is not None), default=1.0)
    ax.set_xlim(0, max(highest * 1.05, 0.05) if highest <= 0.5 or highest > 1 else 1)
    ax.set_title("dot: mean over neurons; bar: 5th to 95th percentile", loc="left", fontsize=9, color=GREY)
    label(ax, "firing rate (spikes per time step)", "")
    return ax


def _layer_rates(name, values):
    array = as_numbers(values, f"outputs {name}")
    if array.ndim == 0:
        raise ValueError(f"outputs {name} must be an array of shape (time, ...), found a scalar")
    if array.size == 0:
        return LayerRates(name, None, "no time steps" if array.shape[0] == 0 else "no neurons")
    # Exact: neurons emit counts. NaN is not equal to its floor.
    if array.dtype.kind == "f" and not np.all((array >= 0) & (array == np.floor(array))):
        return LayerRates(name, None, "real values, not spikes")
    return LayerRates(name, array.reshape(array.shape[0], -1).mean(0, dtype=float))


def _path_name(path):
    if len(path) == 1 and isinstance(path[0], jax.tree_util.SequenceKey):
        return f"layer {path[0].idx}"
    return jax.tree_util.keystr(path, simple=True, separator=".") or "output"


def _percent(share):
    """Never 0 % for some neurons, nor 100 % for some but not all."""
    return f"{min(max(round(100 * share), 1), 99)} %"
