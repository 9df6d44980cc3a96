"""Losses and regularisers for spike and membrane sequences, time-major: `snnax.losses`.

A loss takes one sample and returns a scalar, in float32 at least. Batch with `jax.vmap(loss)(outputs, labels).mean()`.
"""

from ._activity import rate_bounds as rate_bounds, sparsity as sparsity
from ._first_spike import (
    first_spike_cross_entropy as first_spike_cross_entropy,
    first_spike_mse as first_spike_mse,
    first_spike_times as first_spike_times,
)
from ._membrane import (
    max_membrane_cross_entropy as max_membrane_cross_entropy,
    membrane_mse as membrane_mse,
)
from ._spike_count import (
    count_cross_entropy as count_cross_entropy,
    count_mse as count_mse,
    rate_cross_entropy as rate_cross_entropy,
)
from ._van_rossum import van_rossum as van_rossum
