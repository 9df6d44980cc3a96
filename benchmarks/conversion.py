"""Seconds to convert generated snnTorch networks of several sizes and lengths, and the size of what they become.

A network of `modules` alternates Linear and Leaky. Equations are those of the jaxpr of the converted forward pass,
inner ones included; they do not depend on the number of time steps.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
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


def timed(network: torch.nn.Module, x: torch.Tensor) -> tuple[float, Converted]:
    """A conversion, and how many seconds it takes."""
    start = time.perf_counter()
    converted = from_torch(network, x)
    return time.perf_counter() - start, converted


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one small network, one round")
    arguments = parser.parse_args(argv)
    sizes = [(4, 3)] if arguments.smoke else [(10, 10), (30, 10), (100, 10), (10, 50), (100, 50)]
    torch.set_num_threads(1)
    print(f"median seconds per conversion; torch {torch.__version__}, jax {jax.__version__}")
    print("modules  steps  seconds  equations")
    for modules, steps in sizes:
        torch.manual_seed(0)
        network, x = Network(modules), 2 * torch.rand(steps, 2, 16)
        runs = [timed(network, x) for _ in range(1 if arguments.smoke else arguments.rounds)]
        seconds = statistics.median(each for each, _ in runs)
        count = len(list(equations(jax.make_jaxpr(runs[-1][1])(to_jax(x)).jaxpr)))
        print(f"{modules:7}  {steps:5}  {seconds:7.2f}  {count:9}", flush=True)


if __name__ == "__main__":
    main()
