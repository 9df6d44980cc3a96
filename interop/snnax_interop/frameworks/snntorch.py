"""snnTorch 1.0."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import snntorch
import torch

from snnax import snn, surrogate

from ..leaf import Leaf, NeuronCall
from ..weights import Site, neuron_shape


class Heaviside(surrogate.AbstractSurrogate):
    """`surrogate.heaviside`: derivative 1 above threshold, else 0."""

    def relaxation(self, x):
        return jnp.where(x > 0, x, 0)


class Tent(surrogate.AbstractSurrogate):
    """`surrogate.triangular`: derivative `threshold` below threshold and `-threshold` at and above it."""

    threshold: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x < 0, self.threshold * x, -self.threshold * x)


class SpikeRateEscape(surrogate.AbstractSurrogate):
    """`surrogate.spike_rate_escape`: derivative `slope exp(-beta |x - 1|)`."""

    beta: float = eqx.field(static=True)
    slope: float = eqx.field(static=True)

    def relaxation(self, x):
        rising = jnp.exp(self.beta * (x - 1))
        falling = 2 - jnp.exp(-self.beta * (x - 1))
        return self.slope / self.beta * jnp.where(x < 1, rising, falling)


class SparseFastSigmoid(surrogate.AbstractSurrogate):
    """`surrogate.SFS`: derivative `1 / (1 + slope |x|)^2` above `B`, else 0."""

    slope: float = eqx.field(static=True)
    B: float = eqx.field(static=True)

    def relaxation(self, x):
        return jnp.where(x > self.B, x / (1 + self.slope * jnp.abs(x)), 0)


# How each factory of snntorch.surrogate is written here; the arguments are those of its closure.
_SURROGATES: dict[str, Callable[..., surrogate.AbstractSurrogate]] = {
    "atan": surrogate.ATan,
    "fast_sigmoid": surrogate.FastSigmoid,
    "sigmoid": surrogate.Sigmoid,
    "straight_through_estimator": surrogate.StraightThrough,
    "heaviside": Heaviside,
    "triangular": Tent,
    "spike_rate_escape": SpikeRateEscape,
    "SFS": SparseFastSigmoid,
}


def surrogate_of(module: Any, path: str, leaf: Leaf) -> surrogate.AbstractSurrogate:
    """The surrogate that a neuron's `spike_grad` computes, recognised by the factory that made it."""
    if module.surrogate_disable:
        return surrogate.NoGradient()
    function = module.spike_grad
    name = getattr(function, "__qualname__", type(function).__name__).split(".")[0]
    if getattr(function, "__module__", None) == "snntorch.surrogate" and name in _SURROGATES:
        values = [float(cell.cell_contents) for cell in function.__closure__ or ()]
        return _SURROGATES[name](**dict(zip(function.__code__.co_freevars, values, strict=True)))
    raise leaf.refuse(
        path,
        "spike_grad",
        function,
        allowed=", ".join(f"snntorch.surrogate.{each}()" for each in _SURROGATES),
        advice="Its gradient cannot be read from the function; choose one of these",
    )


# Bound methods that compute the reset; the `reset_mechanism` attributes may say something else than is computed.
_RESETS: dict[str, Literal["subtract", "zero", "none"]] = {
    "_base_sub": "subtract",
    "_base_zero": "zero",
    "_base_int": "none",
}


def _build_leaky(module: Any, site: Site) -> snn.LIF:
    path = site.path
    reset = _RESETS[module.state_function.__name__]
    stored = list(type(module).reset_dict)[int(module.reset_mechanism_val)]
    if module.reset_mechanism != reset or stored != reset:
        raise LEAKY.refuse(
            path,
            "reset_mechanism",
            stored,
            allowed=f"the mechanism it was built with, {reset!r}",
            advice="snnTorch keeps computing that one after a change; build the neuron anew with the one you want",
        )
    if module.state_quant:
        raise LEAKY.refuse(path, "state_quant", module.state_quant, allowed="False", advice="Build it without")
    for name in ("beta", "threshold", "graded_spikes_factor"):
        check_parameter(LEAKY, module, name, site)
    graded = site.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any())
    if not module.reset_delay and bool((module.graded_spikes_factor == 0).any()):
        raise LEAKY.refuse(
            path, "graded_spikes_factor", 0.0, allowed="factors other than 0 with reset_delay=False",
            advice="snnTorch divides by it there",
        )  # fmt: skip
    if module.inhibition:
        if len(site.x_shape) != 1:
            raise LEAKY.refuse(
                path, "inhibition", True, allowed="inputs (batch, neurons)", advice="snnTorch itself fails on others"
            )
        if graded and not module.reset_delay:
            raise LEAKY.refuse(
                path, "inhibition", True, allowed="reset_delay=True where graded_spikes_factor is not 1",
                advice="snnTorch divides ungraded spikes by the factor there",
            )  # fmt: skip
    return snn.LIF(
        site.x_shape,
        snn.Factor(site.neuron_parameter("beta"), constraint="clip"),
        site.neuron_parameter("threshold"),
        reset,
        reset_delay=True if module.reset_delay else "undone",
        # snnTorch detaches the delayed reset, and lets the gradient through the one that reset_delay=False adds.
        detach_reset=bool(module.reset_delay),
        winner_take_all=bool(module.inhibition),
        # snnTorch ignores the factor under inhibition.
        amplitude=site.neuron_parameter("graded_spikes_factor") if graded and not module.inhibition else None,
        surrogate=surrogate_of(module, path, LEAKY),
    )


def check_parameter(leaf: Leaf, module: Any, name: str, site: Site) -> None:
    """Refuse neuron parameters that snnTorch would broadcast over the batch, or that change the dtype of its states."""
    value = getattr(module, name)
    shape = tuple(value.shape)
    if neuron_shape(value, site.x_shape) is None:
        raise leaf.refuse(
            site.path, name, f"tensor of shape {shape}", allowed=f"a scalar or shapes that broadcast to {site.x_shape}",
            advice="One value per neuron, without a batch axis",
        )  # fmt: skip
    if value.ndim and value.dtype == torch.float64 and site.dtype != torch.float64:
        raise leaf.refuse(
            site.path, name, "a float64 tensor", allowed="float32 in a float32 network",
            advice="It would turn the membrane into float64; cast it",
        )  # fmt: skip
    if not bool(torch.isfinite(value).all()):
        raise leaf.refuse(site.path, name, value.tolist(), allowed="finite numbers", advice="Repair the parameter")


def _read_mem(module: Any) -> tuple[torch.Tensor, ...]:
    return (module.mem,)


def _reset_mem(module: Any) -> None:
    module.mem = torch.zeros(0)


def _split_leaky(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> NeuronCall:
    given = {**dict(zip(("input_", "mem"), args, strict=False)), **kwargs}
    x, mem = given["input_"], given.get("mem")
    mem = kept[0] if mem is None else mem
    out = result[0] if isinstance(result, tuple) else result
    # snnTorch starts from zeros, silently, wherever the shapes differ.
    state_in = (mem,) if mem.shape == x.shape else None
    return NeuronCall(x, state_in, out, (module.mem,))


LEAKY = Leaf(
    kind=snntorch.Leaky,
    framework="snntorch",
    options=(
        "beta",
        "threshold",
        "spike_grad",
        "surrogate_disable",
        "init_hidden",
        "inhibition",
        "learn_beta",
        "learn_threshold",
        "reset_mechanism",
        "state_quant",
        "output",
        "graded_spikes_factor",
        "learn_graded_spikes_factor",
        "reset_delay",
    ),
    build=_build_leaky,
    fields=("v",),
    read_state=_read_mem,
    split_call=_split_leaky,
    reset_state=_reset_mem,
    instances=lambda: snntorch.SpikingNeuron.instances,
)

LEAVES = {leaf.kind: leaf for leaf in (LEAKY,)}
