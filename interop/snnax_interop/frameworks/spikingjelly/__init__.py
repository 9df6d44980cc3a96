"""SpikingJelly 2.0."""

from ...converters.framework import Framework, SurrogateOption
from . import _integrate, _layers, _parallel, _surrogates, _synapse, _variants
from ._containers import RECORDED


FRAMEWORK = Framework(
    name="spikingjelly",
    converters={
        **_integrate.CONVERTERS,
        **_variants.CONVERTERS,
        **_surrogates.CONVERTERS,
        **_layers.CONVERTERS,
        **_synapse.CONVERTERS,
        **_parallel.CONVERTERS,
    },
    recorded=RECORDED,
    surrogate=SurrogateOption(attribute="surrogate_function", spikes_at_threshold=True),
)
