"""Neurons that see their own spikes of the last time step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...engine import AbstractContainer, AbstractFunction, AbstractLayer, apply
from ..neurons import AbstractNeuron
from ..parts import as_float, check_input, output_dtype, parameter
from ._state import AbstractOuterState, initial_state


class OneToOne(AbstractFunction):
    """A weight per neuron: each is connected to itself alone.

    >>> OneToOne(jnp.array([0.5, 2.0]))(jnp.ones(2)).tolist()
    [0.5, 2.0]
    """

    weight: Array

    def __init__(self, weight: ArrayLike):
        """**Arguments:** `weight`: scalar or per neuron."""
        self.weight = parameter("weight", weight)

    def __call__(self, x: Array) -> Array:
        x = as_float(x)
        return self.weight.astype(x.dtype) * x


class RecurrentState(AbstractOuterState):
    """State of the neuron, its last output `z`, and the state of the connection (None if it has none)."""

    neuron: Any
    z: Float[Array, "..."]
    connection: Any = None

    @property
    def rho(self) -> Any:
        """The time steps that a refractory neuron still has to wait."""
        return self.neuron.rho


class Recurrent(AbstractLayer):
    r"""Any neuron with a connection from its output of the last time step to its input.

    $$ \text{state}_t, z_t = \text{neuron}(\text{state}_{t-1}, x_t + W(z_{t-1})) $$

    The connection may be dense (`eqx.nn.Linear`), convolutional (`eqx.nn.Conv2d` that keeps the shape), one to one
    (`snn.OneToOne`), delayed (`snn.Delay`, `snn.DelayedLinear`), or any layer, function or container from the shape of
    the neurons to the shape of the input. `snn.Recurrent(snn.LIF(...), connection)` is snnTorch's `RLeaky` and
    `RSynaptic`, and Norse's `LIFRecurrent`. The feed-forward weights are a layer in front of it, which
    `snnax.engine.layerwise` computes for the whole sequence at once.

    >>> from snnax import snn
    >>> import equinox as eqx
    >>> layer = Recurrent(snn.LIF(3, 0.9), eqx.nn.Linear(3, 3, use_bias=False, key=jax.random.key(0)))
    >>> state, spikes = layer(layer.init_state(), jnp.array([0.0, 1.5, 3.0]))
    >>> state.z.tolist()
    [0.0, 1.0, 1.0]
    """

    neuron: AbstractLayer
    connection: Any

    def __init__(self, neuron: AbstractLayer, connection: Any):
        """**Arguments:** `neuron`: a layer with state; `connection`: see above.

        **Raises:** `TypeError` for a neuron without state, or a connection that cannot be called.
        """
        if not isinstance(neuron, AbstractLayer):
            raise TypeError(f"neuron must be a layer with a state, found {neuron!r}")
        if not callable(connection) and not isinstance(connection, AbstractContainer):
            raise TypeError(f"connection must be a layer or a function, found {connection!r}")
        self.neuron = neuron
        self.connection = connection

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> RecurrentState:
        """The neuron's first state, and no spikes before it.

        **Raises:** `ValueError` when the shapes are not known or do not fit.
        """
        neuron_key, connection_key = (None, None) if key is None else jax.random.split(key)
        neuron = self.neuron.init_state(shape, key=neuron_key)
        z = self._output_of(neuron, shape)
        connection = initial_state(self.connection, z.shape, connection_key)
        # As for all shapes, statistics of a batch are not asked for.
        still = eqx.nn.inference_mode(self.connection)
        try:
            back = eqx.filter_eval_shape(apply, still, connection, (z,), jax.random.key(0))[1]
        except (TypeError, ValueError) as error:
            raise ValueError(f"the connection does not take the output of the neurons, {z.shape}: {error}") from error
        wanted = self._input_shape(neuron, shape)
        if back.shape != wanted:
            raise ValueError(
                f"the connection gives {back.shape} for neurons of shape {z.shape}; their input has the shape {wanted}"
            )
        return RecurrentState(neuron, jnp.zeros(z.shape, jnp.result_type(float)), connection)

    def __call__(
        self, state: RecurrentState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[RecurrentState, Float[Array, "..."]]:
        """One time step; returns the new state and the output of the neuron in the dtype of `x`."""
        neuron_key, connection_key = (None, None) if key is None else jax.random.split(key)
        with jax.named_scope("connection"):
            connection, back = apply(self.connection, state.connection, (state.z,), connection_key)
        # In the precision of states: half-precision input does not blur what comes back.
        back = back.astype(state.z.dtype)
        given = check_input(x, back)
        with jax.named_scope("neuron"):
            if isinstance(self.neuron, AbstractNeuron):
                neuron, z = self.neuron(state.neuron, given, feedback=back, key=neuron_key)
            else:
                neuron, z = self.neuron(state.neuron, given + back, key=neuron_key)
        return RecurrentState(neuron, z.astype(state.z.dtype), connection), z.astype(output_dtype(x))

    def _input_shape(self, neuron_state: Any, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        # A neuron that was built with its shape takes inputs of that shape.
        return tuple(shape) if shape is not None else neuron_state.v.shape

    def _output_of(self, neuron_state: Any, shape: tuple[int, ...] | None) -> jax.ShapeDtypeStruct:
        x = jax.ShapeDtypeStruct(self._input_shape(neuron_state, shape), jnp.result_type(float))
        return eqx.filter_eval_shape(self.neuron, neuron_state, x, key=jax.random.key(0))[1]
