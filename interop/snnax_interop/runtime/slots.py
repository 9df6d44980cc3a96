"""Where the arrays of a converted network sit: slots in its graphs, and buffers that no gradient sees."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Slot:
    """In the place of an array of the native model: which stored array belongs there, in which shape.

    `exact` keeps integers and booleans as they are; neurons compute with floating point numbers, also where torch keeps
    an integer.
    """

    key: str
    shape: tuple[int, ...]
    exact: bool = False


class Frozen(eqx.Module):
    """An array that is not trained: a buffer, or a parameter with `requires_grad=False`.

    It is kept as bytes, so that no gradient, optimiser or weight decay sees a floating point leaf; it is still an array
    that is traced, saved and sharded like any other.
    """

    bits: Array | None
    dtype: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, value: Array):
        self.dtype = str(value.dtype)
        self.shape = tuple(value.shape)
        self.bits = value if value.dtype == bool else jax.lax.bitcast_convert_type(value, jnp.uint8)

    @property
    def value(self) -> Array:
        assert self.bits is not None
        return self.bits if self.dtype == "bool" else jax.lax.bitcast_convert_type(self.bits, jnp.dtype(self.dtype))


def place_holder() -> Frozen:
    """In the place of a buffer whose value is fixed."""
    return Frozen(jnp.zeros((), bool))
