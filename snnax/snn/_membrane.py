"""What the membranes of LIF and LI share: their parameters, their rest, and one step of integration."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ._decay import AbstractDecay, as_decay, factor_from_tau, floating


InputScale = Literal["unit", "one_minus_decay"]
DecayConstants = ArrayLike | AbstractDecay | Sequence[ArrayLike | AbstractDecay]


def membrane_parameters(
    decay_constants: DecayConstants, v_leak: ArrayLike | None, input_scale: InputScale
) -> tuple[AbstractDecay, AbstractDecay | None, Array | None]:
    """Decays of membrane and synapse, and the resting potential, from what constructors take.

    **Raises:** `ValueError` for options that are unknown or do not go together.
    """
    decays: list[Any] = list(decay_constants) if isinstance(decay_constants, list | tuple) else [decay_constants]
    if len(decays) not in (1, 2):
        raise ValueError(f"decay_constants are [membrane] or [membrane, synapse], found {len(decays)} values")
    if input_scale not in ("unit", "one_minus_decay"):
        raise ValueError(f"input_scale must be 'unit' or 'one_minus_decay', found {input_scale!r}")
    if v_leak is not None and input_scale == "unit":
        raise ValueError("v_leak needs input_scale='one_minus_decay': with unit input the membrane decays to 0")
    decay_syn = as_decay(decays[1]) if len(decays) == 2 else None
    return as_decay(decays[0]), decay_syn, None if v_leak is None else floating(v_leak)


def factors_from_tau(tau_mem: float, tau_syn: float | None, dt: float) -> list[float]:
    """Decay factors of the constructors from time constants in seconds."""
    return [factor_from_tau(tau, dt) for tau in ([tau_mem] if tau_syn is None else [tau_mem, tau_syn])]


def rest(shape: tuple[int, ...], v_leak: Array | None, decay_syn: AbstractDecay | None) -> tuple[Array, Array | None]:
    """Membrane potential and synaptic current before the first time step, in JAX's default float."""
    dtype = jnp.result_type(float)
    v = jnp.zeros(shape, dtype) if v_leak is None else jnp.broadcast_to(v_leak.astype(dtype), shape)
    return v, None if decay_syn is None else jnp.zeros(shape, dtype)


def integrate(decay: AbstractDecay, input_scale: InputScale, v_leak: Array | None, v: Array, drive: Array) -> Array:
    """The membrane after one time step, before spikes."""
    if input_scale == "unit":
        return decay.leak(v) + drive
    return decay.relax(v, drive, 0.0 if v_leak is None else v_leak.astype(v.dtype))
