"""What recurrence brings where all information is in time: two spiking networks on a synthetic data set, in JAX alone.

The data are SYNTHETIC, shaped like the Spiking Heidelberg Digits (Cramer et al. 2020, doi:10.1109/TNNLS.2020.3044364)
but not recorded from anything: 70 channels, 20 classes, sequences of 60 to 100 time steps. As in "randman" (Zenke &
Vogels 2021, doi:10.1162/neco_a_01367), a class is a smooth random manifold, and where a sample lies on it decides when
the channels spike: here along two trajectories that are smooth over channels too. Samples differ in length, and thus in
tempo, and have jitter, missing spikes and noise. Every channel spikes equally often in every class, so that counting
spikes tells nothing, and the odd classes are the even ones played backwards: only order tells them apart.

Two networks of equally many LIF neurons are trained alike, one without and one with a dense connection of the
neurons among themselves. Leaky integrators read them out: the largest membrane over time says the class. Sequences are
padded to one length; the model's `mask` keeps the padding out of its states and outputs.

With `--seed` 0 to 3, on two cores, the recurrent network got 88.3, 82.3, 82.0 and 83.8 % of 1000 held-out samples
right, the one without recurrence 79.8, 66.1, 73.2 and 74.7 %; chance is 5 %. A run takes about a minute.
"""

import argparse
import functools
import pathlib
import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from tqdm import tqdm

from snnax import losses, metrics, plot, snn


NUM_STEPS, SHORTEST = 100, 60
NUM_CHANNELS, NUM_CLASSES, NUM_TRAJECTORIES, NUM_WAVES = 70, 20, 2, 4
JITTER, DROPPED, NOISE = 0.02, 0.1, 0.005  # share of the length; probability per spike; per channel and time step
NUM_HIDDEN = 128
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
RATES = (0.01, 0.2)  # spikes per time step that the regulariser allows
# What a full run has to reach: less than the worst of the runs named above, as rounding differs between machines.
LOWER_BOUND, LOWER_GAIN = 0.78, 0.04
OUTPUT = pathlib.Path(__file__).parent / "output" / "train_shd_like.png"


class Data(NamedTuple):
    spikes: jax.Array  # (sample, time, channel)
    mask: jax.Array  # (sample, time), False for padding
    labels: jax.Array  # (sample,)


class Manifolds:
    """Smooth random spike times: a sum of waves over channels and over the position on the manifold, per class."""

    def __init__(self, rng: np.random.Generator):
        families = NUM_CLASSES // 2  # a class and its reverse
        shape = (families, NUM_TRAJECTORIES, NUM_WAVES, NUM_WAVES)
        waves = 1 + np.arange(NUM_WAVES)
        # Slow waves are the strongest, which makes manifold and trajectories smooth.
        self.amplitudes = rng.normal(size=shape) / waves[:, None] / waves
        self.phases = rng.uniform(0, 2 * np.pi, size=(*shape, 1))
        phases = rng.uniform(0, 2 * np.pi, size=(*shape, 1))
        self.over_channels = np.sin(np.pi * waves[:, None] * np.linspace(0, 1, NUM_CHANNELS) + phases)
        everywhere = np.stack([self._raw(np.full(families, x), np.arange(families)) for x in np.linspace(0, 1, 33)])
        self.low = everywhere.min((0, -1))[..., None]
        self.high = everywhere.max((0, -1))[..., None]

    def times(self, positions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Spike times `(sample, trajectory, channel)` in [0, 1]."""
        families = labels // 2
        forwards = (self._raw(positions, families) - self.low[families]) / (self.high - self.low)[families]
        return np.where((labels % 2 == 1)[:, None, None], 1 - forwards, forwards)

    def _raw(self, positions: np.ndarray, families: np.ndarray) -> np.ndarray:
        angles = np.pi * np.arange(NUM_WAVES)[:, None] * positions[:, None, None, None]
        amplitudes = self.amplitudes[families] * np.sin(angles + self.phases[families, ..., 0])
        return np.einsum("sfkl,sfklc->sfc", amplitudes, self.over_channels[families])


def make_data(seed: int, num_samples: int) -> Data:
    rng = np.random.default_rng(seed)
    manifolds = Manifolds(rng)
    labels = rng.permutation(np.arange(num_samples) % NUM_CLASSES)
    times = manifolds.times(rng.uniform(size=num_samples), labels)
    lengths = rng.integers(SHORTEST, NUM_STEPS + 1, size=num_samples)
    last = lengths[:, None, None] - 1
    steps = np.clip(np.round((times + JITTER * rng.normal(size=times.shape)) * last), 0, last).astype(int)
    samples, trajectories, channels = np.nonzero(rng.uniform(size=times.shape) >= DROPPED)
    spikes = rng.uniform(size=(num_samples, NUM_STEPS, NUM_CHANNELS)) < NOISE
    spikes[samples, steps[samples, trajectories, channels], channels] = True
    mask = np.arange(NUM_STEPS) < lengths[:, None]
    spikes &= mask[..., None]
    return Data(jnp.asarray(spikes, jnp.float32), jnp.asarray(mask), jnp.asarray(labels, jnp.int32))


def make_model(key: jax.Array, *, recurrent: bool) -> snn.Sequential:
    key1, key2, key3 = jax.random.split(key, 3)
    neurons = snn.LIF(NUM_HIDDEN, 0.9)
    connection = eqx.nn.Linear(NUM_HIDDEN, NUM_HIDDEN, use_bias=False, key=key3)
    encoder = eqx.nn.Linear(NUM_CHANNELS, NUM_HIDDEN, key=key1)
    # A time step has one or two input spikes: with the weights of a dense input the neurons would be silent.
    encoder = eqx.tree_at(lambda layer: layer.weight, encoder, 5 * encoder.weight)
    return snn.Sequential(
        encoder,
        snn.Recurrent(neurons, connection) if recurrent else neurons,
        eqx.nn.Linear(NUM_HIDDEN, NUM_CLASSES, key=key2),
        snn.LI(NUM_CLASSES, 0.95),
    )


@functools.cache
def make_optimizer(num_updates: int) -> optax.GradientTransformation:
    # Gradients through a hundred time steps of a recurrent net are now and then very large.
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, num_updates)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def run(model: snn.Sequential, data: Data) -> tuple[jax.Array, jax.Array]:
    """Hidden spikes and readout membranes, `(sample, time, ...)` each."""
    states = model.init_states()
    _, outs = jax.vmap(lambda xs, mask: model(states, xs, mask=mask))(data.spikes, data.mask)
    # Masked outputs are zero, and zero could be the largest membrane.
    return outs[1], jnp.where(data.mask[..., None], outs[-1], -jnp.inf)


@eqx.filter_jit
def train_step(model, optimizer, optimizer_state, data):
    def loss(model):
        spikes, v = run(model, data)
        lower, upper = RATES
        penalty = jax.vmap(lambda spikes: losses.rate_bounds(spikes, lower=lower, upper=upper))(spikes).mean()
        return jax.vmap(losses.max_membrane_cross_entropy)(v, data.labels).mean() + penalty

    value, gradients = eqx.filter_value_and_grad(loss)(model)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state)
    return eqx.apply_updates(model, updates), optimizer_state, value


@eqx.filter_jit
def evaluate(model, data):
    """Accuracy, hidden spikes and readout membranes."""
    spikes, v = run(model, data)
    return jnp.mean(v.max(1).argmax(-1) == data.labels), spikes, v


def train(name: str, model: snn.Sequential, training: Data, test: Data, epochs: int, seed: int):
    """The trained model, and mean loss and test accuracy of every epoch."""
    num_batches = len(training.labels) // BATCH_SIZE
    optimizer = make_optimizer(epochs * num_batches)
    optimizer_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    rng = np.random.default_rng(seed)
    history, start = [], time.perf_counter()
    for epoch in range(epochs):
        order = rng.permutation(len(training.labels))
        values = []
        progress = tqdm(range(num_batches), desc=f"{name}, epoch {epoch + 1}", leave=False, disable=None)
        for batch in progress:
            chosen = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            picked = Data(*(each[chosen] for each in training))
            model, optimizer_state, value = train_step(model, optimizer, optimizer_state, picked)
            values.append(float(value))
            progress.set_postfix(loss=f"{value:.3f}")
        history.append((np.mean(values), float(evaluate(model, test)[0])))
        print(f"{name}, epoch {epoch + 1}: loss {history[-1][0]:.3f}, test accuracy {history[-1][1]:.1%}")
    print(f"{name}: trained in {time.perf_counter() - start:.0f} s")
    return model, np.array(history)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="where to write the figure")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the weights and the order")
    parser.add_argument("--smoke", action="store_true", help="few epochs on few samples, for CI")
    options = parser.parse_args(argv)
    num_training, num_test = (1280, 400) if options.smoke else (3000, 1000)
    if options.smoke:
        options.epochs = 4

    data = make_data(options.seed, num_training + num_test)
    training, test = Data(*(each[:num_training] for each in data)), Data(*(each[num_training:] for each in data))
    lengths = data.mask.sum(1)
    print(
        f"data: SYNTHETIC, {NUM_CLASSES} classes, {num_training} samples to train on and {num_test} held out; "
        f"{lengths.min()} to {lengths.max()} time steps, {data.spikes.sum((1, 2)).mean():.0f} spikes per sample"
    )

    models, histories, accuracies = {}, {}, {}
    for name in ("feed-forward", "recurrent"):
        # From equal weights, but for the connection.
        model = make_model(jax.random.key(options.seed), recurrent=name == "recurrent")
        print(f"\n{model.summary()}")
        models[name], histories[name] = train(name, model, training, test, options.epochs, options.seed)

    print()
    for name, model in models.items():
        accuracy, spikes, _ = evaluate(model, test)
        accuracies[name] = float(accuracy)
        # Padding does not count.
        rates = metrics.firing_rates(spikes[test.mask])
        print(f"firing rate, {name}: {rates.mean:.3f} spikes per time step, {rates.silent:.1%} silent")
        print(f"test accuracy, {name}: {accuracy:.1%}")
    gain = accuracies["recurrent"] - accuracies["feed-forward"]
    print(f"recurrence brings {100 * gain:+.1f} percentage points; chance is {1 / NUM_CLASSES:.1%}")
    plot_run(options.output, models["recurrent"], histories, test)
    if not options.smoke and (accuracies["recurrent"] < LOWER_BOUND or gain < LOWER_GAIN):
        raise SystemExit(
            f"a full run has to reach {LOWER_BOUND:.0%} with recurrence and {100 * LOWER_GAIN:.0f} points less without"
        )


def plot_run(path: pathlib.Path, model: snn.Sequential, histories: dict[str, np.ndarray], test: Data) -> None:
    """The training curves, and what the recurrent network does with one test sample."""
    _, spikes, v = evaluate(model, test)
    # One that the network gets right, of those the shortest: its padding shows.
    right = np.asarray(v.max(1).argmax(-1) == test.labels)
    sample = int(np.argmin(np.where(right, np.asarray(test.mask.sum(1)), NUM_STEPS + 1)))
    length, label = int(test.mask[sample].sum()), int(test.labels[sample])

    figure = Figure(figsize=(13, 8), dpi=110, layout="constrained")
    (curves, inputs), (readouts, hidden) = figure.subplots(2, 2)
    for (name, history), colour in zip(histories.items(), ("#D55E00", "#0072B2"), strict=True):
        epochs = np.arange(1, len(history) + 1)
        curves.plot(epochs, 100 * history[:, 1], "o-", color=colour, markersize=4, label=name)
    curves.axhline(100 / NUM_CLASSES, color="#767676", linewidth=1, linestyle=(0, (5, 3)), label="chance")
    curves.set(title="training on synthetic data", xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.spines[["top", "right"]].set_visible(False)
    curves.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)

    plot.raster(test.spikes[sample], ax=inputs)
    inputs.set(title=f"input: a sample of class {label}", ylabel="channel")
    plot.raster(spikes[sample], ax=hidden)
    hidden.set_title("hidden spikes of the recurrent network")
    highest = np.argsort(-np.asarray(v[sample].max(0)))[:4]
    plot.traces(v[sample], neurons=highest.tolist(), ax=readouts)
    readouts.set_title("readout: the four highest classes")
    for axes in (inputs, hidden, readouts):
        if length < NUM_STEPS:
            axes.axvspan(length - 0.5, NUM_STEPS - 0.5, color="#E4E4E4", zorder=0, linewidth=0)
            axes.text((length + NUM_STEPS) / 2 - 0.5, 0.5, "padding", rotation=90, ha="center", va="center",
                      transform=axes.get_xaxis_transform(), color="#767676")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
