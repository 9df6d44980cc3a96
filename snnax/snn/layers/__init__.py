"""Layers that are no neurons: around neurons, between them, and cells with weights of their own."""

from ._batch_norm import (
    BatchNorm as BatchNorm,
    BatchNormState as BatchNormState,
    update_statistics as update_statistics,
)
from ._delay import Delay as Delay, DelayedLinear as DelayedLinear, DelayState as DelayState
from ._dropout import Dropout as Dropout, DropoutState as DropoutState
from ._leaky_parallel import HiddenState as HiddenState, LeakyParallel as LeakyParallel
from ._lstm import SLSTM as SLSTM, LSTMState as LSTMState, SConvLSTM as SConvLSTM
from ._pool import (
    AvgPool as AvgPool,
    MaxPool as MaxPool,
    SpikingMaxPool as SpikingMaxPool,
    max_of as max_of,
    window_slices as window_slices,
)
from ._recurrent import OneToOne as OneToOne, Recurrent as Recurrent, RecurrentState as RecurrentState
from ._refractory import Refractory as Refractory, RefractoryState as RefractoryState
from ._spike_counter import CountState as CountState, SpikeCounter as SpikeCounter
