"""Data-driven initial weights: every spiking layer fires at a given rate on a batch of data."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .. import snn
from ._fluctuation import CONVOLUTIONS


# The layers whose weights are scaled; by exact type, as a subclass may keep its weights elsewhere.

TRANSPOSED = (eqx.nn.ConvTranspose, eqx.nn.ConvTranspose1d, eqx.nn.ConvTranspose2d, eqx.nn.ConvTranspose3d)
SCALED = (eqx.nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
# Gains from 4**-20 to 4**20, about 1e-12 to 1e12, and 20 halvings of one factor of 4, to about one in a million.
BRACKET, FACTOR, HALVINGS = 20, 4.0, 20


class Segment(NamedTuple):
    """The layers up to and with a spiking one, their places in the model, and which of them is scaled."""

    layers: list[Any]
    paths: list[tuple[int, ...]]
    scaled: int | None


def calibrate(
    model: snn.Sequential,
    xs: Float[Array, "batch time ..."],
    *,
    rate: float = 0.1,
    tolerance: float = 0.02,
    key: Array | None = None,
    progress: Callable[[Sequence[Segment]], Iterable[Segment]] | None = None,
) -> snn.Sequential:
    """A copy of a model in which every spiking layer fires at `rate` on the batch `xs`, so that none is silent.

    Front to back, the weights of the last linear layer or convolution before each spiking layer are multiplied by one
    number, found by bisection; later layers see the calibrated output of earlier ones. Biases, neurons, and layers
    after the last spiking one stay as they are, as do spiking layers without weights between them and the spiking layer
    (or input) before. A data-driven refinement as firing-rate homeostasis is in Rossbroich, Gygax & Zenke 2022
    (doi:10.1088/2634-4386/ac97bb), before training instead of during it.

    **Arguments:**

    - `model`: a `snn.Sequential`, possibly nested. A layer is spiking if it has a `snn.Firing`; scaled are
      `eqx.nn.Linear`, `eqx.nn.Conv*` and `eqx.nn.ConvTranspose*`.
    - `xs`: a typical batch of inputs, `(batch, time, ...)`.
    - `rate`: target, in spikes per time step, averaged over neurons, time and the batch; between 0 and 1.
    - `tolerance`: relative; the search ends when the rate is that close. Where rates jump, as for few neurons and time
      steps, the nearest rate that is not 0 is taken.
    - `key`: for layers that draw random numbers, such as dropout.
    - `progress`: wraps the list of segments that is gone through, as `tqdm.tqdm` does.

    **Returns:** the model with other weights. It runs the model itself: not for use inside `jax.jit`.

    **Raises:** `TypeError` for another container, integer inputs, or where the only weights before a spiking layer are
    in a layer that it cannot scale; `ValueError` for inputs without a batch, a time step or with NaN, a rate out of
    range, a model without anything to calibrate, or where no gain gives the rate, naming the layer.

    >>> key = jax.random.key(0)
    >>> model = snn.Sequential(eqx.nn.Linear(20, 50, key=key), snn.LIF(50, 0.9))
    >>> xs = jax.random.uniform(key, (4, 30, 20)).round()
    >>> model = calibrate(model, xs, rate=0.2)
    >>> _, outs = jax.vmap(lambda x: model(model.init_states(), x))(xs)
    >>> print(round(float(outs[-1].mean()), 2))
    0.2
    """
    if not isinstance(model, snn.Sequential):
        raise TypeError(f"calibrate goes through a snn.Sequential front to back, found {type(model).__name__}")
    if not 0 < rate < 1:
        raise ValueError(f"rate of calibrate must lie between 0 and 1 (spikes per time step), found {rate}")
    if not tolerance > 0:
        raise ValueError(f"tolerance of calibrate must be positive, found {tolerance}")
    xs = _checked(xs)
    segments = _segments(model)
    for index, segment in enumerate(segments if progress is None else progress(segments)):
        # Another key for each segment and sample, the same for each gain that is tried.
        keys = None if key is None else jax.random.split(jax.random.fold_in(key, index), xs.shape[0])
        layers = list(segment.layers)
        if segment.scaled is not None:
            where = f"layer {_name(segment.paths[-1])} ({type(layers[-1]).__name__})"
            gain = _search(functools.partial(_rate, layers, segment.scaled, xs, keys), rate, tolerance, where)
            layers[segment.scaled] = _scaled(layers[segment.scaled], jnp.float32(gain))
            weight = functools.partial(_weight, segment.paths[segment.scaled])
            model = eqx.tree_at(weight, model, layers[segment.scaled].weight)
        xs = _run(layers, xs, keys)
    return model


def _checked(xs: Any) -> Array:
    if isinstance(xs, Tracer):
        raise TypeError("calibrate searches with the values of xs, found a traced array: call it outside of jax.jit")
    xs = jnp.asarray(xs)
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        raise TypeError(f"calibrate takes floating point inputs, found {xs.dtype}: convert with .astype(float32)")
    if xs.ndim < 2 or 0 in xs.shape:
        raise ValueError(f"calibrate needs a batch of sequences (batch, time, ...), found the shape {xs.shape}")
    if bool(jnp.isnan(xs).any()):
        raise ValueError("calibrate needs inputs that are numbers, found NaN: replace them first")
    return xs


def _segments(model: snn.Sequential) -> list[Segment]:
    """**Raises:** `TypeError` or `ValueError` for a model that is not a chain of layers with something to scale."""
    segments, pending = [], []
    for path, layer in _flat(model, ()):
        pending.append((path, layer))
        if not _is_spiking(layer):
            continue
        paths, layers = [path for path, _ in pending], [layer for _, layer in pending]
        scaled = [index for index, layer in enumerate(layers) if type(layer) in SCALED]
        for other, weighted in pending[:-1] if not scaled else ():
            if jax.tree.leaves(eqx.filter(weighted, eqx.is_inexact_array)):
                raise TypeError(
                    f"calibrate found no weights that it can scale before layer {_name(path)} "
                    f"({type(layer).__name__}), but layer {_name(other)} ({type(weighted).__name__}) with parameters; "
                    f"allowed are {', '.join(kind.__name__ for kind in SCALED)}: put one of them between"
                )
        segments.append(Segment(layers, paths, scaled[-1] if scaled else None))
        pending = []
    if all(segment.scaled is None for segment in segments):
        found = [type(layer).__name__ for _, layer in _flat(model, ())]
        raise ValueError(f"calibrate needs a linear layer or convolution before a spiking layer, found {found}")
    return segments


def _flat(model: snn.Sequential, path: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], Any]]:
    """The layers of nested chains with their places."""
    for index, layer in enumerate(model.layers):
        here = (*path, index)
        if isinstance(layer, snn.Sequential):
            yield from _flat(layer, here)
        elif isinstance(layer, snn.AbstractContainer):
            raise TypeError(
                f"calibrate goes through chains, found layer {_name(here)} ({type(layer).__name__}); allowed is "
                "snn.Sequential: calibrate the parts of the model that are chains by themselves"
            )
        else:
            yield here, layer


def _is_spiking(layer: Any) -> bool:
    if not isinstance(layer, snn.AbstractLayer):
        return False
    nodes = jax.tree.leaves(layer, is_leaf=lambda node: isinstance(node, snn.Firing))
    return any(isinstance(node, snn.Firing) for node in nodes)


def _name(path: tuple[int, ...]) -> str:
    return ".".join(map(str, path))


def _weight(path: tuple[int, ...], model: Any) -> Any:
    for index in path:
        model = model.layers[index]
    return model.weight


def _scaled(layer: Any, gain: Array) -> Any:
    return eqx.tree_at(lambda m: m.weight, layer, gain.astype(layer.weight.dtype) * layer.weight)


@eqx.filter_jit
def _run(layers: list[Any], xs: Array, keys: Array | None) -> Array:
    """The output sequences of a chain of layers, from its initial states."""
    chain = snn.Sequential(*layers)

    def run(x: Array, key: Array | None) -> Array:
        states = chain.init_states(key, input_shape=jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        return chain(states, x, key)[1][-1]

    return jax.vmap(run, in_axes=(0, None if keys is None else 0))(xs, keys)


def _rate(layers: list[Any], scaled: int, xs: Array, keys: Array | None, gain: float) -> float:
    """The mean firing rate at the end of a chain in which the weights of one layer are multiplied by `gain`."""
    # The gain is an array, so that layers are compiled once, and those of equal shape together.
    layers = [*layers[:scaled], _scaled(layers[scaled], jnp.float32(gain)), *layers[scaled + 1 :]]
    return float(jnp.mean(_run(layers, xs, keys) != 0, dtype=jnp.float32))


def _search(rate_at: Callable[[float], float], target: float, tolerance: float, where: str) -> float:
    """The gain at which a rate that grows with it is nearest to the target; bisection of its logarithm.

    **Raises:** `ValueError` when the rate does not cross the target.
    """
    rates = {1.0: rate_at(1.0)}
    if abs(rates[1.0] - target) <= tolerance * target:
        return 1.0
    below = rates[1.0] < target
    gain = inner = 1.0
    while (rates[gain] < target) == below:
        if len(rates) > BRACKET:
            reach = f"between {min(rates.values()):.3g} and {max(rates.values()):.3g}"
            raise ValueError(
                f"{where} cannot be made to fire at the rate {target}: weights {FACTOR:g}**{BRACKET} times "
                f"{'larger' if below else 'smaller'} gave rates {reach} spikes per time step. Its input must not be "
                "silent, its bias must not decide alone, nothing before it may undo the scale (normalisation): "
                "choose another rate or other layers"
            )
        inner, gain = gain, gain * (FACTOR if below else 1 / FACTOR)
        rates[gain] = rate_at(gain)
    low, high = sorted((inner, gain))
    for _ in range(HALVINGS):
        if min(abs(rates[low] - target), abs(rates[high] - target)) <= tolerance * target:
            break
        middle = math.sqrt(low * high)
        rates[middle] = rate_at(middle)
        low, high = (middle, high) if rates[middle] < target else (low, middle)
    # A layer that is silent is worse than any rate.
    return min((low, high), key=lambda gain: (rates[gain] == 0, abs(rates[gain] - target)))
