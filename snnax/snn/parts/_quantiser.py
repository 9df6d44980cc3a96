"""States of few values, as on hardware of low precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Quantiser(eqx.Module):
    """Rounds to the nearest of some levels, the lower of two that are equally far; the gradient passes unchanged.

    The straight-through estimator of Bengio et al. 2013 (arXiv:1308.3432). As `quantise=` of a neuron it acts on
    membranes and synaptic currents at every time step, before spikes are decided: quantisation-aware training.

    >>> Quantiser([-1.0, 0.0, 1.0])(jnp.array([-3.0, 0.4, 0.5, 0.6])).tolist()
    [-1.0, 0.0, 0.0, 1.0]
    """

    levels: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, levels):
        """**Arguments:** `levels`: numbers in rising order.

        **Raises:** `ValueError` for none, or for others.
        """
        self.levels = tuple(map(float, levels))
        if not self.levels or not all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f"levels must be numbers in rising order, found {list(self.levels)[:8]}")

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` with every element at a level, in its own shape and dtype; NaN stays NaN."""
        levels = jnp.asarray(self.levels, x.dtype)
        within = jnp.clip(x, levels[0], levels[-1])
        above = jnp.clip(jnp.searchsorted(levels, within), 1 if len(self.levels) > 1 else 0, len(self.levels) - 1)
        lower, upper = levels[jnp.maximum(above - 1, 0)], levels[above]
        nearest = jnp.where(jnp.abs(lower - within) <= jnp.abs(upper - within), lower, upper)
        nearest = jnp.where(jnp.isnan(x), x, nearest)
        # Nothing is added to the level: x + (level - x) would be rounded.
        return _straight_through(x, nearest)


@jax.custom_jvp
def _straight_through(x: Array, value: Array) -> Array:
    del x
    return value


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return _straight_through(*primals), tangents[0]
