"""Layers whose state is a membrane per neuron; weights are layers of their own."""

from ._adaptive_lif import AdaptiveLIF as AdaptiveLIF
from ._alif import ALIF as ALIF, LSNN as LSNN
from ._alpha import Alpha as Alpha, AlphaState as AlphaState
from ._exponential import EIF as EIF, AdEx as AdEx
from ._if import IF as IF
from ._izhikevich import Izhikevich as Izhikevich
from ._lapicque import Lapicque as Lapicque
from ._li import LI as LI, CubaLI as CubaLI
from ._lif import LIF as LIF
from ._neuron import AbstractNeuron as AbstractNeuron, NeuronState as NeuronState
from ._plif import PLIF as PLIF
from ._qif import QIF as QIF
from ._sigma_delta import SigmaDelta as SigmaDelta, SigmaDeltaState as SigmaDeltaState
from ._srm import SRM as SRM, SRMState as SRMState
