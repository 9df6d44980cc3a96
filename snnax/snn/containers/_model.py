"""What every container can do: start, step, run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import engine
from ...engine import AbstractContainer
from ._summary import summary


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
        self,
        states: Any,
        xs: Any,
        key: Array | None = None,
        *,
        engine: Callable = engine.layerwise,
        burnin: int = 0,
        mask: Any = None,
    ) -> tuple[Any, list[Any]]:
        """Run over a sequence.

        **Arguments:**

        - `states`: as returned by `init_states`, or by the last call to go on from there.
        - `xs`: `(time, ...)`, or `snnax.Repeat` for an input that is the same at every step; a tuple of them for a
          graph of several inputs.
        - `key`: for layers that draw random numbers; they draw anew at every time step.
        - `engine`: how to run. `snnax.engine.layerwise`, the default; `stepwise`, which defines the result;
          `checkpointed`, for long sequences on little memory; `parallel`, for linear recurrences. They compute the
          same. `functools.partial(engine.layerwise, methods={"lif1": "parallel"})` chooses for single layers.
        - `burnin`: so many first steps have no gradient (truncated backpropagation through time). To train on pieces
          of a longer sequence, hand on `jax.lax.stop_gradient(states)`.
        - `mask`: `(time,)` Booleans, False for time steps that do not count, as the padding of a shorter sequence: the
          states stay as they are, outputs are zero, inputs are not looked at.

        **Returns:** the states after the last step, and the list of every layer's output sequence `(time, ...)`;
        the last one is the network's.

        **Raises:** `ValueError` for inputs that do not fit.
        """
        if not callable(engine):
            raise TypeError(f"engine is a function such as snnax.engine.parallel, found {engine!r}")
        options = {} if mask is None else {"mask": mask}
        if not burnin:
            return engine(self, states, xs, key=key, **options)
        return _burned_in(self, states, xs, key, engine, burnin, options)

    def summary(self, input_shape: Any = None) -> str:
        """A table of all nodes, those of nested containers below them: shapes of output and state, parameters.

        **Arguments:** `input_shape`: as for `init_states`; it may be left out where that knows all shapes.
        """
        return summary(self, input_shape)


def _burned_in(model, states, xs, key, run, burnin, options) -> tuple[Any, list[Any]]:
    inputs, num_steps = engine.input_sequences(xs, model.wiring.inputs)
    if not 0 <= burnin <= num_steps:
        raise ValueError(f"burnin is a number of time steps, at most {num_steps} here, found {burnin}")
    keys = engine.step_keys(key, num_steps)
    several = len(inputs) > 1

    def piece(start: int, stop: int, states: Any) -> tuple[Any, list[Any]]:
        cut = tuple(engine.time_slice(x, start, stop) for x in inputs.values())
        mask = {name: value[start:stop] for name, value in options.items()}
        step_keys = None if keys is None else keys[start:stop]
        return run(model, states, cut if several else cut[0], key=step_keys, **mask)

    states, early = jax.lax.stop_gradient(piece(0, burnin, states))
    states, late = piece(burnin, num_steps, states)
    return states, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)
