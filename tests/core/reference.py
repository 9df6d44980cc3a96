"""An independent reference: neurons in NumPy, with derivatives carried forward by dual numbers.

Nothing here uses JAX or snnax. Every equation is written as the literature and the frameworks write it: the reset of
snnTorch as `mem - (spk - reset) * threshold`, the synapse as a loop over its four orders.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Dual:
    """A value of every neuron `(n,)`, and its derivatives with respect to the parameters `(parameters, n)`."""

    value: np.ndarray
    tangent: np.ndarray

    def __add__(self, other):
        other = lift(other, self)
        return Dual(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other):
        other = lift(other, self)
        return Dual(self.value * other.value, self.value * other.tangent + other.value * self.tangent)

    def __sub__(self, other):
        return self + lift(other, self) * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return lift(other, self) - self


def lift(other: Any, like: Dual) -> Dual:
    if isinstance(other, Dual):
        return other
    return Dual(np.broadcast_to(np.asarray(other, float), like.value.shape), np.zeros_like(like.tangent))


def detached(x: Dual) -> Dual:
    return lift(x.value, x)


def spike(u: Dual, at_threshold: bool, slope: float = 10.0) -> Dual:
    """The step function with the derivative of SuperSpike."""
    value = (u.value >= 0) if at_threshold else (u.value > 0)
    return Dual(value.astype(float), u.tangent / (1 + slope * np.abs(u.value)) ** 2)


def parameters(values: dict[str, float], size: int) -> dict[str, Dual]:
    """Scalar parameters as seen by `size` neurons, each with its own direction of derivatives."""
    directions = np.eye(len(values))
    return {
        name: Dual(np.full(size, value), np.repeat(directions[:, [index]], size, axis=1))
        for index, (name, value) in enumerate(values.items())
    }


def neuron(
    xs: np.ndarray,
    first_v: np.ndarray,
    first_i: np.ndarray,
    given: dict[str, float],
    *,
    reset: str = "none",
    reset_delay: Any = False,
    detach_reset: bool = True,
    spike_at_threshold: bool = False,
    winner_take_all: bool = False,
    synapse_order: str | None = None,
    input_scale: str = "unit",
) -> tuple[list[Dual], Dual, Dual]:
    """Spikes of every time step, last membrane, last current, for inputs `(time, n)` that are multiplied by `gain`.

    Without a `threshold` the neuron does not spike and the first result holds the membranes.
    """
    p = parameters(given, xs.shape[1])
    beta = p["decay_mem"]
    v, i = lift(first_v, beta), lift(first_i, beta)
    outs: list[Dual] = []
    for x in xs:
        drive = p["gain"] * x
        if synapse_order == "decay-jump-read":
            i = p["decay_syn"] * i + drive
            drive = i
        elif synapse_order == "jump-read-decay":
            drive = i + drive
            i = p["decay_syn"] * drive
        elif synapse_order == "read-decay-jump":
            drive, i = i, p["decay_syn"] * i + drive
        elif synapse_order == "jump-decay-read":
            i = p["decay_syn"] * (i + drive)
            drive = i

        def charged(v, drive=drive):
            if input_scale == "unit":
                return beta * v + drive
            return beta * v + (1.0 - beta) * (p["v_leak"] + drive)

        if "threshold" not in p:
            v = charged(v)
            outs.append(v)
            continue
        v, z = _fire(v, charged, p, reset, reset_delay, detach_reset, spike_at_threshold, winner_take_all)
        outs.append(z * p.get("amplitude", 1.0))
    return outs, v, i


def _fire(v, charged, p, reset, reset_delay, detach_reset, spike_at_threshold, winner_take_all):
    theta = p["threshold"]
    target = p["v_reset"] if reset == "value" else 0.0
    late = spike(v - theta, spike_at_threshold)
    if detach_reset or reset_delay == "undone":
        late = detached(late)
    if not reset_delay or reset == "none":
        mem = charged(v)
    elif reset == "subtract":
        mem = charged(v) - late * theta
    else:
        mem = charged(v - late * (v - target))
    z = spike(mem - theta, spike_at_threshold)
    if winner_take_all:
        z = z * (np.arange(len(mem.value)) == np.argmax((mem - theta).value))
    now = detached(z) if detach_reset else z
    if reset == "none" or reset_delay is True:
        return mem, z
    do_reset = now - late if reset_delay == "undone" else now
    if reset == "subtract":
        return mem - do_reset * theta, z
    return mem - do_reset * (mem - target), z
