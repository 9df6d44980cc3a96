"""One example of every exported layer with state, each with all of its optional parameters.

Inputs are uniform in [0, 4): with these parameters every spiking layer is awake, and none saturated.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from snnax import engine, snn, surrogate


SHAPE = (3, 4)
KEY = jax.random.key(7)


@dataclasses.dataclass(frozen=True)
class Example:
    """How to build a layer of a shape; what kind of input it takes; what it cannot do."""

    make: Callable[[Any], Any]
    shape: tuple[int, ...] = SHAPE
    has_shape: bool = True  # the shape may be given at construction
    spikes: bool = True
    needs_key: bool = False
    # Float leaves without a gradient, by the end of their path, and why.
    without_gradient: tuple[str, ...] = ()
    # The batch takes part in the result.
    mixes_batch: bool = False


def detached(**options):
    return {"detach_reset": False, "amplitude": 1.5, **options}


def positive_leaky_parallel(_):
    """No membrane is held at 0 by the rectifier, where it would have no gradient."""
    layer = snn.LeakyParallel(4, 5, 6.0, amplitude=1.5, key=KEY)
    where = lambda layer: (layer.weight_ih, layer.weight_hh, layer.bias)  # noqa: E731
    return eqx.tree_at(where, layer, tuple(map(jnp.abs, where(layer))))


EXAMPLES = {
    snn.IF: Example(lambda shape: snn.IF(shape, 0.5, 0.1, **detached())),
    snn.LIF: Example(
        lambda shape: snn.LIF(shape, [0.9, 0.8], 0.5, 0.1, v_leak=0.05, input_scale="one_minus_decay", **detached())
    ),
    snn.LI: Example(lambda shape: snn.LI(shape, [0.9, 0.8], v_leak=0.05, input_scale="one_minus_decay"), spikes=False),
    snn.CubaLI: Example(lambda shape: snn.CubaLI(shape, [0.9, 0.8], v_leak=0.05), spikes=False),
    snn.PLIF: Example(lambda shape: snn.PLIF(shape, 3.0, 0.9, 0.1, v_leak=0.05, **detached())),
    snn.Lapicque: Example(lambda shape: snn.Lapicque(shape, 2.0, 3.0, 0.5, 0.1, dt=0.7, **detached())),
    snn.AdaptiveLIF: Example(
        lambda shape: snn.AdaptiveLIF(
            shape, [0.9, 0.8], 0.95, 0.9, 0.1, coupling=0.3, jump=0.4, v_leak=0.05, **detached()
        )
    ),
    snn.ALIF: Example(
        lambda shape: snn.ALIF(shape, [0.9, 0.8], 0.9, 0.8, scale=1.3, jump=0.4, v_leak=0.05, **detached())
    ),
    snn.LSNN: Example(
        lambda shape: snn.LSNN(shape, [snn.Rate(0.3), snn.Rate(0.2)], 0.9, 0.5, 0.1, v_leak=0.05, **detached())
    ),
    snn.EIF: Example(
        lambda shape: snn.EIF(
            shape, [snn.Rate(0.1), 0.6], 1.5, 0.1, delta_T=0.7, theta_rh=1.0, v_leak=0.05, **detached()
        )
    ),
    snn.AdEx: Example(
        lambda shape: snn.AdEx(
            shape,
            [snn.Rate(0.1), 0.6],
            snn.Rate(0.2),
            1.5,
            0.1,
            coupling=0.3,
            jump=0.2,
            delta_T=0.7,
            theta_rh=1.0,
            v_leak=0.05,
            **detached(),
        )
    ),
    snn.QIF: Example(
        lambda shape: snn.QIF(
            shape,
            [snn.Rate(0.2), 0.6],
            1.0,
            v_rest=0.05,
            decay_adapt=0.9,
            coupling=0.3,
            jump=0.2,
            **detached(),
        )
    ),
    snn.Izhikevich: Example(
        # Ten times the input of the others, as its currents are in mV/ms.
        lambda shape: snn.Izhikevich(shape, dt=0.5, quadratic=0.05, v0=-55.0, u0=-14.0, **detached())
    ),
    snn.Alpha: Example(
        lambda shape: snn.Alpha(shape, 0.9, 0.7, 0.9, "subtract", **detached(surrogate=surrogate.ATan()))
    ),
    snn.SRM: Example(lambda shape: snn.SRM(shape, [0.8, 0.6, 0.9], 0.9, response=4.0, **detached())),
    snn.SigmaDelta: Example(lambda shape: snn.SigmaDelta(shape, [0.9, 0.3, 0.8], 0.9, amplitude=1.5)),
    snn.Refractory: Example(
        lambda shape: snn.Refractory(snn.LIF(shape, 0.8, detach_reset=False), 2.0, surrogate=surrogate.ATan())
    ),
    snn.Recurrent: Example(
        lambda shape: snn.Recurrent(snn.LIF(shape, 0.8, detach_reset=False), snn.OneToOne(-0.7)),
    ),
    snn.SLSTM: Example(
        lambda _: snn.SLSTM(4, 5, 0.1, 0.05, amplitude=1.5, detach_reset=False, key=KEY), (4,), has_shape=False
    ),
    snn.SConvLSTM: Example(
        lambda _: snn.SConvLSTM(2, 3, 3, 0.1, "subtract", pool=snn.MaxPool(2), amplitude=1.5, key=KEY),
        (2, 4, 6),
        has_shape=False,
    ),
    snn.LeakyParallel: Example(positive_leaky_parallel, (4,), has_shape=False),
    snn.SpikeCounter: Example(lambda shape: snn.SpikeCounter(shape), spikes=False),
    snn.Delay: Example(lambda _: snn.Delay(1.3, 3), has_shape=False, spikes=False),
    snn.DelayedLinear: Example(
        lambda _: snn.DelayedLinear(4, 5, 3, interpolation="gaussian", key=KEY), (4,), has_shape=False, spikes=False
    ),
    snn.Dropout: Example(lambda _: snn.Dropout(0.5), has_shape=False, spikes=False, needs_key=True),
    snn.BatchNorm: Example(
        lambda _: snn.BatchNorm(3, inference=True),
        has_shape=False,
        spikes=False,
        without_gradient=("mean", "var"),  # they are statistics, not parameters
    ),
}


def exported() -> set[type]:
    """All public layers with state that can be built."""
    kinds = [kind for kind in vars(snn).values() if isinstance(kind, type) and issubclass(kind, engine.AbstractLayer)]
    return {kind for kind in kinds if not kind.__name__.startswith("Abstract")}


def inputs(example: Example, key: Any, num_steps: int = 8) -> jax.Array:
    return jax.random.uniform(key, (num_steps, *example.shape), maxval=4.0)


def leaves(tree: Any) -> list[jax.Array]:
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def weighted(tree: Any) -> jax.Array:
    """A number that depends on every element, each with a weight of its own."""
    found = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum(
        (jnp.sum(leaf * jnp.cos(jnp.arange(1.0, leaf.size + 1.0)).reshape(leaf.shape)) for leaf in found),
        jnp.zeros(()),
    )
