"""What is written down of one run of a torch module: values, and calls of tensor functions.

The module runs once on real tensors; every call of a module whose class has a converter, and every tensor function
outside of these modules is written down with the identities of its tensors. Python control flow just happens. What the
tape could not reproduce on other inputs is refused while it is recorded: values that steer Python, random numbers.
Nothing on the tape writes: `x.add_(y)` is the function `add`, whose result is the value of `x` from then on.
"""

import contextlib
import dataclasses
import linecache
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..converters.base import Converter, StepConverter
from ..converters.registry import Registry
from ..errors import RecordingError
from ..nodes.dropout import DRAWING
from ..nodes.markers import unseen_write
from ..ops import op_name
from . import caller_loop
from .aliasing import DETACHED, Aliases
from .autograd_functions import CustomFunction, custom_function, recorded_function
from .bytecode import instruction
from .functional import SET_DATA, changes_to, cuts_gradient, setitem, written_arguments
from .refusals import METADATA, fault_of
from .tape import CONSTANT_FUNCTIONS, Entry, Frame, Place, Ref, base_name, function_name, leaves_of, refs
from .writes import Write


# Functions that take a shape.
_SHAPED = {"zeros", "ones", "full", "empty", "view", "reshape", "expand", "repeat"}
_SHAPED |= {f"new_{name}" for name in ("zeros", "ones", "full", "empty")}


# Packages whose frames are between the user's code and a call; jaxtyping wraps the functions here when it checks types.
_OWN = ("snnax_interop", "jaxtyping")
# Where every module is called; its loops run over hooks.
_MODULE_CALL = ("torch.nn.modules.module",)


class Recorder:
    def __init__(self, module: torch.nn.Module, registry: Registry, root: FrameType):
        self.registry = registry
        self.paths = {id(child): path for path, child in reversed(list(module.named_modules()))}
        self.entries: list[Entry] = []
        self.tensors: list[torch.Tensor] = []
        self.alive: list[torch.Tensor] = []
        self.shapes: list[tuple[int, ...]] = []
        self.refs: dict[int, Ref] = {}
        self.aliases = Aliases(self)
        self.names: dict[int, str] = {}
        self.own: dict[int, str] = {}  # parameters and buffers as they are shown, by identity
        self.dependent: set[int] = set()
        self.parametric: set[int] = set()
        self.learning: set[int] = set()  # what a gradient may pass
        self.read: set[int] = set()
        self.called: set[str] = set()
        self.fired: set[int] = set()  # what neurons have made
        self.draws = False
        self.functions: dict[Any, CustomFunction] = {}
        self.stack: list[tuple[torch.nn.Module, Converter | None, Any]] = []
        self.root = root
        self.frames: dict[int, tuple[FrameType, int]] = {}
        self.places: dict[tuple[int, int], Frame] = {}
        self.owners: dict[str, tuple[bool, bool]] = {}
        self.derived = 0  # how many calls the user has not made
        self.paused = 0  # inside a module that is converted as a whole, and in the recorder itself
        for name, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]:
            if id(tensor) not in self.refs:
                ref = self.new(tensor)
                self.parametric.add(ref.index)
                self.learning.add(ref.index)
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
        ref = self.value(tensor)
        self.assign(tensor, ref)
        self.aliases.register(tensor, ref)
        return ref

    def value(self, tensor: torch.Tensor) -> Ref:
        ref = Ref(len(self.tensors))
        self.tensors.append(tensor)
        self.alive.append(tensor)  # so that its id stays its own
        self.shapes.append(tuple(tensor.shape))
        return ref

    def assign(self, tensor: torch.Tensor, ref: Ref) -> None:
        self.refs[id(tensor)] = ref

    def ref(self, tensor: torch.Tensor) -> Ref:
        """The value of a tensor; one that no call on the tape produced is a constant."""
        if id(tensor) in self.refs:
            self.refresh(tensor)
            return self.refs[id(tensor)]
        gradient = tensor.grad_fn
        if gradient is not None:
            raise self.refuse(
                f"a tensor of shape {tuple(tensor.shape)} was computed outside of this forward pass and carries "
                f"gradients ({gradient.name()})",
                advice="Allowed: inputs, parameters, buffers and constants. Reset states before converting, or compute "
                "it inside forward.",
            )
        memory = self.aliases.memory_of(tensor)
        if memory.writes and any(not self.is_constant(view.ref) for view in memory.views):
            raise self.refuse(
                f"a tensor of shape {tuple(tensor.shape)} shares memory with one that forward has written into",
                advice="Allowed: constants in memory of their own, or views that forward takes itself. clone() it "
                "outside of forward.",
            )
        return self.constant(self.new(tensor))

    def refresh(self, tensor: torch.Tensor) -> None:
        """Let a tensor have what has been written into its memory through others."""
        if self.aliases.is_current(tensor):
            return
        self.paused += 1
        self.aliases.refresh(tensor)
        self.paused -= 1

    def is_constant(self, ref: Ref) -> bool:
        return ref.index not in self.dependent and ref.index not in self.parametric

    def learns(self, ref: Ref) -> bool:
        return ref.index in self.learning

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

    def place(self) -> Place:
        """Where the present call is made."""
        frame = sys._getframe()
        frames, shown = [], ""
        while frame is not None and frame is not self.root:
            name = frame.f_globals.get("__name__", "")
            counts, is_users = self.owners.get(name) or self.owner(name)
            if counts:
                code = frame.f_code
                # A frame that is kept cannot give its id to another one.
                _, activation = self.frames.setdefault(id(frame), (frame, len(self.frames)))
                place = self.places.get((activation, frame.f_lasti))
                if place is None:
                    place = Frame(activation, code, instruction(code, frame.f_lasti))
                    self.places[activation, frame.f_lasti] = place
                frames.append(place)
                if not shown and is_users:
                    text = linecache.getline(code.co_filename, frame.f_lineno).strip()
                    shown = f"{code.co_filename}:{frame.f_lineno}: {text}"
            frame = frame.f_back
        return Place(tuple(reversed(frames)), shown)

    def owner(self, name: str) -> tuple[bool, bool]:
        """Whether the functions of a module count as places of calls, and whether they are the user's own."""
        package = name.split(".")[0]
        counts = name not in _MODULE_CALL and (package not in _OWN or name == caller_loop.__name__)
        self.owners[name] = counts, package not in (*_OWN, *self.registry.libraries)
        return self.owners[name]

    def refuse(self, what: str, *, advice: str, path: str | None = None) -> RecordingError:
        path = self.current_path() if path is None else path
        return RecordingError(f"{what}\n  {self.place().line}\n{advice}", path=path)

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
        if cuts_gradient(function, name, args, kwargs):
            return self.call_cut(function, name, args, kwargs)
        if function == SET_DATA:
            return self.call_set_data(function, *args)
        targets = written_arguments(function, name, args, kwargs)
        self.check_own_memory(targets, name)
        if name == "__setitem__" and self.aliases.is_same_place(*args):
            return function(*args, **kwargs)
        if getattr(function, "__name__", "") in CONSTANT_FUNCTIONS:
            # snnTorch's utils.reset reaches the left-over states of every network in the process; only shapes matter.
            args, kwargs = pytree.tree_map_only(torch.Tensor, self.known_or_detached, (args, kwargs))
        if name in _SHAPED:
            args, kwargs = pytree.tree_map_only(torch.Tensor, self.size, (args, kwargs))
        before = self.replace((args, kwargs))
        versions = [_version(tensor) for tensor in given]
        random_state = torch.random.get_rng_state()
        write = Write(self, function, name, (args, kwargs), before, targets) if targets else None
        result = function(*args, **kwargs)
        self.check_random(random_state, function_name(function), allowed=name in DRAWING)
        changed = [
            tensor
            for tensor, version in zip(given, versions, strict=True)
            if _version(tensor) != version or (version is None and any(tensor is each for each in targets))
        ]
        self.check_written(changed, targets, name)
        written = [tensor for tensor in targets if any(tensor is each for each in changed)]
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
        if write is not None and written:
            write.done(result, written)
            return result
        for tensor in produced:
            self.new(tensor)
        self.add(function, self.current_path(), before, result)
        return result

    def call_cut(self, function: Callable, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that changes nothing of a tensor but whether a gradient passes."""
        tensor = args[0]
        own = self.own.get(id(tensor))
        if own is not None and tensor.requires_grad != changes_to(name, args, kwargs):
            raise self.refuse(
                f"{'requires_grad' if name == '__set__' else name} changes whether the {own} learns, inside forward",
                advice="Allowed: parameters that forward only reads. Freeze them outside of forward "
                "(net.requires_grad_(False)), or use detach() of them in forward.",
            )
        # snnTorch's detach_hidden reaches the left-over states of every network in the process.
        if own is not None or id(tensor) not in self.refs or changes_to(name, args, kwargs):
            return function(*args, **kwargs)
        before = self.ref(tensor)
        result = function(*args, **kwargs)
        if not self.is_constant(before):
            made = self.value(tensor)
            self.aliases.cut(tensor, made)
            self.add(torch.Tensor.detach, self.current_path(), ((before,), {}), made)
        return result

    def call_set_data(self, function: Callable, tensor: torch.Tensor, value: torch.Tensor) -> Any:
        """`x.data = y`: the values of another tensor, in its memory, and the gradient that there was."""
        self.check_own_memory([tensor], "an assignment to .data")
        before, given = self.ref(tensor), self.ref(value)
        self.keep_spikes(tensor)
        result = function(tensor, value)
        if tensor.dtype != self.tensors[before.index].dtype or tensor.shape != self.shapes[before.index]:
            raise self.refuse(
                "an assignment to .data changes the shape or the dtype of a tensor",
                advice="Allowed: values of the same shape and dtype. Compute a new tensor.",
            )
        made = self.value(tensor)
        self.aliases.moved(tensor, made)
        self.add(unseen_write, self.current_path(), ((before, given), {}), made)
        return result

    def add(
        self, target: Any, path: str, before: Any, outcome: Any, converter: StepConverter | None = None, **extra: Any
    ) -> Entry:
        result = self.replace(outcome)
        args, kwargs = before
        # What autograd does not see is seen by it here.
        no_grad = not torch.is_grad_enabled() and target is not unseen_write
        entry = Entry(target, path, args, kwargs, result, self.place(), no_grad=no_grad, converter=converter, **extra)
        self.append(entry)
        return entry

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        given = {ref.index for ref in refs((entry.args, entry.kwargs, entry.state_in))}
        made = {ref.index for ref in entry.made}
        if not entry.constant and given & self.dependent:
            self.dependent |= made
        # What a module makes depends on its parameters.
        if entry.converter is not None or (not entry.constant and given & self.parametric):
            self.parametric |= made
        for index in made - self.dependent - self.parametric:
            self.constant(Ref(index))
        if not entry.no_grad and given & self.learning and op_name(base_name(entry.target)) not in DETACHED:
            self.learning |= {index for index in made if self.tensors[index].is_floating_point()}
        self.aliases.link(entry, self.alive)

    def derive(self, target: Any, args: Any, kwargs: Any, result: Ref, like: Entry | None = None) -> None:
        """Write down a call that the user has not made, with path and gradient as in the call that it is `like`."""
        path = self.current_path() if like is None else like.path
        no_grad = not torch.is_grad_enabled() if like is None else like.no_grad
        no_grad &= target is not unseen_write
        converter = like.converter if like is not None and like.target is target else None
        self.append(Entry(target, path, args, kwargs, result, self.place(), converter, no_grad=no_grad, derived=True))
        self.derived += 1

    @contextlib.contextmanager
    def one_call(self) -> Iterator[None]:
        """Where a call of the user takes others with it, let them follow each other, as calls in a function would."""
        first, derived = len(self.entries), self.derived
        yield
        if self.derived > derived:
            for offset, entry in enumerate(self.entries[first:]):
                frame = Frame(-self.derived, setitem.__code__, offset)
                entry.place = dataclasses.replace(entry.place, frames=(*entry.place.frames, frame))

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
        with self.one_call():
            return self.add_custom_function(kind, apply, args, kwargs)

    def add_custom_function(self, kind: Any, apply: Callable[..., Any], args: Any, kwargs: Any) -> Any:
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
        for tensor in (x for x in written if x.numel()):
            shared = (id(view.tensor) for view in self.aliases.sharing(tensor))
            found = next((self.own[each] for each in shared if each in self.own), None)
            if found is not None:
                raise self.refuse(
                    f"{name} changes the {found} inside forward, so the next call computes something else",
                    advice="Allowed: parameters and buffers that forward only reads. Change them outside of forward, "
                    "or compute a new tensor from them (x = x * 0.9, in a variable of forward).",
                )

    def check_written(self, changed: list[torch.Tensor], targets: list[torch.Tensor], name: str) -> None:
        """Refuse a function that has written into arguments which only look as if they were read."""
        known = {id(view.tensor) for target in targets for view in self.aliases.sharing(target)}
        others = [tensor for tensor in changed if id(tensor) not in known]
        if others:
            self.check_own_memory(others, name)
            raise self.refuse(
                f"{name} writes into an argument of shape {tuple(others[0].shape)}",
                advice="Allowed: functions that leave their arguments alone, and in-place calls such as x.add_(y).",
            )

    def prepare_write(self, tensor: torch.Tensor, name: str) -> None:
        """Before a write: let the tape have all that is written over."""
        self.check_own_memory([tensor], name)
        self.ref(tensor)
        self.aliases.prepare(tensor)
        self.keep_spikes(tensor)

    def keep_spikes(self, written: torch.Tensor) -> None:
        """Keep what a neuron made of a tensor that is now written over: `total = spikes` and then `total += spikes`."""
        for view in self.aliases.sharing(written):
            if view.ref.index in self.fired:
                self.tensors[view.ref.index] = self.tensors[view.ref.index].detach().clone()


def _version(tensor: torch.Tensor) -> int | None:
    """The number of writes into a tensor; None for those of `torch.inference_mode`, which does not count."""
    return None if tensor.is_inference() else tensor._version


def _given(function: Callable[..., Any], args: tuple[Any, ...], places: list[int]) -> Callable[..., Any]:
    """A function of the arguments at some places, with the others as they are."""

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(args)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return function(*filled)

    return call
