"""The spike response model."""

from typing import Any, Unpack

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...domains import POSITIVE, check
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
    parameter,
    resolve_shape,
)


class SRMState(eqx.Module):
    """Membrane potential `v`, synaptic trace `i`, response `u` to the input, response `r` to the
    neuron's spikes as the next time step will read it."""

    v: Float[Array, "..."]
    i: Float[Array, "..."]
    u: Float[Array, "..."]
    r: Float[Array, "..."]


class SRM(AbstractLayer):
    r"""Neurons of the spike response model: the membrane is the sum of two filters, and is never reset.

    $$ i_t = \alpha i_{t-1} + x_t, \quad u_t = \beta u_{t-1} + i_t, \quad v_t = u_t - r_{t-1}, \quad
       z_t = H(v_t - \theta), \quad r_t = \gamma r_{t-1} + \eta z_t $$

    Gerstner & Kistler 2002 (doi:10.1017/CBO9780511815706), with a double-exponential kernel for the input and an
    exponential one of height $\eta$ for the neuron's own spikes. For $\gamma = \beta$ and $\eta = \beta \theta$ this is
    the LIF neuron with a synapse that subtracts its threshold (`snn.LIF`); other $\gamma$ give refractoriness a time
    scale of its own. The `SRM` of the original snnax filters in front of a layer of weights: as filters and weights are
    linear, that is the same. `detach_reset` says whether $r$ hides the spike from the gradient.

    >>> neuron = SRM(1, [0.5, 0.5, 0.9], response=2.0)
    >>> state, spikes = neuron(neuron.init_state(), jnp.array([1.5]))
    >>> state, late = neuron(state, jnp.array([0.0]))
    >>> spikes.tolist(), state.v.tolist()  # 0.5 * 1.5 + 0.75 - 2
    ([1.0], [-0.5])
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay
    decay_ref: AbstractDecay
    response: Array
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: Any,
        threshold: ArrayLike = 1.0,
        *,
        response: ArrayLike = 1.0,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        r"""**Arguments:** `decay_constants`: `[membrane, synapse, refractoriness]`, $\beta, \alpha, \gamma$;
        `response`: $\eta$; scalar or per neuron. All others as in `snn.LIF`; there is no reset and thus no
        `reset_delay`.

        **Raises:** `ValueError` for another number of decay constants, or a `reset_delay`.
        """
        del key
        decays = list(decay_constants) if isinstance(decay_constants, list | tuple) else [decay_constants]
        if len(decays) != 3:
            raise ValueError(f"decay_constants are [membrane, synapse, refractoriness], found {len(decays)} values")
        self.decay_mem, self.decay_syn, self.decay_ref = map(as_decay, decays)
        self.response = parameter("response", response)
        check("threshold", threshold, POSITIVE, "neurons at rest must not spike")
        self.firing = Firing(threshold, "none", **fixed_delay("SRM", firing, False))
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float, tau_ref: float, *, dt: float, **options: Any
    ) -> "SRM":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`."""
        return cls(shape, [factor_from_tau(tau, dt) for tau in (tau_mem, tau_syn, tau_ref)], **options)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> SRMState:
        """All zero, for neurons of `shape`; in JAX's default float."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return SRMState(*jnp.zeros((4, *shape), jnp.result_type(float)))

    def __call__(
        self, state: SRMState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[SRMState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        i = self.decay_syn.leak(state.i) + drive
        u = self.decay_mem.leak(state.u) + i
        v = u - state.r
        v = self.firing.quantised(v)
        z = self.firing.decide(v, self.firing.threshold.astype(v.dtype))
        r = self.decay_ref.leak(state.r) + self.response.astype(v.dtype) * self.firing.reset_spikes(z)
        return SRMState(v, i, u, r), self.firing.output(z, output_dtype(x))
