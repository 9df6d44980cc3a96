"""Izhikevich's simple model and its named behaviours."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Unpack

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...domains import POSITIVE, check
from ...engine import AbstractLayer
from ..parts import (
    Firing,
    FiringOptions,
    Shape,
    as_shape,
    check_input,
    check_parameters,
    optional,
    output_dtype,
    owned,
    parameter,
    resolve_shape,
)
from ._neuron import NeuronState


class Behavior(NamedTuple):
    """The parameters of one behaviour; `dt` in ms, `u0=None` is `b v0`."""

    a: float
    b: float
    c: float
    d: float
    v0: float
    dt: float = 0.25
    linear: float = 5.0
    constant: float = 140.0
    u0: float | None = None
    recovery: Literal["linear", "integral"] = "linear"
    v_recovery: float = 0.0


BEHAVIORS: Mapping[str, Behavior] = MappingProxyType(
    {
        "tonic_spiking": Behavior(0.02, 0.2, -65.0, 6.0, -70.0),
        "phasic_spiking": Behavior(0.02, 0.25, -65.0, 6.0, -64.0),
        "tonic_bursting": Behavior(0.02, 0.2, -50.0, 2.0, -70.0),
        "phasic_bursting": Behavior(0.02, 0.25, -55.0, 0.05, -64.0, dt=0.2),
        "mixed_mode": Behavior(0.02, 0.2, -55.0, 4.0, -70.0),
        "spike_frequency_adaptation": Behavior(0.01, 0.2, -65.0, 8.0, -70.0),
        "class_1_excitable": Behavior(0.02, -0.1, -55.0, 6.0, -60.0, linear=4.1, constant=108.0),
        "class_2_excitable": Behavior(0.2, 0.26, -65.0, 0.0, -64.0),
        "spike_latency": Behavior(0.02, 0.2, -65.0, 6.0, -70.0, dt=0.2),
        "subthreshold_oscillation": Behavior(0.05, 0.26, -60.0, 0.0, -62.0),
        "resonator": Behavior(0.1, 0.26, -60.0, -1.0, -62.0),
        "integrator": Behavior(0.02, -0.1, -55.0, 6.0, -60.0, linear=4.1, constant=108.0),
        "rebound_spike": Behavior(0.03, 0.25, -60.0, 4.0, -64.0, dt=0.2),
        "rebound_burst": Behavior(0.03, 0.25, -52.0, 0.0, -64.0, dt=0.2),
        "threshold_variability": Behavior(0.03, 0.25, -60.0, 4.0, -64.0),
        "bistability": Behavior(0.1, 0.26, -60.0, 0.0, -61.0),
        "depolarizing_afterpotential": Behavior(1.0, 0.2, -60.0, -21.0, -70.0, dt=0.1),
        "accommodation": Behavior(
            0.02, 1.0, -55.0, 4.0, -65.0, dt=0.5, u0=-16.0, recovery="integral", v_recovery=-65.0
        ),
        "inhibition_induced_spiking": Behavior(-0.02, -1.0, -60.0, 8.0, -63.8, dt=0.5),
        "inhibition_induced_bursting": Behavior(-0.026, -1.0, -45.0, -2.0, -63.8, dt=0.5),
    }
)


class Izhikevich(AbstractLayer):
    r"""Izhikevich's simple model, in its own units.

    $$ v_t = v_{t-1} + \Delta t \left(0.04 v_{t-1}^2 + 5 v_{t-1} + 140 - u_{t-1} + x_t\right), \quad
       u_t = u_{t-1} + \Delta t\, a (b v_{t-1} - u_{t-1}), $$
    $$ z_t = H(v_t - 30), \quad v_t \leftarrow (1 - z_t) v_t + z_t c, \quad u_t \leftarrow u_t + d z_t $$

    Izhikevich 2003 (doi:10.1109/TNN.2003.820440). $v$ in mV, $\Delta t$ in ms, $u$ (the adaptation `a` of the state)
    and the input in mV/ms. This is forward Euler with steps of 0.25 ms; steps far beyond 0.5 ms are unstable on the way
    up a spike. Norse's `Izhikevich` is this with `detach_reset=False`; SpikingJelly's `IzhikevichNode` is an adaptive
    `snn.QIF` without units.

    `reads="after"` lets $u$ follow the new membrane before its reset, $b v_t$ in the place of $b v_{t-1}$. That is how
    the twenty behaviours of Izhikevich 2004 (doi:10.1109/TNN.2004.832719, figure 1) were computed, and some of them
    depend on it. `Izhikevich.named` gives them, each with its time step; one of them, accommodation, recovers by
    $u_t = u_{t-1} + \Delta t\, a b (v - v_\text{recovery})$ (`recovery="integral"`):

    >>> import jax.numpy as jnp
    >>> neuron = Izhikevich.named("tonic_spiking", 1)
    >>> state, spikes = neuron.init_state(), 0.0
    >>> for _ in range(400):  # 100 ms
    ...     state, z = neuron(state, jnp.array([14.0]))
    ...     spikes += float(z[0])
    >>> spikes
    5.0
    """

    a: Array
    b: Array
    d: Array
    quadratic: Array
    linear: Array
    constant: Array
    v0: Array
    u0: Array | None
    firing: Firing
    dt: float = eqx.field(static=True)
    reads: Literal["before", "after"] = eqx.field(static=True)
    recovery: Literal["linear", "integral"] = eqx.field(static=True)
    v_recovery: float = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        a: ArrayLike = 0.02,
        b: ArrayLike = 0.2,
        c: ArrayLike = -65.0,
        d: ArrayLike = 8.0,
        *,
        dt: float = 0.25,
        threshold: ArrayLike = 30.0,
        quadratic: ArrayLike = 0.04,
        linear: ArrayLike = 5.0,
        constant: ArrayLike = 140.0,
        v0: ArrayLike = -70.0,
        u0: ArrayLike | None = None,
        reads: Literal["before", "after"] = "before",
        recovery: Literal["linear", "integral"] = "linear",
        v_recovery: float = 0.0,
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:**

        - `a`, `b`, `c`, `d`: as above, scalar or per neuron; regular spiking by default.
        - `dt`: the time step in ms.
        - `threshold`: the peak of a spike in mV.
        - `quadratic`, `linear`, `constant`: the coefficients 0.04, 5 and 140.
        - `v0`, `u0`: the first state; `u0=None` is `b v0`.
        - `reads`, `recovery`, `v_recovery`: how `u` follows the membrane, see above.
        - all others: see `snn.Firing`.

        **Raises:** `ValueError` for an unknown option, NaN, or a time step that is not positive.
        """
        del key
        if reads not in ("before", "after"):
            raise ValueError(f"reads must be 'before' or 'after', found {reads!r}")
        if recovery not in ("linear", "integral"):
            raise ValueError(f"recovery must be 'linear' or 'integral', found {recovery!r}")
        self.reads, self.recovery, self.v_recovery = reads, recovery, float(v_recovery)
        check("dt", dt, POSITIVE)
        self.a, self.b, self.d = parameter("a", a), parameter("b", b), parameter("d", d)
        self.quadratic, self.linear = parameter("quadratic", quadratic), parameter("linear", linear)
        self.constant = parameter("constant", constant)
        self.v0, self.u0 = parameter("v0", v0), optional("u0", u0)
        self.firing = Firing(threshold, parameter("c", c), **firing)
        self.dt = float(dt)
        self.shape = as_shape(shape)

    @classmethod
    def named(cls, behavior: str, shape: Shape, **options: Any) -> "Izhikevich":
        """Neurons of a named behaviour; `options` as in the constructor.

        **Raises:** `ValueError` for an unknown name, with those that are known.
        """
        if behavior not in BEHAVIORS:
            raise ValueError(f"behavior must be one of {list(BEHAVIORS)}, found {behavior!r}")
        given: dict[str, Any] = {"reads": "after", **BEHAVIORS[behavior]._asdict(), **options}
        return cls(shape, **given)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> NeuronState:
        """`v0` and `u0` for neurons of `shape`, in JAX's default float."""
        del key
        shape = resolve_shape(self.shape, shape)
        check_parameters(self, shape)
        v = owned(self.v0, shape)
        u = owned(self.b.astype(v.dtype) * v if self.u0 is None else self.u0, shape)
        return NeuronState(v, None, u)

    def __call__(
        self, state: NeuronState, x: Shaped[Array, "..."], *, key: Any = None
    ) -> tuple[NeuronState, Float[Array, "..."]]:
        """One time step; returns the new state and the spikes in the dtype of `x`.

        **Raises:** `ValueError` when the shape of `x` is not that of the neurons.
        """
        del key
        drive = check_input(x, state.v)
        v, u, dtype = state.v, state.a, state.v.dtype
        assert u is not None
        a, b, d = (each.astype(dtype) for each in (self.a, self.b, self.d))
        quadratic, linear, constant = (each.astype(dtype) for each in (self.quadratic, self.linear, self.constant))
        before = v
        v, z, charged = self.firing.fire(
            v, lambda v: v + self.dt * (quadratic * v**2 + linear * v + constant - u + drive)
        )
        target = b * ((before if self.reads == "before" else charged) - self.v_recovery)
        recovered = u + self.dt * a * (target - u if self.recovery == "linear" else target)
        return NeuronState(v, None, recovered + z * d), self.firing.output(z, output_dtype(x))
