"""Arrays between torch and JAX."""

from .trees import TransferStatistics as TransferStatistics, to_jax as to_jax, to_torch as to_torch
