"""From a program to native graphs: one for a time step of each loop, and one for what lies between the loops."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ..converters.parameters import Weights
from ..converters.surrogates import Surrogates
from ..errors import RecordingError
from ..ir.dependence import dependents
from ..ir.program import Program
from ..ir.regions import Call, Entries, Loop, Value
from ..nodes.call import call_of
from ..nodes.wrappers import FirstState
from ..runtime.plan import Emitted, FinalState, Given, Key, Made
from .calls import CallLowering
from .constants import Arrays
from .draft import GraphDraft
from .layers import Layers
from .loop_body import LoopBody, constant_node


@dataclasses.dataclass(frozen=True)
class Whole:
    """What a region hands on: a value of all samples, where there is no one of each, or none is wanted."""

    value: Value


class Lowering:
    """The graphs of a network.

    `bodies[k]` is a time step of loop `k`; `regions[k]` is what is computed once before loop `k`, the last of them what
    is computed behind all loops. A region computes what its `exports` need, in the order of the program, and nothing
    else: what no loop and no batched call goes into and a loop reads at every step is computed in the step.
    """

    def __init__(
        self, program: Program, modules: Mapping[str, torch.nn.Module], weights: Weights, surrogates: Surrogates
    ):
        self.program = program
        self.arrays = Arrays(program, weights)
        self.dtype = _floating_dtype(modules[""], program)
        batched = any(value.has_batch for value in program.inputs)
        self.layers = Layers(modules, weights, self.dtype, surrogates, program.example[1], has_batch=batched)
        self.calls = CallLowering(self.layers, dependents(program, program.inputs))
        self.inputs = {value: number for number, value in enumerate(program.inputs)}
        self.makers = program.makers
        self.places = _places(program)
        self.batched = {
            value for item in program.body if isinstance(item, Call) and item.batched for value in item.made
        }
        looped = [value for loop in program.loops for value in loop.made]
        self.computed_once = dependents(program, [*looped, *self.batched])
        self.exports: list[list[Any]] = [[] for _ in range(len(program.loops) + 1)]
        self.bodies: list[LoopBody] = []
        for number, loop in enumerate(program.loops):
            self.bodies.append(LoopBody(self, number, loop))
            self.bodies[-1].build()
        last = len(program.loops)
        for value in outputs_of(program):
            self.export_output(value)
        # What a region reads of one before it is exported there, so the last one comes first.
        self.regions = [Region(self, number) for number in range(last + 1)]
        for region in reversed(self.regions):
            region.build()

    # What a loop body sees of the network

    def input_name(self, value: Value) -> str | None:
        return self.program.inputs.get(value)

    def is_computed_in_step(self, value: Value) -> bool:
        return value not in self.computed_once

    def maker(self, value: Value) -> Call:
        call = self.makers[value]
        assert isinstance(call, Call)
        return call

    def key(self, value: Any, region: int) -> Key:
        """Where a value, or what makes the beginning of a neuron, is found before the loop of this number."""
        if isinstance(value, FirstState):
            return self.export(value, region)
        if value in self.inputs:
            return Given(self.inputs[value])
        place = self.places.get(value)
        if isinstance(self.makers.get(value), Loop):
            key = self.of_loop(value)
            if key is not None:
                return key
        elif place is not None and place < region:
            return self.export(value, place)
        return self.export(value, region)

    def of_loop(self, value: Value) -> Key | None:
        """Where a value that a loop hands on is found; None where it must be taken from a sequence."""
        loop = self.makers[value]
        assert isinstance(loop, Loop)
        number = self.program.loops.index(loop)
        body = self.bodies[number]
        if value in loop.emitted:
            return Emitted(number, body.record(loop.emitted[value]))
        state = body.final_state(loop.finals[value])
        return None if state is None else FinalState(number, state.node, state.field)

    def export(self, value: Any, region: int) -> Made:
        """Let a region hand on a value."""
        exports = self.exports[region]
        place = next((place for place, each in enumerate(exports) if _is_same(each, value)), None)
        if place is None:
            place = len(exports)
            exports.append(value)
        return Made(region, place)

    def export_output(self, value: Value) -> tuple[Made, int | None]:
        """Let the last region hand on what forward returns, and where the batch is in it when it is of one sample."""
        whole = value in self.batched and value.has_batch
        return self.export(Whole(value) if whole else value, len(self.bodies)), None if whole else value.batch_axis


class Region:
    """The calls before the loop of a number, or behind the last."""

    def __init__(self, network: Lowering, number: int):
        self.network = network
        self.number = number
        self.draft = GraphDraft()
        self.outputs: list[Any] = []

    def build(self) -> None:
        network = self.network
        exports = network.exports[self.number]
        calls = [
            item
            for item in network.program.body
            if isinstance(item, Call) and network.places[item.results[0]] == self.number
        ]
        wanted = {
            each.value if isinstance(each, Whole) else each for each in exports if not isinstance(each, FirstState)
        }
        needed = []
        for call in reversed(calls):
            if any(value in wanted for value in call.made):
                needed.append(call)
                wanted.update(call.reads)
        for call in reversed(needed):
            for value in call.reads if call.batched else ():
                if value.is_folded:
                    self.whole(value)
            network.calls.add(call, self, in_loop=False)
        self.outputs = [self._output(each) for each in exports]

    def _output(self, each: Any) -> Any:
        if isinstance(each, Whole):
            return self.whole(each.value)
        return self.source(each) if isinstance(each, Value) else self.draft.node("first", each, [])

    def whole(self, value: Value) -> Any:
        """The source of a value of all samples that a batched call makes, here or in a region before."""
        network, draft = self.network, self.draft
        if value not in draft.whole:
            draft.whole[value] = draft.input(network.export(Whole(value), network.places[value]), "before")
        return draft.whole[value]

    def source(self, value: Value) -> Any:
        """The source of a value in this graph."""
        made = self.draft.made
        if value not in made:
            made[value] = self._found(value)
        return made[value]

    def _found(self, value: Value) -> Any:
        network, draft = self.network, self.draft
        name = network.input_name(value)
        if name is not None:
            return draft.input(network.key(value, self.number), name)
        if value in network.arrays:
            return constant_node(draft, network.arrays, value)
        loop = network.makers[value]
        if not isinstance(loop, Loop):
            return draft.input(network.export(value, network.places[value]), "before")
        key = network.of_loop(value)
        if isinstance(key, FinalState):
            return draft.input(key, f"{key.node}.{key.field}")
        number = network.program.loops.index(loop)
        if key is None:
            item = network.bodies[number].record(loop.finals[value])
            sequence = draft.input(Emitted(number, item), _name_of_sequence(number, item))
            return draft.node("last", call_of("getitem", -1), [sequence])
        assert isinstance(key, Emitted)
        return draft.input(key, _name_of_sequence(number, key.number))

    def array(self, value: Value) -> Any:
        arrays = self.network.arrays
        return arrays.of(value) if value in arrays else None


def _is_same(each: Any, value: Any) -> bool:
    return each is value or (isinstance(each, Whole) and each == value)


def _name_of_sequence(loop: int, number: int) -> str:
    return f"recorded{loop or ''}_{number}"


def outputs_of(program: Program) -> list[Value]:
    """The values that a program returns, in order; those of lists over time as one."""
    return [leaf.value if isinstance(leaf, Entries) else leaf for leaf in _leaves(program.outputs)]


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for each in tree.values() for leaf in _leaves(each)]
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in _leaves(each)]
    return [tree] if isinstance(tree, Value | Entries) else []


def _places(program: Program) -> dict[Value, int]:
    """How many loops come before the call that makes a value."""
    found: dict[Value, int] = {}
    loops = 0
    for item in program.body:
        if isinstance(item, Loop):
            loops += 1
        else:
            found |= dict.fromkeys(item.made, loops)
    return found


def _floating_dtype(module: torch.nn.Module, program: Program) -> torch.dtype:
    candidates = [*(each.dtype for each in module.parameters()), *(value.dtype for value in program.inputs)]
    return next((dtype for dtype in candidates if dtype.is_floating_point), torch.get_default_dtype())


def check_outputs(program: Program, bodies_read: bool) -> None:
    """Refuse what no conversion returns.

    **Raises:** `RecordingError`.
    """
    values = outputs_of(program)
    if not values:
        raise RecordingError("forward returns no tensor. Allowed: a tensor, or tuples, lists and dicts of tensors")
    if not bodies_read:
        raise RecordingError("what forward returns does not depend on the time loop. Return spikes or membranes")
