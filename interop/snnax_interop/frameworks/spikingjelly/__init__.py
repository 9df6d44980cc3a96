"""SpikingJelly 2.0."""

from . import _integrate, _layers, _parallel, _surrogates, _synapse, _variants
from ._containers import RECORDED as RECORDED


LEAVES = _integrate.LEAVES | _variants.LEAVES | _surrogates.LEAVES | _layers.LEAVES | _synapse.LEAVES | _parallel.LEAVES
