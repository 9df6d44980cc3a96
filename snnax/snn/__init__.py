"""Everything that goes into a model: neurons, containers, functions, and how they are wired."""

from ..engine import (
    AbstractContainer as AbstractContainer,
    AbstractFunction as AbstractFunction,
    AbstractLayer as AbstractLayer,
    AbstractLinearLayer as AbstractLinearLayer,
    AbstractSequenceLayer as AbstractSequenceLayer,
    Previous as Previous,
    State as State,
)
from ._adaptation import Adaptation as Adaptation
from ._adaptive_lif import AdaptiveLIF as AdaptiveLIF
from ._alif import ALIF as ALIF, LSNN as LSNN
from ._alpha import Alpha as Alpha, AlphaState as AlphaState
from ._batch_norm import (
    BatchNorm as BatchNorm,
    BatchNormState as BatchNormState,
    update_statistics as update_statistics,
)
from ._decay import AbstractDecay as AbstractDecay, Factor as Factor, Rate as Rate, SigmoidRate as SigmoidRate
from ._delay import Delay as Delay, DelayedLinear as DelayedLinear, DelayState as DelayState
from ._dropout import Dropout as Dropout, DropoutState as DropoutState
from ._exponential import EIF as EIF, AdEx as AdEx
from ._firing import Firing as Firing
from ._function import Flatten as Flatten, Lambda as Lambda, Value as Value, flatten as flatten
from ._graph import Graph as Graph
from ._if import IF as IF
from ._izhikevich import Izhikevich as Izhikevich
from ._lapicque import Lapicque as Lapicque
from ._leaky_parallel import HiddenState as HiddenState, LeakyParallel as LeakyParallel
from ._li import LI as LI, CubaLI as CubaLI
from ._lif import LIF as LIF
from ._lstm import SLSTM as SLSTM, LSTMState as LSTMState, SConvLSTM as SConvLSTM
from ._model import AbstractModel as AbstractModel
from ._neuron import AbstractNeuron as AbstractNeuron, NeuronState as NeuronState
from ._parallel import Parallel as Parallel, Residual as Residual
from ._plif import PLIF as PLIF
from ._pool import (
    AvgPool as AvgPool,
    MaxPool as MaxPool,
    SpikingMaxPool as SpikingMaxPool,
    max_of as max_of,
    window_slices as window_slices,
)
from ._qif import QIF as QIF
from ._quantiser import Quantiser as Quantiser
from ._recurrent import OneToOne as OneToOne, Recurrent as Recurrent, RecurrentState as RecurrentState
from ._refractory import Refractory as Refractory, RefractoryState as RefractoryState
from ._sequential import Sequential as Sequential
from ._sigma_delta import SigmaDelta as SigmaDelta, SigmaDeltaState as SigmaDeltaState
from ._spike_counter import CountState as CountState, SpikeCounter as SpikeCounter
from ._srm import SRM as SRM, SRMState as SRMState
from ._trainable import trainable as trainable
