"""Dropout with one mask for a whole sequence."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from ...engine import AbstractSequenceLayer
from ..parts import as_float, resolve_shape


class DropoutState(eqx.Module):
    """The mask of the sequence, and whether it has been drawn."""

    mask: Bool[Array, "..."]
    drawn: Bool[Array, ""]


class Dropout(AbstractSequenceLayer):
    """Dropout per sequence (one mask that all time steps share) or per step (another one at every step).

    What is kept is scaled by `1 / (1 - p)` (Srivastava et al. 2014). One mask per sequence takes a neuron out of the
    network as dropout does in networks without time (SpikingJelly's `Dropout`); a mask per step is noise that the next
    membrane averages out (a `torch.nn.Dropout` in a Python loop, and `eqx.nn.Dropout`, which works here as well).
    The mask is drawn with the key of the first time step and is part of the state: going on from returned states keeps
    it, `init_states` forgets it. `eqx.nn.inference_mode(model)` switches dropout off.

    >>> from snnax import snn
    >>> model = snn.Sequential(Dropout(0.5))
    >>> _, outs = model(model.init_states(input_shape=(6,)), jnp.ones((3, 6)), jax.random.key(0))
    >>> len({tuple(step) for step in outs[0].tolist()}), sorted(set(outs[0][0].tolist()))
    (1, [0.0, 2.0])
    """

    inference: bool
    p: float = eqx.field(static=True)
    per: Literal["sequence", "step"] = eqx.field(static=True)

    def __init__(self, p: float = 0.5, *, per: Literal["sequence", "step"] = "sequence", inference: bool = False):
        """**Arguments:** `p`: the share of elements that are zeroed; `per`: see above; `inference`: whether it is off.

        **Raises:** `ValueError` unless `0 <= p < 1`, and for an unknown `per`.
        """
        if not 0 <= p < 1:
            raise ValueError(f"p is the share of elements that are dropped, at least 0 and below 1, found {p}")
        if per not in ("sequence", "step"):
            raise ValueError(f"per must be 'sequence' or 'step', found {per!r}")
        self.inference = inference
        self.p = p
        self.per = per

    @property
    def needs_whole_sequence(self) -> bool:
        """False: the layer can be stepped."""
        return False

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> DropoutState:
        """No mask yet, for inputs of `shape`.

        **Raises:** `ValueError` when the shape is not known.
        """
        del key
        return DropoutState(jnp.ones(resolve_shape(None, shape), bool), jnp.zeros((), bool))

    def __call__(
        self, state: DropoutState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[DropoutState, Float[Array, "..."]]:
        """One time step.

        **Raises:** `ValueError` without a key, unless dropout is off.
        """
        if self.inference or self.p == 0:
            return state, as_float(x)
        mask = self._draw(key, state)
        if self.per == "sequence":
            mask = jnp.where(state.drawn, state.mask, mask)
            state = DropoutState(mask, jnp.ones((), bool))
        return state, self._masked(mask, x)

    def apply_sequence(
        self, state: DropoutState, xs: Shaped[Array, "time ..."], *, keys: Any = None, mask: Any = None
    ) -> tuple[DropoutState, Float[Array, "time ..."]]:
        """A whole sequence, as described for `snn.AbstractSequenceLayer`."""
        if self.inference or self.p == 0 or xs.shape[0] == 0:
            return state, as_float(xs)
        if self.per == "step":
            masks = jax.vmap(lambda key: self._draw(key, state))(self._checked(keys))
            return state, self._masked(masks, xs)
        counts = jnp.ones(xs.shape[0], bool) if mask is None else mask
        drawn = self._draw(self._checked(keys)[jnp.argmax(counts)], state)
        new = jnp.where(state.drawn | ~counts.any(), state.mask, drawn)
        return DropoutState(new, state.drawn | counts.any()), self._masked(new, xs)

    def _checked(self, key: Any) -> Any:
        if key is None:
            raise ValueError(
                "Dropout needs a key: model(states, xs, key), or switch dropout off: eqx.nn.inference_mode(model)"
            )
        return key

    def _draw(self, key: Any, state: DropoutState) -> Array:
        return jax.random.bernoulli(self._checked(key), 1 - self.p, state.mask.shape)

    def _masked(self, mask: Array, xs: Array) -> Array:
        xs = as_float(xs)
        return jnp.where(mask, xs / (1 - self.p), jnp.zeros((), xs.dtype))
