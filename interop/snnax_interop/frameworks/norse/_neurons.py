"""The neuron models of Norse as neurons of snnax, each for one sample."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from norse.torch.functional.reset import reset_subtract, reset_value

from snnax import snn

from ._parameters import Parameters


# A model without and with a recurrent connection; some detach the reset only with one.
Build = Callable[[Parameters, bool], Any]


def lif(p: Parameters, recurrent: bool) -> snn.LIF:
    return snn.LIF(
        p.context.x_shape,
        [p.rate("tau_mem_inv"), p.rate("tau_syn_inv")],
        p.value("v_th"),
        p.value("v_reset"),
        v_leak=p.rest(),
        synapse_order="jump-read-decay",
        input_scale="one_minus_decay",
        detach_reset=recurrent,
        surrogate=p.surrogate(),
    )


def lif_box(p: Parameters, recurrent: bool) -> snn.LIF:
    method = p.option("reset_method")
    if method not in (reset_value, reset_subtract):
        raise p.context.refuse(
            "p.reset_method", method, allowed="reset_value, reset_subtract",
            advice="Choose one of these, or call the function in a forward of your own",
        )  # fmt: skip
    return snn.LIF(
        p.context.x_shape,
        p.rate("tau_mem_inv"),
        p.value("v_th"),
        p.value("v_reset") if method is reset_value else "subtract",
        v_leak=p.rest(),
        input_scale="one_minus_decay",
        detach_reset=False,
        surrogate=p.surrogate(),
    )


def li(p: Parameters, recurrent: bool) -> snn.LI:
    return snn.LI(
        p.context.x_shape,
        [p.rate("tau_mem_inv"), p.rate("tau_syn_inv")],
        v_leak=p.rest(),
        synapse_order="jump-read-decay",
        input_scale="one_minus_decay",
    )


def li_box(p: Parameters, recurrent: bool) -> snn.LI:
    return snn.LI(p.context.x_shape, p.rate("tau_mem_inv"), v_leak=p.rest(), input_scale="one_minus_decay")


def iaf(p: Parameters, recurrent: bool) -> snn.IF:
    return snn.IF(p.context.x_shape, p.value("v_th"), p.value("v_reset"), detach_reset=False, surrogate=p.surrogate())


def lif_ex(p: Parameters, recurrent: bool) -> snn.EIF:
    return snn.EIF(
        p.context.x_shape,
        [p.rate("tau_mem_inv"), p.rate("tau_syn_inv")],
        p.value("v_th"),
        p.value("v_reset"),
        delta_T=p.value("delta_T"),
        v_leak=p.rest(),
        synapse_order="jump-read-decay",
        detach_reset=False,
        surrogate=p.surrogate(),
    )


def lif_adex(p: Parameters, recurrent: bool) -> snn.AdEx:
    return snn.AdEx(
        p.context.x_shape,
        [p.rate("tau_mem_inv"), p.rate("tau_syn_inv")],
        p.rate("tau_ada_inv"),
        p.value("v_th"),
        p.value("v_reset"),
        coupling=p.value("adaptation_current"),
        jump=p.value("adaptation_spike"),
        delta_T=p.value("delta_T"),
        v_leak=p.rest(),
        synapse_order="jump-read-decay",
        detach_reset=False,
        surrogate=p.surrogate(),
    )


class LSNN(snn.AbstractLayer):
    """`snn.LSNN` whose adaptation is counted as Norse counts it: the threshold itself, and not what is above `v_th`."""

    neuron: snn.LSNN

    def init_state(self, shape=None, *, key=None):
        return self._shifted(self.neuron.init_state(shape, key=key), 1)

    def __call__(self, state, x, *, key=None):
        state, z = self.neuron(self._shifted(state, -1), x, key=key)
        return self._shifted(state, 1), z

    def _shifted(self, state: Any, sign: int) -> Any:
        threshold = jnp.asarray(self.neuron.firing.threshold, state.a.dtype)
        return snn.NeuronState(state.v, state.i, state.a + sign * threshold)


def lsnn(p: Parameters, recurrent: bool) -> LSNN:
    return LSNN(
        snn.LSNN(
            p.context.x_shape,
            [p.rate("tau_mem_inv"), p.rate("tau_syn_inv")],
            p.rate("tau_adapt_inv"),
            p.value("v_th"),
            p.value("v_reset"),
            jump=p.value("beta"),
            v_leak=p.rest(),
            detach_reset=recurrent,
            surrogate=p.surrogate(),
        )
    )


def lif_refrac(p: Parameters, recurrent: bool) -> snn.Refractory:
    inner = p.within("lif")
    return snn.Refractory(lif(inner, recurrent), p.value("rho_reset"), surrogate=inner.surrogate())


def lif_adex_refrac(p: Parameters, recurrent: bool) -> snn.Refractory:
    inner = p.within("lif_adex")
    return snn.Refractory(lif_adex(inner, recurrent), p.value("rho_reset"), surrogate=inner.surrogate())


def izhikevich(p: Parameters, recurrent: bool) -> snn.Izhikevich:
    start = p.module.spiking_method.s
    return snn.Izhikevich(
        p.context.x_shape,
        p.value("a"),
        p.value("b"),
        p.value("c"),
        p.value("d"),
        dt=float(p.option("tau_inv")) * float(p.module.dt),
        threshold=p.value("v_th"),
        quadratic=p.value("sq"),
        linear=p.value("mn"),
        constant=p.value("bias"),
        v0=p.context.constant("spiking_method.s.v", start.v.detach()),
        u0=p.context.constant("spiking_method.s.u", start.u.detach()),
        detach_reset=False,
        surrogate=p.surrogate(),
    )
