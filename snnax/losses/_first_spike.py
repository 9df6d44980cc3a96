"""Losses on when the output neurons spike first."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._sequence import as_label, as_sequence, cross_entropy


def first_spike_times(spikes: Float[Array, "time ..."]) -> Float[Array, "..."]:
    r"""The time step of each neuron's first spike, `T` for one that never spikes; differentiable in the spikes.

    $$ t = \sum_{t} t z_t \prod_{s<t} (1 - z_s) + T \prod_s (1 - z_s) = \sum_t \prod_{s \le t} (1 - z_s) $$

    As this is linear in each spike, its gradient is by how much the first spike moves when a spike is switched on or
    off: also a neuron that never spikes has one, unlike with the sign estimator of snnTorch's `SpikeTime`, which puts
    -1 at the first spike, and takes a neuron that never spikes to spike in the last time step.

    **Arguments:** `spikes`: 0 or 1, `(time, ...)`.

    **Returns:** times in time steps, `(...)`, at least float32. NaN for a neuron with a NaN.

    **Raises:** `TypeError` for integers, `ValueError` for a scalar.

    >>> first_spike_times(jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])).tolist()
    [2.0, 1.0, 0.0]
    """
    spikes = as_sequence("first_spike_times", spikes, may_be_empty=True)
    return jnp.cumprod(1 - spikes, axis=0).sum(0)


def first_spike_cross_entropy(
    spikes: Float[Array, "time classes"], label: Int[ArrayLike, ""], *, temperature: float = 1.0
) -> Float[Array, ""]:
    """Softmax cross-entropy of `-t / temperature` with the times of the first spikes: the right class shall be first.

    The value of `snntorch.functional.ce_temporal_loss` (snnTorch 1.0) of one sample in which every neuron spikes;
    gradients and silent neurons differ as said of `first_spike_times`.

    **Arguments:** `spikes`: 0 or 1, `(time, classes)`. `label`: class index. `temperature`: positive, in time steps;
    by how much the right class has to be first.

    **Returns:** the loss, at least float32. In a traced call NaN for a label out of range.

    **Raises:** `TypeError` for integer spikes or a label that is none, `ValueError` for other shapes, or a label or
    temperature out of range.

    >>> spikes = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(round(float(first_spike_cross_entropy(spikes, 0)), 4))  # ln(1 + exp(1 - 2))
    0.3133
    """
    spikes = as_sequence("first_spike_cross_entropy", spikes, ("time", "classes"), may_be_empty=True)
    if not temperature > 0:
        raise ValueError(f"temperature of first_spike_cross_entropy must be positive, found {temperature}")
    label = as_label("first_spike_cross_entropy", label, spikes.shape[1])
    return cross_entropy(-first_spike_times(spikes) / temperature, label)


def first_spike_mse(spikes: Float[Array, "time ..."], target: Float[Array, "..."]) -> Float[Array, ""]:
    """Squared distance of the first spikes to target times, in units of the length of the sequence, over all neurons.

    The value of `snntorch.functional.mse_temporal_loss(target_is_time=True)` (snnTorch 1.0) of one sample in which
    every neuron spikes; gradients and silent neurons differ as said of `first_spike_times`.

    **Arguments:** `spikes`: 0 or 1, `(time, ...)`. `target`: times in time steps, `(...)`; `T` for a neuron that shall
    not spike.

    **Returns:** the mean of `((t - target) / T)**2`, at least float32.

    **Raises:** `TypeError` for integers, `ValueError` for a target of another shape, or no time step.

    >>> float(first_spike_mse(jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([0.0, 2.0])))
    0.125
    """
    spikes = as_sequence("first_spike_mse", spikes)
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise TypeError(f"first_spike_mse takes floating point target times, found {target.dtype}")
    if target.shape != spikes.shape[1:]:
        raise ValueError(f"first_spike_mse needs a target per neuron {spikes.shape[1:]}, found {target.shape}")
    return jnp.mean(((first_spike_times(spikes) - target.astype(spikes.dtype)) / spikes.shape[0]) ** 2)
