"""What every container can do: start, step, run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import engine
from ..engine import AbstractContainer


class AbstractModel(AbstractContainer):
    """Layers that run over time: time-major, one sample, batch by `jax.vmap`."""

    def init_states(
        self, key: Array | None = None, *, input_shape: Any = None, dtype: jnp.dtype | type | None = None
    ) -> Any:
        """The states before the first time step.

        **Arguments:**

        - `key`: for layers with random initial states; may be left out.
        - `input_shape`: of one sample at one time step, without batch and time, where layers were not given their
          shapes; a tuple of shapes for a graph of several inputs. A `jax.ShapeDtypeStruct` also gives the dtype.
        - `dtype`: of floating point states; JAX's default float when not given. States are never narrower than
          float32.

        **Raises:** `ValueError` naming the node when a shape is unknown or does not fit.
        """
        states = engine.init_states(self, key, input_shape)
        if dtype is None:
            return states
        dtype = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, states)

    def step(self, states: Any, x: Any, *, key: Array | None = None) -> tuple[Any, list[Any]]:
        """One time step on one sample: `(states, x) -> (states, outs)`.

        `outs` lists the output of every layer; `outs[-1]` is the network's.
        """
        return engine.step(self, states, x, key)

    def __call__(
        self, states: Any, xs: Any, key: Array | None = None, *, engine: Callable = engine.layerwise
    ) -> tuple[Any, list[Any]]:
        """Run over a sequence.

        **Arguments:**

        - `states`: as returned by `init_states`, or by the last call to go on from there.
        - `xs`: `(time, ...)`, or `snnax.Repeat` for an input that is the same at every step; a tuple of them for a
          graph of several inputs.
        - `key`: for layers that draw random numbers; they draw anew at every time step.
        - `engine`: `snnax.engine.layerwise` or `snnax.engine.stepwise`; they compute the same.

        **Returns:** the states after the last step, and the list of every layer's output sequence `(time, ...)`;
        the last one is the network's.

        **Raises:** `ValueError` for inputs that do not fit.
        """
        return engine(self, states, xs, key=key)
