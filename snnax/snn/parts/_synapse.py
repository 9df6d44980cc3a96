"""When the synaptic current jumps, decays and is read within one time step; frameworks differ in the order only."""

import functools
import operator
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...engine import linear_recurrence
from ._decay import AbstractDecay


# decay-jump-read: snnTorch. jump-read-decay: Norse LIF. read-decay-jump: LSNN and the original snnax.
# jump-decay-read: sinabs.
SynapseOrder = Literal["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"]


def synapse_step(
    order: SynapseOrder, decay: AbstractDecay | None, i: Array | None, *jumps: Array
) -> tuple[Array, Array | None]:
    """`(drive of the membrane, new current)`; the current jumps by each of the inputs, one after the other.

    Without a synapse, their sum is the drive itself.
    """
    if decay is None or i is None:
        return added(*jumps), None
    if order == "decay-jump-read":
        i = added(decay.leak(i), *jumps)
        return i, i
    if order == "jump-read-decay":
        i = added(i, *jumps)
        return i, decay.leak(i)
    if order == "read-decay-jump":
        return i, added(decay.leak(i), *jumps)
    i = decay.leak(added(i, *jumps))
    return i, i


def added(*values: Array) -> Array:
    """A sum from left to right: rounding depends on the order."""
    return functools.reduce(operator.add, values)


def synapse_sequence(
    order: SynapseOrder, decay: AbstractDecay | None, i: Array | None, xs: Array
) -> tuple[Array, Array | None]:
    """`synapse_step` over all time steps at once: drives and currents `(time, ...)`."""
    if decay is None or i is None:
        return xs, None
    # The current is linear in input and past: what a jump leaves of itself at the end of its step is all that differs.
    decays_at_once = order in ("jump-read-decay", "jump-decay-read")
    jumps = jax.vmap(decay.leak)(xs) if decays_at_once else xs
    currents = linear_recurrence(decay.factor.astype(i.dtype), jumps, i)
    if order in ("decay-jump-read", "jump-decay-read"):
        return currents, currents
    before = jnp.concatenate([i[None], currents])[: xs.shape[0]]
    return before + xs if order == "jump-read-decay" else before, currents


def check_order(order: str) -> None:
    if order not in get_args(SynapseOrder):
        raise ValueError(f"synapse_order must be one of {get_args(SynapseOrder)}, found {order!r}")
