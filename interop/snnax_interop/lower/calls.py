"""Calls as nodes of a native graph for one sample, without a batch axis."""

import dataclasses
import difflib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch

from snnax import snn

from ..converters.layer import LayerConverter
from ..errors import InteropError, RecordingError, UnsupportedModuleError
from ..ir.regions import Call, Value, squeezed_axes
from ..nodes import call as nodes
from ..nodes.call import Form, Items, call_of
from ..nodes.dropout import DRAWING, SharedDropout, dropout_layer
from ..nodes.wrappers import ChannelsSecond
from ..ops import ELEMENTWISE, OPS
from .arguments import ArgumentLowering, BatchArguments, Scope
from .draft import GraphDraft
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
        self.mixing: list[Call] = []  # layers of one sample, as the program has it, that mix samples

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
        names = dict(
            itertools.zip_longest(list(inspect.signature(converter.kind.forward).parameters)[1:], converter.inputs)
        )
        filler = ArgumentLowering(call, scope, holds_arrays=False)
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
        if others and not isinstance(layer, nodes.Call):
            raise UnsupportedModuleError(f"{converter.kind.__name__} is called with several tensors", path=call.path)
        if call.batched:
            self._module_of_batch(call, layer, scope)
            return
        if isinstance(layer, nodes.Call) and _mixes(layer, filler.values):
            self.mixing.append(call)
        self._hand_out(call, scope, scope.draft.node(call.path, layer, filler.sources))
        if call.no_grad:
            for value in call.results:
                scope.draft.made[value] = scope.draft.detached(scope.draft.made[value])

    def _module_of_batch(self, call: Call, layer: Any, scope: Scope) -> None:
        """Add a layer that mixes samples, as an operation on all of them."""
        filler = BatchArguments(call, scope, holds_arrays=False)
        same = filler.arguments() == ArgumentLowering(call, scope, holds_arrays=False).arguments()
        if (
            not isinstance(layer, nodes.Call)
            or not same
            or any(each.is_folded for each in (*call.reads, *call.results))
        ):
            raise RecordingError(
                f"{call.name} mixes the samples of a batch: it is given a tensor of shape {_shown(call.reads[0])}. "
                "Allowed: layers of one sample",
                path=call.path,
            )
        self._of_batch(call, scope, call.path, layer, filler.sources)

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
        drawn = _drawn_share(call) if op in DRAWING else 0.0
        filler = (BatchArguments if call.batched else ArgumentLowering)(call, scope, holds_arrays=not drawn)
        arguments = filler.arguments()
        if op == "squeeze":
            arguments = (arguments[0], ("dim", Items(squeezed_axes(call))))
        node = nodes.Call(tuple(filler.arrays), op, Items(()), arguments, tuple(filler.in_axes), (), call.no_grad)
        out_axes = tuple(value.batch_axis for value in outs)
        if drawn:
            self._dropout(call, scope, drawn, filler)
            return
        prefix = f"{call.path}." if call.path else ""
        if call.batched:
            self._of_batch(call, scope, prefix + op, node, filler.sources)
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
            layer = _without_batch_axes(call, node)
        else:
            layer = dataclasses.replace(node, out_axes=out_axes)
        self._hand_out(call, scope, draft.node(prefix + op, layer, filler.sources))

    def _dropout(self, call: Call, scope: Scope, p: float, filler: ArgumentLowering) -> None:
        """Add a dropout that draws, for each sample or for what all of them share."""
        (out,) = call.results
        if DRAWING[call.op] and (call.batched or filler.in_axes != [0]):
            raise RecordingError(f"{call.name} drops channels. Allowed: inputs whose first axis is the batch")
        layer = dropout_layer(call.op, p)
        if self.layers.axis_name is not None and (call.batched or not out.has_batch):
            layer = SharedDropout(layer)
        made = scope.draft.node(call.op, layer, filler.sources)
        if call.batched:
            scope.draft.make_whole(out, made)
        else:
            self._hand_out(call, scope, made)

    def _of_batch(self, call: Call, scope: Scope, name: str, node: nodes.Call, sources: list[Any]) -> None:
        """Add a call of all samples at once."""
        draft = scope.draft
        node = dataclasses.replace(_without_batch_axes(call, node), detached=call.no_grad)
        for value, made in self._outs(call, draft, draft.node(name, node, sources)):
            draft.make_whole(value, made)

    def _hand_out(self, call: Call, scope: Scope, name: str) -> None:
        """Note where the results of a call are found."""
        scope.draft.made.update(self._outs(call, scope.draft, name))

    def _outs(self, call: Call, draft: GraphDraft, name: str) -> Iterator[tuple[Value, str]]:
        """The results of a call with their places: in its node, or each in an item of it."""
        for item, value in enumerate(call.results):
            yield value, name if call.is_single else draft.node(f"{name}.{item}", call_of("item", item), [name])


def _without_batch_axes(call: Call, node: nodes.Call) -> nodes.Call:
    return dataclasses.replace(node, in_axes=(None,) * len(node.in_axes), out_axes=(None,) * len(call.results))


def _mixes(layer: nodes.Call, values: list[Value | None]) -> bool:
    """Whether the operation of a layer works along the batch axis of one of its inputs."""
    axes = [() if value is None else value.batched_axes for value in values]
    worked = layer.worked_axes([0 if value is None else len(value.shape) for value in values])
    return any(mixed.intersection(axes[number]) for number, mixed in worked.items())


def _shown(value: Value) -> str:
    return f"({', '.join(map(str, value.shape))})"


def _drawn_share(call: Call) -> float:
    """The share that a dropout function drops; 0 where it is off."""
    given = OPS[call.op].defaults | dict(call.arguments)
    return given["p"] if given["training"] else 0.0


def _similar(name: str) -> list[str]:
    """Known functions with a name like this one, or some of them."""
    return difflib.get_close_matches(name, OPS, 5) or ["add", "cat", "mean", "view", "where"]


def _is_same_kind(source: Value, out: Value) -> bool:
    kinds = (source.dtype, out.dtype)
    return kinds[0] == kinds[1] or {*kinds} <= {torch.float32, torch.float64}
