"""What became of each module, gathered from a finished network."""

import dataclasses
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import torch

from snnax import snn
from snnax.surrogate import AbstractSurrogate

from ..converters.leaf import Leaf
from ..converters.options_json import as_settings, is_named_tuple
from ..nodes.call import Call
from ..nodes.wrappers import Restart
from ..runtime.plan import PlannedLoop
from ..runtime.report import ConversionReport, ConvertedModule
from .lowering import Lowering


def conversion_report(
    module: torch.nn.Module,
    network: Lowering,
    loops: tuple[PlannedLoop, ...],
    called: Collection[str],
    notes: Sequence[str],
) -> ConversionReport:
    """The report of a finished network, without its verification. `called` are the paths of the modules that ran."""
    rows = []
    modules, weights = network.layers.modules, network.layers.weights
    restarted = {
        neuron.path
        for body in network.bodies
        for node, neuron in body.neurons.items()
        if isinstance(body.draft.nodes[node], Restart)
    }
    for call, layer in network.layers.built:
        converter, child = call.converter, modules[call.path]
        target = f"Call({layer.op})" if isinstance(layer, Call) else type(layer).__name__
        remark = "starts anew at every time step" if call.path in restarted else ""
        surprise = converter.remark(child) or weights.remarks[call.path]
        options = _options(child, converter.options)
        rules = [x for x in jax.tree.leaves(layer, is_leaf=_is_firing) if _is_firing(x)]
        options += [f"surrogate={_shown(rule.surrogate)}" for rule in rules[:1]]
        settings = _settings(child, converter, weights.by_identity)
        rows.append(ConvertedModule(call.path, converter.name, target, ", ".join(options), remark, surprise, settings))
    taken = {row.path for row in rows}
    inside = {path for path in modules if any(path.startswith(f"{each}.") for each in taken)}
    leaves = [path for path, child in module.named_modules() if path and not list(child.children())]
    unused = [path for path in leaves if path not in called and path not in inside]
    notes = list(notes)
    if unused:
        notes.append(f"never called, kept for state_dict only: {', '.join(unused)}")
    program = network.program
    counts = [loop.count(program.example[1]) for loop in program.loops]
    if program.length is None:
        steps = " + ".join(map(str, counts))
        notes.append(f"runs exactly {steps} time steps, as forward does")
    if len(counts) > 1:
        notes.append(f"{len(counts)} loops over time, of {', '.join(map(str, counts))} steps on the example")
    containers = tuple(
        ConvertedModule(
            path, type(child).__name__, _kinds(loops) if not path else "", "", surprise=weights.remarks[path]
        )
        for path, child in modules.items()
        if path in called and path not in taken and path not in inside
    )
    models = [line for number, loop in enumerate(loops) for line in _outline(number, loop, len(loops))]
    return ConversionReport(
        tuple(rows), tuple(notes), containers=containers, order=tuple(modules), models=tuple(models)
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


def _shown(surrogate: AbstractSurrogate) -> str:
    """A surrogate with its parameters, on one line."""
    fields = [f"{each.name}={getattr(surrogate, each.name)}" for each in dataclasses.fields(surrogate)]
    return f"{type(surrogate).__name__}({', '.join(fields)})"


def _settings(module: torch.nn.Module, leaf: Leaf, keys: Mapping[int, str]) -> str:
    """All options of a neuron as JSON; layers have theirs in the code that builds them."""
    if not leaf.fields:
        return "{}"
    return json.dumps(
        {name: as_settings(getattr(module, name), keys) for name in leaf.options if hasattr(module, name)}
    )


def _options(module: torch.nn.Module, names: tuple[str, ...]) -> list[str]:
    """The options of a module that are not at their defaults."""
    defaults: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__[:-1]):
        defaults |= {each.name: each.default for each in inspect.signature(kind).parameters.values()}
    shown = []
    for name in names:
        value, default = getattr(module, name, None), defaults.get(name)
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
            shown += _option(f"{name}.{field}", each, _plain(value._field_defaults.get(field)))
    return shown


def _option(name: str, value: Any, default: Any) -> list[str]:
    value = _plain(value)
    items = value if type(value) is tuple else (value,)
    plain = all(isinstance(item, bool | int | float | str) for item in items)
    return [f"{name}={value}"] if plain and value != default else []


def _plain(value: Any) -> Any:
    """Tensors as a number, or as their shape."""
    if not isinstance(value, torch.Tensor):
        return value
    return round(value.item(), 6) if value.ndim == 0 else f"{list(value.shape)}"
