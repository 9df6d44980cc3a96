"""The layers of torch.nn."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from torch import nn

from ..leaf import Leaf
from ..ops import conv_padding
from ..weights import Site


def _with_parameters(make: Callable[[jax.Array], Any], site: Site, shapes: dict[str, Any]) -> Any:
    """An Equinox layer that holds the module's parameters in the given shapes (None: as they are)."""
    layer = eqx.filter_eval_shape(make, jax.random.key(0))
    names = [name for name in shapes if getattr(site.module, name) is not None]
    arrays = [site.parameter(name, shapes[name]) for name in names]
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in names], layer, arrays)


def _build_linear(module: Any, site: Site) -> Any:
    if site.batch_axis != 0 or len(site.x_shape) != 1:
        return site.call("linear", "weight", "bias")
    use_bias = module.bias is not None
    return _with_parameters(
        lambda key: eqx.nn.Linear(module.in_features, module.out_features, use_bias, key=key),
        site,
        {"weight": None, "bias": None},
    )


def _build_conv(spatial: int, layer: type) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        if module.padding_mode != "zeros":
            raise LEAVES[type(module)].refuse(
                site.path, "padding_mode", module.padding_mode, allowed="'zeros'", advice="Pad before the layer"
            )
        geometry = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
        if site.batch_axis != 0 or len(site.x_shape) != spatial + 1:
            return site.call(f"conv{spatial}d", "weight", "bias", **geometry)
        geometry["padding"] = conv_padding(module.padding, module.kernel_size, module.dilation)
        channels = (module.in_channels, module.out_channels, module.kernel_size)
        return _with_parameters(
            lambda key: layer(*channels, **geometry, use_bias=module.bias is not None, key=key),
            site,
            {"weight": None, "bias": (module.out_channels, *(1,) * spatial)},
        )

    return build


def _build_dropout(module: Any, site: Site) -> Any:
    if module.training and module.p > 0:
        raise LEAVES[type(module)].refuse(
            site.path, "p", module.p, allowed="evaluation mode", advice="Call module.eval() before converting"
        )
    return eqx.nn.Identity()


def _build_norm(op: str, *names: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        if module.training or not module.track_running_stats:
            raise LEAVES[type(module)].refuse(
                site.path, "training", module.training, allowed="evaluation mode with running statistics",
                advice="Call module.eval() before converting",
            )  # fmt: skip
        return site.call(op, *names, eps=module.eps)

    return build


def _build_function(op: str, *options: str) -> Callable[[Any, Site], Any]:
    """A layer without parameters: a function and the attributes that it takes as options."""

    def build(module: Any, site: Site) -> Any:
        return site.call(op, **{name: getattr(module, name) for name in options})

    return build


def _build_softmax(op: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        if module.dim is None:
            raise LEAVES[type(module)].refuse(
                site.path, "dim", None, allowed="an axis", advice="torch guesses the axis from the rank; name it"
            )
        return site.call(op, dim=module.dim)

    return build


def _leaf(kind: type, build: Callable[[Any, Site], Any]) -> Leaf:
    # Every argument of these classes is stored under its own name, and read or refused by `build`.
    return Leaf(kind, "torch", tuple(inspect.signature(kind).parameters), build)


_POOL = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_AVG_1D = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_NORM = ("running_mean", "running_var", "weight", "bias")

LEAVES = {
    leaf.kind: leaf
    for leaf in (
        _leaf(nn.Linear, _build_linear),
        _leaf(nn.Conv1d, _build_conv(1, eqx.nn.Conv1d)),
        _leaf(nn.Conv2d, _build_conv(2, eqx.nn.Conv2d)),
        _leaf(nn.MaxPool1d, _build_function("max_pool1d", *_POOL)),
        _leaf(nn.MaxPool2d, _build_function("max_pool2d", *_POOL)),
        _leaf(nn.AvgPool1d, _build_function("avg_pool1d", *_AVG_1D)),
        _leaf(nn.AvgPool2d, _build_function("avg_pool2d", *_AVG_1D, "divisor_override")),
        _leaf(nn.AdaptiveAvgPool1d, _build_function("adaptive_avg_pool1d", "output_size")),
        _leaf(nn.AdaptiveAvgPool2d, _build_function("adaptive_avg_pool2d", "output_size")),
        _leaf(nn.BatchNorm1d, _build_norm("batch_norm", *_NORM)),
        _leaf(nn.BatchNorm2d, _build_norm("batch_norm", *_NORM)),
        _leaf(nn.Dropout, _build_dropout),
        _leaf(nn.Dropout1d, _build_dropout),
        _leaf(nn.Dropout2d, _build_dropout),
        _leaf(nn.Flatten, _build_function("flatten", "start_dim", "end_dim")),
        _leaf(nn.Unflatten, _build_function("unflatten", "dim", "unflattened_size")),
        _leaf(nn.Identity, lambda module, site: eqx.nn.Identity()),
        _leaf(nn.ReLU, _build_function("relu")),
        _leaf(nn.LeakyReLU, _build_function("leaky_relu", "negative_slope")),
        _leaf(nn.ELU, _build_function("elu", "alpha")),
        _leaf(nn.GELU, _build_function("gelu", "approximate")),
        _leaf(nn.SiLU, _build_function("silu")),
        _leaf(nn.Softplus, _build_function("softplus", "beta", "threshold")),
        _leaf(nn.Hardtanh, _build_function("hardtanh", "min_val", "max_val")),
        _leaf(nn.Sigmoid, _build_function("sigmoid")),
        _leaf(nn.Tanh, _build_function("tanh")),
        _leaf(nn.Softmax, _build_softmax("softmax")),
        _leaf(nn.LogSoftmax, _build_softmax("log_softmax")),
    )
}
