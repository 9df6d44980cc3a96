"""Surrogate gradients: each is one smooth relaxation of the spike function."""

from ._surrogate import (
    AbstractSurrogate as AbstractSurrogate,
    ATan as ATan,
    Derivative as Derivative,
    FastSigmoid as FastSigmoid,
    NoGradient as NoGradient,
    Relaxed as Relaxed,
    Sigmoid as Sigmoid,
    StraightThrough as StraightThrough,
    SuperSpike as SuperSpike,
    Triangular as Triangular,
    with_derivative as with_derivative,
)
