"""All of a converted network but its arrays: what runs one after the other, and what goes into it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import torch

from snnax import snn

from ..ir.sizes import Size
from ..nodes.dropout import FeatureDropout
from .report import ConversionReport


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What an input must look like, batch included. `time_axis` is the axis that may have another length."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None
    time_axis: int | None


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
    """A neuron of a stage: its name among the calls of a step, the module's path, its state, its batch axis.

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


# Where an input of a graph, or the beginning of a state, comes from: ("static", number) is an input of the network,
# ("made", k, number) an output of the graph before stage k, ("recorded", k, number) a sequence that stage k made,
# ("final", k, node, field) a state after it, ("sliced", key, Window) a time step of a sequence, ("schedule", formula) a
# number at each step, ("number", value) a number, ("num_steps",) the length of the inputs.
Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A batch normalisation in training: its node, and the keys of what it keeps."""

    node: str
    mean: str
    var: str
    count: str


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """Calls that are no time steps: a graph that is evaluated once."""

    graph: snn.Graph | None
    inputs: tuple[Key, ...]
    statistics: tuple[Statistics, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """So many time steps of a model, and what is computed before them.

    `initial` holds `(node, field, key)` for states that do not start by themselves; a delayed edge has no field.
    """

    before: Plain
    model: Any
    inputs: tuple[Key, ...]
    initial: tuple[tuple[str, str | None, Key], ...]
    num_steps: Size
    several_recorded: bool
    neurons: Mapping[str, Neuron]
    statistics: tuple[Statistics, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Blueprint:
    """All of a converted network but its arrays, whose places are held by `Slot`s. Compared by identity.

    `length` is the input and its axis that say how long the network runs; None where it runs as long as it always does.
    `fixed` holds values that are no array of the network, `wide` those that float64 knows more exactly. `read` are the
    parameters and buffers that `forward` has looked into in Python, so that their values are in the network itself.
    `modules` are those that were taken whole, `caveats` what modules do against expectation, by path.
    """

    stages: tuple[Stage, ...]
    after: Plain
    inputs: tuple[InputSpec, ...]
    result: Any
    out_axes: tuple[int | None, ...]
    length: tuple[int, int] | None
    keys: tuple[str, ...]
    canonical: Mapping[str, str]
    dtypes: Mapping[str, torch.dtype]
    fixed: Mapping[str, np.ndarray]
    wide: Mapping[str, np.ndarray]
    read: frozenset[str]
    outside: bool
    modules: tuple[ConvertedModule, ...]
    caveats: Mapping[str, str]
    report: ConversionReport

    @property
    def models(self) -> Any:
        """The model of the only stage, or the models of all stages."""
        models = tuple(stage.model for stage in self.stages)
        return models[0] if len(models) == 1 else models

    @property
    def draws(self) -> bool:
        """Whether a dropout of the network is on."""
        graphs = [*(stage.model for stage in self.stages), *(stage.before.graph for stage in self.stages)]
        leaves = jax.tree.leaves([*graphs, self.after.graph], is_leaf=_is_dropout)
        return any(_is_dropout(leaf) and not leaf.inference for leaf in leaves)

    @property
    def keeps_statistics(self) -> bool:
        """Whether a batch normalisation of the network is in training."""
        return any(part.statistics for stage in self.stages for part in (stage, stage.before)) or bool(
            self.after.statistics
        )

    def without_dropout(self) -> "Blueprint":
        """The same with every dropout off."""

        def off(graph: Any) -> Any:
            return jax.tree.map(
                lambda leaf: eqx.nn.inference_mode(leaf) if _is_dropout(leaf) else leaf, graph, is_leaf=_is_dropout
            )

        return self._with_graphs(off)

    def in_inference_mode(self) -> "Blueprint":
        """The same with every dropout off, and batch normalisations that use their running statistics."""
        return self._with_graphs(eqx.nn.inference_mode)

    def _with_graphs(self, change: Any) -> "Blueprint":
        def plain(each: Plain) -> Plain:
            return dataclasses.replace(each, graph=None if each.graph is None else change(each.graph))

        stages = tuple(
            dataclasses.replace(stage, before=plain(stage.before), model=change(stage.model)) for stage in self.stages
        )
        return dataclasses.replace(self, stages=stages, after=plain(self.after))


def _is_dropout(node: Any) -> bool:
    return isinstance(node, eqx.nn.Dropout | FeatureDropout)
