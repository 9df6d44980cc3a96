"""Recurrent cells and layers, in torch's order of gates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._activations import relu
from ._layers import linear
from .mixing import Mixing, Operand, last, whole
from .registry import op


# From W_i x + b_i, W_h h + b_h and the state: the new state, its first array the output.
Step = Callable[[Array, Array, tuple[Array, ...]], tuple[Array, ...]]


def rnn_step(activation: Callable[[Array], Array]) -> Step:
    return lambda given, recurrent, state: (activation(given + recurrent),)


def lstm_step(given: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    i, f, g, o = jnp.split(given + recurrent, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru_step(given: Array, recurrent: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    reset, update, new = jnp.split(given, 3, axis=-1)
    reset_h, update_h, new_h = jnp.split(recurrent, 3, axis=-1)
    candidate = jnp.tanh(new + jax.nn.sigmoid(reset + reset_h) * new_h)
    z = jax.nn.sigmoid(update + update_h)
    return ((1 - z) * candidate + z * state[0],)


def cell(step: Step) -> Callable[..., Array | tuple[Array, ...]]:
    def cell(input, hx: Any = None, w_ih=None, w_hh=None, b_ih=None, b_hh=None):
        """The state `hx` is an array, or several; None is zeros."""
        assert w_ih is not None and w_hh is not None
        zeros = jnp.zeros((*input.shape[:-1], w_hh.shape[1]), input.dtype)
        state = (zeros, zeros) if hx is None else hx if isinstance(hx, list | tuple) else (hx,)
        output, *others = step(linear(input, w_ih, b_ih), linear(state[0], w_hh, b_hh), tuple(state))
        return (output, *others) if others else output

    return cell


def recurrent(step: Step, states: int) -> Callable[..., tuple[Array, ...]]:
    """A stack of cells over a sequence on axis 0, or 1 of a batch with `batch_first`."""

    def run(
        input: Array,
        hx: Array | Sequence[Array] | None = None,
        params: Sequence[Array] = (),
        has_biases: bool = True,
        num_layers: int = 1,
        dropout: float = 0.0,
        train: bool = False,
        bidirectional: bool = False,
        batch_first: bool = False,
    ) -> tuple[Array, ...]:
        if train and dropout > 0:
            raise NotImplementedError("dropout between the layers (training mode)")
        swapped = batch_first and input.ndim == 3
        xs = jnp.swapaxes(input, 0, 1) if swapped else input
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        projects = each == (5 if has_biases else 3)
        if hx is None:
            widths = (params[0].shape[0] // 4,) * 2 if states == 2 else (params[1].shape[1],)
            widths = (params[each - 1].shape[0], *widths[1:]) if projects else widths
            hx = [jnp.zeros((num_layers * directions, *xs.shape[1:-1], width), xs.dtype) for width in widths]
        initial = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
        finals = []
        for layer in range(num_layers):
            outs = []
            for number in range(layer * directions, (layer + 1) * directions):
                own = params[number * each : (number + 1) * each]
                state = tuple(array[number] for array in initial)
                final, out = _scan(step, xs, state, own, has_biases, projects, reverse=number % directions == 1)
                outs.append(out)
                finals.append(final)
            xs = jnp.concatenate(outs, axis=-1)
        out = jnp.swapaxes(xs, 0, 1) if swapped else xs
        return (out, *(jnp.stack(arrays) for arrays in zip(*finals, strict=True)))

    return run


def _scan(step: Step, xs: Array, state, params, has_biases: bool, projects: bool, reverse: bool):
    w_ih, w_hh, *rest = params
    b_ih, b_hh = rest[:2] if has_biases else (None, None)

    def advance(state, given):
        new = step(given, linear(state[0], w_hh, b_hh), state)
        new = (linear(new[0], rest[-1]), *new[1:]) if projects else new
        return new, new[0]

    return jax.lax.scan(advance, state, linear(xs, w_ih, b_ih), reverse=reverse)


def _not_the_batch(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """All but the batch, which is axis 1, or 0 of a sequence with `batch_first`."""
    batch = 0 if operand.name == "input" and arguments["batch_first"] else 1
    return [axis for axis in range(operand.rank) if operand.rank < 3 or axis != batch]


for _name, _step, _states in (
    ("rnn_tanh", rnn_step(jnp.tanh), 1),
    ("rnn_relu", rnn_step(relu), 1),
    ("lstm", lstm_step, 2),
    ("gru", gru_step, 1),
):
    op(_name, axes=Mixing(_not_the_batch))(recurrent(_step, _states))
    op(f"{_name}_cell", axes=last(1, of=("input", "hx")) | whole("w_ih", "w_hh", "b_ih", "b_hh"))(cell(_step))
