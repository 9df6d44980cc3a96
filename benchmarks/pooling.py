"""Time of pooling forward and backward: snnax, Equinox and torch on the same spikes, side by side in one run.

Windows of 2 x 2 over `(time x batch, channels, size, size)`; all take turns on the CPU, so that other load meets all.
"""

import argparse
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from timing import medians

from snnax import snn


SHAPES = ((400, 16, 32, 32), (400, 32, 16, 16), (1600, 32, 16, 16))


def jax_step(pool: Callable[[jax.Array], jax.Array], spikes: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
    x, w = jnp.asarray(spikes), jnp.asarray(weights)
    gradient = jax.jit(jax.grad(lambda x, w: jnp.vdot(jax.vmap(pool)(x), w)))
    return lambda: jax.block_until_ready(gradient(x, w))


def torch_step(pool: torch.nn.Module, spikes: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
    x, w = torch.tensor(spikes, requires_grad=True), torch.tensor(weights)
    return lambda: torch.autograd.grad((pool(x) * w).sum(), x)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="one round on a small input, for CI")
    options = parser.parse_args(argv)
    rounds, shapes = (1, ((4, 2, 8, 8),)) if options.smoke else (options.rounds, SHAPES)
    kinds = {
        "max": (snn.MaxPool(2), eqx.nn.MaxPool2d(2, 2), torch.nn.MaxPool2d(2)),
        "mean": (snn.AvgPool(2), eqx.nn.AvgPool2d(2, 2), torch.nn.AvgPool2d(2)),
    }
    print("| pooling | shape | snnax (ms) | Equinox (ms) | torch (ms) | Equinox / snnax | torch / snnax |")
    print("|---|---|---|---|---|---|---|")
    random = np.random.default_rng(0)
    for shape in shapes:
        spikes = (random.random(shape) < 0.2).astype(np.float32)
        weights = random.normal(size=(*shape[:2], shape[2] // 2, shape[3] // 2)).astype(np.float32)
        for name, (ours, equinox, peer) in kinds.items():
            steps = [jax_step(pool, spikes, weights) for pool in (ours, equinox)] + [torch_step(peer, spikes, weights)]
            mine, *others = medians(steps, rounds)
            columns = [name, " x ".join(map(str, shape)), *(f"{each:.2f}" for each in (mine, *others))]
            columns += [f"{each / mine:.1f}" for each in others]
            print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
