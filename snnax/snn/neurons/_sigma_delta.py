"""The neuron that encodes its input as a pulse train which, filtered, gives the input back."""

from typing import Any, Unpack

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...domains import FRACTION
from ...engine import AbstractLayer
from ..parts import (
    AbstractDecay,
    Firing,
    FiringOptions,
    Shape,
    as_decay,
    as_shape,
    check_input,
    check_parameters,
    factor_from_tau,
    fixed_delay,
    output_dtype,
    resolve_shape,
)


class SigmaDeltaState(eqx.Module):
    """Integrated error `v`, filtered input `i`, reconstruction `s` of the input from the neuron's spikes."""

    v: Float[Array, "..."]
    i: Float[Array, "..."]
    s: Float[Array, "..."]


class SigmaDelta(AbstractLayer):
    r"""Sigma-delta neurons: they spike whenever the integrated error of their own reconstruction is above threshold.

    $$ i_t = \alpha i_{t-1} + x_t, \quad v_t = \beta v_{t-1} + (i_t - s_{t-1}), \quad z_t = H(v_t - \theta), \quad
       s_t = \gamma s_{t-1} + z_t $$

    Yoon 2017 (doi:10.1109/TNNLS.2015.2512846): the spikes are a sigma-delta modulation of $i$, decoded by the filter
    $\gamma$. The membrane is never reset; the feedback does it. The `SigmaDelta` of the original snnax is this. Lava's
    sigma-delta layers send the quantised *change* of an activation as a graded spike instead.

    >>> neuron = SigmaDelta(1, [1.0, 0.0, 0.0], threshold=0.5)
    >>> state, total = neuron.init_state(), 0.0
    >>> for _ in range(100):
    ...     state, spikes = neuron(state, jnp.array([0.3]))
    ...     total += float(spikes[0])
    >>> total  # the mean of the pulses is the input
    30.0
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay
    decay_feedback: AbstractDecay
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: Any,
        threshold: ArrayLike = 1.0,
        *,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        r"""**Arguments:** `decay_constants`: `[membrane, synapse, feedback]`, $\beta, \alpha, \gamma$, scalar or per
        neuron; 0 is no filter. All others as in `snn.LIF`; there is no reset. `detach_reset` says whether the
        feedback hides the spike from the gradient, and is False by default.

        **Raises:** `ValueError` for another number of decay constants, or a `reset_delay`.
        """
        del key
        decays = list(decay_constants) if isinstance(decay_constants, list | tuple) else [decay_constants]
        if len(decays) != 3:
            raise ValueError(f"decay_constants are [membrane, synapse, feedback], found {len(decays)} values")
        self.decay_mem, self.decay_syn, self.decay_feedback = (as_decay(decay, FRACTION) for decay in decays)
        firing.setdefault("detach_reset", False)
        self.firing = Firing(threshold, "none", **fixed_delay("SigmaDelta", firing, False))
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float, tau_feedback: float, *, dt: float, **options: Any
    ) -> "SigmaDelta":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, [factor_from_tau(tau, dt) for tau in (tau_mem, tau_syn, tau_feedback)], **options)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> SigmaDeltaState:
        """All zero, for neurons of `shape`; in JAX's default float."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return SigmaDeltaState(*jnp.zeros((3, *shape), jnp.result_type(float)))

    def __call__(
        self, state: SigmaDeltaState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[SigmaDeltaState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        i = self.decay_syn.leak(state.i) + check_input(x, state.v)
        v = self.decay_mem.leak(state.v) + (i - state.s)
        v = self.firing.quantised(v)
        z = self.firing.decide(v, self.firing.threshold.astype(v.dtype))
        s = self.decay_feedback.leak(state.s) + self.firing.reset_spikes(z)
        return SigmaDeltaState(v, i, s), self.firing.output(z, output_dtype(x))
