"""snnTorch 1.0."""

from ._delta import DELTA_LEAKY
from ._leaky import ALPHA, LAPICQUE, LEAKY, SYNAPTIC
from ._lstm import SCONV2DLSTM, SLSTM
from ._recurrent import RLEAKY, RSYNAPTIC
from ._sequence import LEAKY_PARALLEL, LINEAR_LEAKY, STATE_LEAKY


_ALL = (
    LEAKY, SYNAPTIC, ALPHA, LAPICQUE, RLEAKY, RSYNAPTIC, SLSTM, SCONV2DLSTM, LEAKY_PARALLEL, STATE_LEAKY, LINEAR_LEAKY,
    DELTA_LEAKY,
)  # fmt: skip
LEAVES = {leaf.kind: leaf for leaf in _ALL}
