"""Networks whose forward is written at random, from a grammar of what people write in loops over time."""

import itertools
import linecache
from collections.abc import Callable, Sequence
from typing import Any

import snntorch
import torch
from torch import nn


Choose = Callable[[Sequence[Any]], Any]

_HEAD = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(4, 4), nn.Linear(5, 3)
        self.fc1, self.fc2 = nn.Linear(4, 5), nn.Linear(5, 5)
        self.lif1 = snntorch.Leaky(beta=0.9, threshold=0.6{hidden1})
        self.lif2 = snntorch.Leaky(beta=0.7, threshold=0.4{hidden2})

    def forward(self, x):
"""

_NUMBERS = ["cur", "cur + 0.1 * t", "cur * (t + 1) / T", "cur * 0.9 ** t", "cur / T", "cur * (T - t)"]
_BEFORE = ["x", "self.before(x)", "torch.relu(x) * 2", "x - x.mean(-1, keepdim=True)"]
_FINISHES = [
    "torch.stack({})",
    "torch.stack({}, dim=1)",
    "torch.stack({}).sum(0)",
    "sum({})",
    "torch.stack({}[1:])",
    "torch.stack({}[::2])",
    "torch.stack({}[-2:]).mean(0)",
    "{}[-1]",
    "self.after(torch.stack({}))",
    "self.after(torch.stack({}).mean(0))",
]


def written(choose: Choose) -> str:
    """The source of a network, `Net`, for inputs of `(time, batch, 4)`, or of `(batch, time, 4)` with `TIME = 1`."""
    time = choose([0, 1])
    hidden = [choose([False, True]), choose([False, True])]
    body = _Body(choose, time, hidden)
    head = _HEAD.format(**{f"hidden{n + 1}": ", init_hidden=True" * hidden[n] for n in (0, 1)})
    return f"TIME = {time}\n\n{head}{''.join(f'        {line}{chr(10)}' for line in body.lines())}"


class _Body:
    """The lines of a forward; `choose` decides what each of them is."""

    def __init__(self, choose: Choose, time: int, hidden: Sequence[bool]):
        self.choose, self.time, self.hidden = choose, time, hidden

    def at(self, place: str) -> str:
        return f"x[{place}]" if self.time == 0 else f"x[:, {place}]"

    def neuron(self, number: int, current: str) -> str:
        """A call of a neuron, whose state is its own or given."""
        if self.hidden[number - 1]:
            return f"spk{number} = self.lif{number}({current})"
        return f"spk{number}, mem{number} = self.lif{number}({current}, mem{number})"

    def lines(self) -> list[str]:
        choose = self.choose
        lines = [f"T, batch = x.shape[{self.time}], x.shape[{1 - self.time}]", f"x = {choose(_BEFORE)}"]
        lines += [f"mem{n} = self.lif{n}.reset_mem()" for n in (1, 2) if not self.hidden[n - 1]]
        back = choose([0, 0, 1, 2])
        lines += ["last = older = torch.zeros(batch, 5)"] if back else []
        count = choose([False, True])
        lines += ["total = 0"] if count else []
        writes = choose([False, False, True])
        lines += ["out = torch.zeros(T, batch, 5)"] if writes else []
        lines += ["record = []"]
        second = choose([None, None, "inside", "loop", "indexed loop"])
        kept = choose(["spk1"] if self.hidden[0] else ["spk1", "mem1"])
        if second == "inside":
            kept = choose([kept, "spk2"])
        step = self.step(back, count, writes, second == "inside", kept)
        lines += self.loop(step, peel=not writes and choose([False, False, True]))
        if second in ("loop", "indexed loop"):
            lines += ["first, record = record, []"]
            lines += ["for h in first:"] if second == "loop" else ["for t in range(T):", "    h = first[t]"]
            lines += [f"    {self.neuron(2, 'self.fc2(h)')}", "    record.append(spk2)"]
        returned = [choose(_FINISHES).format("record")]
        returned += ["out"] if writes else []
        returned += ["total / T"] if count else []
        returned += ["mem1"] if not self.hidden[0] and choose([False, True]) else []
        return [*lines, f"return {', '.join(returned)}"]

    def step(self, back: int, count: bool, writes: bool, second: bool, kept: str) -> list[str]:
        """The lines of a time step, which reads `xt` and may read `t`."""
        choose = self.choose
        lines = ["cur = self.fc1(xt)", f"cur = {choose(_NUMBERS)}"]
        lines += [] if not back else [f"cur = cur + 0.3 * {('last', 'older')[back - 1]}"]
        lines += [self.neuron(1, "cur")]
        lines += [self.neuron(2, choose(["self.fc2(spk1)", "spk1 * 0.7"]))] if second else []
        lines += [] if not back else ["older, last = last, spk1"]
        lines += ["total = total + spk1"] if count else []
        lines += ["out[t] = spk1"] if writes else []
        return [*lines, f"record.append({kept})"]

    def loop(self, step: list[str], peel: bool) -> list[str]:
        """The loop over time; with `peel`, its first step stands before it."""
        choose, indented = self.choose, [f"    {line}" for line in step]
        if peel:
            place = choose(["t", "T - 1 - t"])
            read = f"xt = {self.at(place)}"
            return ["t = 0", read, *step, "for t in range(1, T):", f"    {read}", *indented]
        heads = [
            ["for t in range(T):", f"    xt = {self.at('t')}"],
            ["for t in range(T):", f"    xt = {self.at('T - 1 - t')}"],
            [f"for t, xt in enumerate(x.unbind({self.time})):"],
            [f"for t, xt in enumerate({'x' if self.time == 0 else 'x.transpose(0, 1)'}):"],
        ]
        return [*choose(heads), *indented]


_NUMBER = itertools.count()


def built(source: str) -> tuple[nn.Module, int]:
    """The network of a source, in float64, and which axis of its inputs is time; tracebacks show its lines."""
    name = f"generated_{next(_NUMBER)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "generated", "torch": torch, "nn": nn, "snntorch": snntorch}
    exec(compile(source, name, "exec"), names)
    torch.manual_seed(0)
    return names["Net"]().double(), names["TIME"]


def inputs(time: int, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch * length)
    shape = (length, batch, 4) if time == 0 else (batch, length, 4)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 4
