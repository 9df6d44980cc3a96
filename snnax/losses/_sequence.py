"""What every loss asks of its sequences and labels."""

from typing import Any

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array


def as_sequence(where: str, xs: Any, axes: tuple[str, ...] = ("time", "..."), *, may_be_empty: bool = False) -> Array:
    """A sequence, in float32 at least: bfloat16 cannot count beyond 256.

    **Raises:** `TypeError` unless it is floating point, `ValueError` for other axes than `axes`, or without a time step
    where the loss is not defined without one.
    """
    xs = jnp.asarray(xs)
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        raise TypeError(f"{where} takes floating point sequences, found {xs.dtype}: convert with .astype(float32)")
    if xs.ndim == 0 or (axes[-1] != "..." and xs.ndim != len(axes)):
        expected = f"({', '.join(axes)})"
        raise ValueError(f"{where} takes one sample {expected}, found the shape {xs.shape}: batch with jax.vmap")
    if xs.shape[0] == 0 and not may_be_empty:
        raise ValueError(f"{where} needs at least one time step, found the shape {xs.shape}")
    return xs if jnp.finfo(xs.dtype).bits >= 32 else xs.astype(jnp.float32)


def as_label(where: str, label: Any, num_classes: int) -> Array:
    """A class index.

    **Raises:** `TypeError` unless it is an integer, `ValueError` unless it is a scalar and, where its value is known,
    below `num_classes`.
    """
    label = jnp.asarray(label)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(f"{where} takes an integer class index as label, found {label.dtype}")
    if label.ndim != 0:
        raise ValueError(f"{where} takes one label, found the shape {label.shape}: batch with jax.vmap")
    if not isinstance(label, Tracer) and not 0 <= int(label) < num_classes:
        raise ValueError(f"{where} of {num_classes} classes takes labels from 0 to {num_classes - 1}, found {label}")
    return label


def cross_entropy(logits: Array, label: Array) -> Array:
    """Softmax cross-entropy along the last axis, averaged over a leading time axis if there is one.

    A label out of range, which only a traced call lets through, gives NaN and not the loss of another class.
    """
    labels = jnp.broadcast_to(label, logits.shape[:-1])
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return jnp.where((label >= 0) & (label < logits.shape[-1]), loss, jnp.nan)
