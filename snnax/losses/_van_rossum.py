"""The distance of van Rossum between spike trains."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._sequence import as_sequence


def van_rossum(
    spikes: Float[Array, "time ..."], target: Float[Array, "time ..."], *, tau: float, dt: float
) -> Float[Array, ""]:
    r"""Squared distance between two spike trains after a causal exponential filter, averaged over neurons.

    With the trains $f(t) = \sum_i H(t - t_i) e^{-(t - t_i) / \tau}$ and $g$ (van Rossum 2001,
    doi:10.1162/089976601300014321):

    $$ D^2 = \frac{1}{\tau} \int_0^\infty (f(t) - g(t))^2 \, dt $$

    One spike that the other train lacks costs 1/2; a spike that is $\Delta$ late costs $1 - e^{-\Delta / \tau}$. The
    integral is exact, with the decay within and after the sequence: with the filtered difference
    $x_k = e^{-dt/\tau} x_{k-1} + z_k - y_k$,

    $$ D^2 = \frac{1 - e^{-2 dt/\tau}}{2} \sum_{k < T} x_k^2 + \frac{e^{-2 dt/\tau}}{2} x_{T-1}^2 $$

    **Arguments:**

    - `spikes`, `target`: `(time, ...)`, of one shape.
    - `tau`: time constant of the filter in seconds: small counts coincidences, large compares spike counts.
    - `dt`: length of a time step in seconds.

    **Returns:** the mean of $D^2$ over neurons, at least float32; 0 without time steps.

    **Raises:** `TypeError` for integers, `ValueError` for two shapes, or for times that are not positive.

    >>> one, none = jnp.array([[0.0], [1.0], [0.0]]), jnp.zeros((3, 1))
    >>> print(round(float(van_rossum(one, none, tau=10e-3, dt=1e-3)), 6))
    0.5
    """
    spikes = as_sequence("van_rossum", spikes, may_be_empty=True)
    target = as_sequence("van_rossum", target, may_be_empty=True)
    if spikes.shape != target.shape:
        raise ValueError(f"van_rossum compares spike trains of one shape, found {spikes.shape} and {target.shape}")
    if not (tau > 0 and dt > 0):
        raise ValueError(f"tau and dt of van_rossum must be positive times in seconds, found tau={tau}, dt={dt}")
    decay = math.exp(-dt / tau)

    def step(trace, difference):
        trace = decay * trace + difference
        return trace, trace

    start = jnp.zeros(spikes.shape[1:], spikes.dtype)
    last, traces = jax.lax.scan(step, start, spikes - target.astype(spikes.dtype))
    # Not 1 - decay**2, which loses digits where dt is much shorter than tau.
    within = -math.expm1(-2 * dt / tau) / 2
    return jnp.mean(within * jnp.sum(traces**2, axis=0) + decay**2 / 2 * last**2)
