"""All of a converted network but its arrays: what runs one after the other, and what goes into it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import torch

from snnax import snn

from ..ir.formulas import StepFormula, StepTable
from ..ir.program import Program
from ..ir.refusal import Refusal
from ..ir.sizes import Size
from ..nodes.batch import AllSamples
from ..nodes.dropout import FeatureDropout
from .report import ConversionReport


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What an input must look like, batch included.

    `time_axis` is the axis that may have another length, from `shortest` on.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None
    time_axis: int | None
    shortest: int = 1


@dataclasses.dataclass(frozen=True)
class Window:
    """The time steps that a model reads of a sequence: entry `start + t * stride` along `axis`, for one sample.

    A negative `start` counts from the end. With a `width`, so many entries from there on.
    """

    axis: int
    start: int
    stride: int
    width: int | None


@dataclasses.dataclass(frozen=True)
class Neuron:
    """A neuron of a loop: its name among the calls of a step, the module's path, its state, its batch axis.

    `fields` says where each field of its state is: as a state of the node, or None and the output of another node.
    """

    name: str
    path: str
    fields: tuple[tuple[str, str | None, str], ...]
    batch_axis: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedModule:
    """A module that a native layer stands for.

    - `path`; `framework` and `kind`: the name of its framework and of its class.
    - `layer`: the name of what it became.
    - `options`: all options of a neuron by name, as JSON has them. Layers have theirs in the code that builds them.
    - `shown`: what is not at its default, as text.
    - `restarts`: whether it is a neuron that starts anew at every time step.
    """

    path: str
    framework: str
    kind: str
    layer: str
    options: Mapping[str, Any]
    shown: tuple[str, ...]
    restarts: bool

    @property
    def source(self) -> str:
        """The class with its framework."""
        return f"{self.framework}.{self.kind}"


@dataclasses.dataclass(frozen=True)
class Out:
    """In the structure of the outputs: output number `number`, as a list over time where `listed`."""

    number: int
    listed: bool = False


# Where an input of a graph, or the beginning of a state, comes from


@dataclasses.dataclass(frozen=True)
class Given:
    """The input of the network of this number."""

    number: int


@dataclasses.dataclass(frozen=True)
class Made:
    """An output of the graph before the loop of this number, or of the last graph."""

    region: int
    number: int


@dataclasses.dataclass(frozen=True)
class Emitted:
    """A sequence that a loop has made."""

    loop: int
    number: int


@dataclasses.dataclass(frozen=True)
class FinalState:
    """A field of a node's state behind the last step of a loop."""

    loop: int
    node: str
    field: str


@dataclasses.dataclass(frozen=True)
class Steps:
    """A time step of a sequence at every step of a loop."""

    sequence: "Key"
    window: Window


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A number at each step of a loop."""

    formula: StepFormula | StepTable


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A number."""

    number: int | float


@dataclasses.dataclass(frozen=True)
class InputLength:
    """The length of the inputs."""


Key = Given | Made | Emitted | FinalState | Steps | Schedule | Fixed | InputLength


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A batch normalisation in training: its node, and the keys of what it keeps."""

    node: str
    mean: str
    var: str
    count: str


@dataclasses.dataclass(frozen=True, eq=False)
class StraightLine:
    """Calls that are no time steps: a graph that is evaluated once."""

    graph: snn.Graph | None
    inputs: tuple[Key, ...]
    statistics: tuple[Statistics, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedLoop:
    """So many time steps of a model, and what is computed before them.

    `initial` holds `(node, field, key)` for states that do not start by themselves; a delayed edge has no field.
    """

    before: StraightLine
    model: Any
    inputs: tuple[Key, ...]
    initial: tuple[tuple[str, str | None, Key], ...]
    num_steps: Size
    several_recorded: bool
    neurons: Mapping[str, Neuron]
    statistics: tuple[Statistics, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class ExecutionPlan:
    """All of a converted network but its arrays, whose places are held by `Slot`s. Compared by identity.

    `length` is the input and its axis that say how long the network runs; None where it runs as long as it always does.
    `fixed` holds values that are no array of the network, `float64_constants` those that float64 knows more exactly.
    `read` are the parameters and buffers that `forward` has looked into in Python, so that their values are in the
    network itself.
    `modules` are those that were taken whole, `caveats` what modules do against expectation, by path.
    `passes` holds what each pass of the conversion returned, by its name; they refer to the torch network's functions
    and are left behind when the plan is pickled.
    """

    loops: tuple[PlannedLoop, ...]
    after: StraightLine
    inputs: tuple[InputSpec, ...]
    result: Any
    out_axes: tuple[int | None, ...]
    length: tuple[int, int] | None
    keys: tuple[str, ...]
    canonical: Mapping[str, str]
    dtypes: Mapping[str, torch.dtype]
    fixed: Mapping[str, np.ndarray]
    float64_constants: Mapping[str, np.ndarray]
    read: frozenset[str]
    caller_loop: bool
    modules: tuple[ConvertedModule, ...]
    caveats: Mapping[str, str]
    report: ConversionReport
    passes: Mapping[str, Program | Refusal]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "passes": {}}

    @property
    def models(self) -> Any:
        """The model of the only loop, or the models of all loops."""
        models = tuple(loop.model for loop in self.loops)
        return models[0] if len(models) == 1 else models

    @property
    def draws(self) -> bool:
        """Whether a dropout of the network is on."""
        return any(not leaf.inference for leaf in self._layers(_is_dropout))

    @property
    def mixes_samples(self) -> bool:
        """Whether what becomes of a sample depends on the others of its batch, in functions or in statistics."""
        return self.keeps_statistics or bool(self._layers(_is_of_all_samples))

    def _layers(self, is_wanted: Callable[[Any], bool]) -> list[Any]:
        """The layers of some kind in all graphs."""
        graphs = [*(loop.model for loop in self.loops), *(loop.before.graph for loop in self.loops), self.after.graph]
        return [leaf for leaf in jax.tree.leaves(graphs, is_leaf=is_wanted) if is_wanted(leaf)]

    @property
    def keeps_statistics(self) -> bool:
        """Whether a batch normalisation of the network is in training."""
        return any(part.statistics for loop in self.loops for part in (loop, loop.before)) or bool(
            self.after.statistics
        )

    def without_dropout(self) -> "ExecutionPlan":
        """The same with every dropout off."""

        def off(graph: Any) -> Any:
            return jax.tree.map(
                lambda leaf: eqx.nn.inference_mode(leaf) if _is_dropout(leaf) else leaf, graph, is_leaf=_is_dropout
            )

        return self._with_graphs(off)

    def in_inference_mode(self) -> "ExecutionPlan":
        """The same with every dropout off, and batch normalisations that use their running statistics."""
        return self._with_graphs(eqx.nn.inference_mode)

    def _with_graphs(self, change: Any) -> "ExecutionPlan":
        def changed(each: StraightLine) -> StraightLine:
            return dataclasses.replace(each, graph=None if each.graph is None else change(each.graph))

        loops = tuple(
            dataclasses.replace(loop, before=changed(loop.before), model=change(loop.model)) for loop in self.loops
        )
        return dataclasses.replace(self, loops=loops, after=changed(self.after))


def _is_of_all_samples(node: Any) -> bool:
    return isinstance(node, AllSamples)


def _is_dropout(node: Any) -> bool:
    return isinstance(node, eqx.nn.Dropout | FeatureDropout)
