"""A program as text."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from .formulas import StepFormula, StepTable
from .regions import Call, Carried, Constant, Entries, Invariant, Item, Operand, Scanned, StepNumber, Value
from .sizes import Size, SizeRatio


_COMMENT_AT = 56


def printed(
    name: str,
    inputs: Mapping[Value, str],
    parameters: Mapping[Value, str],
    constants: Mapping[Value, Constant],
    body: Iterable[Item],
    outputs: Any,
) -> str:
    """A program, one call a line; the user's own line stands behind the first of the calls that it makes.

    What is carried reads `prev(value)`, with `init=` where the first step is given something; what a loop has
    collected is `value.all`, the list of its entries `[*value.all]`, and what is left of its last step is `value.last`.
    """
    printer = _Printer(list(body))
    given = [f"{printer.name(value, wanted)}: {_type(value)}" for value, wanted in inputs.items()]
    lines = [f"program {name}({', '.join(given)})"]
    for value, key in parameters.items():
        lines.append(f"  {printer.name(value, key)} = parameter {_type(value)}")
    for value, constant in constants.items():
        lines.append(f"  {printer.name(value, value.name or 'constant')} = {_constant(value, constant)}")
    for item in printer.body:
        lines += printer.item(item)
    return "\n".join([*lines, f"  return {printer.shown(outputs)}"])


class _Printer:
    """The names that are given so far; inside of a loop, `operands` are its own."""

    def __init__(self, body: list[Item]):
        self.body = body
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.operands: Mapping[Value, Operand] = {}
        self.line = ""

    def name(self, value: Value, wanted: str = "") -> str:
        """The name of a value: the one that is wanted, or a number."""
        if value not in self.names:
            wanted = wanted or value.name
            first, more = (wanted, f"{wanted}.") if wanted else ("1", "")
            names = itertools.chain([first], (f"{more}{number}" for number in itertools.count(2)))
            found = next(each for each in names if each not in self.taken)
            self.taken.add(found)
            self.names[value] = f"%{found}"
        return self.names[value]

    def item(self, item: Item) -> Iterator[str]:
        if isinstance(item, Call):
            yield self.call(item, "  ")
            return
        yield self.commented(f"  loop t in 0..{item.count}", item.line)
        # What a call carries is named before the call that makes it.
        for call in item.body:
            self.define(call)
        self.operands = item.operands
        for call in item.body:
            yield self.call(call, "    ")
        for value, inner in item.emitted.items():
            yield f"    emit {self.name(value, f'{self.local(inner)}.all')} <- {self.shown(inner)}"
        for value, inner in item.finals.items():
            yield f"    final {self.name(value, f'{self.local(inner)}.last')} <- {self.shown(inner)}"
        self.operands = {}

    def local(self, value: Value) -> str:
        """What a value of a body, or what its operand is, is called, for names of what leaves the loop."""
        operand = self.operands.get(value)
        if operand is None:
            return self.name(value)[1:]
        return self.local(operand.update) if isinstance(operand, Carried) else self.name(operand.reads[0])[1:]

    def define(self, call: Call) -> None:
        if call.converter is None:
            names = [""] * len(call.results)
        else:
            names = [call.path] if call.is_single else [f"{call.path}.{item}" for item in range(len(call.results))]
        for value, wanted in zip(call.results, names, strict=True):
            self.name(value, wanted)
        for value, field in zip(call.state_out, call.fields, strict=True):
            self.name(value, f"{call.path}.{field}")

    def call(self, call: Call, indent: str) -> str:
        self.define(call)
        made = ", ".join(self.name(value) for value in call.made)
        # The first argument is what a call is about; its name is left out.
        arguments = [
            self.shown(each) if place == 0 else f"{name}={self.shown(each)}"
            for place, (name, each) in enumerate(call.arguments.items())
        ]
        for field, value in zip(call.fields, call.state_in or (), strict=call.state_in is not None):
            if value is not None:
                arguments.append(f"{field}={self.shown(value)}")
        what = call.path if call.converter is not None and call.path else call.op
        marks = "".join(f"  {each}" for each in ("no_grad", "batched") if getattr(call, each))
        types = ", ".join(_type(value) for value in call.results)
        return self.commented(f"{indent}{made} = {what}({', '.join(arguments)}){marks}  {types}", call.line)

    def operand(self, value: Value) -> str:
        operand = self.operands[value]
        if isinstance(operand, Invariant):
            return self.name(operand.value)
        if isinstance(operand, Scanned):
            return f"{self.name(operand.sequence)}[{', '.join([':'] * operand.axis + [_place(operand)])}]"
        initial = "" if operand.initial is None else f", init={self.shown(operand.initial)}"
        return f"prev({self.shown(operand.update)}{initial})"

    def shown(self, tree: Any) -> str:
        """An argument as text."""
        if isinstance(tree, Value):
            return self.operand(tree) if tree in self.operands else self.name(tree)
        if isinstance(tree, Entries):
            return f"[*{self.shown(tree.value)}]"
        if isinstance(tree, Mapping):
            return "{" + ", ".join(f"{name!r}: {self.shown(each)}" for name, each in tree.items()) + "}"
        if isinstance(tree, list | tuple):
            items = ", ".join(map(self.shown, tree))
            return f"[{items}]" if isinstance(tree, list) else f"({items}{',' * (len(tree) == 1)})"
        if isinstance(tree, slice):
            ends = ["" if each is None else self.shown(each) for each in (tree.start, tree.stop, tree.step)]
            return ":".join(ends if ends[2] else ends[:2])
        if isinstance(tree, StepNumber):
            return _formula(tree.formula)
        if isinstance(tree, Size | SizeRatio):
            return str(tree)
        if isinstance(tree, torch.dtype):
            return str(tree).removeprefix("torch.")
        return "..." if tree is Ellipsis else str(tree) if not isinstance(tree, str) else repr(tree)

    def commented(self, text: str, line: str) -> str:
        """The user's line behind a call, without the folders of its file, where it is another one than before."""
        if not line or line == self.line:
            return text
        self.line = line
        place, _, source = line.partition(": ")
        return f"{text:<{_COMMENT_AT}}  # {os.path.basename(place)}: {source}"


def _type(value: Value) -> str:
    kind = "" if value.dtype.is_floating_point else f" {str(value.dtype).removeprefix('torch.')}"
    return f"[{', '.join(map(str, value.shape))}]{kind}"


def _constant(value: Value, constant: Constant) -> str:
    tensor = constant.tensor
    same = tensor.numel() > 0 and bool((tensor == tensor.ravel()[0]).all())
    return f"constant {f'{tensor.ravel()[0].item():g}' if same else 'of values'} {_type(value)}"


def _place(scanned: Scanned) -> str:
    step = {1: "t", -1: "-t"}.get(scanned.stride, f"{scanned.stride}t")
    start = f"{scanned.start}{'' if step.startswith('-') else '+'}" if scanned.start or step.startswith("-") else ""
    place = f"{start}{step}"
    return place if scanned.width is None else f"{place}:+{scanned.width}"


def _formula(formula: StepFormula | StepTable) -> str:
    if isinstance(formula, StepTable):
        return f"step{list(formula.values)}"
    k = "(t-T)" if formula.from_end else "t"
    a, b = (f"{each:g}" if isinstance(each, float) else str(each) for each in (formula.a, formula.b))
    match formula.kind:
        case "affine":
            return f"{a}+{b}*{k}" if a != "0" else f"{b}*{k}"
        case "reciprocal":
            return f"1/({a}+{b}*{k})"
        case "geometric":
            return f"{a}*{b}**{k}"
        case "power":
            return f"{b}**({a}+{k})"
        case "falling":
            return f"{b}**({a}-{k})"
        case "share":
            return f"({a}+{b}*{k})/(T+{formula.c})"
        case "switch":
            return f"({a} if {k} < {formula.c} else {b})"
