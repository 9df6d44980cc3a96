"""A program run by torch itself, at any batch size and length: the proof of all passes before it is lowered.

Every call is the torch function, or the module, that was recorded; what is evaluated anew are the structure (loops,
operands, sizes) and everything that passes have made of it. Gradients are those of torch's autograd.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .program import Program
from .regions import Call, Entries, Invariant, Loop, Scanned, StepNumber, Value, map_leaves, squeezed_axes
from .sizes import Size, SizeRatio


def evaluate(program: Program, module: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    """What the program computes of `inputs` with the parameters of `module`, run by torch.

    **Arguments:** `module`: the network that the program was made from, or one like it, such as in float64; it is left
    as it was. `inputs`: torch tensors as for the program, of any batch size and any length.

    **Returns:** the structure that forward returns.

    **Raises:** `ValueError` for lengths at which the network does something else; what torch raises.
    """
    return _Evaluation(program, module, inputs).run()


class _Evaluation:
    def __init__(self, program: Program, module: torch.nn.Module, inputs: Sequence[torch.Tensor]):
        self.program = program
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.batch, self.length = sizes_of(program, inputs)
        if program.length is not None and self.length < program.shortest:
            raise ValueError(f"found {self.length} time steps; allowed: {program.shortest} and more")
        named = dict(module.named_parameters(remove_duplicate=False)) | dict(
            module.named_buffers(remove_duplicate=False)
        )
        floats = [each.dtype for each in (*named.values(), *inputs) if each.is_floating_point()]
        self.in_float64 = torch.float64 in floats
        self.values: dict[Value, Any] = dict(zip(program.inputs, inputs, strict=True))
        self.values |= {value: named[key] for value, key in program.parameters.items()}
        for value, constant in program.constants.items():
            shape = [size.at(self.batch, self.length) for size in value.shape]
            self.values[value] = constant.tensor.to(self.dtype(constant.tensor.dtype)).expand(shape)

    def run(self) -> Any:
        for item in self.program.body:
            if isinstance(item, Loop):
                self.loop(item)
            else:
                self.call(item, self.values, 0, 0)
        return self.filled(self.program.outputs, self.values, 0, 0)

    def dtype(self, dtype: torch.dtype) -> torch.dtype:
        """A type on the tapes as the type that is computed in."""
        return torch.float64 if self.in_float64 and dtype == torch.float32 else dtype

    def loop(self, loop: Loop) -> None:
        count = loop.count(self.length)
        emitted: dict[Value, list[torch.Tensor]] = {value: [] for value in loop.emitted}
        before: dict[Value, Any] = {}
        for step in range(count):
            now: dict[Value, Any] = {}
            for value, operand in loop.operands.items():
                now[value] = self.operand(value, operand, before, step)
            for call in loop.body:
                self.call(call, now, step, count)
            for value, inner in loop.emitted.items():
                emitted[value].append(now[inner])
            before = now
        for value, inner in loop.finals.items():
            self.values[value] = before[inner]
        for value, entries in emitted.items():
            self.values[value] = torch.stack(entries)

    def operand(self, value: Value, operand: Any, before: Mapping[Value, Any], step: int) -> Any:
        if isinstance(operand, Invariant):
            return self.values[operand.value]
        if isinstance(operand, Scanned):
            sequence = self.values[operand.sequence]
            size = sequence.shape[operand.axis]
            place = operand.start % size + step * operand.stride
            if operand.width is None:
                return sequence.select(operand.axis, place)
            return sequence.narrow(operand.axis, place, operand.width)
        if step:
            return before[operand.update]
        if isinstance(operand.initial, Value):
            return self.values[operand.initial]
        return None if operand.initial is None else self.full(value, operand.initial)

    def full(self, value: Value, number: int | float) -> torch.Tensor:
        """A number that stands for a whole tensor."""
        shape = [size.at(self.batch, self.length) for size in value.shape]
        return torch.full(shape, number, dtype=self.dtype(value.dtype))

    def call(self, call: Call, values: dict[Value, Any], step: int, count: int) -> None:
        args, kwargs, state = self.filled((call.args, dict(call.kwargs), call.state_in), values, step, count)
        with torch.no_grad() if call.no_grad else contextlib.nullcontext():
            if call.is_neuron:
                module = self.modules[call.path]
                out, after = call.converter.run(module, *args, state, **kwargs)
                found = [out, *after]
                places = [*call.results, *call.state_out]
            else:
                found = list(self.results(call, args, kwargs))
                places = list(call.results)
        values.update(zip(places, found, strict=True))

    def results(self, call: Call, args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
        """The tensors that a function or a layer returns."""
        if call.converter is not None:
            args, kwargs = map_leaves(_copied, (args, kwargs))  # some layers write into what they are given
            yield from _tensors(call.converter.run(self.modules[call.path], *args, **kwargs))
        elif call.op == "squeeze":
            yield torch.squeeze(args[0] if args else next(iter(kwargs.values())), squeezed_axes(call))
        else:
            function = torch.Tensor.double if self.in_float64 and call.op == "float" else call.target
            yield from _tensors(function(*args, **kwargs))

    def filled(self, tree: Any, values: Mapping[Value, Any], step: int, count: int) -> Any:
        def leaf(item: Any) -> Any:
            if isinstance(item, Value):
                return values[item]
            if isinstance(item, Entries):
                return list(values[item.value])
            if isinstance(item, Size | SizeRatio):
                return item.at(self.batch, self.length)
            if isinstance(item, StepNumber):
                return item.formula(count).tolist()[step]
            return self.dtype(item) if isinstance(item, torch.dtype) else item

        return map_leaves(leaf, tree)


def sizes_of(program: Program, inputs: Sequence[Any]) -> tuple[int, int]:
    """The batch size and the length of inputs; those of the example where the inputs have none."""
    batch, length = program.example
    if program.length is not None:
        number, axis = program.length
        length = inputs[number].shape[axis]
    for value, given in zip(program.inputs, inputs, strict=True):
        axis = value.batch_axis
        if axis is not None:
            batch = given.shape[axis]
    return batch, length


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for each in result:
            yield from _tensors(each)


def _copied(item: Any) -> Any:
    return item.clone() if isinstance(item, torch.Tensor) else item
