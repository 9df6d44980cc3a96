"""What all neurons of SpikingJelly have in common: their calls in both step modes, their memories, their options."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import torch
from jaxtyping import Array

from snnax import snn

from ...converters.context import Site
from ...converters.leaf import Leaf, NeuronCall, Part, SequenceCall
from ._decay import TimeConstant
from ._memory import read, taken
from ._surrogates import surrogate_of


# The arguments that nearly all of them take.
SHARED_OPTIONS = ("v_threshold", "v_reset", "surrogate_function", "detach_reset", "step_mode", "store_v_seq")

# Those that every call reads; where a memory starts is decided at construction.
_LIVE = ("v_threshold", "detach_reset", "tau", "decay_input")


def neuron_leaf(
    kind: type,
    options: str,
    memories: Mapping[str, str],
    build: Callable[[Any, Site], Any],
    *,
    shared: tuple[str, ...] = SHARED_OPTIONS,
    spikes: bool = True,
    starts_at_zero: Callable[[Any], bool] = lambda module: not module.v_reset,
    remark: Callable[[Any], str] = lambda module: "",
    over_time: Callable[[Any], Leaf | None] = lambda module: None,
) -> Leaf:
    """The leaf of a neuron with one state for each input.

    **Arguments:** `options`: names of constructor arguments beside the `shared` ones; `memories`: in their order, with
    the fields of the native state that they are; `over_time`: what a module is in step mode 'm', where that is
    something else.
    """
    names = tuple(memories)

    def split(module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any) -> NeuronCall:
        (x,) = (*args, *kwargs.values())
        return NeuronCall(x, taken(kept, x), result, tuple(module._memories[name] for name in names))

    def split_sequence(
        module: Any, args: tuple, kwargs: Mapping[str, Any], kept: Any, result: Any
    ) -> SequenceCall | None:
        if module.step_mode == "s":
            return None
        (xs,) = (*args, *kwargs.values())
        begin = taken(kept, xs[0])
        states = _trajectory(module, xs, begin)
        # What the neuron goes on with are its own tensors.
        series = tuple(
            [*(state[number] for state in states[:-1]), module._memories[name]] for number, name in enumerate(names)
        )
        stored = getattr(module, "v_seq", None)
        results = ((result, None), *(() if stored is None else ((stored, 0),)))
        part = Part(over_time(module) or leaf, module, "", result, series, begin)
        return SequenceCall(xs, (part,), results)

    leaf = Leaf(
        kind=kind,
        framework="spikingjelly",
        options=(*options.split(), *shared),
        build=build,
        fields=tuple(memories.values()),
        spikes=spikes,
        starts_at_zero=starts_at_zero,
        read_state=lambda module: read(module, names),
        split_call=split,
        split_sequence=split_sequence,
        remark=remark,
        free=("step_mode",),
        run=_run,
        live=tuple(name for name in _LIVE if name in (*options.split(), *shared)),
    )
    return leaf


def _run(module: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """One time step from a given state."""
    states = copy.deepcopy(tuple(module._memories_rv.values()))
    if state is not None:
        states = tuple(own if given is None else given for own, given in zip(states, state, strict=True))
    states = module.materialize_states((x,), states, "s")
    (out, *_), after = module.single_step_functional_forward((x,), states)
    return out, tuple(after)


def _trajectory(module: Any, xs: torch.Tensor, begin: tuple[torch.Tensor, ...] | None) -> list[tuple[Any, ...]]:
    """The memories of a neuron after each time step."""
    first = tuple(module._memories_rv.values()) if begin is None else begin
    states = module.materialize_states((xs,), copy.deepcopy(first) if begin is None else first, "m")
    found = []
    with torch.no_grad():
        for x in xs:
            _, states = module.single_step_functional_forward((x,), states)
            found.append(states)
    return found


# Options


def number(leaf: Leaf, module: Any, name: str, site: Site) -> Array:
    """A parameter that is one number for all neurons.

    **Raises:** `UnsupportedOptionError` for a tensor in its place.
    """
    value = getattr(module, name)
    if not isinstance(value, int | float):
        raise leaf.refuse(
            site.path, name, value, allowed="a number",
            advice="SpikingJelly itself takes numbers only; write a neuron of its own for one value per neuron",
        )  # fmt: skip
    return site.constant(name, torch.tensor(float(value), dtype=torch.float64))


def time_constant(leaf: Leaf, module: Any, site: Site, name: str = "tau") -> TimeConstant:
    """The decay of a time constant in time steps."""
    return TimeConstant(number(leaf, module, name, site))


def reset_of(leaf: Leaf, module: Any, site: Site) -> Any:
    """The reset of `snn.Firing`: `v_reset` is None for a subtraction of the threshold."""
    if module.v_reset is None:
        return "subtract"
    return "zero" if module.v_reset == 0 else number(leaf, module, "v_reset", site)


def firing_options(leaf: Leaf, module: Any, site: Site) -> dict[str, Any]:
    """The options of `snn.Firing` that all neurons share."""
    precision = getattr(module, "_neuron_precision", None)
    if precision is not None:
        raise leaf.refuse(
            site.path, "precision", precision, allowed="None",
            advice="Reset the neuron precision: the conversion computes in the dtype of its input",
        )  # fmt: skip
    return {
        "detach_reset": bool(module.detach_reset),
        "spike_at_threshold": True,
        "surrogate": surrogate_of(module, site, leaf),
    }


def firing_of(leaf: Leaf, module: Any, site: Site) -> snn.Firing:
    """Threshold, spike and reset of a neuron."""
    return snn.Firing(
        number(leaf, module, "v_threshold", site), reset_of(leaf, module, site), **firing_options(leaf, module, site)
    )


class StartingAt(snn.AbstractLayer):
    """A neuron whose state starts at other values than its own, such as where its membrane is reset to."""

    neuron: Any
    values: tuple[Array, ...]
    fields: tuple[str, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> Any:
        """The neuron's own state, with the given values in the fields."""
        state = self.neuron.init_state(shape, key=key)

        def of(state: Any) -> list[Any]:
            return [getattr(state, field) for field in self.fields]

        filled = [
            jnp.broadcast_to(value.astype(before.dtype), before.shape)
            for value, before in zip(self.values, of(state), strict=True)
        ]
        return eqx.tree_at(of, state, filled)

    def __call__(self, state: Any, x: Array, *, key: Any = None) -> tuple[Any, Array]:
        return self.neuron(state, x, key=key)


def starting_at(neuron: Any, site: Site, **starts: tuple[float, float]) -> Any:
    """A neuron with fields that start at a number each; `starts` has that number and the one that is its own."""
    given = {field: start for field, (start, own) in starts.items() if start != own}
    if not given:
        return neuron
    values = tuple(
        site.constant(f"{field}_start", torch.tensor(start, dtype=torch.float64)) for field, start in given.items()
    )
    return StartingAt(neuron, values, tuple(given))
