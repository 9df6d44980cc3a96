"""The leaky integrate-and-fire neuron, with the conventions of the frameworks as options."""

from typing import Any, Literal

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from ..engine import AbstractLayer
from ..surrogate import AbstractSurrogate
from ._decay import AbstractDecay
from ._firing import Firing, Reset
from ._membrane import DecayConstants, InputScale, factors_from_tau, integrate, membrane_parameters, rest
from ._shape import Shape, as_shape, check_input, check_parameters, resolve_shape
from ._synapse import SynapseOrder, check_order, synapse_step


class LIFState(eqx.Module):
    """Membrane potential `v` and synaptic current `i` (None without a synapse)."""

    v: Float[Array, "..."]
    i: Float[Array, "..."] | None = None


class LIF(AbstractLayer):
    r"""Leaky integrate-and-fire neurons, with or without an exponential synapse.

    With the decay factors $\beta$ (membrane) and $\alpha$ (synapse), input $x$ and $i = x$ where there is no synapse:

    $$ i_t = \alpha i_{t-1} + x_t, \quad v_t = \beta v_{t-1} + i_t, \quad z_t = H(v_t - \theta),
       \quad v_t \leftarrow v_t - \theta z_t $$

    Membrane potentials are dimensionless, decays are factors per time step. The input of a time step can cause a spike
    in the same time step. This is discrete exponential decay as in snnTorch; what other frameworks do differently under
    the same name is an option: when the synapse is read (`synapse_order`), whether the input is scaled by
    $1 - \beta$ (`input_scale="one_minus_decay"`: $v_t = \beta v_{t-1} + (1 - \beta)(v_\text{leak} + i_t)$, as in
    Norse), and everything that `snn.Firing` says of threshold and reset.

    >>> import jax.numpy as jnp
    >>> lif = LIF(3, [0.9, 0.8])
    >>> state, spikes = lif(lif.init_state((3,)), jnp.array([0.5, 1.0, 2.0]))
    >>> spikes.tolist()
    [0.0, 0.0, 1.0]
    """

    decay_mem: AbstractDecay
    decay_syn: AbstractDecay | None
    v_leak: Array | None
    firing: Firing
    shape: tuple[int, ...] | None = eqx.field(static=True)
    synapse_order: SynapseOrder = eqx.field(static=True)
    input_scale: InputScale = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        decay_constants: DecayConstants,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        v_leak: ArrayLike | None = None,
        synapse_order: SynapseOrder = "decay-jump-read",
        input_scale: InputScale = "unit",
        reset_delay: bool | Literal["undone"] = False,
        detach_reset: bool = True,
        spike_at_threshold: bool = False,
        winner_take_all: bool = False,
        amplitude: ArrayLike | None = None,
        surrogate: AbstractSurrogate | None = None,
        key: Any = None,
    ):
        """**Arguments:**

        - `shape`: of the neurons, without batch and time; `None` takes it from the input.
        - `decay_constants`: `[membrane]` or `[membrane, synapse]`, or one value; each a factor per time step (scalar
          or per neuron) or a `snn.Factor` or `snn.Rate`.
        - `v_leak`: resting potential, with `input_scale="one_minus_decay"` only; also where the membrane starts.
        - `key`: ignored; nothing is drawn. Accepted as by every layer.
        - all others: see `snn.Firing`.

        **Raises:** `ValueError` for options that are unknown or do not go together.
        """
        del key
        self.decay_mem, self.decay_syn, self.v_leak = membrane_parameters(decay_constants, v_leak, input_scale)
        check_order(synapse_order)
        self.firing = Firing(
            threshold,
            reset,
            reset_delay=reset_delay,
            detach_reset=detach_reset,
            spike_at_threshold=spike_at_threshold,
            winner_take_all=winner_take_all,
            amplitude=amplitude,
            surrogate=surrogate,
        )
        self.shape = as_shape(shape)
        self.synapse_order = synapse_order
        self.input_scale = input_scale

    @classmethod
    def from_tau(
        cls, shape: Shape, tau_mem: float, tau_syn: float | None = None, *, dt: float, **options: Any
    ) -> "LIF":
        """Neurons from time constants in seconds, with decays `exp(-dt / tau)`; `options` as in the constructor.

        >>> print(round(float(LIF.from_tau(3, tau_mem=20e-3, dt=1e-3).decay_mem.factor), 4))
        0.9512
        """
        return cls(shape, factors_from_tau(tau_mem, tau_syn, dt), **options)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> LIFState:
        """Membranes at rest and no synaptic current, for neurons of `shape`."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        return LIFState(*rest(shape, self.v_leak, self.decay_syn))

    def __call__(
        self, state: LIFState, x: Float[Array, "..."], *, key: Any = None
    ) -> tuple[LIFState, Float[Array, "..."]]:
        """One time step.

        **Returns:** the new state, in the dtype of the old one, and the spikes, in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        drive, i = synapse_step(self.synapse_order, self.decay_syn, state.i, drive)
        v, z = self.firing.fire(state.v, lambda v: integrate(self.decay_mem, self.input_scale, self.v_leak, v, drive))
        return LIFState(v, i), self.firing.output(z, x.dtype)
