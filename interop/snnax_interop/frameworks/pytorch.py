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


def _build_conv(spatial: int) -> Callable[[Any, Site], Any]:
    layer = getattr(eqx.nn, f"Conv{spatial}d")

    def build(module: Any, site: Site) -> Any:
        geometry = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
        if site.batch_axis != 0 or len(site.x_shape) != spatial + 1 or module.padding_mode != "zeros":
            return site.call(f"conv{spatial}d", "weight", "bias", **geometry, padding_mode=module.padding_mode)
        geometry["padding"] = conv_padding(module.padding, module.kernel_size, module.dilation)
        channels = (module.in_channels, module.out_channels, module.kernel_size)
        return _with_parameters(
            lambda key: layer(*channels, **geometry, use_bias=module.bias is not None, key=key),
            site,
            {"weight": None, "bias": (module.out_channels, *(1,) * spatial)},
        )

    return build


def _build_embedding(module: Any, site: Site) -> Any:
    for option, allowed in (("max_norm", None), ("scale_grad_by_freq", False)):
        if getattr(module, option) != allowed:
            raise LEAVES[type(module)].refuse(
                site.path, option, getattr(module, option), allowed=repr(allowed),
                advice="Bound the weights in training, after the update",
            )  # fmt: skip
    return site.call("embedding", "weight", padding_idx=module.padding_idx)


def _build_instance_norm(module: Any, site: Site) -> Any:
    if not module.track_running_stats:
        return site.call("instance_norm", "weight", "bias", eps=module.eps)
    return _build_norm("batch_norm", *_NORM)(module, site)


def _build_upsample(module: Any, site: Site) -> Any:
    if module.mode not in ("nearest", "linear", "bilinear", "trilinear"):
        raise LEAVES[type(module)].refuse(
            site.path, "mode", module.mode, allowed="nearest, linear, bilinear, trilinear", advice="Use one of these"
        )
    return _build_function("interpolate", *_UPSAMPLE)(module, site)


def _build_pad(mode: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        return site.call("pad", pad=module.padding, mode=mode, value=getattr(module, "value", 0.0))

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


def _build_function(op: str, *options: str, parameters: tuple[str, ...] = ()) -> Callable[[Any, Site], Any]:
    """A function of the input, of parameters of the module, and of the attributes that it takes as options."""

    def build(module: Any, site: Site) -> Any:
        return site.call(op, *parameters, **{name: getattr(module, name) for name in options})

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


def _leaves(name: str, build: Callable[[int], Callable[[Any, Site], Any]], *dimensions: int) -> list[Leaf]:
    """A layer that torch has for several numbers of spatial axes."""
    return [_leaf(getattr(nn, f"{name}{spatial}d"), build(spatial)) for spatial in dimensions or (1, 2, 3)]


_POOL = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_AFFINE = ("weight", "bias")
_NORM = ("running_mean", "running_var", "weight", "bias")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
_UPSAMPLE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
_PADS = {"Zero": "constant", "Constant": "constant", "Reflection": "reflect", "Replication": "replicate",
         "Circular": "circular"}  # fmt: skip
# Functions of the input alone: the operation, and the attributes that it takes as options.
_FUNCTIONS: dict[type, tuple[str, ...]] = {
    nn.Flatten: ("flatten", "start_dim", "end_dim"),
    nn.Unflatten: ("unflatten", "dim", "unflattened_size"),
    nn.PixelShuffle: ("pixel_shuffle", "upscale_factor"),
    nn.PixelUnshuffle: ("pixel_unshuffle", "downscale_factor"),
    nn.ReLU: ("relu",),
    nn.ReLU6: ("relu6",),
    nn.LeakyReLU: ("leaky_relu", "negative_slope"),
    nn.ELU: ("elu", "alpha"),
    nn.SELU: ("selu",),
    nn.CELU: ("celu", "alpha"),
    nn.GELU: ("gelu", "approximate"),
    nn.SiLU: ("silu",),
    nn.Mish: ("mish",),
    nn.Hardswish: ("hardswish",),
    nn.Hardsigmoid: ("hardsigmoid",),
    nn.Softplus: ("softplus", "beta", "threshold"),
    nn.Softsign: ("softsign",),
    nn.Softshrink: ("softshrink", "lambd"),
    nn.Hardshrink: ("hardshrink", "lambd"),
    nn.Tanhshrink: ("tanhshrink",),
    nn.Hardtanh: ("hardtanh", "min_val", "max_val"),
    nn.Threshold: ("threshold", "threshold", "value"),
    nn.Sigmoid: ("sigmoid",),
    nn.LogSigmoid: ("log_sigmoid",),
    nn.Tanh: ("tanh",),
    nn.GLU: ("glu", "dim"),
}

LEAVES = {
    leaf.kind: leaf
    for leaf in (
        _leaf(nn.Linear, _build_linear),
        _leaf(nn.Embedding, _build_embedding),
        *_leaves("Conv", _build_conv),
        *_leaves("ConvTranspose", lambda n: _build_function(f"conv_transpose{n}d", *_TRANSPOSED, parameters=_AFFINE)),
        *_leaves("MaxPool", lambda n: _build_function(f"max_pool{n}d", *_POOL)),
        *_leaves("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL), 1),
        *_leaves("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL, "divisor_override"), 2, 3),
        *_leaves("AdaptiveAvgPool", lambda n: _build_function(f"adaptive_avg_pool{n}d", "output_size")),
        *_leaves("BatchNorm", lambda _: _build_norm("batch_norm", *_NORM)),
        *_leaves("InstanceNorm", lambda _: _build_instance_norm),
        _leaf(nn.LayerNorm, _build_function("layer_norm", "normalized_shape", "eps", parameters=_AFFINE)),
        _leaf(nn.GroupNorm, _build_function("group_norm", "num_groups", "eps", parameters=_AFFINE)),
        _leaf(nn.Dropout, _build_dropout),
        *_leaves("Dropout", lambda _: _build_dropout),
        _leaf(nn.AlphaDropout, _build_dropout),
        *(
            leaf
            for name, mode in _PADS.items()
            for leaf in _leaves(f"{name}Pad", lambda _, mode=mode: _build_pad(mode))
        ),
        _leaf(nn.Upsample, _build_upsample),
        _leaf(nn.Identity, lambda module, site: eqx.nn.Identity()),
        _leaf(nn.PReLU, _build_function("prelu", parameters=("weight",))),
        _leaf(nn.Softmax, _build_softmax("softmax")),
        _leaf(nn.Softmin, _build_softmax("softmin")),
        _leaf(nn.LogSoftmax, _build_softmax("log_softmax")),
        *(_leaf(kind, _build_function(op, *options)) for kind, (op, *options) in _FUNCTIONS.items()),
    )
}
