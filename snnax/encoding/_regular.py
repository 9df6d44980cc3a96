"""Regular coding: spikes at even distances."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._values import as_num_steps, as_values, step_index, widened


def regular(intensities: Float[Array, "..."], num_steps: int) -> Float[Array, "time ..."]:
    r"""Spikes at even distances, with as many per time step as the intensity says: `rate` without chance.

    With $x$ clipped to [0, 1], spike number $k = 0, 1, \dots$ is at the time step $\lfloor k / x \rfloor$: the first is
    at 0, and there are $\lceil T x \rceil$. As `snntorch.spikegen.target_rate_code` with its regular pattern (snnTorch
    1.0), for any number of intensities. It also makes target trains, as for `snnax.losses.van_rossum`.

    **Arguments:** `intensities`: any shape; spikes per time step, clipped to [0, 1]. `num_steps`: length of the
    sequence, 0 or more.

    **Returns:** 0 or 1, `(time, ...)`, in the dtype of `intensities`; no gradient passes. NaN in a traced call never
    spikes.

    **Raises:** `TypeError` for integers, `ValueError` for NaN or a negative `num_steps`.

    >>> regular(jnp.array([0.0, 0.3, 0.5, 1.0]), 7).T.astype(int).tolist()
    [[0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 1], [1, 0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1]]
    """
    intensities = as_values("regular", intensities)
    num_steps = as_num_steps("regular", num_steps)
    x = jnp.clip(widened(intensities), 0.0, 1.0)
    # Before step t there are as many spikes as whole numbers k < t * x. A product that is a whole number but for its
    # rounding, as 100 * 0.07, counts as that number.
    exact = 1 - 4 * float(jnp.finfo(x.dtype).eps)
    before = jnp.ceil(step_index(num_steps + 1, x.ndim).astype(x.dtype) * x[None] * exact)
    return (jnp.diff(before, axis=0) > 0).astype(intensities.dtype)
