"""SLSTM and SConv2dLSTM: spiking LSTM cells."""

from typing import Any

import equinox as eqx
import jax
import snntorch

from snnax import snn

from ...converters.context import ConversionContext
from ._neuron import firing_options, neuron_converter, reset_of


def _build_slstm(module: Any, context: ConversionContext) -> snn.SLSTM:
    cell = eqx.filter_eval_shape(
        lambda: snn.SLSTM(
            module.input_size, module.hidden_size, reset=reset_of(module, context),
            use_bias=module.bias, key=jax.random.key(0),
        )
    )  # fmt: skip
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    arrays = [context.parameter(f"lstm_cell.{name}") for name in names]
    return _with_firing(cell, names, arrays, module, context.with_shape(module.hidden_size))


def _build_sconv2dlstm(module: Any, context: ConversionContext) -> snn.SConvLSTM:
    kernel = _pair(module.kernel_size)
    if any(each % 2 == 0 for each in kernel):
        raise context.refuse("kernel_size", kernel, allowed="odd sizes", advice="snnTorch itself fails on even ones")
    pool = None
    if module.max_pool:
        pool = snn.MaxPool(_pair(module.max_pool))
    elif module.avg_pool:
        pool = snn.AvgPool(_pair(module.avg_pool))
    cell = eqx.filter_eval_shape(
        lambda: snn.SConvLSTM(
            module.in_channels, module.out_channels, kernel, reset=reset_of(module, context),
            pool=pool, use_bias=module.bias, key=jax.random.key(0),
        )
    )  # fmt: skip
    names = ["weight", *(["bias"] if module.bias else [])]
    arrays = [context.parameter(f"conv.{name}") for name in names]
    return _with_firing(cell, names, arrays, module, context.with_shape(module.out_channels, *context.x_shape[1:]))


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _with_firing(cell: Any, names: list[str], arrays: list[Any], module: Any, context: ConversionContext) -> Any:
    """A cell with the arrays of the module; `context` has the shape of its neurons."""
    firing = snn.Firing(
        context.neuron_parameter("threshold"),
        reset_of(module, context),
        reset_delay=True,
        keep_input=False,
        **firing_options(module, context, inhibits=False),
    )
    places = lambda cell: [getattr(cell, name) for name in names] + [cell.firing]  # noqa: E731
    return eqx.tree_at(places, cell, [*arrays, firing])


def _forgets(module: Any) -> str:
    if module.input_size == module.hidden_size:
        return ""
    return (
        f"input_size {module.input_size} differs from hidden_size {module.hidden_size}, so snnTorch zeroes both states "
        "at every time step, and so does the conversion: the cell has no memory"
    )


def _unheard(module: Any) -> str:
    return "inhibition=True is ignored, as in snnTorch" if module.inhibition else ""


SLSTM = neuron_converter(
    snntorch.SLSTM,
    "input_size hidden_size bias",
    {"syn": "c", "mem": "v"},
    _build_slstm,
    needed=lambda module, shape: tuple(shape),
    caveat=lambda module: "; ".join(filter(None, (_forgets(module), _unheard(module)))),
)
SCONV2DLSTM = neuron_converter(
    snntorch.SConv2dLSTM,
    "in_channels out_channels kernel_size bias max_pool avg_pool",
    {"syn": "c", "mem": "v"},
    _build_sconv2dlstm,
    shape=lambda module, shape: (shape[0], module.out_channels, *shape[2:]),
    caveat=_unheard,
)
