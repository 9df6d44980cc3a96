"""The integrate-and-fire neuron as an electric circuit."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import Array, ArrayLike

from ...domains import FRACTION, POSITIVE, check
from ..parts import Factor, Firing, FiringOptions, Integration, Reset, Shape, as_shape, check_times, parameter
from ._neuron import AbstractNeuron


class Lapicque(AbstractNeuron):
    r"""Leaky integrate-and-fire neurons with resistance $R$ and capacitance $C$, stepped by forward Euler.

    $$ v_t = \left(1 - \frac{\Delta t}{R C}\right) v_{t-1} + \frac{\Delta t}{C} x_t, \quad z_t = H(v_t - \theta),
       \quad v_t \leftarrow v_t - \theta z_t $$

    Lapicque 1907 (doi:10.1007/s00422-007-0189-6). $R$ in Ohm, $C$ in Farad, $\Delta t$ in seconds and the input in
    Ampere give the membrane in Volt; any units that go together do. snnTorch's class of this name does the same with
    `reset_delay=True, keep_input=False`; the `beta` that it takes is not its decay but sets $C$.

    >>> import jax.numpy as jnp
    >>> neuron = Lapicque(1, resistance=5.0, capacitance=2.0, dt=1.0)
    >>> state, _ = neuron(neuron.init_state(), jnp.array([1.0]))
    >>> state.v.tolist()
    [0.5]
    """

    resistance: Array
    capacitance: Array
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        resistance: ArrayLike,
        capacitance: ArrayLike,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "subtract",
        *,
        dt: float = 1.0,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        r"""**Arguments:** `resistance`, `capacitance`: scalar or per neuron; `dt`: the time step; all others as in
        `snn.LIF`.

        **Raises:** `ValueError` for parameters that are not positive or a `dt` above $R C$, and for an unknown option.
        """
        del key
        self.resistance = parameter("resistance", resistance, POSITIVE)
        self.capacitance = parameter("capacitance", capacitance, POSITIVE)
        check("dt", dt, POSITIVE)
        lost = dt / (self.resistance * self.capacitance)
        check("dt / (resistance * capacitance)", lost, FRACTION, "an Euler step of more overshoots")
        self.dt = float(dt)
        self.adaptation = None
        self.firing = Firing(threshold, reset, **firing)
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, *, dt: float, resistance: float = 1.0, **options: Any):
        """Neurons with $R C$ = `tau_mem` seconds; `options` as in the constructor.

        **Raises:** `ValueError` unless both times are positive.
        """
        check_times(tau_mem, dt)
        return cls(shape, resistance, tau_mem / resistance, dt=dt, **options)

    @property
    def integration(self) -> Integration:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The decay of the circuit; its membrane takes up the input by an equation of its own."""
        return Integration(Factor(1 - self.dt / (self.resistance * self.capacitance), constraint="none"))

    @property
    def v_rest(self) -> float:
        return 0.0

    @property
    def membrane_factor(self) -> Array:
        return self.decay_mem.factor

    def charge(self, v, drive):
        # Multiplied in the order of snnTorch, to the bit.
        resistance, capacitance = self.resistance.astype(v.dtype), self.capacitance.astype(v.dtype)
        return (
            drive * resistance * (1 / (resistance * capacitance)) * self.dt
            + (1 - self.dt / (resistance * capacitance)) * v
        )
