"""Neurons that cannot spike for a while after a spike."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...domains import NOT_NEGATIVE
from ...engine import AbstractLayer
from ...surrogate import AbstractSurrogate, SuperSpike
from ..parts import Firing, output_dtype, parameter
from ._state import AbstractOuterState


class RefractoryState(AbstractOuterState):
    """State of the neuron, and the time steps `rho` that it still has to wait."""

    neuron: Any
    rho: Float[Array, "..."]


class Refractory(AbstractLayer):
    r"""Any neuron with an absolute refractory period.

    With $m = H(\rho_{t-1})$, the neuron's own step $v', z'$ becomes

    $$ v_t = (1 - m) v' + m v_{t-1}, \quad z_t = (1 - m) z', \quad
       \rho_t = (1 - z_t) \max(0, \rho_{t-1} - m) + z_t \rho_\text{reset} $$

    The membrane stands still, synapse and adaptation go on. This is the rule of Norse 1.1 (`LIFRefrac`, its `AdEx`
    form too), where the refractory period is counted in time steps and learns through the surrogate of $m$. A
    `Recurrent` connection belongs around it: `snn.Recurrent(snn.Refractory(snn.LIF(...), 5), ...)`.

    >>> from snnax import snn
    >>> layer = Refractory(snn.IF(1), period=2)
    >>> state, spikes = layer.init_state(), []
    >>> for _ in range(7):
    ...     state, z = layer(state, jnp.array([1.5]))
    ...     spikes.append(int(z[0]))
    >>> spikes
    [1, 0, 0, 1, 0, 0, 1]
    """

    neuron: AbstractLayer
    period: Array
    surrogate: AbstractSurrogate

    def __init__(self, neuron: AbstractLayer, period: ArrayLike, *, surrogate: AbstractSurrogate | None = None):
        """**Arguments:** `neuron`: a layer whose state has a membrane potential `v`; `period`: in time steps, scalar or
        per neuron; `surrogate`: of the step function in `m`, `SuperSpike()` when not given.

        **Raises:** `TypeError` for a neuron without state, `ValueError` for one with graded spikes or a period below 0.
        """
        if not isinstance(neuron, AbstractLayer):
            raise TypeError(f"neuron must be a layer with a state, found {neuron!r}")
        is_firing = lambda x: isinstance(x, Firing)  # noqa: E731
        rules = [x for x in jax.tree.leaves(neuron, is_leaf=is_firing) if is_firing(x)]
        if any(rule.amplitude is not None for rule in rules):
            raise ValueError(
                "the neuron has an amplitude, but its output must be spikes of 0 or 1, which are counted; "
                "put snn.OneToOne(amplitude) behind the Refractory instead"
            )
        self.neuron = neuron
        self.period = parameter("period", period, NOT_NEGATIVE, "it is a number of time steps")
        self.surrogate = SuperSpike() if surrogate is None else surrogate

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> RefractoryState:
        """The neuron's first state; no neuron waits."""
        neuron = self.neuron.init_state(shape, key=key)
        return RefractoryState(neuron, jnp.zeros(neuron.v.shape, jnp.result_type(float)))

    def __call__(
        self, state: RefractoryState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[RefractoryState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`."""
        with jax.named_scope("neuron"):
            neuron, out = self.neuron(state.neuron, x, key=key)
        dtype = state.rho.dtype
        waits = self.surrogate(state.rho)
        v = (1 - waits) * neuron.v + waits * state.neuron.v
        z = (1 - waits) * out.astype(dtype)
        rho = (1 - z) * jax.nn.relu(state.rho - waits) + z * self.period.astype(dtype)
        neuron = eqx.tree_at(lambda neuron: neuron.v, neuron, v)
        return RefractoryState(neuron, rho), z.astype(output_dtype(x))
