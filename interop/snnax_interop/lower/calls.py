"""Calls as nodes of a native graph for one sample, without a batch axis."""

import dataclasses
import difflib
import inspect
import itertools
from typing import Any

from snnax import snn

from ..converters.layer import LayerConverter
from ..errors import InteropError, RecordingError, UnsupportedModuleError
from ..ir.regions import Call, Value
from ..ir.sizes import Size
from ..nodes import call as nodes
from ..nodes.call import Form, Items, call_of
from ..nodes.dropout import DRAWING, dropout_layer
from ..nodes.wrappers import ChannelsSecond
from ..ops import ELEMENTWISE, OPS
from .arguments import ArgumentLowering, Scope
from .layers import Layers


# Functions whose result is their input. Casts between floating point types are: values have the parameters' type.
_ALIASES = {"clone", "double", "dropout", "float", "to", "type_as"}
_FLATTENING = {"flatten", "reshape"}


class CallLowering:
    """Adds calls to graphs. `dependent` are the values that inputs of the network go into."""

    def __init__(self, layers: Layers, dependent: set[Value]):
        self.layers = layers
        self.dependent = dependent
        self.keeping: set[str] = set()  # layers that keep something from step to step

    def add(self, call: Call, scope: Scope, *, in_loop: bool) -> None:
        """Add the node of a call that is no neuron; its results are found in the graph's `made` afterwards."""
        try:
            if call.converter is not None:
                self._module(call, call.converter, scope, in_loop=in_loop)
            else:
                self._function(call, scope)
        except InteropError as error:
            if not error.path and call.line and call.line not in str(error):
                raise type(error)(f"{error}\n  {call.line}", path=call.path) from error
            raise

    # Modules

    def _module(self, call: Call, converter: LayerConverter, scope: Scope, *, in_loop: bool) -> None:
        filler = ArgumentLowering(call, scope, holds_arrays=False)
        names = dict(
            itertools.zip_longest(list(inspect.signature(converter.kind.forward).parameters)[1:], converter.inputs)
        )
        given = {name: value for name, value in filler.arguments() if name in names and value is not None}
        if any(names[name] is None for name in given):
            raise UnsupportedModuleError(
                f"{converter.kind.__name__} is called with the arguments {list(given)}. Allowed: the first "
                f"{len(converter.inputs)}",
                path=call.path,
            )
        (x, *others) = (value for value in filler.values if value is not None)
        arguments = tuple((names[name], value) for name, value in given.items())
        out_axes = tuple(value.batch_axis for value in call.results)
        layer = self.layers.layer(call, x, Form(arguments, tuple(filler.in_axes), out_axes))
        self._check_keeping(call, layer, in_loop=in_loop)
        if isinstance(layer, nodes.Call):
            self._check_mixing(call, layer, filler.values)
        elif others:
            raise UnsupportedModuleError(f"{converter.kind.__name__} is called with several tensors", path=call.path)
        self._hand_out(call, scope, scope.draft.node(call.path, layer, filler.sources))
        if call.no_grad:
            for value in call.results:
                scope.draft.made[value] = scope.draft.detached(scope.draft.made[value])

    def _check_keeping(self, call: Call, layer: Any, *, in_loop: bool) -> None:
        """Refuse a layer whose state is its own, such as a delay, where it is not called once in every step."""
        if not isinstance(layer, snn.AbstractLayer) or isinstance(layer, snn.BatchNorm | ChannelsSecond):
            return
        if not in_loop or call.path in self.keeping:
            raise RecordingError(
                f"'{call.path}' keeps what it was given from call to call. Allowed: one call in every time step of "
                "one loop. Give each loop a layer of its own",
                path=call.path,
            )
        self.keeping.add(call.path)

    # Functions

    def _function(self, call: Call, scope: Scope) -> None:
        op, draft, outs = call.op, scope.draft, call.results
        if op not in OPS:
            raise RecordingError(
                f"the function {call.name} cannot be converted\n  {call.line}\n"
                f"Allowed: the {len(OPS)} functions of snnax_interop.ops.OPS, such as {', '.join(_similar(op))}",
                path=call.path,
            )
        filler = ArgumentLowering(call, scope)
        arguments = filler.arguments()
        if op == "squeeze":
            arguments = (arguments[0], ("dim", Items(_squeezed(call))))
        node = nodes.Call(tuple(filler.arrays), op, Items(()), arguments, tuple(filler.in_axes), (), call.no_grad)
        out_axes = tuple(value.batch_axis for value in outs)
        if op in DRAWING and (p := _drawn_share(call)):
            if DRAWING[op] and node.in_axes != (0,):
                raise RecordingError(f"{call.name} drops channels. Allowed: inputs whose first axis is the batch")
            self._hand_out(call, scope, draft.node(op, dropout_layer(op, p), filler.sources))
            return
        given = [value for value in call.reads if value in self.dependent]
        alone = len(given) == len(filler.sources) == 1 and not filler.arrays
        if op in _ALIASES and alone and not call.no_grad and _is_same_kind(given[0], outs[0]):
            draft.made[outs[0]] = filler.sources[0]
            return
        layer: Any
        if op in _FLATTENING and node.in_axes == out_axes == (0,) and len(outs[0].shape) == 2 and not filler.arrays:
            layer = snn.flatten()
        elif op in ELEMENTWISE and filler.aligned(out_axes[0], len(outs[0].shape)):
            nowhere = (None,) * len(node.in_axes)
            layer = dataclasses.replace(node, in_axes=nowhere, out_axes=(None,) * len(out_axes))
        else:
            layer = dataclasses.replace(node, out_axes=out_axes)
        prefix = f"{call.path}." if call.path else ""
        self._hand_out(call, scope, draft.node(prefix + op, layer, filler.sources))

    def _hand_out(self, call: Call, scope: Scope, name: str) -> None:
        """Note where the results of a call are found: in its node, or each in an item of it."""
        draft = scope.draft
        if call.is_single:
            draft.made[call.results[0]] = name
        else:
            for item, value in enumerate(call.results):
                draft.made[value] = draft.node(f"{name}.{item}", call_of("item", item), [name])

    # The batch

    def _check_mixing(self, call: Call, node: nodes.Call, values: list[Value | None]) -> None:
        """Refuse an operation that works along the batch axis of one of its inputs, and leaves it in the result."""
        ranks = [0 if value is None else len(value.shape) for value in values]
        for number, mixed in node.worked_axes(ranks).items():
            value = values[number]
            if value is not None and value.grown in mixed:
                raise RecordingError(
                    f"{call.name} mixes the samples of a batch: it works along the batch axis of a tensor of shape "
                    f"{_shown(value)}. Allowed: functions of one sample",
                    path=call.path,
                )


def _shown(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"


def _squeezed(call: Call) -> tuple[int, ...]:
    """The axes that a squeeze takes out; the batch is of length one here, and may not be in torch."""
    shape, dims = call.arguments["input"].shape, call.arguments.get("dim")
    named = range(len(shape)) if dims is None else dims if isinstance(dims, list | tuple) else (dims,)
    return tuple(dim % len(shape) for dim in named if shape[dim] == Size(0, 1))


def _drawn_share(call: Call) -> float:
    """The share that a dropout function drops; 0 where it is off."""
    given = OPS[call.op].defaults | dict(call.arguments)
    return given["p"] if given["training"] else 0.0


def _similar(name: str) -> list[str]:
    """Known functions with a name like this one, or some of them."""
    return difflib.get_close_matches(name, OPS, 5) or ["add", "cat", "mean", "view", "where"]


def _is_same_kind(source: Value, out: Value) -> bool:
    kinds = (source.dtype, out.dtype)
    return kinds[0] == kinds[1] or all(kind.is_floating_point for kind in kinds)
