"""A tape of one real run of a torch module.

The module runs once on real tensors; every call of a module whose class has a converter, and every tensor function
outside of these modules is written down with the identities of its tensors. Python control flow just happens. What the
tape could not reproduce on other inputs is refused while it is recorded: values that steer Python, random numbers,
writes into shared memory.
"""

import contextlib
import dataclasses
import linecache
import operator
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..converters.base import Converter, ModuleCall, StepConverter
from ..converters.layer import LayerConverter
from ..converters.neuron import NeuronCall, NeuronConverter, neuron_of
from ..converters.registry import Registry
from ..converters.sequence import FoldedCall, SequenceCall
from ..errors import RecordingError, UnsupportedModuleError
from ..nodes.dropout import DRAWING
from . import caller_loop
from .autograd_functions import CustomFunction, custom_function, recorded_function, seen_autograd_functions
from .bytecode import instruction
from .isolation import preserved, without_collector
from .refusals import METADATA, fault_of, is_in_place
from .store_forwarding import forwarded
from .tape import CONSTANT_FUNCTIONS, Entry, Frame, Place, Ref, Tape, base_name, function_name, leaves_of, refs
from .unwrap import eager


# Functions that take a shape.
_SHAPED = {"zeros", "ones", "full", "empty", "view", "reshape", "expand", "repeat"}
_SHAPED |= {f"new_{name}" for name in ("zeros", "ones", "full", "empty")}


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: "_Recorder"):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.recorder.paused:  # most calls are made inside of converted modules
            return func(*args, **(kwargs or {}))
        return self.recorder.call_function(func, args, kwargs or {})


class _Recorder:
    def __init__(self, module: torch.nn.Module, registry: Registry, root: FrameType):
        self.registry = registry
        self.paths = {id(child): path for path, child in reversed(list(module.named_modules()))}
        self.entries: list[Entry] = []
        self.tensors: list[torch.Tensor] = []
        self.alive: list[torch.Tensor] = []
        self.shapes: list[tuple[int, ...]] = []
        self.refs: dict[int, Ref] = {}
        self.storages: dict[int, set[int]] = {}
        self.names: dict[int, str] = {}
        self.own: dict[int, str] = {}  # parameters and buffers as they are shown, by identity
        self.settings = {id(child): settings_of(child, registry) for child in module.modules()}
        self.dependent: set[int] = set()
        self.parametric: set[int] = set()
        self.read: set[int] = set()
        self.called: set[str] = set()
        self.fired: set[int] = set()  # what neurons have made
        self.fresh: set[int] = set()  # neurons whose next call starts from their own state
        self.whole: set[int] = set()  # what layers over whole sequences have made, by identity
        self.draws = False
        self.functions: dict[Any, CustomFunction] = {}
        self.stack: list[tuple[torch.nn.Module, Converter | None, Any]] = []
        self.root = root
        self.frames: dict[int, tuple[FrameType, int]] = {}
        self.beginnings: dict[int, Any] = {}
        self.continues: dict[str, bool] = {}
        self.paused = 0  # inside a module that is converted as a whole, and in the recorder itself
        for name, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]:
            if id(tensor) not in self.refs:
                ref = self.new(tensor)
                self.parametric.add(ref.index)
                self.names[ref.index] = name
                kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer"
                self.own[id(tensor)] = f"{kind} '{name}'"
                hook = registry.hook_of(tensor)
                if hook is not None:
                    hooked = tensor.detach().clone()
                    self.new(hooked)
                    self.add(hook, "", ((ref,), {}), hooked)
                    self.refs[id(tensor)] = self.refs[id(hooked)]

    # Values

    def new(self, tensor: torch.Tensor) -> Ref:
        ref = Ref(len(self.tensors))
        self.tensors.append(tensor)
        self.alive.append(tensor)  # so that its id stays its own
        self.shapes.append(tuple(tensor.shape))
        self.refs[id(tensor)] = ref
        if tensor.layout == torch.strided:
            self.storages.setdefault(tensor.untyped_storage().data_ptr(), set()).add(id(tensor))
        return ref

    def ref(self, tensor: torch.Tensor) -> Ref:
        """The value of a tensor; one that no call on the tape produced is a constant."""
        found = self.refs.get(id(tensor))
        gradient = tensor.grad_fn
        if found is None and gradient is not None:
            raise self.refuse(
                f"a tensor of shape {tuple(tensor.shape)} was computed outside of this forward pass and carries "
                f"gradients ({gradient.name()})",
                advice="Allowed: inputs, parameters, buffers and constants. Reset states before converting, or compute "
                "it inside forward.",
            )
        return self.constant(self.new(tensor)) if found is None else found

    def constant(self, ref: Ref) -> Ref:
        """Keep the present content of a constant, which may be written over later."""
        self.tensors[ref.index] = self.tensors[ref.index].detach().clone()
        return ref

    def size(self, tensor: torch.Tensor) -> Any:
        """A constant that is one integer, as Norse keeps its sizes, as that."""
        is_size = tensor.ndim == 0 and tensor.dtype == torch.int64 and id(tensor) not in self.refs
        return int(tensor) if is_size else tensor

    def known_or_detached(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if id(tensor) in self.refs else tensor.detach()

    def replace(self, tree: Any) -> Any:
        if isinstance(tree, torch.Tensor):
            return self.ref(tree)
        if type(tree) in (tuple, list):  # by far the most; torch's own mapping takes ten times as long
            return type(tree)(map(self.replace, tree))
        if type(tree) is dict:
            return {key: self.replace(value) for key, value in tree.items()}
        return pytree.tree_map_only(torch.Tensor, self.ref, tree)

    def depends(self, tree: Any) -> bool:
        return any(ref.index in self.dependent for ref in refs(tree))

    # Where

    def here(self) -> Place:
        """Where the present call is made."""
        frame = sys._getframe()
        frames, shown = [], ""
        while frame is not None and frame is not self.root:
            full_name = frame.f_globals.get("__name__", "")
            name = full_name.split(".")[0]
            if full_name not in _MODULE_CALL and (name not in _OWN or full_name == caller_loop.__name__):
                code = frame.f_code
                # A frame that is kept cannot give its id to another one.
                _, activation = self.frames.setdefault(id(frame), (frame, len(self.frames)))
                frames.append(Frame(activation, code, instruction(code, frame.f_lasti)))
                if not shown and name not in (*_OWN, *self.registry.libraries):
                    text = linecache.getline(code.co_filename, frame.f_lineno).strip()
                    shown = f"{code.co_filename}:{frame.f_lineno}: {text}"
            frame = frame.f_back
        return Place(tuple(reversed(frames)), shown)

    def refuse(self, what: str, *, advice: str, path: str | None = None) -> RecordingError:
        path = self.current_path() if path is None else path
        return RecordingError(f"{what}\n  {self.here().line}\n{advice}", path=path)

    def current_path(self) -> str:
        return self.paths.get(id(self.stack[-1][0]), "") if self.stack else ""

    # Calls

    def call_function(self, function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = base_name(function)
        if name in METADATA and function is not torch.autograd.grad:
            result = function(*args, **kwargs)
            if not leaves_of(result, torch.Tensor):
                return result
        given = leaves_of((args, kwargs), torch.Tensor)
        fault = fault_of(function, function.__name__, args, kwargs)
        if fault is not None:
            raise self.refuse(fault[0], advice=fault[1])
        if is_in_place(name, kwargs):
            targets = given[:1] if kwargs.get("out") is None else [kwargs["out"]]
            self.check_own_memory(targets, name)
            self.keep_spikes(targets)
        if getattr(function, "__name__", "") in CONSTANT_FUNCTIONS:
            # snnTorch's utils.reset reaches the left-over states of every network in the process; only shapes matter.
            args, kwargs = pytree.tree_map_only(torch.Tensor, self.known_or_detached, (args, kwargs))
        if name in _SHAPED:
            args, kwargs = pytree.tree_map_only(torch.Tensor, self.size, (args, kwargs))
        before = self.replace((args, kwargs))
        versions = [tensor._version for tensor in given]
        random_state = torch.random.get_rng_state()
        result = function(*args, **kwargs)
        self.check_random(random_state, function_name(function), allowed=name in DRAWING)
        written = [tensor for tensor, version in zip(given, versions, strict=True) if tensor._version != version]
        produced = leaves_of(result, torch.Tensor)
        if any(tensor.layout != torch.strided for tensor in produced):
            raise self.refuse(
                f"{function_name(function)} makes a sparse tensor",
                advice="Allowed: dense tensors. Take .to_sparse() out of forward; JAX computes with dense spikes.",
            )
        if not produced and not written:
            if self.depends(before):
                raise self.refuse(
                    f"{function_name(function)} takes values out of a tensor that depends on the inputs, "
                    "so what Python does next depends on them",
                    advice="Allowed: control flow on shapes and settings. Use tensor functions (torch.where, masks) "
                    "in place of if, float(), .item() and numpy.",
                )
            self.read |= {ref.index for ref in refs(before)} & self.parametric
            return result
        if not written and all(any(x is y for y in given) for x in produced):
            return result  # .float() of a float tensor and the like: nothing happened
        for tensor in written:
            self.check_write(tensor, name)
            self.new(tensor)
        for tensor in produced:
            if not any(tensor is x for x in written):
                self.new(tensor)
        # A function that writes and returns nothing (index assignment) has its target as result.
        outcome = result if produced else written[0]
        self.add(function, self.current_path(), before, outcome)
        return result

    def add(
        self, target: Any, path: str, before: Any, outcome: Any, converter: StepConverter | None = None, **extra: Any
    ) -> None:
        result = self.replace(outcome)
        args, kwargs = before
        no_grad = not torch.is_grad_enabled()
        entry = Entry(target, path, args, kwargs, result, self.here(), no_grad=no_grad, converter=converter, **extra)
        self.entries.append(entry)
        given = {ref.index for ref in refs((args, kwargs, entry.state_in))}
        made = {ref.index for ref in entry.made}
        if not entry.constant and given & self.dependent:
            self.dependent |= made
        # What a module makes depends on its parameters.
        if converter is not None or (not entry.constant and given & self.parametric):
            self.parametric |= made
        for index in made - self.dependent - self.parametric:
            self.constant(Ref(index))

    def names_read(self) -> frozenset[str]:
        """The parameters and buffers that Python has looked into, or into something that was computed from them."""
        wanted, found = set(self.read), set()
        for entry in reversed(self.entries) if wanted else ():
            if not entry.constant and any(ref.index in wanted for ref in entry.made):
                wanted |= {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}
                if entry.converter is not None:
                    found |= {name for name in self.names.values() if name.startswith(f"{entry.path}.")}
        return frozenset(found | {self.names[index] for index in wanted if index in self.names})

    def check_random(self, before: torch.Tensor, name: str, path: str | None = None, *, allowed: bool = False) -> None:
        if torch.equal(before, torch.random.get_rng_state()):
            return
        self.draws = True
        if not allowed:
            raise self.refuse(
                f"{name} draws random numbers inside forward",
                path=path,
                advice="Allowed: deterministic forwards. Call module.eval() where dropout is the cause; encode inputs "
                "(rate coding) before the network.",
            )

    def call_autograd_function(self, kind: Any, apply: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.paused:
            return apply(*args, **kwargs)
        # Numbers that come as tensors of their own, such as a slope, are settings.
        places = [place for place, arg in enumerate(args) if isinstance(arg, torch.Tensor) and self.varies(arg)]
        before = self.replace((tuple(args[place] for place in places), {}))
        self.paused += 1
        if kwargs or not all(isinstance(arg, torch.Tensor | bool | int | float | str | None) for arg in args):
            raise self.refuse(f"{kind.__name__}.apply is given lists or objects", advice="Pass tensors and numbers.")
        numbers = (arg.item() if isinstance(arg, torch.Tensor) and arg.ndim == 0 else arg for arg in args)
        key = (kind, *(tuple(args[place].shape) if place in places else x for place, x in enumerate(numbers)))
        function = self.functions.get(key)
        if function is None:
            try:
                function = recorded_function(kind, args, places)
            except RecordingError as error:
                raise self.refuse(str(error), advice="Use tensor functions, or a neuron of a framework.") from error
            function = self.functions[key] = dataclasses.replace(function, torch=_given(apply, args, places))
        result = apply(*args)
        self.paused -= 1
        self.new(result)
        self.add(custom_function, self.current_path(), (before[0], {"function": function}), result)
        return result

    def varies(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is more than a number that somebody wrote down."""
        ref = self.refs.get(id(tensor))
        return tensor.ndim > 0 or (ref is not None and (ref.index in self.dependent or ref.index in self.parametric))

    def check_own_memory(self, written: list[torch.Tensor], name: str) -> None:
        """Refuse a write into a parameter or buffer; before it happens, as it could not be taken back."""
        for tensor in (x for x in written if x.layout == torch.strided and x.numel()):
            shared = self.storages.get(tensor.untyped_storage().data_ptr(), set())
            found = next((self.own[each] for each in shared if each in self.own), None)
            if found is not None:
                raise self.refuse(
                    f"{name} changes the {found} inside forward, so the next call computes something else",
                    advice="Allowed: parameters and buffers that forward only reads. Change them outside of forward, "
                    "or compute a new tensor from them (x = x * 0.9, in a variable of forward).",
                )

    def keep_spikes(self, written: list[torch.Tensor]) -> None:
        """Keep what a neuron made of a tensor that is now written over: `total = spikes` and then `total += spikes`."""
        for ref in (self.refs.get(id(tensor)) for tensor in written):
            if ref is not None and ref.index in self.fired:
                self.tensors[ref.index] = self.tensors[ref.index].detach().clone()

    def check_write(self, tensor: torch.Tensor, name: str) -> None:
        shared = self.storages.get(tensor.untyped_storage().data_ptr(), set()) - {id(tensor)}
        views = [x for x in shared if self.alive[self.refs[x].index] is not tensor]
        if (tensor._is_view() and id(tensor) not in self.whole) or (views and name != "__setitem__"):
            raise self.refuse(
                f"{name} writes into memory that another tensor shares",
                advice="Allowed: writes into tensors of their own. Use the out-of-place form (x = x + y for x += y).",
            )

    # Modules

    def enter(self, module: torch.nn.Module, args: Any) -> None:
        converter = None
        if not self.paused:
            path = self.paths.get(id(module))
            self.called.add(path or "")
            if path is None:
                raise UnsupportedModuleError(
                    f"a {type(module).__name__} that is no submodule of the network is called; make it an attribute",
                    path=self.current_path(),
                )
            converter = self.registry.find(module, path)
            self.check_settings(module, converter)
        neuron = neuron_of(converter)
        if neuron is not None and neuron.attributes is not None:
            converter = neuron = None  # its forward is recorded
        state = None if neuron is None or neuron.memory is None else neuron.memory.read(module)
        self.stack.append((module, converter, (state, None if converter is None else torch.random.get_rng_state())))
        self.paused += converter is not None

    def check_settings(self, module: torch.nn.Module, converter: Converter | None) -> None:
        """Refuse a module whose options or parameters forward has set: they are taken from it as it is given."""
        before, now = self.settings[id(module)], settings_of(module, self.registry)
        for name in before if converter is not None else ():
            if before[name] is not now[name]:
                path = self.paths[id(module)]
                raise self.refuse(
                    f"'{path}.{name}' of the {type(module).__name__} is set inside forward",
                    advice="Allowed: options and parameters that stay as they were given. Set them outside of forward, "
                    "or write the neuron's equations as tensor functions with the computed value.",
                    path=path,
                )

    def leave(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        entered, converter, (state, random_state) = self.stack.pop()
        assert entered is module
        if converter is None:
            return
        path = self.paths[id(module)]
        step = converter.at_one_step
        draws = isinstance(converter, LayerConverter) and converter.draws
        self.check_random(random_state, type(module).__name__, path, allowed=draws)
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
        self.paused -= 1

    def stepped(self, module: Any, converter: NeuronConverter, step: Callable[..., Any]) -> Callable[..., Any]:
        """The function of one time step of a neuron, whose calls are written down."""

        def call(*args: Any) -> Any:
            self.paused += 1
            result = step(*args)
            found = converter.split(module, ModuleCall(args=args, kwargs={}, kept=None, result=result))
            if id(module) in self.fresh:
                found = dataclasses.replace(found, state_in=None)
            self.fresh.discard(id(module))
            self.add_neuron(module, self.paths[id(module)], converter, found)
            self.paused -= 1
            return result

        return call

    def started(self, module: Any, converter: NeuronConverter, start: Callable[..., Any]) -> Callable[..., Any]:
        """The function that makes the first state of a neuron."""

        assert converter.attributes is not None
        if not converter.attributes.starts_itself(module):
            return start

        def call(*args: Any) -> Any:
            self.fresh.add(id(module))
            self.paused += 1
            state = start(*args)
            self.paused -= 1
            # Some start in float32 whatever the network computes in, and take their first step in it.
            return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(args[0].dtype), state)

        return call

    def add_layer(
        self, module: Any, path: str, converter: StepConverter | None, args: Any, kwargs: Any, result: Any
    ) -> None:
        given = leaves_of((args, kwargs), torch.Tensor)
        produced = leaves_of(result, torch.Tensor)
        before = self.replace((args, kwargs))
        in_place = getattr(module, "inplace", False)
        if not in_place and all(any(x is y for y in given) for x in produced):
            return  # an identity: nothing happened
        for tensor in produced:
            if any(tensor is x for x in given):
                self.check_write(tensor, type(module).__name__)
            self.new(tensor)
        self.add(module, path, before, result, converter=converter)

    def add_sequence(self, path: str, call: SequenceCall) -> None:
        """A call on a whole sequence as the loop over time that it stands for."""
        xs = self.ref(call.x)
        outs: list[Ref] = []
        states: list[tuple[Ref, ...]] = []
        for step in range(call.x.shape[0]):
            value = _step(call.x, step)
            self.new(value)
            self.add(torch.Tensor.__getitem__, path, ((xs, step), {}), value)
            for part in call.parts:
                before = self.replace(((value,), {}))
                value, after = _step(part.outs, step), tuple(_step(state, step) for state in part.states)
                for tensor in (value, *after):
                    self.new(tensor)
                state_in = None
                if after and states:
                    state_in = states[-1]
                elif part.state_in is not None:
                    state_in = tuple(map(self.ref, part.state_in))
                state_out = tuple(map(self.ref, after))
                where = ".".join(filter(None, (path, part.name)))
                self.called.add(where)
                state = {"state_in": state_in, "state_out": state_out}
                self.add(part.module, where, before, value, converter=part.converter, **state)
                if after:
                    states.append(state_out)
                    self.fired |= {ref.index for ref in self.entries[-1].made}
            outs.append(self.ref(value))
        for tensor, field in call.results:
            series = outs if field is None else [state[field] for state in states]
            self.new(tensor)
            self.whole.add(id(tensor))
            self.add(torch.stack, path, ((series,), {}), tensor)

    def add_folded(self, module: Any, path: str, call: FoldedCall) -> None:
        """A call on a whole sequence as one call on its time steps as further samples."""
        flat, out = call.x.flatten(0, 1), call.result.flatten(0, 1)
        before = self.replace(((call.x, 0, 1), {}))
        self.new(flat)
        self.add(torch.flatten, path, before, flat)
        before = self.replace(((flat,), {}))
        self.new(out)
        self.add(module, path, before, out, converter=call.converter)
        before = self.replace(((out, 0, tuple(call.x.shape[:2])), {}))
        self.new(call.result)
        self.add(torch.Tensor.unflatten, path, before, call.result)

    def add_neuron(self, module: Any, path: str, converter: StepConverter | None, call: NeuronCall) -> None:
        x = call.x
        if call.weights is not None:
            x = torch.nn.functional.linear(call.x, call.weights)
            before = self.replace(((call.x, call.weights), {}))
            self.new(x)
            self.add(torch.nn.functional.linear, path, before, x)
        before = self.replace(((x,), {}))
        state_in = None if call.state_in is None else tuple(self.ref(tensor) for tensor in call.state_in)
        for tensor in (call.out, *call.state_out):
            self.new(tensor)
        state_out = tuple(self.ref(tensor) for tensor in call.state_out)
        self.add(module, path, before, call.out, converter=converter, state_in=state_in, state_out=state_out)
        self.fired |= {ref.index for ref in self.entries[-1].made}


def _given(function: Callable[..., Any], args: tuple[Any, ...], places: list[int]) -> Callable[..., Any]:
    """A function of the arguments at some places, with the others as they are."""

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(args)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return function(*filled)

    return call


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


# Packages whose frames are between the user's code and a call; jaxtyping wraps the functions here when it checks types.
_OWN = ("snnax_interop", "jaxtyping")
# Where every module is called; its loops run over hooks.
_MODULE_CALL = ("torch.nn.modules.module",)


def record(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    registry: Registry,
    *,
    call: Callable[..., Any] | None = None,
    inputs_require_grad: bool = False,
) -> Tape:
    """Run `module(*inputs)`, or `call(*inputs)` that calls the module, once and write down what it does.

    The module is left as it was found: states, buffers, attributes, gradients and random numbers.

    **Raises:** `RecordingError`, `UnsupportedModuleError`, `UnsupportedOptionError` with the module path and source
    line; what the module itself raises comes through.
    """
    with preserved(module):
        return run_once(module, inputs, registry, call=call, inputs_require_grad=inputs_require_grad)


def run_once(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    registry: Registry,
    *,
    call: Callable[..., Any] | None = None,
    inputs_require_grad: bool = False,
) -> Tape:
    """`record` that leaves on the module what the run left there. Neurons start from their beginning."""
    inputs = tuple(tensor.detach().clone() for tensor in inputs)
    for tensor in inputs:
        tensor.requires_grad_(inputs_require_grad and tensor.is_floating_point())
    hooks = torch.nn.modules.module
    with contextlib.ExitStack() as stack:
        stack.enter_context(eager())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.enable_grad())
        recorder = _Recorder(module, registry, sys._getframe())
        input_refs = tuple(recorder.new(tensor) for tensor in inputs)
        recorder.dependent.update(ref.index for ref in input_refs)
        registry.reset_states(module)
        found = registry.neurons(module)
        neurons = [(child, converter.memory.read) for child, converter in found if converter.memory is not None]
        recorder.beginnings = {id(child): read(child) for child, read in neurons}
        for child, converter in found:
            names = converter.attributes
            if names is not None:
                for name, watched in ((names.start, recorder.started), (names.step, recorder.stepped)):
                    function = getattr(child, name)
                    stack.callback(setattr, child, name, function)
                    setattr(child, name, watched(child, converter, function))
        before = hooks.register_module_forward_pre_hook(recorder.enter)
        stack.callback(before.remove)
        after = hooks.register_module_forward_hook(
            lambda module, args, kwargs, result: recorder.leave(module, args, kwargs, result), with_kwargs=True
        )
        stack.callback(after.remove)
        stack.enter_context(seen_autograd_functions(recorder.call_autograd_function))
        stack.enter_context(without_collector())
        stack.enter_context(_Functions(recorder))
        result = (module if call is None else call)(*inputs)
    left = {recorder.paths[id(child)] for child, read in neurons if any(bool(x.any()) for x in read(child) or ())}
    tape = Tape(
        recorder.entries,
        input_refs,
        recorder.replace(result),
        recorder.tensors,
        recorder.names,
        recorder.dependent,
        recorder.parametric,
        recorder.names_read(),
        recorder.shapes,
        recorder.called,
        tuple(path for path, continues in recorder.continues.items() if continues and path in left),
        recorder.draws,
    )
    return forwarded(tape)
