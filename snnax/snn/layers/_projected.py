"""Cells with weights of their own: their input projection does not wait for the loop over time."""

import abc
from typing import Any

import jax
from jaxtyping import Array, Float, Shaped

from ...engine import AbstractSequenceLayer, scan_layer
from ..parts import output_dtype


class AbstractProjectedLayer(AbstractSequenceLayer):
    """A layer that is a stateless projection of its input, followed by a step on the projection.

    Over a sequence, all projections are one matrix product or convolution, and only the step is looped.
    """

    @abc.abstractmethod
    def project(self, x: Array) -> Array:
        """What the step reads of its input, in the dtype of the weights."""

    @abc.abstractmethod
    def advance(self, state: Any, projected: Array) -> tuple[Any, Array]:
        """One time step on a projected input: the new state, and the output in the dtype of the state."""

    @property
    def needs_whole_sequence(self) -> bool:
        """False: the layer can be stepped."""
        return False

    def __call__(self, state: Any, x: Shaped[Array, "..."], *, key: Any = None) -> tuple[Any, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`."""
        del key
        state, out = self.advance(state, self.project(x))
        return state, out.astype(output_dtype(x))

    def apply_sequence(
        self, state: Any, xs: Shaped[Array, "time ..."], *, keys: Any = None, mask: Any = None
    ) -> tuple[Any, Float[Array, "time ..."]]:
        """A whole sequence, as described for `snn.AbstractSequenceLayer`."""
        del keys

        def advance(state, projected, *, key):
            return self.advance(state, projected)

        state, outs = scan_layer(advance, state, jax.vmap(self.project)(xs), None, mask)
        return state, outs.astype(output_dtype(xs))
