"""What a spike sequence costs on hardware that computes only where there are spikes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._spikes import as_spikes


CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)
TRANSPOSED = (eqx.nn.ConvTranspose, eqx.nn.ConvTranspose1d, eqx.nn.ConvTranspose2d, eqx.nn.ConvTranspose3d)
# Known by exact type: a subclass may compute something else.
LINEAR_MAPS = (eqx.nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


def synaptic_operations(layer: Any, spikes: Float[Array, "time ..."]) -> Float[Array, ""]:
    """The number of synaptic operations that a spike sequence causes in a linear map.

    Each spike costs one accumulation per synapse that it arrives at: a weight that is not 0. Counted by applying the
    layer, with every weight that is not 0 replaced by 1 and without bias, to the spikes, with everything that is not 0
    replaced by 1. Synapses into the padding of a convolution are none; a value repeated by circular padding counts
    wherever it is repeated.

    **Arguments:** `layer`: `eqx.nn.Linear`, `eqx.nn.Conv*` or `eqx.nn.ConvTranspose*`. `spikes`: its input sequence,
    `(time, ...)`, one sample.

    **Returns:** the number in float32 (float64 with `jax_enable_x64`), which is exact up to 2^24 (2^53); 0 without
    time steps. NaN counts as a spike.

    **Raises:** `TypeError` for another layer or integer spikes, `ValueError` where the spikes do not fit the layer.

    >>> linear = eqx.nn.Linear(3, 5, key=jax.random.key(0))
    >>> float(synaptic_operations(linear, jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])))
    15.0
    """
    if type(layer) not in LINEAR_MAPS:
        allowed = ", ".join(kind.__name__ for kind in LINEAR_MAPS)
        raise TypeError(
            f"synaptic_operations counts the synapses of {allowed} of equinox.nn, found {type(layer).__name__}: "
            "call it for each linear layer of a model with that layer's input"
        )
    spikes = as_spikes("synaptic_operations", spikes)
    if spikes.shape[0] == 0:
        return jnp.zeros((), jnp.result_type(float))
    dtype = jnp.result_type(float)
    weight, bias = (layer.weight != 0).astype(dtype), None if layer.bias is None else jnp.zeros_like(layer.bias, dtype)
    counting = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (weight, bias), is_leaf=lambda x: x is None)
    try:
        return jax.vmap(counting)((spikes != 0).astype(dtype)).sum()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(layer).__name__} with weights {layer.weight.shape} does not take spikes of shape {spikes.shape} "
            f"(time first): {error}"
        ) from error
