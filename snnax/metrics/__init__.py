"""What a network predicts, how active it is, and what that costs: `snnax.metrics`. Nothing here is differentiable."""

from ._accuracy import (
    accuracy_first_spike as accuracy_first_spike,
    accuracy_rate as accuracy_rate,
    predict_first_spike as predict_first_spike,
    predict_rate as predict_rate,
)
from ._firing_rates import FiringRates as FiringRates, firing_rates as firing_rates
from ._synaptic_operations import synaptic_operations as synaptic_operations
