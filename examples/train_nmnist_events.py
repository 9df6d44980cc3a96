"""A convolutional spiking network on recordings of an event camera: N-MNIST through Tonic and a torch DataLoader.

Events cross to the device as they are, eight bytes each, and become frames there, within the training step. A process
that is killed in the middle of an epoch goes on from its last checkpoint, with the same batches, and ends with the same
weights to the bit:

python examples/train_nmnist_events.py --data FOLDER
python examples/train_nmnist_events.py --data FOLDER --resume       # after Ctrl-C, kill -9, a power cut

FOLDER holds `NMNIST/Train/<digit>/*.bin` and `NMNIST/Test/<digit>/*.bin`, all recordings or a part of them (Orchard et
al. 2015, doi:10.3389/fnins.2015.00437). Without `--data` the files are SYNTHETIC, in the same format: the 8x8 digits
of scikit-learn before a simulated camera that moves as the one of N-MNIST did.

With 1000 training and 100 test recordings of N-MNIST, a full run (the defaults) classifies 99 of the 100, and 97 to 100
with other seeds.
"""

import argparse
import hashlib
import pathlib
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tonic
from matplotlib.figure import Figure
from numpy.lib.recfunctions import unstructured_to_structured
from scipy import ndimage
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader
from tqdm import tqdm

from snnax import losses, plot, snn
from snnax.events import Events, frames_by_time
from snnax.serialisation import Checkpoints, read_metadata
from snnax_interop import JaxLoader, PackEvents


NUM_STEPS, WINDOW = 20, 15_000  # 300 ms, the three saccades of a recording, in microseconds
BATCH_SIZE = 32
LEARNING_RATE = 5e-3
SHIFT = 2  # pixels by which training recordings are moved at random
FOLDER = pathlib.Path(__file__).parent / "output" / "train_nmnist_events"
# Of the 100 test recordings that come with a thousand to train on
LOWER_BOUND = 0.95


class NMNIST(tonic.datasets.NMNIST):
    """Tonic's class, which asks for all 70,000 recordings, or it downloads them; here a part of them will do."""

    def _check_exists(self) -> bool:
        if not any(pathlib.Path(self.location_on_system, self.folder_name).rglob("*.bin")):
            raise SystemExit(f"{self.location_on_system} holds no {self.folder_name}/<digit>/*.bin: see --help")
        return True


def write_recording(path: pathlib.Path, events: np.ndarray) -> None:
    """Five bytes per event, as in N-MNIST's files: x, y, and 24 bits of polarity and time in microseconds."""
    x, y, t, p = (events[name].astype(np.uint32) for name in ("x", "y", "t", "p"))
    columns = [x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def film(
    image: np.ndarray, rng: np.random.Generator, size: int = 34, duration: int = 300, stride: int = 3
) -> np.ndarray:
    """What an event camera sees of an image while it moves along a triangle: the times at which pixels change."""
    picture = np.zeros((size, size))
    picture[6:30, 6:30] = ndimage.zoom(image, 24 / len(image), order=1)
    corners = np.array([[0, 0], [3, 3], [-3, 3], [0, 0]]) + rng.uniform(-1, 1, (1, 2))
    moments = np.arange(0, duration + 1, stride)
    path = np.stack([np.interp(moments, np.linspace(0, duration, 4), corners[:, axis]) for axis in (0, 1)], axis=1)
    seen, events = ndimage.shift(picture, path[0], order=1), []
    for moment, place in zip(moments[1:], path[1:], strict=True):
        change = ndimage.shift(picture, place, order=1) - seen
        crossed = np.trunc(change / 0.2).astype(int)
        seen += 0.2 * crossed
        y, x = np.nonzero(crossed)
        times = 1000 * (moment - stride) + rng.integers(0, 1000 * stride, len(x))
        events.append(np.stack([x, y, times, crossed[y, x] > 0], axis=1))
    joined = np.concatenate(events)
    joined = joined[np.argsort(joined[:, 2], kind="stable")]
    return unstructured_to_structured(joined, np.dtype([(name, int) for name in "xytp"]))


def write_synthetic(folder: pathlib.Path, num_train: int, num_test: int, seed: int = 0) -> None:
    """Genuine N-MNIST files of scikit-learn's digits; those that are there already stay."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))[: num_train + num_test]
    for number, index in enumerate(tqdm(order, desc="synthetic recordings", leave=False, disable=None)):
        part = "Train" if number < num_train else "Test"
        path = folder / "NMNIST" / part / str(labels[index]) / f"{number:05}.bin"
        if not path.exists():
            events = film(images[index].reshape(8, 8) / 16, np.random.default_rng([seed, number]))
            whole = path.with_suffix(".part")
            write_recording(whole, events)
            whole.rename(path)


def make_model(key: jax.Array) -> snn.Sequential:
    """Batch normalisation over whole sequences: running statistics of single steps would be those of the last ones."""
    key1, key2, key3 = jax.random.split(key, 3)
    return snn.Sequential(
        eqx.nn.Conv2d(2, 16, 5, 2, use_bias=False, key=key1),
        snn.BatchNorm(16, axis_name="batch", statistics="sequence"),
        snn.LIF((16, 15, 15), 0.8),
        eqx.nn.Conv2d(16, 32, 5, 2, use_bias=False, key=key2),
        snn.BatchNorm(32, axis_name="batch", statistics="sequence"),
        snn.LIF((32, 6, 6), 0.8),
        snn.flatten(),
        eqx.nn.Linear(32 * 6 * 6, 10, key=key3),
        snn.LI(10, 0.9),
    )


def run(model: snn.Sequential, frames: jax.Array) -> tuple[Any, list[jax.Array]]:
    """`(time, batch, polarity, height, width)` to the states and outputs of all layers, `(batch, ...)` each."""
    states = model.init_states(input_shape=frames.shape[2:])
    return jax.vmap(lambda xs: model(states, xs), in_axes=1, axis_name="batch")(frames)


def moved(frames: jax.Array, key: jax.Array) -> jax.Array:
    """Each recording of a batch moved by a random number of pixels."""
    shifts = jax.random.randint(key, (frames.shape[1], 2), -SHIFT, SHIFT + 1)
    return jax.vmap(lambda frames, shift: jnp.roll(frames, shift, (-2, -1)), in_axes=(1, 0), out_axes=1)(frames, shifts)


@eqx.filter_jit
def train_step(model, optimizer, optimizer_state, events: Events, labels: jax.Array, key: jax.Array):
    # Counts fit 16 bits; they become floats where the first convolution reads them
    frames = moved(frames_by_time(events, NUM_STEPS, WINDOW, dtype=jnp.int16), key).astype(jnp.float32)

    def loss(model):
        states, outs = run(model, frames)
        return jax.vmap(losses.rate_cross_entropy)(outs[-1], labels).mean(), states

    (value, states), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(model)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state)
    return snn.update_statistics(eqx.apply_updates(model, updates), states), optimizer_state, value


@eqx.filter_jit
def classify(model, events: Events) -> tuple[jax.Array, list[jax.Array], jax.Array]:
    """The class of each recording, the outputs of all layers, and the frames."""
    frames = frames_by_time(events, NUM_STEPS, WINDOW)
    _, outs = run(eqx.nn.inference_mode(model), frames)
    return jax.nn.softmax(outs[-1]).mean(1).argmax(-1), outs, frames


def evaluate(model: snn.Sequential, loader: JaxLoader) -> float:
    right = [classify(model, events)[0] == labels for events, labels in loader]
    return float(jnp.concatenate(right).mean())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="the folder that holds NMNIST; synthetic recordings without")
    parser.add_argument("--epochs", type=int, default=12, help="the length of the run, which sets the learning rate")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--save-every", type=int, default=20, help="training steps from one checkpoint to the next")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER, help="for checkpoints, figure, synthetic files")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the shifts")
    parser.add_argument("--smoke", action="store_true", help="five epochs on few recordings, for CI")
    options = parser.parse_args(argv)
    if options.smoke:
        options.epochs, options.save_every = 5, 2

    folder = options.data
    if folder is not None and folder.name == "NMNIST":
        folder = folder.parent  # Tonic asks for the one above
    if folder is None:
        folder = options.output / "synthetic"
        write_synthetic(folder, *((192, 64) if options.smoke else (1200, 300)))
    training: Any = NMNIST(str(folder), train=True)
    test: Any = NMNIST(str(folder), train=False)
    kind = "SYNTHETIC recordings" if options.data is None else "recordings"
    print(f"data: {len(training)} {kind} to train on, {len(test)} held out, in {folder}")

    pack = PackEvents(NMNIST.sensor_size, capacity=10_240)
    batches = DataLoader(training, BATCH_SIZE, shuffle=True, drop_last=True, collate_fn=pack)
    loader = JaxLoader(batches, seed=options.seed)
    test_loader = JaxLoader(DataLoader(test, 50, collate_fn=pack))

    model_key, shift_key = jax.random.split(jax.random.key(options.seed))
    model = make_model(model_key)
    print(model.summary(input_shape=(2, 34, 34)))
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, options.epochs * len(loader)))
    optimizer_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    history = np.full((options.epochs, 2), np.nan)  # loss of the last step and accuracy of every epoch

    checkpoints = Checkpoints(options.output / "checkpoints")
    settings = {"seed": options.seed, "epochs": options.epochs, "recordings": len(training)}
    step = 0
    if options.resume and len(checkpoints):
        step, (model, optimizer_state, history) = checkpoints.restore((model, optimizer_state, history))
        found = read_metadata(checkpoints.path(step))
        if found["settings"] != settings:
            raise SystemExit(f"{checkpoints.directory} holds a run of {found['settings']}, found {settings}")
        loader.load_state_dict(found["loader"])
        print(f"resumed: after training step {step}")
    else:
        for old in checkpoints.steps():  # of an earlier run: a new one must not take them for its own
            checkpoints.path(old).unlink()

    start, first = time.perf_counter(), step
    for epoch in range(loader.epoch, options.epochs):
        value = jnp.nan
        done = step % len(loader)
        with tqdm(loader, f"epoch {epoch + 1}", len(loader), initial=done, leave=False, disable=None) as progress:
            for events, labels in progress:
                step += 1
                progress.set_postfix(loss=f"{value:.3f}")  # of the step before, which is done by now
                model, optimizer_state, value = train_step(
                    model, optimizer, optimizer_state, events, labels, jax.random.fold_in(shift_key, step)
                )
                if step % options.save_every == 0:
                    metadata = {"settings": settings, "loader": loader.state_dict()}
                    checkpoints.save(step, (model, optimizer_state, history), metadata=metadata)
        history[epoch] = value, evaluate(model, test_loader)
        print(f"epoch {epoch + 1}: loss {history[epoch, 0]:.3f}, test accuracy {history[epoch, 1]:.1%}")
    seconds = time.perf_counter() - start
    print(f"trained: {step - first} steps in {seconds:.0f} s; to the device: {loader.statistics}")

    print(f"weights: sha256 {digest(model)}")
    accuracy = evaluate(model, test_loader)
    print(f"test accuracy: {accuracy:.1%}")
    events, labels = next(iter(test_loader))
    plot_run(options.output / "figure.png", history, events, labels, *classify(model, events))
    if options.data is not None and not options.smoke and accuracy < LOWER_BOUND:
        raise SystemExit(f"the test accuracy {accuracy:.1%} is below the lower bound of a full run, {LOWER_BOUND:.0%}")


def digest(model: snn.Sequential) -> str:
    """Equal for models that are equal to the bit."""
    arrays = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()[:16]


def plot_run(
    path: pathlib.Path,
    history: np.ndarray,
    events: Events,
    labels: jax.Array,
    classes: jax.Array,
    outs: list[jax.Array],
    frames: jax.Array,
) -> None:
    """The training curve, and the first test recording: its events, its frames, and what the network makes of it."""
    blue, vermillion = "#0072B2", "#D55E00"
    figure = Figure(figsize=(14, 7.5), dpi=110, layout="constrained")
    (curve, cloud, frame), (raster, readout, wrong) = figure.subplots(2, 3)
    curve.plot(np.arange(1, len(history) + 1), 100 * history[:, 1], "o-", color=blue, markersize=4)
    curve.set(title="training", xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
    curve.xaxis.get_major_locator().set_params(integer=True)
    curve.spines[["top", "right"]].set_visible(False)

    polarity, _, x = (np.asarray(each[0]) for each in events.coordinates())
    t = np.asarray(events.t[0]) / 1000
    for value, colour, name in ((0, vermillion, "off"), (1, blue, "on")):
        cloud.scatter(t[polarity == value], x[polarity == value], s=1, color=colour, label=name)
    cloud.set(title="a test recording: its events", xlabel="time (ms)", ylabel="x (pixels)")
    cloud.legend(markerscale=6, frameon=False)
    difference = np.asarray(frames[: NUM_STEPS // 3, 0, 1].sum(0) - frames[: NUM_STEPS // 3, 0, 0].sum(0))
    largest = max(abs(difference).max(), 1)
    frame.imshow(difference, cmap="PuOr", vmin=-largest, vmax=largest)
    frame.set(title=f"first third, on minus off: a {labels[0]}", xticks=[], yticks=[])
    plot.raster(outs[2][0, :, :, 7, 7], ax=raster)
    raster.set(title="conv 1: central neuron of each feature map", ylabel="feature map")
    highest = np.argsort(-np.asarray(outs[-1][0, -1]))[:4]
    plot.traces(outs[-1][0], neurons=highest.tolist(), ax=readout)
    readout.set_title("readout: the four highest classes")
    table = np.zeros((10, 10), int)
    np.add.at(table, (np.asarray(labels), np.asarray(classes)), 1)
    wrong.imshow(table, cmap="Greys")
    wrong.set(title="first test recordings", xlabel="predicted", ylabel="digit", xticks=range(10), yticks=range(10))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
