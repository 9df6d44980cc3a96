"""What every metric asks of its spikes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def as_spikes(where: str, spikes: Any, axes: tuple[str, ...] = ("time", "...")) -> Array:
    """Spikes as an array.

    **Raises:** `TypeError` unless they are floating point, `ValueError` for other axes than `axes`.
    """
    spikes = jnp.asarray(spikes)
    if not jnp.issubdtype(spikes.dtype, jnp.floating):
        raise TypeError(f"{where} takes floating point spikes, found {spikes.dtype}: convert with .astype(float32)")
    if spikes.ndim < 1 or (axes[-1] != "..." and spikes.ndim != len(axes)):
        raise ValueError(f"{where} takes spikes of shape ({', '.join(axes)}), found the shape {spikes.shape}")
    return spikes
