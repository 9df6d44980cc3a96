"""What neurons are made of: decays, synapse, integration, firing, adaptation; and what layers ask of their shapes."""

from ._adaptation import Adaptation as Adaptation
from ._decay import (
    AbstractDecay as AbstractDecay,
    Factor as Factor,
    Lossless as Lossless,
    Rate as Rate,
    SigmoidRate as SigmoidRate,
    as_decay as as_decay,
    check_times as check_times,
    factor_from_tau as factor_from_tau,
    optional as optional,
    parameter as parameter,
    rate_from_tau as rate_from_tau,
)
from ._firing import (
    Firing as Firing,
    FiringOptions as FiringOptions,
    Reset as Reset,
    fixed_delay as fixed_delay,
)
from ._integration import (
    DecayConstants as DecayConstants,
    InputScale as InputScale,
    Integration as Integration,
    IntegrationOptions as IntegrationOptions,
    decays_from_tau as decays_from_tau,
)
from ._options import EulerOptions as EulerOptions, LeakyOptions as LeakyOptions, split_options as split_options
from ._quantiser import Quantiser as Quantiser
from ._shape import (
    Shape as Shape,
    as_float as as_float,
    as_shape as as_shape,
    check_input as check_input,
    check_parameters as check_parameters,
    output_dtype as output_dtype,
    owned as owned,
    resolve_shape as resolve_shape,
)
from ._synapse import SynapseOrder as SynapseOrder, added as added
