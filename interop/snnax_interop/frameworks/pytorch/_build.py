"""The layers of torch.nn as layers of Equinox, or as functions of their parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from torch import nn

from snnax import snn

from ...converters.context import ConversionContext
from ...nodes.dropout import FeatureDropout, SharedDropout
from ...nodes.wrappers import ChannelsSecond
from ...ops import conv_padding


# The parameters of most layers, and all that a normalisation keeps.
AFFINE = ("weight", "bias")
_NORM = ("running_mean", "running_var", "weight", "bias")


def _with_parameters(make: Callable[[jax.Array], Any], context: ConversionContext, shapes: dict[str, Any]) -> Any:
    """An Equinox layer that holds the module's parameters in the given shapes (None: as they are)."""
    layer = eqx.filter_eval_shape(make, jax.random.key(0))
    names = [name for name in shapes if getattr(context.module, name) is not None]
    arrays = [context.parameter(name, shapes[name]) for name in names]
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in names], layer, arrays)


def build_linear(module: Any, context: ConversionContext) -> Any:
    if context.batch_axis != 0 or len(context.x_shape) != 1:
        return context.call("linear", "weight", "bias")
    use_bias = module.bias is not None
    return _with_parameters(
        lambda key: eqx.nn.Linear(module.in_features, module.out_features, use_bias, key=key),
        context,
        {"weight": None, "bias": None},
    )


def build_conv(spatial: int) -> Callable[[Any, ConversionContext], Any]:
    layer = getattr(eqx.nn, f"Conv{spatial}d")

    def build(module: Any, context: ConversionContext) -> Any:
        geometry = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
        if context.batch_axis != 0 or len(context.x_shape) != spatial + 1 or module.padding_mode != "zeros":
            return context.call(f"conv{spatial}d", "weight", "bias", **geometry, padding_mode=module.padding_mode)
        geometry["padding"] = conv_padding(module.padding, module.kernel_size, module.dilation)
        channels = (module.in_channels, module.out_channels, module.kernel_size)
        return _with_parameters(
            lambda key: layer(*channels, **geometry, use_bias=module.bias is not None, key=key),
            context,
            {"weight": None, "bias": (module.out_channels, *(1,) * spatial)},
        )

    return build


def _check_option(module: Any, context: ConversionContext, option: str, allowed: Any, advice: str) -> None:
    found = getattr(module, option)
    if found != allowed:
        raise context.refuse(option, found, allowed=repr(allowed), advice=advice)


def build_embedding(module: Any, context: ConversionContext) -> Any:
    _check_embedding(module, context)
    return context.call("embedding", "weight", padding_idx=module.padding_idx)


def build_embedding_bag(module: Any, context: ConversionContext) -> Any:
    _check_embedding(module, context)
    return context.call("embedding_bag", "weight", mode=module.mode, padding_idx=module.padding_idx)


def _check_embedding(module: Any, context: ConversionContext) -> None:
    for option, allowed in (("max_norm", None), ("scale_grad_by_freq", False)):
        _check_option(module, context, option, allowed, "Bound the weights in training, after the update")


def build_cell(op: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh"} | (
            {"b_ih": "bias_ih", "b_hh": "bias_hh"} if module.bias else {}
        )
        return context.call(op, **{name: context.parameter(key) for name, key in names.items()})

    return build


def build_rnn_cell(module: Any, context: ConversionContext) -> Any:
    return build_cell(f"rnn_{module.nonlinearity}_cell")(module, context)


def build_recurrent(module: Any, context: ConversionContext) -> Any:
    # Dropout in training mode draws random numbers, which the recording refuses.
    return context.call(
        module.mode.lower(),
        params=[context.parameter(name) for name in module._flat_weights_names],
        has_biases=module.bias,
        num_layers=module.num_layers,
        dropout=0.0,
        train=False,
        bidirectional=module.bidirectional,
        batch_first=module.batch_first,
    )


def build_attention(module: Any, context: ConversionContext) -> Any:
    matrices = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    parameters: dict[str, Any] = dict.fromkeys((*matrices, "in_proj_bias", "bias_k", "bias_v"))
    parameters |= {name: context.parameter(name) for name in parameters if getattr(module, name) is not None}
    return context.call(
        "multi_head_attention_forward",
        **parameters,
        embed_dim_to_check=module.embed_dim,
        num_heads=module.num_heads,
        add_zero_attn=module.add_zero_attn,
        dropout_p=0.0,
        out_proj_weight=context.parameter("out_proj.weight"),
        out_proj_bias=None if module.out_proj.bias is None else context.parameter("out_proj.bias"),
        training=False,
        use_separate_proj_weight=not module._qkv_same_embed_dim,
        batch_first=module.batch_first,
    )


def build_pool(op: str, *options: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        _check_option(module, context, "return_indices", False, "Unpooling cannot be converted")
        return build_function(op, *options)(module, context)

    return build


def build_distance(module: Any, context: ConversionContext) -> Any:
    return context.call("pairwise_distance", p=module.norm, eps=module.eps, keepdim=module.keepdim)


def build_rrelu(module: Any, context: ConversionContext) -> Any:
    if module.training:
        raise context.refuse("training", True, allowed="evaluation mode", advice="Call module.eval() before converting")
    return context.call("leaky_relu", negative_slope=(module.lower + module.upper) / 2)


def build_transposed(spatial: int) -> Callable[[Any, ConversionContext], Any]:
    options = ("stride", "padding", "output_padding", "groups", "dilation")
    return build_function(f"conv_transpose{spatial}d", *options, parameters=AFFINE)


def build_instance_norm(module: Any, context: ConversionContext) -> Any:
    if not module.track_running_stats:
        return context.call("instance_norm", "weight", "bias", eps=module.eps)
    return _build_norm("batch_norm", *_NORM)(module, context)


def build_upsample(module: Any, context: ConversionContext) -> Any:
    modes = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic")
    if module.mode not in modes:
        raise context.refuse("mode", module.mode, allowed=", ".join(modes), advice="Use one of these")
    options = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    return build_function("interpolate", *options)(module, context)


def build_pad(mode: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        return context.call("pad", pad=module.padding, mode=mode, value=getattr(module, "value", 0.0))

    return build


def build_dropout(module: Any, context: ConversionContext) -> Any:
    if not module.training or module.p == 0:
        return eqx.nn.Identity()
    kind = type(module)
    if kind is not nn.Dropout and context.batch_axis != 0:
        raise context.refuse(
            "training", True, allowed="evaluation mode, or inputs whose first axis is the batch",
            advice="Call module.eval() before converting",
        )  # fmt: skip
    if kind is not nn.Dropout:
        return FeatureDropout(module.p)
    dropout = eqx.nn.Dropout(module.p)
    is_shared = context.axis_name is not None and context.batch_axis is None and not context.folded
    return SharedDropout(dropout) if is_shared else dropout


def _build_norm(op: str, *names: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        if module.training or not module.track_running_stats:
            raise context.refuse(
                "training", module.training, allowed="evaluation mode with running statistics",
                advice="Call module.eval() before converting",
            )  # fmt: skip
        return context.call(op, *names, eps=module.eps)

    return build


def build_batch_norm(module: Any, context: ConversionContext) -> Any:
    """In evaluation mode a function of the running statistics; in training a layer that keeps them as its state."""
    if not module.training:
        return _build_norm("batch_norm", *_NORM)(module, context)
    for option, allowed in (("track_running_stats", True), ("momentum", "a number")):
        if not getattr(module, option):
            raise context.refuse(
                option, getattr(module, option), allowed=str(allowed),
                advice="Set it, or call module.eval() before converting",
            )  # fmt: skip
    if context.batch_axis not in (0, None):
        raise context.refuse("training", True, allowed="the batch as the first axis", advice="Permute before the layer")
    norm = snn.BatchNorm(
        module.num_features,
        axis_name=context.axis_name,
        momentum=module.momentum,
        epsilon=module.eps,
        use_weight=module.weight is not None,
        use_bias=module.bias is not None,
    )
    names = {"mean": "running_mean", "var": "running_var"}
    names |= {name: name for name in AFFINE if getattr(module, name) is not None}
    norm = eqx.tree_at(
        lambda norm: [getattr(norm, name) for name in names], norm, [context.parameter(key) for key in names.values()]
    )
    return norm if context.batch_axis == 0 else ChannelsSecond(norm)


def build_function(op: str, *options: str, parameters: tuple[str, ...] = ()) -> Callable[[Any, ConversionContext], Any]:
    """A function of the input, of parameters of the module, and of the attributes that it takes as options."""

    def build(module: Any, context: ConversionContext) -> Any:
        return context.call(op, *parameters, **{name: getattr(module, name) for name in options})

    return build


def build_softmax(op: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        if module.dim is None:
            raise context.refuse("dim", None, allowed="an axis", advice="torch guesses the axis from the rank; name it")
        return context.call(op, dim=module.dim)

    return build
