"""Norse 1.1."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import norse.torch as norse
import torch
from norse.torch.functional.leaky_integrator import li_feed_forward_step
from norse.torch.functional.lif import lif_feed_forward_step
from norse.torch.functional.threshold import threshold

from snnax import snn, surrogate

from ..leaf import Leaf, NeuronCall
from ..weights import Site, neuron_shape


class Circ(surrogate.AbstractSurrogate):
    """Method "circ": derivative `alpha^3 / (alpha^2 + x^2)^(3/2)`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return self.alpha * x / jnp.sqrt(self.alpha**2 + x**2)


class Tanh(surrogate.AbstractSurrogate):
    """Method "tanh": derivative `1 - tanh(alpha x)^2`."""

    alpha: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.tanh(self.alpha * x) / self.alpha


_METHODS = {
    "triangle": lambda alpha: surrogate.Triangular(1.0, alpha),
    "tanh": Tanh,
    "circ": Circ,
    "heaviside": lambda alpha: surrogate.NoGradient(),
}


def surrogate_of(module: Any, path: str, leaf: Leaf) -> surrogate.AbstractSurrogate:
    """The surrogate of `p.method`; for "super" the installed release is asked, since 1.1.0 ignores alpha there."""
    method, alpha = module.p.method, float(module.p.alpha)
    if method == "super":
        probe = torch.ones(1, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(threshold(probe, method, alpha).sum(), probe)
        return surrogate.SuperSpike(1.0 if float(slope) == 0.25 else alpha)
    if method in _METHODS:
        return _METHODS[method](alpha)
    raise leaf.refuse(
        path, "p.method", method, allowed=", ".join(["super", *_METHODS]), advice="Choose one of these methods"
    )


def _parameters(module: Any, site: Site, leaf: Leaf, names: tuple[str, ...], activation: Any) -> None:
    """Refuse what the built layer would not reproduce: learnable parameters, other step functions, odd shapes."""
    if module.activation is not activation:
        raise leaf.refuse(
            site.path, "activation", module.activation, allowed=activation.__name__, advice="Use the class as it is"
        )
    for name in names:
        value = torch.as_tensor(getattr(module.p, name))
        if value.requires_grad and (isinstance(value, torch.nn.Parameter) or value.grad_fn is not None):
            raise leaf.refuse(
                site.path, f"p.{name}", "a learnable tensor", allowed="constants",
                advice="Detach it; learnable parameters of Norse neurons are not converted yet",
            )  # fmt: skip
        if neuron_shape(value, site.x_shape) is None or value.ndim > len(site.x_shape):
            raise leaf.refuse(
                site.path, f"p.{name}", f"a tensor of shape {tuple(value.shape)}",
                allowed=f"shapes that broadcast to {site.x_shape}", advice="One value per neuron, without a batch axis",
            )  # fmt: skip
        if not bool(torch.isfinite(value).all()):
            raise leaf.refuse(site.path, f"p.{name}", value.tolist(), allowed="finite numbers", advice="Repair it")


def _decays(module: Any, site: Site) -> list[snn.Rate]:
    def rate(name: str) -> snn.Rate:
        # The product is formed as Norse forms it, dt first, in the dtype of the parameter.
        inverse = torch.as_tensor(getattr(module.p, f"tau_{name}_inv"))
        inverse = inverse if inverse.is_floating_point() else inverse.double()
        return snn.Rate(site.constant(f"p.rate_{name}", module.dt * inverse))

    return [rate("mem"), rate("syn")]


def _at_rest(module: Any) -> bool:
    return not bool(torch.as_tensor(module.p.v_leak).any())


def _build_lif(module: Any, site: Site) -> snn.LIF:
    names = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset", "alpha")
    _parameters(module, site, LIF_CELL, names, lif_feed_forward_step)
    return snn.LIF(
        site.x_shape,
        _decays(module, site),
        site.constant("p.v_th", module.p.v_th),
        site.constant("p.v_reset", module.p.v_reset),
        v_leak=None if _at_rest(module) else site.constant("p.v_leak", module.p.v_leak),
        synapse_order="jump-read-decay",
        input_scale="one_minus_decay",
        detach_reset=False,
        surrogate=surrogate_of(module, site.path, LIF_CELL),
    )


def _build_li(module: Any, site: Site) -> snn.LI:
    _parameters(module, site, LI_CELL, ("tau_syn_inv", "tau_mem_inv", "v_leak"), li_feed_forward_step)
    return snn.LI(
        site.x_shape,
        _decays(module, site),
        v_leak=None if _at_rest(module) else site.constant("p.v_leak", module.p.v_leak),
        synapse_order="jump-read-decay",
        input_scale="one_minus_decay",
    )


def _split(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> NeuronCall:
    given = {**dict(zip(("input_tensor", "state"), args, strict=False)), **kwargs}
    state = given.get("state")
    out, new = result
    return NeuronCall(given["input_tensor"], None if state is None else (state.v, state.i), out, (new.v, new.i))


LIF_CELL = Leaf(
    norse.LIFCell, "norse", ("p", "kwargs"), _build_lif, ("v", "i"), split_call=_split, starts_at_zero=_at_rest
)
LI_CELL = Leaf(
    norse.LICell,
    "norse",
    ("p", "kwargs"),
    _build_li,
    ("v", "i"),
    spikes=False,
    split_call=_split,
    starts_at_zero=_at_rest,
)

LEAVES = {leaf.kind: leaf for leaf in (LIF_CELL, LI_CELL)}
