"""Modules that are made of others, or of tensor functions: their forward is recorded like a user's."""

from spikingjelly.activation_based import layer, neuron

from ...converters.framework import RecordedClasses
from ._memory import reset


_RECORDED = {
    layer.MultiStepContainer,
    layer.SeqToANNContainer,
    layer.TLastMultiStepContainer,
    layer.StepModeContainer,
    layer.ElementWiseRecurrentContainer,
    layer.LinearRecurrentContainer,
    layer.NeuNorm,
    layer.BatchNormThroughTime1d,
    layer.BatchNormThroughTime2d,
    layer.BatchNormThroughTime3d,
    layer.TemporalEffectiveBatchNorm1d,
    layer.TemporalEffectiveBatchNorm2d,
    layer.TemporalEffectiveBatchNorm3d,
    layer.WSConv2d,
    layer.WSLinear,
    layer.SpikeCountToBinary,
    layer.TemporalBinSum,
    neuron.GatedLIFNode,
    neuron.SimpleIFNode,
    neuron.SimpleLIFNode,
    neuron.NonSpikingIFNode,
    neuron.NonSpikingLIFNode,
}
# Attention, and the networks of the model zoo; most of their files import torchvision, so that they are told by name.
_FILES = ("spikingjelly.activation_based.layer.attention", "spikingjelly.activation_based.model.")


def _takes(kind: type) -> bool:
    return kind in _RECORDED or kind.__module__.startswith(_FILES)


RECORDED = RecordedClasses(takes=_takes, reset=reset)
