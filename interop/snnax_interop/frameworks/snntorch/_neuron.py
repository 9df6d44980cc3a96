"""What all step neurons of snnTorch have in common: their calls, their resets, their shared options."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import snntorch
import torch

from snnax import snn

from ...converters.context import Site, neuron_shape
from ...converters.leaf import Leaf, NeuronCall
from ...errors import RecordingError
from ._quantiser import quantiser_of
from ._step import step_of
from ._surrogates import surrogate_of


# The arguments that all of them take.
SHARED_OPTIONS = (
    "threshold",
    "spike_grad",
    "surrogate_disable",
    "init_hidden",
    "inhibition",
    "learn_threshold",
    "reset_mechanism",
    "state_quant",
    "output",
)

# The attributes that hold states, and the fields of the native state that they are.
Attributes = Mapping[str, str]

# Bound methods that compute the reset; the `reset_mechanism` attributes may say something else than is computed.
_RESETS: dict[str, Literal["subtract", "zero", "none"]] = {
    "_base_sub": "subtract",
    "_base_zero": "zero",
    "_base_int": "none",
}


def neuron_leaf(
    kind: type,
    options: str,
    attributes: Attributes,
    build: Callable[[Any, Site], Any],
    shape: Callable[[Any, torch.Size], tuple[int, ...]] = lambda module, shape: tuple(shape),
    needed: Callable[[Any, torch.Size], tuple[int, ...]] | None = None,
    remark: Callable[[Any], str] = lambda module: "",
) -> Leaf:
    """The leaf of a neuron that is called once per time step.

    **Arguments:** `options`: names of constructor arguments beside the shared ones; `attributes`: in the order of the
    arguments of `forward`; `shape`: of the states, from the module and the input's shape; `needed`: which shape given
    states must have to be taken, where that is another one.
    """
    names = tuple(attributes)

    def read(module: Any) -> tuple[torch.Tensor, ...]:
        return tuple(getattr(module, name) for name in names)

    def reset(module: Any) -> None:
        for name in names:
            setattr(module, name, torch.zeros(0))

    def split(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> NeuronCall:
        given = {**dict(zip(("input_", *names), args, strict=False)), **kwargs}
        x = given["input_"]
        state = [before if given.get(name) is None else given[name] for name, before in zip(names, kept, strict=True)]
        # snnTorch starts from zeros, silently, wherever the shapes differ.
        wanted = (shape if needed is None else needed)(module, x.shape)
        taken = [tuple(each.shape) == wanted for each in state]
        if any(taken) and not all(taken):
            raise RecordingError(
                f"{kind.__name__} is given states of the shapes {[tuple(each.shape) for each in state]} for an input "
                f"of shape {tuple(x.shape)}; snnTorch would replace some of them by zeros. Allowed: all of shape "
                f"{wanted}, or all from reset_mem()",
                framework="snntorch",
            )
        out = result[0] if isinstance(result, tuple) else result
        return NeuronCall(x, tuple(state) if all(taken) else None, out, read(module))

    return Leaf(
        kind=kind,
        framework="snntorch",
        options=(*SHARED_OPTIONS, *options.split()),
        build=build,
        fields=tuple(attributes.values()),
        read_state=read,
        split_call=split,
        reset_state=reset,
        instances=lambda: snntorch.SpikingNeuron.instances,
        remark=remark,
        run=step_of(names),
    )


def reset_of(leaf: Leaf, module: Any, path: str) -> Literal["subtract", "zero", "none"]:
    """The reset that a neuron computes.

    **Raises:** `UnsupportedOptionError` where its attributes say another one.
    """
    reset = _RESETS[module.state_function.__name__]
    stored = list(type(module).reset_dict)[int(module.reset_mechanism_val)]
    if module.reset_mechanism != reset or stored != reset:
        raise leaf.refuse(
            path,
            "reset_mechanism",
            stored,
            allowed=f"the mechanism it was built with, {reset!r}",
            advice="snnTorch keeps computing that one after a change; build the neuron anew with the one you want",
        )
    return reset


def firing_options(leaf: Leaf, module: Any, site: Site, *, inhibits: bool = True) -> dict[str, Any]:
    """The options of `snn.Firing` that all neurons share. `inhibits`: whether the class looks at `inhibition`."""
    path = site.path
    delay = getattr(module, "reset_delay", True)
    for name in ("threshold", "graded_spikes_factor"):
        check_parameter(leaf, module, name, site)
    graded = site.learns("graded_spikes_factor") or bool((module.graded_spikes_factor != 1).any())
    if not delay and bool((module.graded_spikes_factor == 0).any()):
        raise leaf.refuse(
            path, "graded_spikes_factor", 0.0, allowed="factors other than 0 with reset_delay=False",
            advice="snnTorch divides by it there",
        )  # fmt: skip
    inhibition = inhibits and bool(module.inhibition)
    if inhibition:
        if len(site.x_shape) != 1:
            raise leaf.refuse(
                path, "inhibition", True, allowed="inputs (batch, neurons)", advice="snnTorch itself fails on others"
            )
        if graded and not delay:
            raise leaf.refuse(
                path, "inhibition", True, allowed="reset_delay=True where graded_spikes_factor is not 1",
                advice="snnTorch divides ungraded spikes by the factor there",
            )  # fmt: skip
        if module.state_quant and not delay:
            raise leaf.refuse(
                path, "state_quant", module.state_quant, allowed="False with inhibition and reset_delay=False",
                advice="Use one of them",
            )  # fmt: skip
    return {
        "winner_take_all": inhibition,
        # snnTorch ignores the factor under inhibition.
        "amplitude": site.neuron_parameter("graded_spikes_factor") if graded and not inhibition else None,
        "surrogate": surrogate_of(module, site, leaf),
        "quantise": quantiser_of(module, path, leaf),
    }


def delay_options(module: Any) -> dict[str, Any]:
    """The options of `snn.Firing` for when the reset acts."""
    # snnTorch detaches the delayed reset, and lets the gradient through the one that reset_delay=False adds.
    delay = bool(module.reset_delay)
    return {"reset_delay": True if delay else "undone", "detach_reset": delay}


def decay(leaf: Leaf, module: Any, name: str, site: Site) -> snn.Factor:
    """A decay factor, limited to [0, 1] as `torch.clamp` does it."""
    check_parameter(leaf, module, name, site)
    return snn.Factor(site.neuron_parameter(name), constraint="clip")


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
