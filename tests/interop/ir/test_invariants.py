"""Broken programs, each of which breaks one of the rules."""

import dataclasses
import operator

import pytest
import torch

from snnax_interop.ir.formulas import StepFormula
from snnax_interop.ir.program import Program
from snnax_interop.ir.regions import Call, Carried, Entries, Invariant, Loop, Scanned, StepNumber, Value
from snnax_interop.ir.sizes import Size


LENGTH, BATCH, ONE = Size(1, 0), Size(0, 1, batched=True), Size(0, 1)


def value(*shape, dtype=torch.float32, name="") -> Value:
    return Value(shape, dtype, name)


def call(op, args, *results, target=None, kwargs=None, **more) -> Call:
    names = [f"argument{number}" for number in range(len(args))]
    arguments = dict(zip(names, args, strict=True)) | (kwargs or {})
    return Call(op, target or getattr(torch, op), tuple(args), kwargs or {}, arguments, results, **more)


# A sum over time of products with a weight: x -> sum_t x[t] * w, what is left, and all of it.
X, W = value(LENGTH, BATCH, Size(0, 5), name="x"), value(Size(0, 5), name="w")
XT, WT, SUM, PRODUCT, NEXT = value(BATCH, Size(0, 5)), value(Size(0, 5)), *(value(BATCH, Size(0, 5)) for _ in range(3))
LAST, ALL, STACK = value(BATCH, Size(0, 5)), value(LENGTH, BATCH, Size(0, 5)), value(LENGTH, BATCH, Size(0, 5))
MUL, ADD = call("mul", (XT, WT), PRODUCT), call("add", (SUM, PRODUCT), NEXT)
LOOP = Loop(
    LENGTH,
    {XT: Scanned(X), WT: Invariant(W), SUM: Carried(NEXT, 0)},
    (MUL, ADD),
    {LAST: NEXT},
    {ALL: NEXT},
    "net.py:3: for xt in x:",
)
GOOD = Program("Net", {X: "x"}, {W: "w"}, {}, (LOOP, call("stack", (Entries(ALL),), STACK)), (LAST, STACK), (3, 6))
T_NUMBER = StepNumber(StepFormula("affine", False, 0, 1))


def with_loop(**changes) -> Program:
    return dataclasses.replace(GOOD, body=(dataclasses.replace(LOOP, **changes), *GOOD.body[1:]))


def with_call(added: Call) -> Program:
    return dataclasses.replace(GOOD, body=(*GOOD.body, added))


def test_a_sound_program_passes_and_is_printed():
    GOOD.check()
    assert str(GOOD).splitlines() == [
        "program Net(%x: [T, B, 5])",
        "  %w = parameter [5]",
        "  loop t in 0..T                                          # net.py:3: for xt in x:",
        "    %1 = mul(%x[t], argument1=%w)  [B, 5]",
        "    %2 = add(prev(%2, init=0), argument1=%1)  [B, 5]",
        "    emit %2.all <- %2",
        "    final %2.last <- %2",
        "  %3 = stack([*%2.all])  [T, B, 5]",
        "  return (%2.last, %3)",
    ]


OPERANDS = dict(LOOP.operands)


def mistyped(**facts) -> Value:
    """A value with facts that its annotations would refuse."""
    made = value(ONE)
    for name, fact in facts.items():
        object.__setattr__(made, name, fact)
    return made


UNSIZED, UNTYPED = mistyped(shape=(3,)), mistyped(dtype="float")

BROKEN = {
    "a value that is defined twice": (with_call(call("neg", (X,), LAST)), "defined twice"),
    "a value that is used before it is made": (
        dataclasses.replace(GOOD, body=tuple(reversed(GOOD.body))),
        "before it is defined",
    ),
    "an output that nothing makes": (dataclasses.replace(GOOD, outputs=[value(ONE)]), "which nothing defines"),
    "a value of a loop that is used behind it": (with_call(call("neg", (NEXT,), value(ONE))), "before it is defined"),
    "a value of outside that a body reads": (
        with_loop(operands={key: each for key, each in OPERANDS.items() if key is not WT}, body=(MUL, ADD)),
        "no operand of its loop",
    ),
    "a final that no step makes": (with_loop(finals={LAST: value(BATCH, Size(0, 5))}), "does not define"),
    "an emitted value that no step makes": (with_loop(emitted={ALL: value(BATCH, Size(0, 5))}), "does not define"),
    "a carried value that no step makes": (
        with_loop(operands=OPERANDS | {SUM: Carried(value(ONE), 0)}),
        "does not define",
    ),
    "a value that is carried from itself": (with_loop(operands=OPERANDS | {SUM: Carried(SUM, 0)}), "no step makes"),
    "a final of another shape": (with_loop(finals={value(BATCH): NEXT, LAST: NEXT}), "another shape than in the loop"),
    "an emitted value without its time": (
        with_loop(emitted={value(BATCH, Size(0, 5)): NEXT, ALL: NEXT}),
        "no stack over the steps",
    ),
    "a final of another type": (
        with_loop(finals={value(BATCH, Size(0, 5), dtype=torch.int64): NEXT, LAST: NEXT}),
        "another type behind the loop",
    ),
    "an axis that a sequence lacks": (with_loop(operands=OPERANDS | {XT: Scanned(X, axis=3)}), "sequence lacks"),
    "a scan that stands still": (with_loop(operands=OPERANDS | {XT: Scanned(X, stride=0)}), "one entry only"),
    "a scan along another axis": (with_loop(operands=OPERANDS | {XT: Scanned(X, axis=1)}), "operand .* another shape"),
    "an operand of another type": (
        with_loop(operands=OPERANDS | {value(Size(0, 5), dtype=torch.int64): Invariant(W)}),
        "operand .* another type",
    ),
    "a loop for each sample": (with_loop(count=dataclasses.replace(LENGTH, batched=True)), "steps for each sample"),
    "a number of a time step outside of loops": (
        with_call(call("select", (X, 0, T_NUMBER), value(ONE))),
        "outside of a loop",
    ),
    "a slice up to a time step outside of loops": (
        with_call(call("getitem", (X, slice(None, T_NUMBER)), value(ONE), target=operator.getitem)),
        "outside of a loop",
    ),
    "a method that writes": (
        with_call(call("mul", (X, 2), value(ONE), target=torch.Tensor.mul_)),
        "writes into a tensor",
    ),
    "an augmented assignment": (
        with_call(call("add", (X, 2), value(ONE), target=operator.iadd)),
        "writes into a tensor",
    ),
    "a call with a place for its result": (
        with_call(call("add", (X, 2), value(ONE), kwargs={"out": LAST})),
        "writes into a tensor",
    ),
    "arguments that are other than what is called": (
        with_call(dataclasses.replace(call("neg", (X,), value(ONE)), arguments={"input": LAST})),
        "other values than",
    ),
    "a neuron of all samples": (
        with_call(
            call("neg", (X,), value(ONE), state_in=(None,), fields=("v",), state_out=(value(ONE),), batched=True)
        ),
        "is a neuron, and of all samples at once",
    ),
    "a size that is no formula": (with_call(call("sum", (X,), UNSIZED)), "unknown size"),
    "a value without a type": (with_call(call("sum", (X,), UNTYPED)), "has no type"),
    "a state of what is no neuron": (with_call(call("neg", (X,), value(ONE), state_in=(None,))), "no neuron"),
    "a state that is lost": (
        with_call(call("neg", (X,), value(ONE), fields=("v",), state_in=(None,))),
        "another state before than after",
    ),
    "a neuron that makes less than its state": (
        with_call(call("neg", (X,), value(ONE), fields=("v", "i"), state_out=(value(ONE),))),
        "every field of its state",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_refused(name):
    program, rule = BROKEN[name]
    with pytest.raises(AssertionError, match=rule):
        program.check()
