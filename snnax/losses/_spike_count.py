"""Losses on how often the output neurons spike."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._sequence import as_label, as_sequence, cross_entropy


def rate_cross_entropy(outputs: Float[Array, "time classes"], label: Int[ArrayLike, ""]) -> Float[Array, ""]:
    """Softmax cross-entropy at each time step, averaged over time: the right class shall win at every step.

    Equal to `snntorch.functional.ce_rate_loss` (snnTorch 1.0) of one sample.

    **Arguments:** `outputs`: spikes or membrane potentials, `(time, classes)`. `label`: class index.

    **Returns:** the loss, at least float32. In a traced call NaN for a label out of range.

    **Raises:** `TypeError` for integer outputs or a label that is none, `ValueError` for other shapes, no time step,
    or a label out of range.

    >>> print(round(float(rate_cross_entropy(jnp.zeros((5, 10)), 3)), 4))  # ln 10
    2.3026
    """
    outputs = as_sequence("rate_cross_entropy", outputs, ("time", "classes"))
    return cross_entropy(outputs, as_label("rate_cross_entropy", label, outputs.shape[1]))


def count_cross_entropy(spikes: Float[Array, "time classes"], label: Int[ArrayLike, ""]) -> Float[Array, ""]:
    """Softmax cross-entropy of the spike counts: the right class shall spike most often over the whole sequence.

    Equal to `snntorch.functional.ce_count_loss` (snnTorch 1.0) of one sample.

    **Arguments:** `spikes`: `(time, classes)`; no time steps are no spikes. `label`: class index.

    **Returns:** the loss, at least float32. In a traced call NaN for a label out of range.

    **Raises:** `TypeError` for integer spikes or a label that is none, `ValueError` for other shapes or a label out of
    range.

    >>> spikes = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    >>> print(round(float(count_cross_entropy(spikes, 0)), 4))  # ln(1 + exp(1 - 3))
    0.1269
    """
    spikes = as_sequence("count_cross_entropy", spikes, ("time", "classes"), may_be_empty=True)
    return cross_entropy(spikes.sum(0), as_label("count_cross_entropy", label, spikes.shape[1]))


def count_mse(
    spikes: Float[Array, "time classes"],
    label: Int[ArrayLike, ""],
    *,
    correct_rate: float = 1.0,
    incorrect_rate: float = 0.0,
) -> Float[Array, ""]:
    r"""Squared distance of the spike counts $n$ to target counts, with $T$ time steps and $C$ classes:

    $$ L = \frac{1}{T C} \sum_c (n_c - T r_c)^2 $$

    Equal to `snntorch.functional.mse_count_loss` (snnTorch 1.0) of one sample where `T * rate` is a whole number;
    snnTorch cuts it off to one.

    **Arguments:**

    - `spikes`: `(time, classes)`.
    - `label`: class index.
    - `correct_rate`, `incorrect_rate`: target spikes per time step of the right class and of every other, in [0, 1].

    **Returns:** the loss, at least float32. In a traced call NaN for a label out of range.

    **Raises:** `TypeError` for integer spikes or a label that is none, `ValueError` for other shapes, no time step, a
    label or a rate out of range.

    >>> float(count_mse(jnp.ones((4, 2)), 0))  # (0**2 + 4**2) / (4 * 2)
    2.0
    """
    spikes = as_sequence("count_mse", spikes, ("time", "classes"))
    num_steps, num_classes = spikes.shape
    for name, rate in {"correct_rate": correct_rate, "incorrect_rate": incorrect_rate}.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} of count_mse must lie in [0, 1] (spikes per time step), found {rate}")
    label = as_label("count_mse", label, num_classes)
    correct = jax.nn.one_hot(label, num_classes, dtype=spikes.dtype)
    target = num_steps * (incorrect_rate + (correct_rate - incorrect_rate) * correct)
    loss = jnp.mean((spikes.sum(0) - target) ** 2) / num_steps
    return jnp.where((label >= 0) & (label < num_classes), loss, jnp.nan)
