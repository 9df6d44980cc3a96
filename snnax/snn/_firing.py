"""When a neuron spikes and what that does to its membrane: one implementation for every neuron and convention."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ..surrogate import AbstractSurrogate, SuperSpike
from ._decay import floating


Reset = Literal["subtract", "zero", "none"]


class Firing(eqx.Module):
    r"""Threshold, spike and reset.

    A spike is $z = H(v - \theta)$. The reset takes $v$ to $v - \theta$ (`"subtract"`), to 0 (`"zero"`), to a value
    (a number), or leaves it (`"none"`). With `reset_delay=False` it follows the spike in the same time step. With
    `reset_delay=True` it waits for the next one, where the old membrane is compared with the threshold again, as
    snnTorch does by default: `"subtract"` then acts after the integration, `"zero"` and a value before it.

    `reset_delay="undone"` is snnTorch's `reset_delay=False`: with $r$ the spikes of the old membrane, the delayed reset
    by $r$ acts before the spike is decided, and the membrane is then reset by $z - r$: for `"subtract"`, this takes the
    delayed reset back. It differs from `False` only where the membrane was still above threshold after its last reset.
    No gradient goes through $r$.
    """

    threshold: Array
    v_reset: Array | None
    amplitude: Array | None
    surrogate: AbstractSurrogate
    reset: Literal["subtract", "zero", "value", "none"] = eqx.field(static=True)
    reset_delay: bool | Literal["undone"] = eqx.field(static=True)
    detach_reset: bool = eqx.field(static=True)
    spike_at_threshold: bool = eqx.field(static=True)
    winner_take_all: bool = eqx.field(static=True)

    def __init__(
        self,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        reset_delay: bool | Literal["undone"] = False,
        detach_reset: bool = True,
        spike_at_threshold: bool = False,
        winner_take_all: bool = False,
        amplitude: ArrayLike | None = None,
        surrogate: AbstractSurrogate | None = None,
    ):
        """**Arguments:**

        - `threshold`: scalar or per neuron.
        - `reset`: `"subtract"`, `"zero"`, `"none"`, or the value to reset to (scalar or per neuron).
        - `reset_delay`: `False`, `True` or `"undone"`, see above.
        - `detach_reset`: whether the reset hides the spike from the gradient (Zenke & Vogels 2021,
          doi:10.1162/neco_a_01367).
        - `spike_at_threshold`: whether `v == threshold` spikes (`>=`) or not (`>`).
        - `winner_take_all`: only the neuron furthest above threshold spikes (the first of equals); for one axis of
          neurons.
        - `amplitude`: what a spike is worth downstream (graded spikes); `None` is 1.
        - `surrogate`: `SuperSpike()` when not given.

        **Raises:** `ValueError` for an unknown `reset` or `reset_delay`.
        """
        self.threshold = floating(threshold)
        if isinstance(reset, str):
            if reset not in ("subtract", "zero", "none"):
                raise ValueError(f"reset must be 'subtract', 'zero', 'none' or a value, found {reset!r}")
            self.reset, self.v_reset = reset, None
        else:
            self.reset, self.v_reset = "value", floating(reset)
        if reset_delay not in (False, True, "undone"):
            raise ValueError(f"reset_delay must be False, True or 'undone', found {reset_delay!r}")
        self.amplitude = None if amplitude is None else floating(amplitude)
        self.surrogate = SuperSpike() if surrogate is None else surrogate
        self.reset_delay = reset_delay if reset_delay == "undone" else bool(reset_delay)
        self.detach_reset = detach_reset
        self.spike_at_threshold = spike_at_threshold
        self.winner_take_all = winner_take_all

    def fire(self, v: Array, integrate: Callable[[Array], Array]) -> tuple[Array, Array]:
        """One time step of a spiking membrane.

        **Arguments:** `v`: the membrane after the last step. `integrate`: how it takes up the input of this one.

        **Returns:** the new membrane and the spikes, 0 or 1.
        """
        pending = self._pending(v)
        # Rules that replace the membrane do so before the input is integrated: that input is kept.
        if pending is not None and self.reset != "subtract":
            v = self._moved(v, pending)
        v = integrate(v)
        if pending is not None and self.reset == "subtract":
            v = self._moved(v, pending)
        z = self._winner(v, self._spikes(v)) if self.winner_take_all else self._spikes(v)
        if self.reset == "none" or self.reset_delay is True:
            return v, z
        now = jax.lax.stop_gradient(z) if self.detach_reset else z
        return self._moved(v, now if pending is None else now - pending), z

    def output(self, z: Array, dtype: jnp.dtype) -> Array:
        """What goes downstream, in the dtype of the input."""
        return (z if self.amplitude is None else self.amplitude.astype(z.dtype) * z).astype(dtype)

    def _pending(self, v):
        """The spikes whose reset was left to this time step; None where resets do not wait."""
        if not self.reset_delay or self.reset == "none":
            return None
        spikes = self._spikes(v)
        return jax.lax.stop_gradient(spikes) if self.detach_reset or self.reset_delay == "undone" else spikes

    def _spikes(self, v):
        return self.surrogate(v - self.threshold.astype(v.dtype), at_threshold=self.spike_at_threshold)

    def _winner(self, v, z):
        if v.ndim != 1:
            raise ValueError(f"winner_take_all needs one axis of neurons, found neurons of shape {v.shape}")
        winner = jnp.argmax(v - self.threshold.astype(v.dtype))
        return z * jax.nn.one_hot(winner, v.shape[0], dtype=z.dtype)

    def _moved(self, v, z):
        if self.reset == "subtract":
            return v - z * self.threshold.astype(v.dtype)
        kept = (1 - z) * v
        return kept if self.v_reset is None else kept + z * self.v_reset.astype(v.dtype)
