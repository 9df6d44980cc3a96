"""Delta coding: events where a sequence changes."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._values import as_values, check_choice, widened


def delta(
    xs: Float[Array, "time ..."],
    threshold: float = 0.1,
    *,
    off_spikes: bool = False,
    start: Literal["zero", "first"] = "zero",
) -> Float[Array, "time ..."]:
    """Events where a sequence rises (or falls) by at least `threshold` from one time step to the next.

    As `snntorch.spikegen.delta` (snnTorch 1.0; there `off_spike`, and `padding` for `start="first"`).

    **Arguments:**

    - `xs`: the sequence, `(time, ...)`.
    - `threshold`: positive, in the units of `xs`.
    - `off_spikes`: whether a fall by at least `threshold` is an event of -1.
    - `start`: what the first time step is compared with: `"zero"`, or the `"first"` value itself (no event).

    **Returns:** 0 or 1, or -1, 0 or 1 with `off_spikes`, in the shape and dtype of `xs`; no gradient passes. In a
    traced call, NaN and the step after it are no events.

    **Raises:** `TypeError` for integers, `ValueError` for NaN, a scalar, or an option out of its range.

    >>> delta(jnp.array([1.0, 2.0, 0.0, 0.5]), 1.0, off_spikes=True).tolist()
    [1.0, 1.0, -1.0, 0.0]
    """
    xs = as_values("delta", xs)
    check_choice("delta", "start", start, ("zero", "first"))
    if xs.ndim == 0:
        raise ValueError("delta encodes a time-major sequence (time, ...), found a scalar")
    if not threshold > 0:
        raise ValueError(f"threshold of delta must be positive, found {threshold}")
    wide = widened(xs)
    before = wide[:1] if start == "first" else jnp.zeros_like(wide[:1])
    change = jnp.diff(wide, axis=0, prepend=before)
    events = (change >= threshold).astype(xs.dtype)
    return events - (change <= -threshold).astype(xs.dtype) if off_spikes else events
