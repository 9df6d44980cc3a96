"""The layers of the core against the framework that each of them is at home in: outputs, states and gradients.

As for the neurons: in float64, over batches of sequences, from states that are not at rest; nothing here goes through
the converter. Parameters are those of the framework's module, under its names, and all of them are compared.

Left out is what these layers do not have: snnTorch's SLSTM with other sizes of input and hidden state (it zeroes its
states), `inhibition` of both its LSTMs (which they ignore), `reset_delay=False` of RSynaptic (likewise),
`LeakyParallel(dropout)` (likewise), `state_quant`, a BatchNorm without or with averaged running statistics, and
`ceil_mode`, `dilation`, `count_include_pad=False` and `divisor_override` of torch's pooling.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from norse.torch import LIFParameters, LIFRecurrentCell
from norse.torch.functional.lif import LIFState

from snnax import snn, surrogate


NUM_STEPS, BATCH, SIZE, DT = 20, 3, 6, 1e-3
KEY = jax.random.key(0)
ATAN = surrogate.ATan(2.0)  # the default of snnTorch


@pytest.fixture(autouse=True)
def double_precision(monkeypatch):
    """snnTorch casts spikes with `.float()`, which would round thresholds and gradients that meet them."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer twice, on sequences `(time, batch, ...)`: a module with its loop in torch, and a function in JAX.

    `loop(module, xs, *states)` and `run(parameters, xs, *states)` return outputs and final states. `x` and `states` are
    the shapes of one sample; outputs of an `exact` layer are spikes, or otherwise equal to the last bit.
    """

    module: Callable[[], torch.nn.Module]
    loop: Callable[..., Any]
    run: Callable[..., Any]
    x: tuple[int, ...] = (SIZE,)
    states: tuple[tuple[int, ...], ...] = ()
    exact: bool = True
    binary: bool = False
    scale: float = 1.0


CASES: dict[str, Case] = {}


def ramp(shape, offset=0.0):
    return np.cos(np.arange(1.0, np.prod(shape) + 1) + offset).reshape(shape)


def filled(module, scale=1.0):
    """The module with other weights and biases than those it drew."""
    with torch.no_grad():
        for index, (name, value) in enumerate(module.named_parameters()):
            if "weight" in name or "bias" in name:
                value.copy_(torch.tensor(scale * ramp(value.shape, index)))
    return module


def stepped(module, xs, *states):
    """A loop over a module that returns its output first and its states last."""
    outs = []
    for x in xs:
        out = module(x, *states)
        outs.append(out[0])
        states = out[-len(states) :]
    return torch.stack(outs), states


def placed(layer, **values):
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in values], layer, list(values.values()))


def batched(model, states, xs, axis: int | None = 0):
    states, outs = jax.vmap(model, in_axes=(axis, 1), out_axes=(0, 1), axis_name="batch")(states, xs)
    return outs[-1], states


def layers(build, pack, read):
    """What runs the layers that `build` makes of parameters, of which the last has a state."""

    def run(p, xs, *states):
        built = build(p)
        outs, after = batched(snn.Sequential(*built), [None] * (len(built) - 1) + [pack(*states)], xs)
        return outs, read(after[-1])

    return run


# LSTMs


def slstm(p, prefix, reset="none"):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values = {name: p[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in p}
    hidden, size = values["weight_hh"].shape[1], values["weight_ih"].shape[1]
    threshold = p.get("threshold", 0.1)
    options: Any = {"use_bias": "bias_ih" in values, "surrogate": ATAN, "key": KEY}
    return placed(snn.SLSTM(size, hidden, threshold, reset, **options), **values)


def lstm_state(c, v):
    return snn.LSTMState(v, c)


for reset in ("none", "subtract", "zero"):
    for bias in (True, False):
        CASES[f"snntorch SLSTM {reset} bias={bias}"] = Case(
            lambda reset=reset, bias=bias: filled(
                snntorch.SLSTM(SIZE, SIZE, bias, threshold=0.1, learn_threshold=True, reset_mechanism=reset)
            ),
            stepped,
            layers(lambda p, reset=reset: [slstm(p, "lstm_cell.", reset)], lstm_state, lambda s: (s.c, s.v)),
            states=((SIZE,),) * 2,
        )
