"""What a converter must say of a torch class that it takes whole: a leaf of the recording."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.nn.utils.parametrize import is_parametrized

from ..errors import UnsupportedModuleError, UnsupportedOptionError
from .hooks import refuse_module_hooks


@dataclasses.dataclass(frozen=True)
class NeuronCall:
    """One time step of a neuron: input, state before, output, state after, as tensors.

    `state_in` None is the state that the neuron starts with by itself. `weights` are those of a neuron that multiplies
    its input by weights of its own first.
    """

    x: torch.Tensor
    state_in: tuple[torch.Tensor, ...] | None
    out: torch.Tensor
    state_out: tuple[torch.Tensor, ...]
    weights: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What a layer over a whole sequence does at every time step: a leaf of its own, with all outputs and states.

    `outs` and `states` have time as their first axis, or are lists over time; `name` is the module's name below the
    layer, empty for itself. `state_in` None is the state that a neuron starts with by itself.
    """

    leaf: "Leaf"
    module: torch.nn.Module
    name: str
    outs: torch.Tensor | Sequence[torch.Tensor]
    states: tuple[torch.Tensor | Sequence[torch.Tensor], ...] = ()
    state_in: tuple[torch.Tensor, ...] | None = None


@dataclasses.dataclass(frozen=True)
class SequenceCall:
    """A call on a whole sequence: its input `(time, ...)`, and the parts that follow each other at every time step.

    `results` are the tensors that the call returns: each the output of the last part, None, or a field of its state.
    """

    x: torch.Tensor
    parts: tuple[Part, ...]
    results: tuple[tuple[torch.Tensor, int | None], ...]


@dataclasses.dataclass(frozen=True)
class FoldedCall:
    """A call of a layer on a whole sequence `(time, batch, ...)` whose time is a part of the batch: one call of `leaf`.

    Batch normalisation in training does this: its statistics are of all time steps together.
    """

    x: torch.Tensor
    leaf: "Leaf"
    result: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How modules of exactly one class are converted.

    - `build(module, site)` returns the native layer for one sample. It raises `UnsupportedOptionError` for a value of
      an option that has no exact counterpart.
    - `options`: the constructor's arguments that `build` deals with; a test compares them with the installed class.
    - `fields`: for neurons, the fields of the native state, in the order of the tensors of `NeuronCall`.
    - `spikes`: for neurons, whether the output is a spike train (and not a membrane potential).
    - `starts_at_zero`: for neurons, whether the state that they start with is all zeros.
    - `read_state`, `split_call`, `reset_state`: for neurons, see `NeuronCall`; `read_state` gives what the module keeps
      before a call, `reset_state` puts it back to its beginning.
    - `inputs`: for layers, the names that the operation has for the arguments of `forward`, in order. Arguments behind
      these must be left out.
    - `instances`: for neurons of a framework that keeps a list of all of them, such as for resetting them, that list.
    - `draws`: whether the built layer draws random numbers, as the module does.
    - `acts_on`: what a layer acts on, where it does the same to everything else.
    - `split_sequence`: for layers over whole sequences, what their calls do at every time step; None for a call that
      is on one time step.
    - `step`: for neurons whose forward is recorded, the attribute with the function of one time step that it calls;
      `split_call` is given a call of this function. Behind a call of the function in the attribute `start`, which makes
      a first state, the neuron starts from its own, where `starts_itself`.
    - `live`: the options that the module reads at every call, so that setting them has an effect.
    - `free`: options that `forward` may set, since the built layer does not depend on them.
    - `run`: a call by torch itself. Of a neuron one time step, `run(module, input, state) -> (output, state)`, where
      None in the place of a field, or of all, is the state that it starts with.
    - `remark`: what of a module would surprise its user, and is kept: a warning and a note in the report.
    """

    kind: type
    framework: str
    options: tuple[str, ...]
    build: Callable[[Any, Any], Any]
    fields: tuple[str, ...] = ()
    spikes: bool = True
    starts_at_zero: Callable[[Any], bool] = lambda module: True
    read_state: Callable[[Any], Any] | None = None
    split_call: Callable[[Any, tuple, Mapping[str, Any], Any, Any], NeuronCall] | None = None
    reset_state: Callable[[Any], None] | None = None
    inputs: tuple[str, ...] = ("input",)
    instances: Callable[[], list[Any]] | None = None
    draws: bool = False
    acts_on: Literal["elements", "last axis"] | None = None
    remark: Callable[[Any], str] = lambda module: ""
    split_sequence: Callable[[Any, tuple, Mapping[str, Any], Any, Any], SequenceCall | FoldedCall | None] | None = None
    step: str | None = None
    start: str | None = None
    starts_itself: Callable[[Any], bool] = lambda module: True
    live: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    run: Callable[..., Any] = lambda module, *args, **kwargs: module(*args, **kwargs)

    @property
    def name(self) -> str:
        """The class with its framework."""
        return f"{self.framework}.{self.kind.__name__}"

    def refuse(self, path: str, option: str, found: Any, *, allowed: str, advice: str) -> UnsupportedOptionError:
        """The error for a value of an option that cannot be converted exactly."""
        return UnsupportedOptionError(
            f"{self.kind.__name__}({option}={found!r}) has no exact counterpart. Allowed: {allowed}. {advice}",
            path=path,
            framework=self.framework,
        )


# Library classes made of other modules: their forward is recorded like a user's.
_CONTAINERS = {
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.nn.utils.parametrize.ParametrizationList",
    "torch.nn.utils.parametrizations._WeightNorm",
    "torch.nn.utils.parametrizations._SpectralNorm",
    "torch.nn.modules.transformer.Transformer",
    "torch.nn.modules.transformer.TransformerEncoderLayer",
    "torch.nn.modules.transformer.TransformerDecoderLayer",
    "torch.nn.modules.transformer.TransformerEncoder",
    "torch.nn.modules.transformer.TransformerDecoder",
    "snntorch._layers.graded_spikes.GradedSpikes",
}

_LIBRARIES = ("torch", "snntorch", "norse", "spikingjelly", "sinabs")


def full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The classes of a framework that are no leaves: their forward is recorded like a user's.

    `takes` says whether a class is one of them; `reset` puts back to its beginning what a module of the framework, or
    of a user's subclass, keeps between calls.
    """

    takes: Callable[[type], bool]
    reset: Callable[[torch.nn.Module], None] = lambda module: None
    remark: Callable[[torch.nn.Module], str] = lambda module: ""


class Registry:
    """The leaf of every class that can be converted, and what is known of hooks on the gradients of parameters.

    `hooks` maps the full name of a hook to a function of a parameter that has the same gradient.
    """

    def __init__(
        self,
        leaves: Mapping[type, Leaf],
        recorded: Sequence[Recorded] = (),
        hooks: Mapping[str, Callable[..., Any]] | None = None,
    ):
        self.leaves = dict(leaves)
        self.recorded = tuple(recorded)
        self.hooks = dict(hooks or {})

    def hook_of(self, parameter: torch.Tensor) -> Callable[..., Any] | None:
        """What a hook does to the gradient of a parameter; None without hooks.

        **Raises:** `KeyError` for hooks that are not known.
        """
        found = list((parameter._backward_hooks or {}).values())
        if getattr(parameter, "_post_accumulate_grad_hooks", None) or len(found) > 1:
            raise KeyError(f"{len(found)} hooks")
        return self.hooks[f"{found[0].__module__}.{found[0].__qualname__}"] if found else None

    def find(self, module: torch.nn.Module, path: str) -> Leaf | None:
        """The leaf of a module; None where its forward is to be recorded. The exact class decides.

        **Raises:** `UnsupportedModuleError` for a library class without a leaf, a subclass of a neuron, or a module
        with hooks.
        """
        kind = type(module)
        leaf = self.leaves.get(kind)
        refuse_module_hooks(module, path)
        if leaf is not None:
            return leaf
        if full_name(kind) in _CONTAINERS or any(each.takes(kind) for each in self.recorded):
            return None
        if is_parametrized(module):
            # torch makes a subclass whose parameters are computed: the layer's own forward is recorded.
            kind = type(module).__mro__[1]
            parent = self.leaves.get(kind)
            if parent is not None and parent.split_call is None:
                return None
        library = kind.__module__.split(".")[0]
        if library in _LIBRARIES and full_name(kind) not in _CONTAINERS:
            known = sorted(each.__name__ for each in self.leaves if each.__module__.split(".")[0] == library)
            raise UnsupportedModuleError(
                f"{library}'s {kind.__name__} cannot be converted. Allowed of {library}: {', '.join(known)}. "
                "Use one of these, or write what it does as tensor functions in forward",
                path=path,
                framework=library,
            )
        for parent in kind.__mro__[1:]:
            if parent in self.leaves and self.leaves[parent].read_state is not None:
                raise UnsupportedModuleError(
                    f"{kind.__name__} is a subclass of the neuron {parent.__name__}, which may compute something else. "
                    f"Use {parent.__name__} itself",
                    path=path,
                    framework=self.leaves[parent].framework,
                )
        return None

    def remark(self, module: torch.nn.Module) -> str:
        """What of a module whose forward is recorded would surprise its user, and is kept; leaves say it themselves."""
        if type(module) in self.leaves:
            return ""
        return next((each.remark(module) for each in self.recorded if each.takes(type(module))), "")

    def neurons(self, module: torch.nn.Module) -> list[tuple[torch.nn.Module, Leaf]]:
        """The modules with state inside a network."""
        found = ((child, self.leaves.get(type(child))) for child in module.modules())
        return [(child, leaf) for child, leaf in found if leaf is not None and leaf.split_call is not None]

    @contextlib.contextmanager
    def listed(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside, the neurons of a copied network are in the lists of their framework, as if they were built there."""
        with contextlib.ExitStack() as stack:
            for neuron, leaf in self.neurons(module):
                instances = [] if leaf.instances is None else leaf.instances()
                if not any(each is neuron for each in instances):
                    instances.append(neuron)
                    stack.callback(_remove, instances, neuron)
            yield

    def reset_states(self, module: torch.nn.Module) -> None:
        """Put everything that keeps a state back to its beginning."""
        for neuron, leaf in self.neurons(module):
            if leaf.reset_state is not None:
                leaf.reset_state(neuron)
        for child in module.modules():
            for each in self.recorded:
                each.reset(child)


def _remove(instances: list[Any], neuron: Any) -> None:
    instances[:] = [each for each in instances if each is not neuron]
