"""From values to spike sequences, time-major, for one sample: `snnax.encoding`. Batch with `jax.vmap`.

Encoders are steps of a function: no gradient passes through them.
"""

from ._delta import delta as delta
from ._latency import latency as latency
from ._population import population as population
from ._rate import rate as rate
from ._regular import regular as regular
