"""Whether the shapes of batches keep changing: a jitted function compiles for each that is new to it."""

import warnings
from typing import Any

import jax


# As many are few lengths of padded sequences, or a smaller last batch
_FEW = 5


class SeenShapes:
    """The shapes of the batches that a loader handed out, over all epochs; warns once of ever new ones."""

    def __init__(self):
        self._seen: set[tuple[Any, ...]] = set()
        self._batches = 0
        self._warned = False

    def note(self, batch: Any, stacklevel: int) -> None:
        """Warns where more than a few batches came, and of these at least every second had a new shape."""
        if self._warned:
            return
        self._batches += 1
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(batch) if isinstance(leaf, jax.Array))
        known = len(self._seen)
        self._seen.add(shapes)
        if len(self._seen) == known or known < _FEW or 2 * len(self._seen) < self._batches:
            return
        self._warned = True
        warnings.warn(
            f"the {self._batches} batches so far have {len(self._seen)} different shapes, the last "
            f"{[shape for shape, _ in shapes]}; a jitted function compiles for each anew. Pad sequences to few lengths "
            "(collate_fn=PadSequences(multiple=...)), pack events into one size (PackEvents), or drop a smaller last "
            "batch (drop_last=True)",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
