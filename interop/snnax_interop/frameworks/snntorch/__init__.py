"""snnTorch 1.0."""

from snntorch._layers.graded_spikes import GradedSpikes

from ...converters.framework import Framework, RecordedClasses, SurrogateOption, by_class
from ._delta import DELTA_LEAKY
from ._leaky import ALPHA, LAPICQUE, LEAKY, SYNAPTIC
from ._lstm import SCONV2DLSTM, SLSTM
from ._recurrent import RLEAKY, RSYNAPTIC
from ._sequence import LEAKY_PARALLEL, LINEAR_LEAKY, STATE_LEAKY


FRAMEWORK = Framework(
    name="snntorch",
    converters=by_class(
        LEAKY, SYNAPTIC, ALPHA, LAPICQUE, RLEAKY, RSYNAPTIC, SLSTM, SCONV2DLSTM, LEAKY_PARALLEL, STATE_LEAKY,
        LINEAR_LEAKY, DELTA_LEAKY,
    ),
    recorded=RecordedClasses(takes=lambda kind: kind is GradedSpikes),
    surrogate=SurrogateOption(attribute="spike_grad", spikes_at_threshold=False),
)  # fmt: skip
