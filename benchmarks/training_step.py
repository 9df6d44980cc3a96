"""Time per training step of a snnTorch network and of its conversion, side by side in one run.

Forward, backward and Adam on the same batch on the CPU; both sides take turns, so that other load meets both. torch is
timed with one thread and with its default number, and the faster of the two counts.
"""

import argparse
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import optax
import snntorch
import torch
from timing import medians

from snnax_interop import from_torch, to_jax


class Network(torch.nn.Module):
    """Linear, Leaky, Linear, Leaky over `(batch, time, 64)`, with the loop in Python."""

    def __init__(self, hidden: int):
        super().__init__()
        self.fc1 = torch.nn.Linear(64, hidden)
        self.lif1 = snntorch.Leaky(beta=0.9)
        self.fc2 = torch.nn.Linear(hidden, 10)
        self.lif2 = snntorch.Leaky(beta=0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for step in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


def torch_step(network: Network, x: torch.Tensor, y: torch.Tensor, threads: int) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x).sum(0), y).backward()
        optimizer.step()

    return step


def jax_step(network: Network, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    converted = from_torch(network, (x,))
    optimizer = optax.adam(1e-3)
    state = optimizer.init(eqx.filter(converted, eqx.is_inexact_array))
    batch = to_jax((x, y))

    @eqx.filter_jit
    def update(converted, state, x, y):
        def loss(converted):
            return optax.softmax_cross_entropy_with_integer_labels(converted(x).sum(axis=0), y).mean()

        gradients = eqx.filter_grad(loss)(converted)
        updates, state = optimizer.update(gradients, state)
        return eqx.apply_updates(converted, updates), state

    def step() -> None:
        nonlocal converted, state
        converted, state = jax.block_until_ready(update(converted, state, *batch))

    return step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="one small network, three rounds")
    arguments = parser.parse_args(argv)
    sizes = [(32, 25, 128)] if arguments.smoke else [(32, 25, 128), (128, 25, 512), (32, 100, 128), (128, 100, 512)]
    default = torch.get_num_threads()
    print(f"ms per training step; torch {torch.__version__}, jax {jax.__version__}, {default} torch threads by default")
    print("batch  steps  hidden  torch, 1 thread  torch, default   snnax  faster torch / snnax")
    for batch, steps, hidden in sizes:
        torch.manual_seed(0)
        x, y = (torch.rand(batch, steps, 64) < 0.5).float(), torch.randint(10, (batch,))
        sides = [
            jax_step(Network(hidden), x, y),
            torch_step(Network(hidden), x, y, 1),
            torch_step(Network(hidden), x, y, default),
        ]
        ours, one, many = medians(sides, 3 if arguments.smoke else arguments.rounds)
        print(
            f"{batch:5}  {steps:5}  {hidden:6}  {one:15.2f}  {many:14.2f}  {ours:6.2f}  {min(one, many) / ours:20.1f}"
        )
    torch.set_num_threads(default)


if __name__ == "__main__":
    main()
