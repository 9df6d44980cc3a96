"""How active the layers of a network are."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._spikes import as_spikes


class FiringRates(eqx.Module):
    """Activity of layers; each field has the structure of the layer outputs, with a float32 scalar per layer.

    `mean` is the firing rate in spikes per time step and neuron, `silent` the fraction of neurons that never spike,
    `saturated` the fraction that spikes in every time step. Neither of these learns much: through a silent or
    saturated neuron passes little gradient.
    """

    mean: PyTree[Float[Array, ""]]
    silent: PyTree[Float[Array, ""]]
    saturated: PyTree[Float[Array, ""]]


def firing_rates(
    outs: PyTree[Float[Array, "..."]], *, axis: int | Sequence[int] = 0, states: Any = None
) -> FiringRates:
    """Mean firing rate and the fractions of silent and of saturated neurons, for each layer.

    **Arguments:**

    - `outs`: a pytree of spike sequences `(time, ...)`, such as the list of layer outputs of a model; what is not 0 is
      a spike, of whatever amplitude. Leave out layers that do not spike.
    - `axis`: the axes that are no neurons; `(0, 1)` for sequences `(batch, time, ...)`: a neuron is then silent if it
      is so in all samples.
    - `states`: the states of these layers after the last time step, as the model returned them; a membrane that is NaN
      gives no spikes, and only its state shows that the network diverged.

    **Returns:** `FiringRates`. NaN for a layer with a NaN in spikes or state, or without any neuron.

    **Raises:** `TypeError` for integers, `ValueError` for no sequence, an axis that is not there, no time step, or
    states of other layers.

    >>> rates = firing_rates({"hidden": jnp.array([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])})
    >>> {name: float(rate) for name, rate in rates.mean.items()}, float(rates.silent["hidden"])
    ({'hidden': 0.375}, 0.5)
    """
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    leaves, structure = jax.tree.flatten(outs)
    if not leaves:
        raise ValueError(f"firing_rates needs at least one spike sequence (time, ...), found none in {outs!r}")
    found = [None] * len(leaves)
    if states is not None:
        try:
            found = structure.flatten_up_to(states)
        except ValueError as error:
            raise ValueError(f"states are not those of outs, layer by layer: {error}") from error
    rates = [_rates(leaf, axes, state) for leaf, state in zip(leaves, found, strict=True)]
    return FiringRates(*(jax.tree.unflatten(structure, column) for column in zip(*rates, strict=True)))


def _rates(spikes: Array, axes: tuple[int, ...], state: Any) -> tuple[Array, Array, Array]:
    spikes = as_spikes("firing_rates", spikes)
    if any(not -spikes.ndim <= axis < spikes.ndim for axis in axes):
        raise ValueError(f"firing_rates averages over the axes {axes}, found a sequence of shape {spikes.shape}")
    if any(spikes.shape[axis] == 0 for axis in axes):
        raise ValueError(f"firing_rates needs at least one time step and sample, found the shape {spikes.shape}")
    diverged = sum((jnp.isnan(x).sum() for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)), 0)
    events = jnp.where(jnp.isnan(spikes) | (diverged > 0), jnp.nan, (spikes != 0).astype(jnp.float32))
    rates = events.mean(axes)

    def fraction(of: Array) -> Array:
        return jnp.where(jnp.isnan(rates), jnp.nan, of.astype(rates.dtype)).mean()

    return rates.mean(), fraction(rates == 0), fraction(events.all(axes))
