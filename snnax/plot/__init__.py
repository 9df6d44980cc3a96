"""Pictures of a network at work: spikes, membranes, firing rates, weights. Needs matplotlib: the extra `plot`."""

from ._raster import raster as raster
from ._rates import rates as rates
from ._traces import traces as traces
from ._weights import weights as weights
