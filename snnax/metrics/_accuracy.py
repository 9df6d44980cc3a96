"""Predictions of a spiking readout, and how often they are right."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._spikes import as_spikes


def predict_rate(spikes: Float[Array, "time classes"]) -> Int[Array, ""]:
    """The class that spikes most often; of equals, the one of lowest index.

    **Arguments:** `spikes`: one sample, `(time, classes)`. The largest sum wins, so membrane potentials of a readout
    can be given where one of them is positive.

    **Returns:** the class index; -1, which is no class, where no count is positive or one is NaN. (snnTorch's
    `accuracy_rate` predicts class 0 for a silent readout, which is then right for every sample of class 0.)

    **Raises:** `TypeError` for integers, `ValueError` for other axes.

    >>> int(predict_rate(jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))), int(predict_rate(jnp.zeros((2, 3))))
    (1, -1)
    """
    spikes = as_spikes("predict_rate", spikes, ("time", "classes"))
    # bfloat16 cannot count beyond 256.
    counts = spikes.sum(0, dtype=spikes.dtype if jnp.finfo(spikes.dtype).bits >= 32 else jnp.float32)
    return jnp.where(counts.max() > 0, jnp.argmax(counts), -1)


def predict_first_spike(spikes: Float[Array, "time classes"]) -> Int[Array, ""]:
    """The class that spikes first; of those that do so in the same time step, the one of lowest index.

    **Arguments:** `spikes`: one sample, `(time, classes)`; what is not 0 is a spike.

    **Returns:** the class index; -1, which is no class, where nothing spikes or something is NaN. (snnTorch's
    `accuracy_temporal` takes a silent neuron to spike in the last time step.)

    **Raises:** `TypeError` for integers, `ValueError` for other axes.

    >>> int(predict_first_spike(jnp.array([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])))
    1
    """
    spikes = as_spikes("predict_first_spike", spikes, ("time", "classes"))
    waiting = jnp.cumsum(spikes != 0, axis=0) == 0
    times = waiting.sum(0)
    spiked = (times.min() < spikes.shape[0]) & ~jnp.isnan(spikes).any()
    return jnp.where(spiked, jnp.argmin(times), -1)


def accuracy_rate(spikes: Float[Array, "batch time classes"], labels: Int[Array, " batch"]) -> Float[Array, ""]:
    """The fraction of a batch that `predict_rate` gets right; a silent sample is wrong.

    **Arguments:** `spikes`: `(batch, time, classes)`. `labels`: class indices, `(batch,)`.

    **Returns:** between 0 and 1, float32.

    **Raises:** `TypeError` for integer spikes or labels that are none, `ValueError` for other axes, an empty batch, or
    one label too many or too few.

    >>> float(accuracy_rate(jnp.array([[[0.0, 1.0]], [[0.0, 0.0]]]), jnp.array([1, 0])))
    0.5
    """
    return _accuracy("accuracy_rate", predict_rate, spikes, labels)


def accuracy_first_spike(spikes: Float[Array, "batch time classes"], labels: Int[Array, " batch"]) -> Float[Array, ""]:
    """The fraction of a batch that `predict_first_spike` gets right; a silent sample is wrong.

    Arguments, result and errors as of `accuracy_rate`.

    >>> float(accuracy_first_spike(jnp.array([[[0.0, 1.0], [1.0, 1.0]]]), jnp.array([1])))
    1.0
    """
    return _accuracy("accuracy_first_spike", predict_first_spike, spikes, labels)


def _accuracy(where: str, predict: Callable[[Array], Array], spikes: Array, labels: Array) -> Array:
    spikes = as_spikes(where, spikes, ("batch", "time", "classes"))
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where} takes integer class indices as labels, found {labels.dtype}")
    if labels.shape != spikes.shape[:1]:
        raise ValueError(f"{where} needs one label per sample {spikes.shape[:1]}, found the shape {labels.shape}")
    if spikes.shape[0] == 0:
        raise ValueError(f"{where} needs at least one sample, found the shape {spikes.shape}")
    return jnp.mean(jax.vmap(predict)(spikes).astype(labels.dtype) == labels, dtype=jnp.float32)
