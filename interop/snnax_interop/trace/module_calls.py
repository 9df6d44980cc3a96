"""Calls of modules that are converted as a whole, as a tape has them."""

import copy
import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..converters.base import Converter, ModuleCall, StepConverter
from ..converters.layer import LayerConverter
from ..converters.neuron import NeuronCall, NeuronConverter, neuron_of
from ..converters.registry import Registry
from ..converters.sequence import FoldedCall, SequenceCall
from ..errors import UnsupportedModuleError
from .recorder import Recorder
from .tape import Ref, leaves_of


class ModuleCalls:
    """Writes calls of converted modules onto a recorder's tape, from hooks around every module.

    `beginnings` is what neurons keep at first, by identity; `continues` says by path whether a neuron goes on from what
    it keeps.
    """

    def __init__(self, recorder: Recorder, module: torch.nn.Module):
        self.recorder = recorder
        self.settings = {id(child): settings_of(child, recorder.registry) for child in module.modules()}
        self.fresh: set[int] = set()  # neurons whose next call starts from their own state
        self.beginnings: dict[int, Any] = {}
        self.continues: dict[str, bool] = {}

    def enter(self, module: torch.nn.Module, args: Any) -> None:
        converter = None
        if not self.recorder.paused:
            path = self.recorder.paths.get(id(module))
            self.recorder.called.add(path or "")
            if path is None:
                raise UnsupportedModuleError(
                    f"a {type(module).__name__} that is no submodule of the network is called; make it an attribute",
                    path=self.recorder.current_path(),
                )
            converter = self.recorder.registry.find(module, path)
            self.check_settings(module, converter)
        neuron = neuron_of(converter)
        if neuron is not None and neuron.attributes is not None:
            converter = neuron = None  # its forward is recorded
        if converter is not None and _writes(module):
            self.recorder.prepare_write(args[0], type(module).__name__)
        state = None if neuron is None or neuron.memory is None else neuron.memory.read(module)
        self.recorder.stack.append(
            (module, converter, (state, None if converter is None else torch.random.get_rng_state()))
        )
        self.recorder.paused += converter is not None

    def check_settings(self, module: torch.nn.Module, converter: Converter | None) -> None:
        """Refuse a module whose options or parameters forward has set: they are taken from it as it is given."""
        for name, value in self.settings[id(module)].items() if converter is not None else ():
            # A class may have a property of the name of a parameter.
            now = module._parameters[name] if name in module._parameters else getattr(module, name, None)
            if now is not value:
                path = self.recorder.paths[id(module)]
                raise self.recorder.refuse(
                    f"'{path}.{name}' of the {type(module).__name__} is set inside forward",
                    advice="Allowed: options and parameters that stay as they were given. Set them outside of forward, "
                    "or write the neuron's equations as tensor functions with the computed value.",
                    path=path,
                )

    def left(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        with self.recorder.one_call():
            self.leave(module, args, kwargs, result)

    def leave(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        entered, converter, (state, random_state) = self.recorder.stack.pop()
        assert entered is module
        if converter is None:
            return
        path = self.recorder.paths[id(module)]
        step = converter.at_one_step
        draws = isinstance(converter, LayerConverter) and converter.draws
        self.recorder.check_random(random_state, type(module).__name__, path, allowed=draws)
        if isinstance(step, NeuronConverter) and path not in self.continues:
            alone = len(leaves_of((args, kwargs), torch.Tensor)) == 1
            began = state is not None and all(map(operator.is_, state, self.beginnings[id(module)]))
            self.continues[path] = alone and began
        call = converter.split(module, ModuleCall(args=args, kwargs=kwargs, kept=state, result=result))
        if isinstance(call, FoldedCall):
            self.add_folded(module, path, call)
        elif isinstance(call, SequenceCall):
            self.add_sequence(path, call)
        elif isinstance(call, NeuronCall):
            self.add_neuron(module, path, step, call)
        else:
            self.add_layer(module, path, step, args, kwargs, result)
        self.recorder.paused -= 1

    def stepped(self, module: Any, converter: NeuronConverter, step: Callable[..., Any]) -> Callable[..., Any]:
        """The function of one time step of a neuron, whose calls are written down."""

        def call(*args: Any) -> Any:
            self.recorder.paused += 1
            result = step(*args)
            found = converter.split(module, ModuleCall(args=args, kwargs={}, kept=None, result=result))
            if id(module) in self.fresh:
                found = dataclasses.replace(found, state_in=None)
            self.fresh.discard(id(module))
            self.add_neuron(module, self.recorder.paths[id(module)], converter, found)
            self.recorder.paused -= 1
            return result

        return call

    def started(self, module: Any, converter: NeuronConverter, start: Callable[..., Any]) -> Callable[..., Any]:
        """The function that makes the first state of a neuron."""

        assert converter.attributes is not None
        if not converter.attributes.starts_itself(module):
            return start

        def call(*args: Any) -> Any:
            self.fresh.add(id(module))
            self.recorder.paused += 1
            state = start(*args)
            self.recorder.paused -= 1
            # Some start in float32 whatever the network computes in, and take their first step in it.
            return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(args[0].dtype), state)

        return call

    def add_layer(
        self, module: Any, path: str, converter: StepConverter | None, args: Any, kwargs: Any, result: Any
    ) -> None:
        given = leaves_of((args, kwargs), torch.Tensor)
        produced = leaves_of(result, torch.Tensor)
        before = self.recorder.replace((args, kwargs))
        if _writes(module) and any(produced[0] is x for x in given):
            # The options of the module, without the write.
            plain: Any = copy.copy(module)
            plain.inplace = False
            self.recorder.aliases.write(produced[0], self.recorder.value(produced[0]))
            self.recorder.add(plain, path, before, result, converter=converter)
            self.recorder.aliases.write_back(produced[0], type(module).__name__)
            return
        if all(any(x is y for y in given) for x in produced):
            return  # an identity: nothing happened
        for tensor in produced:
            self.recorder.new(tensor)
        self.recorder.add(module, path, before, result, converter=converter)

    def add_sequence(self, path: str, call: SequenceCall) -> None:
        """A call on a whole sequence as the loop over time that it stands for."""
        xs = self.recorder.ref(call.x)
        outs: list[Ref] = []
        states: list[tuple[Ref, ...]] = []
        for step in range(call.x.shape[0]):
            value = _step(call.x, step)
            self.recorder.new(value)
            self.recorder.add(torch.Tensor.__getitem__, path, ((xs, step), {}), value)
            for part in call.parts:
                before = self.recorder.replace(((value,), {}))
                value, after = _step(part.outs, step), tuple(_step(state, step) for state in part.states)
                for tensor in (value, *after):
                    self.recorder.new(tensor)
                state_in = None
                if after and states:
                    state_in = states[-1]
                elif part.state_in is not None:
                    state_in = tuple(map(self.recorder.ref, part.state_in))
                state_out = tuple(map(self.recorder.ref, after))
                where = ".".join(filter(None, (path, part.name)))
                self.recorder.called.add(where)
                state = {"state_in": state_in, "state_out": state_out}
                self.recorder.add(part.module, where, before, value, converter=part.converter, **state)
                if after:
                    states.append(state_out)
                    self.recorder.fired |= {ref.index for ref in self.recorder.entries[-1].made}
            outs.append(self.recorder.ref(value))
        for tensor, field in call.results:
            series = outs if field is None else [state[field] for state in states]
            self.recorder.new(tensor)
            self.recorder.add(torch.stack, path, ((series,), {}), tensor)

    def add_folded(self, module: Any, path: str, call: FoldedCall) -> None:
        """A call on a whole sequence as one call on its time steps as further samples."""
        flat, out = call.x.flatten(0, 1), call.result.flatten(0, 1)
        before = self.recorder.replace(((call.x, 0, 1), {}))
        self.recorder.new(flat)
        self.recorder.add(torch.flatten, path, before, flat)
        before = self.recorder.replace(((flat,), {}))
        self.recorder.new(out)
        self.recorder.add(module, path, before, out, converter=call.converter)
        before = self.recorder.replace(((out, 0, tuple(call.x.shape[:2])), {}))
        self.recorder.new(call.result)
        self.recorder.add(torch.Tensor.unflatten, path, before, call.result)

    def add_neuron(self, module: Any, path: str, converter: StepConverter | None, call: NeuronCall) -> None:
        x = call.x
        if call.weights is not None:
            x = torch.nn.functional.linear(call.x, call.weights)
            before = self.recorder.replace(((call.x, call.weights), {}))
            self.recorder.new(x)
            self.recorder.add(torch.nn.functional.linear, path, before, x)
        before = self.recorder.replace(((x,), {}))
        state_in = None if call.state_in is None else tuple(self.recorder.ref(tensor) for tensor in call.state_in)
        for tensor in (call.out, *call.state_out):
            self.recorder.new(tensor)
        state_out = tuple(self.recorder.ref(tensor) for tensor in call.state_out)
        self.recorder.add(module, path, before, call.out, converter=converter, state_in=state_in, state_out=state_out)
        self.recorder.fired |= {ref.index for ref in self.recorder.entries[-1].made}


def _writes(module: Any) -> bool:
    """Whether a layer writes into its argument; a dropout that is off does not."""
    is_off = isinstance(module, torch.nn.modules.dropout._DropoutNd) and not module.training
    return bool(getattr(module, "inplace", False)) and not is_off


def _step(series: Any, step: int) -> torch.Tensor:
    """A time step of a sequence; a part of a tensor in memory of its own, so that the sequence may be written over."""
    return series[step].clone() if isinstance(series, torch.Tensor) else series[step]


def settings_of(module: torch.nn.Module, registry: Registry) -> dict[str, Any]:
    """The options and parameters of a module that is converted as a whole."""
    converter = registry.converters.get(type(module))
    if converter is None:
        return {}
    options = converter.kept_options(module).items()
    options = {name: value for name, value in options if name not in converter.may_change}
    # What a class computes is a new object at every look: methods, properties that are tensors.
    kept = {name: value for name, value in options.items() if not hasattr(type(module), name) or type(value) is str}
    return {**kept, **module._parameters}
