"""What leaky membranes share: their parameters, and one step of integration."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Array, ArrayLike

from ._decay import AbstractDecay, as_decay, factor_from_tau, floating


InputScale = Literal["unit", "one_minus_decay"]
DecayConstants = ArrayLike | AbstractDecay | Sequence[ArrayLike | AbstractDecay]


def split_decays(decay_constants: DecayConstants) -> tuple[AbstractDecay, AbstractDecay | None]:
    """Decays of membrane and synapse from what constructors take.

    **Raises:** `ValueError` unless there are one or two.
    """
    decays: list[Any] = list(decay_constants) if isinstance(decay_constants, list | tuple) else [decay_constants]
    if len(decays) not in (1, 2):
        raise ValueError(f"decay_constants are [membrane] or [membrane, synapse], found {len(decays)} values")
    return as_decay(decays[0]), as_decay(decays[1]) if len(decays) == 2 else None


def optional(value: ArrayLike | None) -> Array | None:
    """A parameter that may be left out."""
    return None if value is None else floating(value)


def check_scale(input_scale: str) -> None:
    if input_scale not in ("unit", "one_minus_decay"):
        raise ValueError(f"input_scale must be 'unit' or 'one_minus_decay', found {input_scale!r}")


def decays_from_tau(
    tau_mem: float, tau_syn: float | None, dt: float, membrane: Callable[[float, float], Any] = factor_from_tau
) -> list[Any]:
    """Decays of the constructors from time constants in seconds; a synapse always decays exponentially."""
    return [membrane(tau_mem, dt)] if tau_syn is None else [membrane(tau_mem, dt), factor_from_tau(tau_syn, dt)]


def integrate(decay: AbstractDecay, input_scale: InputScale, v_leak: Array | None, v: Array, drive: Array) -> Array:
    """The membrane after one time step, before spikes."""
    rest = None if v_leak is None else v_leak.astype(v.dtype)
    if input_scale == "one_minus_decay":
        return decay.relax(v, drive, 0.0 if rest is None else rest)
    return decay.leak(v) + drive if rest is None else rest + decay.leak(v - rest) + drive
