"""Dropout in training, as torch's layers and functions draw it: anew at every call."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .batch import BATCH


class FeatureDropout(eqx.Module):
    """Dropout of whole channels, the first axis of the input (`torch.nn.Dropout1d` to `Dropout3d`)."""

    p: float = eqx.field(static=True)
    inference: bool = False

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        if self.inference or self.p == 0:
            return x
        stays = jax.random.bernoulli(key, 1 - self.p, (x.shape[0], *(1,) * (x.ndim - 1)))
        return jnp.where(stays, x / (1 - self.p), jnp.zeros((), x.dtype))


class SharedDropout(eqx.Module):
    """Dropout of what all samples of a batch share, such as a weight: one draw for all of them."""

    layer: Any

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        return self.layer(x, key=None if key is None else jax.lax.all_gather(key, BATCH)[0])


# The functions that draw, and whether they drop whole channels.
DRAWING = {"dropout": False, "dropout1d": True, "dropout2d": True, "dropout3d": True}


def dropout_layer(name: str, p: float) -> Any:
    """The layer of a torch function that draws for each sample."""
    return FeatureDropout(p) if DRAWING[name] else eqx.nn.Dropout(p)
