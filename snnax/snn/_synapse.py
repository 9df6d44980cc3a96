"""When the synaptic current jumps, decays and is read within one time step; frameworks differ in the order only."""

from typing import Literal, get_args

from jaxtyping import Array

from ._decay import AbstractDecay


# decay-jump-read: snnTorch. jump-read-decay: Norse LIF. read-decay-jump: LSNN and the original snnax.
# jump-decay-read: sinabs.
SynapseOrder = Literal["decay-jump-read", "jump-read-decay", "read-decay-jump", "jump-decay-read"]


def synapse_step(
    order: SynapseOrder, decay: AbstractDecay | None, i: Array | None, x: Array
) -> tuple[Array, Array | None]:
    """`(drive of the membrane, new current)`; the jump is the input `x`, the drive itself without a synapse."""
    if decay is None or i is None:
        return x, None
    if order == "decay-jump-read":
        i = decay.leak(i) + x
        return i, i
    if order == "jump-read-decay":
        i = i + x
        return i, decay.leak(i)
    if order == "read-decay-jump":
        return i, decay.leak(i) + x
    i = decay.leak(i + x)
    return i, i


def check_order(order: str) -> None:
    if order not in get_args(SynapseOrder):
        raise ValueError(f"synapse_order must be one of {get_args(SynapseOrder)}, found {order!r}")
