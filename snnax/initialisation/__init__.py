"""Initial weights with which neurons fire: `snnax.initialisation`."""

from ._calibration import calibrate as calibrate
from ._fluctuation import fluctuation_driven as fluctuation_driven
