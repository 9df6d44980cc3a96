"""When a neuron spikes and what that does to its membrane: one implementation for every neuron and convention."""

from collections.abc import Callable
from typing import Literal, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ...surrogate import AbstractSurrogate, SuperSpike
from ._decay import optional, parameter
from ._quantiser import Quantiser


Reset = Literal["subtract", "zero", "none"]


class FiringOptions(TypedDict, total=False):
    """The options of `Firing` that the constructors of neurons hand on."""

    reset_delay: bool | Literal["undone"]
    keep_input: bool
    detach_reset: bool
    spike_at_threshold: bool
    winner_take_all: bool
    nan_spikes: bool
    amplitude: ArrayLike | None
    surrogate: AbstractSurrogate | None
    quantise: Quantiser | None


def fixed_delay(kind: str, firing: FiringOptions, delay: bool) -> FiringOptions:
    """The options of a neuron whose reset always waits one time step (and loses that step's input), or never.

    **Raises:** `ValueError` when the options say otherwise.
    """
    found = firing.get("reset_delay", delay)
    if found is not delay:
        rule = "always waits one time step" if delay else "cannot wait"
        raise ValueError(f"the reset of {kind} {rule}: reset_delay must be {delay}, found {found!r}")
    return {**firing, "reset_delay": delay, "keep_input": False}


class Firing(eqx.Module):
    r"""Threshold, spike and reset.

    A spike is $z = H(v - \theta)$. The reset takes $v$ to $v - \theta$ (`"subtract"`), to 0 (`"zero"`), to a value
    (a number), or leaves it (`"none"`). With `reset_delay=False` it follows the spike in the same time step. With
    `reset_delay=True` it waits for the next one, where the old membrane is compared with the threshold again, as
    snnTorch does by default: `"subtract"` then acts after the integration, `"zero"` and a value before it
    (`keep_input=True`, as in snnTorch's `Leaky`) or after it, so that the input of that time step is lost
    (`keep_input=False`, as in its other neurons).

    `reset_delay="undone"` is snnTorch's `reset_delay=False`: with $r$ the spikes of the old membrane, the delayed reset
    by $r$ acts before the spike is decided, and the membrane is then reset by $z - r$: for `"subtract"`, this takes the
    delayed reset back. It differs from `False` only where the membrane was still above threshold after its last reset.
    No gradient goes through $r$.
    """

    threshold: Array
    v_reset: Array | None
    amplitude: Array | None
    surrogate: AbstractSurrogate
    quantise: Quantiser | None
    reset: Literal["subtract", "zero", "value", "none"] = eqx.field(static=True)
    reset_delay: bool | Literal["undone"] = eqx.field(static=True)
    keep_input: bool = eqx.field(static=True)
    detach_reset: bool = eqx.field(static=True)
    spike_at_threshold: bool = eqx.field(static=True)
    winner_take_all: bool = eqx.field(static=True)
    nan_spikes: bool = eqx.field(static=True)

    def __init__(
        self,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        reset_delay: bool | Literal["undone"] = False,
        keep_input: bool = True,
        detach_reset: bool = True,
        spike_at_threshold: bool = False,
        winner_take_all: bool = False,
        nan_spikes: bool = False,
        amplitude: ArrayLike | None = None,
        surrogate: AbstractSurrogate | None = None,
        quantise: Quantiser | None = None,
    ):
        """**Arguments:**

        - `threshold`: scalar or per neuron.
        - `reset`: `"subtract"`, `"zero"`, `"none"`, or the value to reset to (scalar or per neuron).
        - `reset_delay`: `False`, `True` or `"undone"`, see above.
        - `keep_input`: whether a delayed reset to a value leaves the input of its time step in the membrane.
        - `detach_reset`: whether the reset hides the spike from the gradient (Zenke & Vogels 2021,
          doi:10.1162/neco_a_01367).
        - `spike_at_threshold`: whether `v == threshold` spikes (`>=`) or not (`>`).
        - `winner_take_all`: only the neuron furthest above threshold spikes (the first of equals); for one axis of
          neurons.
        - `nan_spikes`: whether a membrane that is NaN gives NaN. By default it gives no spike, as in torch, and a
          network that diverged has a finite loss; see also `states` of `snnax.metrics.firing_rates`.
        - `amplitude`: what a spike is worth downstream (graded spikes); `None` is 1.
        - `surrogate`: `SuperSpike()` when not given.
        - `quantise`: rounds membrane and synaptic current at every time step, before a spike is decided and before a
          reset of the same time step; `None` leaves them.

        **Raises:** `ValueError` for an unknown `reset` or `reset_delay`, or NaN.
        """
        self.threshold = parameter("threshold", threshold)
        if isinstance(reset, str):
            if reset not in ("subtract", "zero", "none"):
                raise ValueError(f"reset must be 'subtract', 'zero', 'none' or a value, found {reset!r}")
            self.reset, self.v_reset = reset, None
        else:
            self.reset, self.v_reset = "value", parameter("reset", reset)
        if reset_delay not in (False, True, "undone"):
            raise ValueError(f"reset_delay must be False, True or 'undone', found {reset_delay!r}")
        self.amplitude = optional("amplitude", amplitude)
        self.surrogate = SuperSpike() if surrogate is None else surrogate
        self.quantise = quantise
        self.reset_delay = reset_delay if reset_delay == "undone" else bool(reset_delay)
        self.keep_input = keep_input
        self.detach_reset = detach_reset
        self.spike_at_threshold = spike_at_threshold
        self.winner_take_all = winner_take_all
        self.nan_spikes = nan_spikes

    def fire(
        self, v: Array, integrate: Callable[[Array], Array], threshold: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """One time step of a spiking membrane.

        **Arguments:** `v`: the membrane after the last step. `integrate`: how it takes up the input of this one.
        `threshold`: of this time step, where it adapts.

        **Returns:** the new membrane, the spikes (0 or 1), and the membrane that was compared with the threshold.
        """
        threshold = (self.threshold if threshold is None else threshold).astype(v.dtype)
        pending = self.pending(v, threshold)
        early = pending is not None and self.reset != "subtract" and self.keep_input
        if early:
            v = self._moved(v, pending, threshold)
        v = integrate(v)
        if pending is not None and not early:
            v = self._moved(v, pending, threshold)
        v = self.quantised(v)
        z = self.decide(v, threshold)
        if self.reset == "none" or self.reset_delay is True:
            return v, z, v
        now = self.reset_spikes(z)
        return self._moved(v, now if pending is None else now - pending, threshold), z, v

    def quantised(self, state: Array) -> Array:
        """A membrane or current at its levels."""
        return state if self.quantise is None else self.quantise(state)

    def spikes(self, v: Array, threshold: Array) -> Array:
        """1 where the membrane is above threshold, else 0."""
        z = self.surrogate(v - threshold, at_threshold=self.spike_at_threshold)
        return jnp.where(jnp.isnan(v), jnp.nan, z) if self.nan_spikes else z

    def decide(self, v: Array, threshold: Array) -> Array:
        """The spikes that go downstream: all of them, or that of the winner."""
        z = self.spikes(v, threshold)
        if not self.winner_take_all:
            return z
        if v.ndim != 1:
            raise ValueError(f"winner_take_all needs one axis of neurons, found neurons of shape {v.shape}")
        return z * jax.nn.one_hot(jnp.argmax(v - threshold), v.shape[0], dtype=z.dtype)

    def reset_spikes(self, z: Array) -> Array:
        """Spikes as the reset sees them: without a gradient where it is detached."""
        return jax.lax.stop_gradient(z) if self.detach_reset else z

    def pending(self, v: Array, threshold: Array) -> Array | None:
        """The spikes whose reset was left to this time step; None where resets do not wait."""
        if not self.reset_delay or self.reset == "none":
            return None
        spikes = self.spikes(v, threshold)
        return jax.lax.stop_gradient(spikes) if self.reset_delay == "undone" else self.reset_spikes(spikes)

    def output(self, z: Array, dtype: jnp.dtype) -> Array:
        """What goes downstream, in the dtype of the input."""
        return (z if self.amplitude is None else self.amplitude.astype(z.dtype) * z).astype(dtype)

    def _moved(self, v, z, threshold):
        if self.reset == "subtract":
            return v - z * threshold
        kept = (1 - z) * v
        return kept if self.v_reset is None else kept + z * self.v_reset.astype(v.dtype)
