"""The batch as one of its samples sees it.

A converted network is a network of one sample, and `jax.vmap` makes it one of a batch. What mixes samples is given all
of them by a collective operation, which costs nothing there: it undoes the mapping, and its result is one array for
all samples, not one for each.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from snnax import snn


# The name that the batch has inside of a converted network.
BATCH = "snnax_interop batch"


def number_of_samples() -> Any:
    """The batch size, an integer."""
    return jax.lax.psum(1, BATCH)


class AllSamples(snn.AbstractFunction):
    """From the value of each sample that of the whole batch, with the batch as this axis."""

    axis: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        return jax.lax.all_gather(x, BATCH, axis=self.axis)


class OwnSample(snn.AbstractFunction):
    """From the value of the whole batch, with the batch as this axis, that of each sample."""

    axis: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        place = jax.lax.axis_index(BATCH)
        samples = jnp.moveaxis(x, self.axis, 0)
        return samples.at[place].get(mode="promise_in_bounds", indices_are_sorted=True, unique_indices=True)
