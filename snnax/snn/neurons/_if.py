"""The integrate-and-fire neuron: a membrane that forgets nothing."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ..parts import Firing, FiringOptions, Integration, Lossless, Reset, Shape, as_shape
from ._neuron import AbstractNeuron


class IF(AbstractNeuron):
    r"""Integrate-and-fire neurons, the LIF neuron with $\beta = 1$.

    $$ v_t = v_{t-1} + x_t, \quad z_t = H(v_t - \theta), \quad v_t \leftarrow v_t - \theta z_t $$

    >>> import jax.numpy as jnp
    >>> neuron = IF(1, threshold=1.0)
    >>> state = neuron.init_state()
    >>> for _ in range(4):
    ...     state, spikes = neuron(state, jnp.array([0.3]))
    >>> spikes.tolist()
    [1.0]
    """

    integration: Integration
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

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
        self.integration = Integration(Lossless())
        self.adaptation = None
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)

    @property
    def v_rest(self) -> Array | float:
        return self.integration.v_rest

    @property
    def membrane_factor(self) -> Array:
        return self.decay_mem.factor

    def charge(self, v, drive):
        return self.integration.charge(v, drive)
