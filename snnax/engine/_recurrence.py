"""Linear recurrences over time, without a loop."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._sequence import varying_as


def linear_recurrence(
    decay: Float[Array, "..."], xs: Float[Array, "time ..."], first: Float[Array, "..."]
) -> Float[Array, "time ..."]:
    """`v_t = decay * v_{t-1} + x_t` for all time steps at once, in O(log time) passes.

    **Arguments:** `decay`: scalar, or of a shape that broadcasts against `first`, the same at every step; `xs`:
    `(time, ...)`; `first`: the value before the first step, `(...)`.

    **Returns:** the values after each step, `(time, ...)`.

    The gradient is the same recurrence backwards in time (as for linear state space models, Martin & Cundy 2018,
    arXiv:1709.04057), so that only the result is kept. It differs from a loop by rounding. Reverse mode only.

    >>> linear_recurrence(jnp.float32(0.5), jnp.ones(4), jnp.float32(2.0)).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    # Cotangents of a derivative of one's own have to vary over a mesh as their arguments do.
    return _recurrence(*(varying_as(each, (decay, xs, first)) for each in (decay, xs, first)))


@jax.custom_vjp
def _recurrence(decay, xs, first):
    return _forward(decay, xs, first)[0]


def _solve(decay, xs, first, reverse=False):
    num_steps = xs.shape[0]
    if num_steps == 0:
        return xs
    edge = -1 if reverse else 0
    decay = decay.reshape((1,) * (first.ndim - decay.ndim) + decay.shape)
    xs = xs.at[edge].add(decay * first)
    # One decay per step, broadcast against neurons only where they are combined.
    decays = jnp.broadcast_to(decay, (num_steps, *decay.shape))

    def combine(early, late):
        return early[0] * late[0], late[0] * early[1] + late[1]

    return jax.lax.associative_scan(combine, (decays, xs), reverse=reverse)[1]


def _forward(decay, xs, first):
    vs = _solve(decay, xs, first)
    return vs, (decay, vs, first)


def _backward(residuals, cotangents):
    decay, vs, first = residuals
    adjoints = _solve(decay, cotangents, jnp.zeros_like(first), reverse=True)
    before = jnp.concatenate([first[None], vs])[: vs.shape[0]]
    slopes = (adjoints * before).sum(0)
    # The decay is shared along the axes that it was broadcast over.
    extra = slopes.ndim - decay.ndim
    slopes = slopes.sum(tuple(range(extra)))
    shared = tuple(axis for axis in range(decay.ndim) if decay.shape[axis] == 1)
    first_adjoint = decay.reshape((1,) * extra + decay.shape) * adjoints[0] if vs.shape[0] else jnp.zeros_like(first)
    return slopes.sum(shared, keepdims=True), adjoints, first_adjoint


_recurrence.defvjp(_forward, _backward)
