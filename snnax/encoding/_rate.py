"""Rate coding: spikes with a probability per time step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._values import as_num_steps, as_values, check_key, widened


def rate(intensities: Float[Array, "..."], num_steps: int, *, key: Array) -> Float[Array, "time ..."]:
    """Spikes drawn anew at each time step, each with its intensity as probability (a Bernoulli process).

    As `snntorch.spikegen.rate` (snnTorch 1.0) with `num_steps`; a sequence of intensities is encoded by
    `jax.vmap(lambda x, key: rate(x, 1, key=key)[0])`.

    **Arguments:**

    - `intensities`: any shape; a probability per time step, clipped to [0, 1].
    - `num_steps`: how many time steps to draw, 0 or more.
    - `key`: for the draw; split it for a batch: `jax.vmap(lambda x, key: rate(x, 100, key=key))(xs, keys)`.

    **Returns:** 0 or 1, `(time, ...)`, in the dtype of `intensities`; no gradient passes. NaN in a traced call never
    spikes.

    **Raises:** `TypeError` for integers, `ValueError` for NaN, a negative `num_steps`, or a key of None.

    >>> spikes = rate(jnp.array([0.0, 0.5, 1.0]), 1000, key=jax.random.key(0))
    >>> silent, half, always = spikes.sum(0).tolist()
    >>> silent, 400 < half < 600, always
    (0.0, True, 1000.0)
    """
    check_key("rate", key)
    intensities = as_values("rate", intensities)
    shape = (as_num_steps("rate", num_steps), *intensities.shape)
    # Explicitly broadcast: the time axis is a new one.
    probability = jnp.broadcast_to(widened(intensities), shape)
    return (jax.random.uniform(key, shape, probability.dtype) < probability).astype(intensities.dtype)
