"""From snnTorch to JAX and back: the tutorial that `make demo` runs, on real handwritten digits.

A network written and half trained in snnTorch is converted to JAX, compared with its source, trained on from the same
`DataLoader`, and its weights are taken back: torch then predicts what JAX predicts.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
import optax
import snntorch
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from snntorch import surrogate
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from snnax_interop import Converted, JaxLoader, check_equivalence, from_torch, state_dict, to_jax


NUM_STEPS = 25
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
OUTPUT = pathlib.Path(__file__).parent / "output" / "migrate_snntorch.png"


class SpikingDigits(Dataset):
    """8x8 images as `(time, 64)` spike trains: the brighter a pixel, the more often it spikes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.rates = torch.from_numpy(images / 16).float()
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)  # an image has the same spikes in every epoch
        spikes = torch.rand(NUM_STEPS, 64, generator=generator) < self.rates[index]
        return spikes.float(), int(self.labels[index])


class Net(torch.nn.Module):
    """Two layers of leaky neurons with a time loop by hand, as in the tutorials of snnTorch."""

    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(64, 128)
        self.lif1 = snntorch.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=25))
        self.fc2 = torch.nn.Linear(128, 10)
        self.lif2 = snntorch.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=25))

    def forward(self, x):  # (batch, time, 64)
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec), torch.stack(mem2_rec)  # (time, batch, 10) each


def torch_step(net: Net, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    spikes, _ = net(x)
    loss = F.cross_entropy(spikes.sum(0), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def torch_predictions(net: Net, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(x)[0].sum(0).argmax(-1)


# The same in JAX. A Converted is called as the torch module is, and its differentiable leaves are the parameters.
jax_optimizer = optax.adam(LEARNING_RATE)


@eqx.filter_jit
def jax_step(converted: Converted, state: optax.OptState, x: jax.Array, y: jax.Array):
    def loss(converted):
        spikes, _ = converted(x)
        return optax.softmax_cross_entropy_with_integer_labels(spikes.sum(0), y).mean()

    value, gradients = eqx.filter_value_and_grad(loss)(converted)
    updates, state = jax_optimizer.update(gradients, state)
    return eqx.apply_updates(converted, updates), state, value


@eqx.filter_jit
def jax_predictions(converted: Converted, x: jax.Array) -> jax.Array:
    return converted(x)[0].sum(0).argmax(-1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-epochs", type=int, default=2, help="epochs in torch, before the conversion")
    parser.add_argument("--epochs", type=int, default=20, help="epochs in JAX, after it")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="where to write the figure")
    parser.add_argument("--smoke", action="store_true", help="one epoch of each on few samples, for CI")
    options = parser.parse_args(argv)
    torch.manual_seed(0)

    images, labels = load_digits(return_X_y=True)
    if options.smoke:
        images, labels, options.torch_epochs, options.epochs = images[:500], labels[:500], 1, 1
    parts = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(np.asarray, parts)
    loader = DataLoader(SpikingDigits(train_images, train_labels), BATCH_SIZE, shuffle=True, drop_last=True)
    x_test, y_test = next(iter(DataLoader(SpikingDigits(test_images, test_labels), len(test_labels))))

    print(f"== 1. Train in torch, on {len(train_labels)} digits; {len(test_labels)} others are the test set ==")
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    for epoch in range(options.torch_epochs):
        bar = tqdm(loader, desc=f"torch epoch {epoch + 1}", leave=False, disable=None)
        for x, y in bar:
            bar.set_postfix(loss=f"{torch_step(net, optimizer, x, y):.3f}")
        accuracy = (torch_predictions(net, x_test) == y_test).float().mean()
        print(f"torch epoch {epoch + 1}: test accuracy {accuracy:.1%}")

    print("\n== 2. Convert to JAX ==")
    example, _ = next(iter(loader))
    converted = from_torch(net, (example,))
    print(converted.report)
    print("\nOnce more on test samples, with gradients:")
    equivalence = check_equivalence(net, converted, (x_test[:BATCH_SIZE],))
    print(equivalence)
    equivalence.raise_if_failed()

    print("\n== 3. Train on in JAX, from the same DataLoader ==")
    state = jax_optimizer.init(eqx.filter(converted, eqx.is_inexact_array))
    x_test_jax, y_test_jax = to_jax((x_test, y_test))
    for epoch in range(options.epochs):
        bar = tqdm(JaxLoader(loader), desc=f"JAX epoch {epoch + 1}", leave=False, disable=None)
        for x, y in bar:
            converted, state, loss = jax_step(converted, state, x, y)
            bar.set_postfix(loss=f"{loss:.3f}")
        accuracy = (jax_predictions(converted, x_test_jax) == y_test_jax).mean()
        print(f"JAX epoch {epoch + 1}: test accuracy {accuracy:.1%}")

    print("\n== 4. Take the weights back to torch ==")
    net.load_state_dict(state_dict(converted), strict=True)
    in_torch, in_jax = torch_predictions(net, x_test).numpy(), np.asarray(jax_predictions(converted, x_test_jax))
    different = np.flatnonzero(in_torch != in_jax)
    print(f"equal predictions: {len(in_jax) - len(different)} of {len(in_jax)} test samples")
    if different.size:
        raise SystemExit(f"torch and JAX predict different digits for the test samples {different.tolist()}")
    plot_outputs(options.output, net, converted, x_test)

    print("\n== 5. Time per training step ==")
    x, y = next(iter(loader))
    x_jax, y_jax = to_jax((x, y))
    print(f"forward, backward and optimizer on the CPU; {len(x)} samples of {NUM_STEPS} time steps")
    compare_speed(
        step_torch=lambda: torch_step(net, optimizer, x, y),
        step_jax=lambda: jax.block_until_ready(jax_step(converted, state, x_jax, y_jax)),
        rounds=1 if options.smoke else 5,
    )


def plot_outputs(path: pathlib.Path, net: Net, converted: Converted, x: torch.Tensor) -> None:
    """Draw spikes and membranes of the output neurons for one sample of `x`, both sides overlaid."""
    with torch.no_grad():
        spikes, membranes = (output.numpy() for output in net(x))  # (time, batch, 10) each
    jax_spikes, jax_membranes = (np.asarray(output) for output in eqx.filter_jit(converted)(to_jax(x)))
    print(f"output spikes that differ in float32: {(spikes != jax_spikes).sum()} of {spikes.sum():.0f}")
    print(f"largest difference of output membranes in float32: {np.abs(membranes - jax_membranes).max():.0e}")

    sample = spikes.any(0).sum(-1).argmax()  # the one where most output neurons spike
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*np.nonzero(spikes[:, sample]), "o", ms=9, mew=1.8, mfc="none", color="tab:orange")
    left.plot(*np.nonzero(jax_spikes[:, sample]), "o", ms=3.5, color="black")
    left.set(title="spikes for one test sample", ylabel="output neuron")
    neurons = np.arange(spikes.shape[-1])
    low, high = membranes[:, sample].min(axis=0), membranes[:, sample].max(axis=0)
    rows = [neurons + 0.8 * (each[:, sample] - low) / (high - low) - 0.4 for each in (membranes, jax_membranes)]
    right.plot(rows[0], lw=3.5, alpha=0.6, color="tab:orange")
    right.plot(rows[1], "--", lw=1.2, color="black")
    right.set(title="membrane potentials, scaled to equal range")
    for axes in (left, right):
        axes.set(xlabel="time step", xlim=(-1, NUM_STEPS), ylim=(-1, len(neurons)), yticks=neurons)
    names = ["snnTorch (circles, solid lines)", "snnax (dots, dashed lines)"]
    figure.legend([right.lines[0], right.lines[-1]], names, loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"figure: {path}")


def compare_speed(step_torch: Callable[[], object], step_jax: Callable[[], object], rounds: int) -> None:
    """Print the time of a step; of torch also with one thread, which can be faster for small layers."""
    all_threads = torch.get_num_threads()
    sides = [("JAX", step_jax, all_threads)]
    sides += [(f"torch, threads: {threads}", step_torch, threads) for threads in sorted({1, all_threads})]
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in sides}
    for _ in range(rounds):  # in turns, so that other work on this machine slows all of them down
        for name, step, threads in sides:
            torch.set_num_threads(threads)
            step()  # not counted: it wakes the threads up
            for _ in range(5):
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    torch.set_num_threads(all_threads)

    print(f"medians of {5 * rounds} steps, data already loaded and JAX compiled:")
    medians = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<20}{median:7.2f} ms")
    jax_median = medians.pop("JAX")
    print(f"JAX is {min(medians.values()) / jax_median:.1f} times as fast as the faster torch")


if __name__ == "__main__":
    main()
