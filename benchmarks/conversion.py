"""Seconds to convert snnTorch networks, beside the limits for an idle machine, and the size of what they become.

Equations are those of the jaxpr of the converted forward pass, inner ones included; they do not depend on the number
of time steps.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import snntorch
import torch
from jax.extend.core import jaxprs_in_params

from snnax_interop import Converted, from_torch, to_jax


class Network(torch.nn.Module):
    """Linear and Leaky in turn over `(time, batch, 16)`, with the loop in Python."""

    def __init__(self, modules: int):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(modules // 2)])
        self.neurons = torch.nn.ModuleList([snntorch.Leaky(beta=0.9, threshold=0.3) for _ in range(modules // 2)])
        with torch.no_grad():
            for layer in self.layers:
                layer.get_parameter("weight").mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        membranes = [torch.zeros(x.shape[1], 16) for _ in self.neurons]
        outputs = []
        for step in range(x.shape[0]):
            h = x[step]
            for number, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                h, membranes[number] = neuron(layer(h), membranes[number])
            outputs.append(h)
        return torch.stack(outputs)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, and of those inside of them."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


class Convolutional(torch.nn.Module):
    """Three convolutions and a Linear, each with a Leaky behind it, over `(time, batch, 1, 28, 28)`."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 8, 16, 16]
        self.convs = torch.nn.ModuleList([torch.nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels)])
        self.pool = torch.nn.AvgPool2d(2)
        self.fc = torch.nn.Linear(16 * 3 * 3, 10)
        self.neurons = torch.nn.ModuleList([snntorch.Leaky(beta=0.9, threshold=0.3) for _ in range(4)])
        with torch.no_grad():
            for layer in (*self.convs, self.fc):
                layer.get_parameter("weight").mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        membranes: list[Any] = [None] * 4
        outputs = []
        for xt in x:
            h = xt
            for number, conv in enumerate(self.convs):
                h, membranes[number] = self.neurons[number](conv(h), membranes[number])
                h = self.pool(h)
            h, membranes[3] = self.neurons[3](self.fc(h.flatten(1)), membranes[3])
            outputs.append(h)
        return torch.stack(outputs)


class Recurrent(torch.nn.Module):
    """Eight Linear layers, each with an RLeaky behind it, over `(time, batch, 16)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(8)])
        self.neurons = torch.nn.ModuleList(
            [snntorch.RLeaky(beta=0.9, threshold=0.3, linear_features=16) for _ in range(8)]
        )
        with torch.no_grad():
            for layer in self.layers:
                layer.get_parameter("weight").mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [(torch.zeros(x.shape[1], 16), torch.zeros(x.shape[1], 16)) for _ in self.neurons]
        outputs = []
        for xt in x:
            h = xt
            for number, (layer, neuron) in enumerate(zip(self.layers, self.neurons, strict=True)):
                states[number] = neuron(layer(h), *states[number])
                h = states[number][0]
            outputs.append(h)
        return torch.stack(outputs)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with the shape of its example, and the seconds that its conversion may take."""

    name: str
    build: Callable[[], torch.nn.Module]
    shape: tuple[int, ...]
    limit: float


CASES = (
    Case("100 modules, 10 steps", lambda: Network(100), (10, 2, 16), 4.5),
    Case("100 modules, 50 steps", lambda: Network(100), (50, 2, 16), 8.0),
    Case("3 convolutions, batch 128, 50 steps", Convolutional, (50, 128, 1, 28, 28), 8.0),
    Case("8 recurrent layers, 20 steps", Recurrent, (20, 4, 16), 10.0),
)
SMOKE = (Case("4 modules, 3 steps", lambda: Network(4), (3, 2, 16), 4.5),)


def timed(network: torch.nn.Module, x: torch.Tensor) -> tuple[float, float, Converted]:
    """Seconds of a processor and of the clock that a conversion takes, and what it makes."""
    start, start_cpu = time.perf_counter(), time.process_time()
    converted = from_torch(network, x)
    return time.process_time() - start_cpu, time.perf_counter() - start, converted


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one small network, one round")
    arguments = parser.parse_args(argv)
    cases, rounds = (SMOKE, 1) if arguments.smoke else (CASES, arguments.rounds)
    torch.set_num_threads(1)
    print(f"median seconds per conversion; torch {torch.__version__}, jax {jax.__version__}")
    print(f"{'network':36}  {'CPU':>6}  {'clock':>6}  {'limit':>6}  equations")
    for case in cases:
        torch.manual_seed(0)
        network, x = case.build(), 2 * torch.rand(*case.shape)
        runs = [timed(network, x) for _ in range(rounds)]
        cpu, clock = statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)
        count = len(list(equations(jax.make_jaxpr(runs[-1][2])(to_jax(x)).jaxpr)))
        print(f"{case.name:36}  {cpu:6.2f}  {clock:6.2f}  {case.limit:6.1f}  {count:9}", flush=True)


if __name__ == "__main__":
    main()
