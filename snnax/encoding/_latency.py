"""Latency coding: one spike per neuron, earlier for larger values."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._values import as_num_steps, as_values, check_choice, step_index, widened


def latency(
    values: Float[Array, "..."],
    num_steps: int,
    *,
    code: Literal["logarithmic", "linear"] = "logarithmic",
    threshold: float = 0.01,
    tau: float | None = None,
    otherwise: Literal["silent", "last"] = "silent",
) -> Float[Array, "time ..."]:
    r"""One spike per neuron, the earlier the larger its value.

    With $x$ clipped to [0, 1], threshold $\theta$ and $\tau$ in time steps, the spike is at the time step nearest to

    $$ t = \tau \ln \frac{x}{x - \theta} \ \text{(logarithmic)}, \qquad t = \tau (1 - x) \ \text{(linear)}. $$

    The logarithmic code is the time that an RC circuit (a leaky integrator with time constant $\tau$) needs to charge
    to $\theta$ at the constant input $x$. As `snntorch.spikegen.latency` (snnTorch 1.0), except that a value at or
    below the threshold has no spike time at all (snnTorch: that of a value at the threshold, unless `clip=True`), and
    that there is no `normalize` by the largest spike time, with which a sample's code would depend on the others.

    **Arguments:**

    - `values`: any shape, clipped to [0, 1].
    - `num_steps`: length of the sequence, 0 or more.
    - `code`: `"logarithmic"` or `"linear"`.
    - `threshold`: between 0 and 1; values up to it have no spike time.
    - `tau`: in time steps. `num_steps - 1` when not given: the linear code then fills the sequence.
    - `otherwise`: what a neuron does whose value has no spike time, or one after the end of the sequence: stay
      `"silent"`, or spike in the `"last"` time step, so that every neuron spikes exactly once.

    **Returns:** 0 or 1, `(time, ...)`, in the dtype of `values`; no gradient passes. NaN in a traced call has no spike
    time.

    **Raises:** `TypeError` for integers, `ValueError` for NaN or for an option out of its range.

    >>> latency(jnp.array([1.0, 0.5, 0.0]), 5, code="linear").argmax(0).tolist()
    [0, 2, 0]
    >>> latency(jnp.array([1.0, 0.5, 0.0]), 5, code="linear", otherwise="last").argmax(0).tolist()
    [0, 2, 4]
    """
    values = as_values("latency", values)
    num_steps = as_num_steps("latency", num_steps)
    check_choice("latency", "code", code, ("logarithmic", "linear"))
    check_choice("latency", "otherwise", otherwise, ("silent", "last"))
    if not 0 < threshold < 1:
        raise ValueError(f"threshold of latency must lie between 0 and 1, found {threshold}")
    if tau is not None and not tau > 0:
        raise ValueError(f"tau of latency must be positive (time steps), found {tau}")
    x = jnp.clip(widened(values), 0.0, 1.0)
    has_time = x > jnp.asarray(threshold, x.dtype)
    tau = max(num_steps - 1, 0) if tau is None else tau
    # Evaluated for all values, so those without a time get one that is finite and not used.
    x = jnp.where(has_time, x, 1.0)
    time = jnp.round(tau * (jnp.log(x / (x - threshold)) if code == "logarithmic" else 1 - x))
    in_sequence = has_time & (time < num_steps)
    step = jnp.where(in_sequence, time, -1.0 if otherwise == "silent" else num_steps - 1.0).astype(jnp.int32)
    return (step_index(num_steps, values.ndim) == step[None]).astype(values.dtype)
