"""How a neuron adapts to its own activity: a current that works against the input, or a threshold that moves."""

from typing import Literal

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ._decay import AbstractDecay, as_decay, optional


class Adaptation(eqx.Module):
    r"""A trace `a` of membrane and spikes, with the decay factor $\rho$ per time step.

    $$ a_t = \rho a_{t-1} + (1 - \rho) c (v - v_\text{rest}) + b z_t $$

    $\kappa a$ is subtracted from the drive of the membrane (`acts_on="current"`) or added to the threshold
    (`acts_on="threshold"`). `coupling` is $c$ (None: the trace follows spikes only), `jump` is $b$ (None: $1 - \rho$,
    so that the trace is a running mean of the spikes), `scale` is $\kappa$ (None: 1).

    `reads` tells what comes first. A current follows the membrane of the last time step (`"before"`, as in Norse) or
    that of this one before its reset (`"after"`, as in SpikingJelly's Izhikevich node). A threshold is moved by the
    trace as the last time step left it (`"before"`) or after its decay in this one (`"after"`, as in Norse).
    """

    decay_adapt: AbstractDecay
    coupling: Array | None
    jump: Array | None
    scale: Array | None
    acts_on: Literal["current", "threshold"] = eqx.field(static=True)
    reads: Literal["before", "after"] = eqx.field(static=True)
    detach: bool = eqx.field(static=True)

    def __init__(
        self,
        decay_adapt: ArrayLike | AbstractDecay,
        *,
        coupling: ArrayLike | None = None,
        jump: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        acts_on: Literal["current", "threshold"],
        reads: Literal["before", "after"] = "before",
        detach: bool = False,
    ):
        """**Arguments:** as above; `detach`: whether the jump hides the spike from the gradient.

        **Raises:** `ValueError` for an unknown `acts_on` or `reads`.
        """
        if acts_on not in ("current", "threshold"):
            raise ValueError(f"acts_on must be 'current' or 'threshold', found {acts_on!r}")
        if reads not in ("before", "after"):
            raise ValueError(f"reads must be 'before' or 'after', found {reads!r}")
        self.decay_adapt = as_decay(decay_adapt)
        self.coupling = optional("coupling", coupling)
        self.jump = optional("jump", jump)
        self.scale = optional("scale", scale)
        self.acts_on = acts_on
        self.reads = reads
        self.detach = detach

    def current(self, a: Array) -> Array | float:
        """What the membrane loses in this time step."""
        return self._scaled(a) if self.acts_on == "current" else 0.0

    def threshold(self, base: Array, a: Array) -> Array:
        """The threshold of this time step."""
        if self.acts_on == "current":
            return base
        return base.astype(a.dtype) + self._scaled(self.decay_adapt.leak(a) if self.reads == "after" else a)

    def following(self, a: Array, before: Array, after: Array, v_rest: Array | float) -> Array:
        """The trace as it follows the membrane, which was `before` and is `after`, without spikes."""
        if self.coupling is None:
            return self.decay_adapt.leak(a)
        v = before if self.reads == "before" else after
        return self.decay_adapt.advance(a, self.coupling.astype(a.dtype) * (v - v_rest) - a)

    def jumped(self, a: Array, z: Array) -> Array:
        """The trace after the spikes of this time step."""
        jump = 1 - self.decay_adapt.factor if self.jump is None else self.jump
        return a + jump.astype(a.dtype) * z

    def _scaled(self, a: Array) -> Array:
        return a if self.scale is None else self.scale.astype(a.dtype) * a
