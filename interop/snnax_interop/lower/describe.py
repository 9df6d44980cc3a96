"""What became of each module, gathered from a finished network."""

import dataclasses
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import torch

from snnax import snn
from snnax.surrogate import AbstractSurrogate

from ..converters.base import StepConverter
from ..converters.neuron import NeuronConverter
from ..converters.options_json import is_named_tuple, option_as_json
from ..nodes.call import Call
from ..nodes.wrappers import ResetEveryStep
from ..runtime.plan import ConvertedModule, PlannedLoop
from ..runtime.report import ConversionReport, ReportRow
from .lowering import Lowering


def converted_modules(network: Lowering) -> tuple[ConvertedModule, ...]:
    """The modules that native layers stand for, in the order of their first calls."""
    restarted = {
        neuron.path
        for body in network.bodies
        for node, neuron in body.neurons.items()
        if isinstance(body.draft.nodes[node], ResetEveryStep)
    }
    found = []
    for call, layer in network.layers.built:
        module, converter = network.layers.modules[call.path], call.converter
        rules = [x for x in jax.tree.leaves(layer, is_leaf=_is_firing) if _is_firing(x)]
        options: dict[str, Any] = {}
        if isinstance(converter, NeuronConverter):
            kept, keys = converter.kept_options(module), network.layers.weights.by_identity
            options = {name: option_as_json(value, keys) for name, value in kept.items()}
        found.append(
            ConvertedModule(
                path=call.path,
                framework=converter.framework,
                kind=converter.kind.__name__,
                layer=f"Call({layer.op})" if isinstance(layer, Call) else type(layer).__name__,
                options=options,
                shown=(
                    *_options(module, converter),
                    *(f"surrogate={_surrogate_text(rule.surrogate)}" for rule in rules[:1]),
                ),
                restarts=call.path in restarted,
            )
        )
    return tuple(found)


def caveats_of(network: Lowering, called: Collection[str]) -> dict[str, str]:
    """What modules do against expectation, by path: those whose forward was recorded first.

    `called` are the paths of the modules that ran.
    """
    modules, caveats = network.layers.modules, network.layers.weights.caveats
    recorded = {path: caveats[path] for path in _recorded(network, called)}
    whole = {
        call.path: call.converter.caveat(modules[call.path]) or caveats[call.path] for call, _ in network.layers.built
    }
    return {path: caveat for path, caveat in {**recorded, **whole}.items() if caveat}


def _inside(network: Lowering) -> set[str]:
    """The modules that belong to one that was taken whole."""
    taken = {call.path for call, _ in network.layers.built}
    return {path for path in network.layers.modules if not taken.isdisjoint(_parents(path))}


def _parents(path: str) -> list[str]:
    """The paths of the modules that a module is in."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts))]


def _recorded(network: Lowering, called: Collection[str]) -> list[str]:
    """The modules whose forward was recorded."""
    whole = {call.path for call, _ in network.layers.built} | _inside(network)
    return [path for path in network.layers.modules if path in called and path not in whole]


def conversion_report(
    module: torch.nn.Module,
    network: Lowering,
    loops: tuple[PlannedLoop, ...],
    modules: tuple[ConvertedModule, ...],
    caveats: Mapping[str, str],
    called: Collection[str],
    notes: Sequence[str],
) -> ConversionReport:
    """The report of a finished network, without its verification. `called` are the paths of the modules that ran."""
    rows = [
        ReportRow(
            path=each.path,
            source=each.source,
            target=each.layer,
            options=", ".join(each.shown),
            notes="starts anew at every time step" if each.restarts else "",
        )
        for each in modules
    ]
    inside = _inside(network)
    innermost = [path for path, child in module.named_modules() if path and not list(child.children())]
    unused = [path for path in innermost if path not in called and path not in inside]
    notes = list(notes)
    if unused:
        notes.append(f"never called, kept for state_dict only: {', '.join(unused)}")
    program = network.program
    counts = [loop.count(program.example[1]) for loop in program.loops]
    if program.length is None:
        steps = " + ".join(map(str, counts))
        notes.append(f"runs exactly {steps} time steps, as forward does")
    batched = [call.name for call in program.calls if call.batched]
    if batched:
        names = ", ".join(dict.fromkeys(batched))
        notes.append(f"computed of all samples of a batch at once: {names}")
    if len(counts) > 1:
        notes.append(f"{len(counts)} loops over time, of {', '.join(map(str, counts))} steps on the example")
    named = network.layers.modules
    containers = tuple(
        ReportRow(path=path, source=type(named[path]).__name__, target="" if path else _kinds(loops))
        for path in _recorded(network, called)
    )
    return ConversionReport(
        modules=tuple(rows),
        containers=containers,
        order=tuple(named),
        models=tuple(line for number, loop in enumerate(loops) for line in _outline(number, loop, len(loops))),
        notes=tuple(notes),
        caveats=tuple(f"at '{path}': {caveat}" for path, caveat in caveats.items()),
    )


def _kinds(loops: tuple[PlannedLoop, ...]) -> str:
    return " + ".join(type(loop.model).__name__ for loop in loops)


def _outline(number: int, loop: PlannedLoop, count: int) -> list[str]:
    """A model as its nodes and what they read, one line each."""
    title = "model" if count == 1 else f"model {number + 1} of {count}"
    lines = [f"{title}: {type(loop.model).__name__}"]
    for name, sources in loop.model.wiring.sources:
        node = loop.model.named_nodes[name]
        kind = f"Call({node.op})" if isinstance(node, Call) else type(node).__name__
        read = f" <- {', '.join(map(str, sources))}" if sources else ""
        lines.append(f"  {name}: {kind}{read}")
    return lines


def _is_firing(x: Any) -> bool:
    return isinstance(x, snn.Firing)


def _surrogate_text(surrogate: AbstractSurrogate) -> str:
    """A surrogate with its parameters, on one line."""
    fields = [f"{each.name}={getattr(surrogate, each.name)}" for each in dataclasses.fields(surrogate)]
    return f"{type(surrogate).__name__}({', '.join(fields)})"


def _options(module: torch.nn.Module, converter: StepConverter) -> list[str]:
    """The options of a module that are not at their defaults."""
    defaults: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__[:-1]):
        defaults |= {each.name: each.default for each in inspect.signature(kind).parameters.values()}
    shown = []
    for name, value in converter.kept_options(module).items():
        default = defaults.get(name)
        if is_named_tuple(value):
            shown += _fields(name, value)
        elif not (isinstance(value, torch.Tensor) and (isinstance(default, bool) or _is_matrix(value))):
            shown += _option(name, value, default)
    return shown


def _is_matrix(value: torch.Tensor) -> bool:
    """Weights are no options; `bias=True` made a parameter of this name, too."""
    return isinstance(value, torch.nn.Parameter) and value.ndim > 1


def _fields(name: str, value: Any) -> list[str]:
    """The fields of a named tuple that are not at their defaults, those of tuples in it too."""
    shown = []
    for field, each in value._asdict().items():
        if is_named_tuple(each):
            shown += _fields(f"{name}.{field}", each)
        else:
            shown += _option(f"{name}.{field}", each, _as_number(value._field_defaults.get(field)))
    return shown


def _option(name: str, value: Any, default: Any) -> list[str]:
    value = _as_number(value)
    items = value if type(value) is tuple else (value,)
    plain = all(isinstance(item, bool | int | float | str) for item in items)
    return [f"{name}={value}"] if plain and value != default else []


def _as_number(value: Any) -> Any:
    """A tensor as a number, or as its shape."""
    if not isinstance(value, torch.Tensor):
        return value
    return round(value.item(), 6) if value.ndim == 0 else f"{list(value.shape)}"
