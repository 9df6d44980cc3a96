"""The leaky integrate-and-fire neuron whose decay is learned."""

from typing import Any, Unpack

import equinox as eqx
from jaxtyping import ArrayLike

from ..parts import Firing, FiringOptions, InputScale, Integration, Reset, Shape, SigmoidRate, as_shape
from ._leaky import AbstractLeaky


class PLIF(AbstractLeaky):
    r"""Parametric LIF neurons: the rate of decay is $\sigma(w)$ with a learnable $w$, so that no bound stops learning.

    $$ v_t = v_{t-1} + \sigma(w) (v_\text{leak} - v_{t-1} + x_t), \quad z_t = H(v_t - \theta),
       \quad v_t \leftarrow (1 - z_t) v_t + z_t v_\text{reset} $$

    Fang et al. 2021 (doi:10.1109/ICCV48922.2021.00266), with the defaults of SpikingJelly's `ParametricLIFNode`: a
    membrane at threshold spikes, the membrane is set to 0 and its gradient goes through the reset.
    `input_scale="unit"` is `decay_input=False` there. `snn.LIF` learns its decay factor itself and by default subtracts
    the threshold.

    >>> plif = PLIF(3, init_tau=2.0)
    >>> print(plif.decay_mem.factor)
    0.5
    """

    integration: Integration
    firing: Firing
    adaptation: None
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        init_tau: float = 2.0,
        threshold: ArrayLike = 1.0,
        reset: Reset | ArrayLike = "zero",
        *,
        v_leak: ArrayLike | None = None,
        input_scale: InputScale = "one_minus_decay",
        key: Any = None,
        **firing: Unpack[FiringOptions],
    ):
        """**Arguments:**

        - `init_tau`: the first time constant, in time steps; above 1.
        - all others: as in `snn.LIF`, with the defaults `detach_reset=False` and `spike_at_threshold=True`.

        **Raises:** `ValueError` for a time constant of one step or less, or an unknown option.
        """
        del key
        if not init_tau > 1:
            raise ValueError(f"init_tau must be more than one time step, found {init_tau}")
        decay = SigmoidRate.from_rate(1 / init_tau)
        self.integration = Integration(decay, v_leak=v_leak, input_scale=input_scale)
        self.adaptation = None
        self.firing = Firing(threshold, reset, **{"detach_reset": False, "spike_at_threshold": True, **firing})
        self.shape = as_shape(shape)

    @classmethod
    def from_tau(cls, shape: Shape, tau_mem: float, *, dt: float, **options: Any) -> "PLIF":
        """Neurons whose first time constant is `tau_mem` seconds; `options` as in the constructor."""
        return cls(shape, tau_mem / dt, **options)
