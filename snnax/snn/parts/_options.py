"""The options that constructors of neurons hand on to their parts."""

from typing import Any

from jaxtyping import ArrayLike

from ._firing import FiringOptions
from ._integration import InputScale, IntegrationOptions
from ._synapse import SynapseOrder


class EulerOptions(FiringOptions, total=False):
    """Options of a neuron whose drive is always scaled, as in an Euler step of `tau dv/dt = v_leak - v + ...`."""

    v_leak: ArrayLike | None
    synapse_order: SynapseOrder


class LeakyOptions(EulerOptions, total=False):
    """Options of a leaky integrator that spikes: those of `Integration` and those of `Firing`."""

    input_scale: InputScale


def split_options(options: EulerOptions) -> tuple[dict[str, Any], FiringOptions]:
    """The options of `Integration`, and all others: `Firing` refuses what it does not know."""
    known = IntegrationOptions.__annotations__
    integration = {name: value for name, value in options.items() if name in known}
    firing: Any = {name: value for name, value in options.items() if name not in known}
    return integration, firing
