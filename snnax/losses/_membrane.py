"""Losses on membrane potentials, as of a readout that does not spike."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._sequence import as_label, as_sequence, cross_entropy


def max_membrane_cross_entropy(v: Float[Array, "time classes"], label: Int[ArrayLike, ""]) -> Float[Array, ""]:
    """Softmax cross-entropy of each membrane's largest value over time.

    Equal to `snntorch.functional.ce_max_membrane_loss` (snnTorch 1.0) of one sample, but where a membrane has its
    largest value several times: here they share the gradient, there one of them gets it all. The readout of Zenke &
    Vogels 2021, doi:10.1162/neco_a_01367.

    **Arguments:** `v`: membrane potentials, `(time, classes)`. `label`: class index.

    **Returns:** the loss, at least float32. In a traced call NaN for a label out of range.

    **Raises:** `TypeError` for integer membranes or a label that is none, `ValueError` for other shapes, no time step,
    or a label out of range.

    >>> v = jnp.array([[0.0, 0.5], [2.0, 1.0], [0.0, 0.0]])
    >>> print(round(float(max_membrane_cross_entropy(v, 0)), 4))  # ln(1 + exp(1 - 2))
    0.3133
    """
    v = as_sequence("max_membrane_cross_entropy", v, ("time", "classes"))
    return cross_entropy(v.max(0), as_label("max_membrane_cross_entropy", label, v.shape[1]))


def membrane_mse(v: Float[Array, "time ..."], target: Float[Array, "..."]) -> Float[Array, ""]:
    """Squared distance of membrane potentials to target potentials, averaged over time and neurons.

    With `target = jax.nn.one_hot(label, classes)` equal to `snntorch.functional.mse_membrane_loss` (snnTorch 1.0) of
    one sample; its `on_target` and `off_target` are `off + (on - off) * one_hot` (there a negative `off` becomes 0).

    **Arguments:** `v`: `(time, ...)`. `target`: a sequence like `v`, or without the time axis for one target at all
    time steps.

    **Returns:** the loss, at least float32.

    **Raises:** `TypeError` for integers, `ValueError` for a target of another shape, or no time step.

    >>> float(membrane_mse(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([1.0, 0.0])))
    0.25
    """
    v = as_sequence("membrane_mse", v)
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise TypeError(f"membrane_mse takes a floating point target, found {target.dtype}: use jax.nn.one_hot")
    if target.shape not in (v.shape, v.shape[1:]):
        raise ValueError(f"target of membrane_mse must be {v.shape} or {v.shape[1:]} like v, found {target.shape}")
    return jnp.mean((v - jnp.broadcast_to(target.astype(v.dtype), v.shape)) ** 2)
