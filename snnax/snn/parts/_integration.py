"""How a membrane takes up its input in one time step: one implementation for every neuron and convention."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ._decay import AbstractDecay, as_decay, factor_from_tau, optional
from ._synapse import SynapseOrder, check_order, synapse_sequence, synapse_step


InputScale = Literal["unit", "one_minus_decay"]
DecayConstants = ArrayLike | AbstractDecay | Sequence[ArrayLike | AbstractDecay]


class IntegrationOptions(TypedDict, total=False):
    """The options of `Integration`, where the constructor of a neuron hands on all of them."""

    v_leak: ArrayLike | None
    synapse_order: SynapseOrder
    input_scale: InputScale


class Integration(eqx.Module):
    r"""Decays, leak, order and scale: what happens to an input until it is in the membrane.

    The input $x$ goes through an exponential synapse, if there is one, which gives the drive $i$ of the membrane (in
    the order that `synapse_order` says), and the membrane takes it up as it decays to its resting potential:

    $$ v_t = v_\text{leak} + \beta (v_{t-1} - v_\text{leak}) + i_t \quad \text{(`"unit"`)}, \qquad
       v_t = \beta v_{t-1} + (1 - \beta) (v_\text{leak} + i_t) \quad \text{(`"one_minus_decay"`)} $$
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay | None
    v_leak: Array | None
    synapse_order: SynapseOrder = eqx.field(static=True)
    input_scale: InputScale = eqx.field(static=True)

    def __init__(
        self,
        decay_constants: DecayConstants,
        *,
        v_leak: ArrayLike | None = None,
        synapse_order: SynapseOrder = "decay-jump-read",
        input_scale: InputScale = "unit",
    ):
        """**Arguments:**

        - `decay_constants`: `[membrane]` or `[membrane, synapse]`, or one value; each a factor per time step (scalar
          or per neuron) or a decay.
        - `v_leak`: resting potential, scalar or per neuron; 0 when not given.
        - `synapse_order`: when the synaptic current jumps, decays and is read within a time step.
        - `input_scale`: whether the drive is scaled by `1 - decay`, as is an input to `tau dv/dt = v_leak - v + x`.

        **Raises:** `ValueError` for another number of decays, or an unknown option.
        """
        decays: list[Any] = list(decay_constants) if isinstance(decay_constants, list | tuple) else [decay_constants]
        if len(decays) not in (1, 2):
            raise ValueError(f"decay_constants are [membrane] or [membrane, synapse], found {len(decays)} values")
        check_order(synapse_order)
        if input_scale not in ("unit", "one_minus_decay"):
            raise ValueError(f"input_scale must be 'unit' or 'one_minus_decay', found {input_scale!r}")
        self.decay_mem = as_decay(decays[0])
        self.decay_syn = as_decay(decays[1]) if len(decays) == 2 else None
        self.v_leak = optional("v_leak", v_leak)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

    def with_synapse(self, kind: str, instead: str) -> "Integration":
        """This, for neurons that cannot be without a synapse.

        **Raises:** `ValueError` where there is none.
        """
        if self.decay_syn is None:
            raise ValueError(f"{kind} needs the decay constants [membrane, synapse], found one; {instead} takes one")
        return self

    @property
    def v_rest(self) -> Array | float:
        """The membrane potential without input."""
        return 0.0 if self.v_leak is None else self.v_leak

    def drive(self, i: Array | None, *inputs: Array) -> tuple[Array, Array | None]:
        """`(drive of the membrane, new synaptic current)` of one time step; `inputs` are added one after the other."""
        return synapse_step(self.synapse_order, self.decay_syn, i, *inputs)

    def drive_sequence(self, i: Array | None, xs: Array) -> tuple[Array, Array | None]:
        """`drive` over all time steps at once: drives and currents `(time, ...)`."""
        return synapse_sequence(self.synapse_order, self.decay_syn, i, xs)

    def charge(self, v: Array, drive: Array) -> Array:
        """The membrane after it took up the drive of one time step, before spikes."""
        rest = None if self.v_leak is None else self.v_leak.astype(v.dtype)
        if self.input_scale == "one_minus_decay":
            return self.decay_mem.relax(v, drive, 0.0 if rest is None else rest)
        return self.decay_mem.leak(v) + drive if rest is None else rest + self.decay_mem.leak(v - rest) + drive


def decays_from_tau(
    tau_mem: float, tau_syn: float | None, dt: float, membrane: Callable[[float, float], Any] = factor_from_tau
) -> list[Any]:
    """Decays of the constructors from time constants in seconds; a synapse always decays exponentially."""
    return [membrane(tau_mem, dt)] if tau_syn is None else [membrane(tau_mem, dt), factor_from_tau(tau_syn, dt)]
