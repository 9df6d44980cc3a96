"""The integrate-and-fire neuron: a membrane that forgets nothing."""

from typing import Any, Unpack

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ..parts import Firing, FiringOptions, Reset, Shape, SynapseOrder, as_shape
from ._neuron import AbstractNeuron


class IF(AbstractNeuron):
    r"""Integrate-and-fire neurons, the LIF neuron with $\beta = 1$.

    $$ v_t = v_{t-1} + x_t, \quad z_t = H(v_t - \theta), \quad v_t \leftarrow v_t - \theta z_t $$

    >>> neuron = IF(1, threshold=1.0)
    >>> state = neuron.init_state()
    >>> for _ in range(4):
    ...     state, spikes = neuron(state, jnp.array([0.3]))
    >>> spikes.tolist()
    [1.0]
    """

    decay_syn: None
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)
    synapse_order: SynapseOrder = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        """Arguments and errors as for the same names of `snn.LIF` and `snn.Firing`."""
        del key
        self.decay_syn = self.adaptation = None
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)
        self.synapse_order = "decay-jump-read"

    @property
    def v_rest(self) -> float:
        return 0.0

    @property
    def membrane_factor(self) -> Array:
        return jnp.ones(())

    def charge(self, v, drive):
        return v + drive
