"""The layers of torch.nn."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from torch import nn

from snnax import snn

from ..converters.context import ConversionContext
from ..converters.framework import Framework, RecordedClasses, full_name
from ..converters.layer import LayerConverter
from ..nodes.dropout import FeatureDropout
from ..nodes.wrappers import ChannelsSecond
from ..ops import ELEMENTWISE, conv_padding


def _with_parameters(make: Callable[[jax.Array], Any], context: ConversionContext, shapes: dict[str, Any]) -> Any:
    """An Equinox layer that holds the module's parameters in the given shapes (None: as they are)."""
    layer = eqx.filter_eval_shape(make, jax.random.key(0))
    names = [name for name in shapes if getattr(context.module, name) is not None]
    arrays = [context.parameter(name, shapes[name]) for name in names]
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in names], layer, arrays)


def _build_linear(module: Any, context: ConversionContext) -> Any:
    if context.batch_axis != 0 or len(context.x_shape) != 1:
        return context.call("linear", "weight", "bias")
    use_bias = module.bias is not None
    return _with_parameters(
        lambda key: eqx.nn.Linear(module.in_features, module.out_features, use_bias, key=key),
        context,
        {"weight": None, "bias": None},
    )


def _build_conv(spatial: int) -> Callable[[Any, ConversionContext], Any]:
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


def _build_embedding(module: Any, context: ConversionContext) -> Any:
    _check_embedding(module, context)
    return context.call("embedding", "weight", padding_idx=module.padding_idx)


def _build_embedding_bag(module: Any, context: ConversionContext) -> Any:
    _check_embedding(module, context)
    return context.call("embedding_bag", "weight", mode=module.mode, padding_idx=module.padding_idx)


def _check_embedding(module: Any, context: ConversionContext) -> None:
    for option, allowed in (("max_norm", None), ("scale_grad_by_freq", False)):
        _check_option(module, context, option, allowed, "Bound the weights in training, after the update")


def _build_cell(op: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh"} | (
            {"b_ih": "bias_ih", "b_hh": "bias_hh"} if module.bias else {}
        )
        return context.call(op, **{name: context.parameter(key) for name, key in names.items()})

    return build


def _build_rnn_cell(module: Any, context: ConversionContext) -> Any:
    return _build_cell(f"rnn_{module.nonlinearity}_cell")(module, context)


def _build_recurrent(module: Any, context: ConversionContext) -> Any:
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


def _build_attention(module: Any, context: ConversionContext) -> Any:
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


def _build_pool(op: str, *options: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        _check_option(module, context, "return_indices", False, "Unpooling cannot be converted")
        return _build_function(op, *options)(module, context)

    return build


def _build_distance(module: Any, context: ConversionContext) -> Any:
    return context.call("pairwise_distance", p=module.norm, eps=module.eps, keepdim=module.keepdim)


def _build_rrelu(module: Any, context: ConversionContext) -> Any:
    if module.training:
        raise context.refuse("training", True, allowed="evaluation mode", advice="Call module.eval() before converting")
    return context.call("leaky_relu", negative_slope=(module.lower + module.upper) / 2)


def _build_transposed(spatial: int) -> Callable[[Any, ConversionContext], Any]:
    options = ("stride", "padding", "output_padding", "groups", "dilation")
    return _build_function(f"conv_transpose{spatial}d", *options, parameters=_AFFINE)


def _build_instance_norm(module: Any, context: ConversionContext) -> Any:
    if not module.track_running_stats:
        return context.call("instance_norm", "weight", "bias", eps=module.eps)
    return _build_norm("batch_norm", *_NORM)(module, context)


def _build_upsample(module: Any, context: ConversionContext) -> Any:
    modes = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic")
    if module.mode not in modes:
        raise context.refuse("mode", module.mode, allowed=", ".join(modes), advice="Use one of these")
    options = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    return _build_function("interpolate", *options)(module, context)


def _build_pad(mode: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        return context.call("pad", pad=module.padding, mode=mode, value=getattr(module, "value", 0.0))

    return build


def _build_dropout(module: Any, context: ConversionContext) -> Any:
    if not module.training or module.p == 0:
        return eqx.nn.Identity()
    kind = type(module)
    if kind is not nn.Dropout and context.batch_axis != 0:
        raise context.refuse(
            "training", True, allowed="evaluation mode, or inputs whose first axis is the batch",
            advice="Call module.eval() before converting",
        )  # fmt: skip
    return eqx.nn.Dropout(module.p) if kind is nn.Dropout else FeatureDropout(module.p)


def _build_norm(op: str, *names: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        if module.training or not module.track_running_stats:
            raise context.refuse(
                "training", module.training, allowed="evaluation mode with running statistics",
                advice="Call module.eval() before converting",
            )  # fmt: skip
        return context.call(op, *names, eps=module.eps)

    return build


def _build_batch_norm(module: Any, context: ConversionContext) -> Any:
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
    names |= {name: name for name in _AFFINE if getattr(module, name) is not None}
    norm = eqx.tree_at(
        lambda norm: [getattr(norm, name) for name in names], norm, [context.parameter(key) for key in names.values()]
    )
    return norm if context.batch_axis == 0 else ChannelsSecond(norm)


def _build_function(
    op: str, *options: str, parameters: tuple[str, ...] = ()
) -> Callable[[Any, ConversionContext], Any]:
    """A function of the input, of parameters of the module, and of the attributes that it takes as options."""

    def build(module: Any, context: ConversionContext) -> Any:
        return context.call(op, *parameters, **{name: getattr(module, name) for name in options})

    return build


def _build_softmax(op: str) -> Callable[[Any, ConversionContext], Any]:
    def build(module: Any, context: ConversionContext) -> Any:
        if module.dim is None:
            raise context.refuse("dim", None, allowed="an axis", advice="torch guesses the axis from the rank; name it")
        return context.call(op, dim=module.dim)

    return build


def _layer(
    kind: type, build: Callable[[Any, ConversionContext], Any], options: str, inputs: str = "input", **others: Any
) -> LayerConverter:
    """The converter of a class; the constructor's arguments and the inputs of its operation, separated by spaces."""
    return LayerConverter(
        kind=kind,
        framework="torch",
        options=tuple(options.split()),
        build=build,
        inputs=tuple(inputs.split()),
        **others,
    )


def _layers(
    name: str,
    build: Callable[[int], Callable[[Any, ConversionContext], Any]],
    options: str,
    *dimensions: int,
    **others: Any,
) -> list[LayerConverter]:
    """A layer that torch has for several numbers of spatial axes."""
    return [
        _layer(getattr(nn, f"{name}{spatial}d"), build(spatial), options, **others)
        for spatial in dimensions or (1, 2, 3)
    ]


def _function(kind: type, op: str, options: str = "", inputs: str = "input") -> LayerConverter:
    """A class whose constructor's arguments are all options of its operation."""
    build = _build_function(op, *options.split())
    return _layer(kind, build, options, inputs, acts_on="elements" if op in ELEMENTWISE else None)


_AFFINE = ("weight", "bias")
_NORM = ("running_mean", "running_var", "weight", "bias")
_PADS = {"Zero": "constant", "Reflection": "reflect", "Replication": "replicate", "Circular": "circular"}
_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_TRANSPOSED = f"{_CONV} output_padding"
_MAX_POOL = "kernel_size stride padding dilation ceil_mode"
_AVG_POOL = "kernel_size stride padding ceil_mode count_include_pad"
_LP_POOL = "norm_type kernel_size stride ceil_mode"
_BATCH_NORM = "num_features eps momentum affine track_running_stats bias"
_DROPOUT = "p inplace"
_CELL = "input_size hidden_size bias"
_RECURRENT = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_ATTENTION = "embed_dim num_heads dropout bias add_bias_kv add_zero_attn kdim vdim batch_first"
_ATTENTION_INPUTS = "query key value key_padding_mask need_weights attn_mask average_attn_weights is_causal"
_EMBEDDING = "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse _weight"

LAYERS = {
    layer.kind: layer
    for layer in (
        _layer(nn.Linear, _build_linear, "in_features out_features bias", acts_on="last axis"),
        _layer(
            nn.Bilinear,
            _build_function("bilinear", parameters=_AFFINE),
            "in1_features in2_features out_features bias",
            "input1 input2",
        ),
        _layer(nn.Embedding, _build_embedding, f"{_EMBEDDING} _freeze"),
        _layer(nn.EmbeddingBag, _build_embedding_bag, f"{_EMBEDDING} mode include_last_offset",
              "input offsets per_sample_weights"),
        *_layers("Conv", _build_conv, _CONV),
        *_layers("ConvTranspose", _build_transposed, _TRANSPOSED),
        _layer(nn.RNNCell, _build_rnn_cell, f"{_CELL} nonlinearity", "input hx"),
        _layer(nn.LSTMCell, _build_cell("lstm_cell"), _CELL, "input hx"),
        _layer(nn.GRUCell, _build_cell("gru_cell"), _CELL, "input hx"),
        _layer(nn.RNN, _build_recurrent, f"{_RECURRENT} nonlinearity", "input hx"),
        _layer(nn.LSTM, _build_recurrent, f"{_RECURRENT} proj_size", "input hx"),
        _layer(nn.GRU, _build_recurrent, _RECURRENT, "input hx"),
        _layer(nn.MultiheadAttention, _build_attention, _ATTENTION, _ATTENTION_INPUTS),
        *_layers("MaxPool", lambda n: _build_pool(f"max_pool{n}d", *_MAX_POOL.split()), f"{_MAX_POOL} return_indices"),
        *_layers("AdaptiveMaxPool", lambda n: _build_pool(f"adaptive_max_pool{n}d", "output_size"),
                 "output_size return_indices"),
        *_layers("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL.split()), _AVG_POOL, 1),
        *_layers("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL.split(), "divisor_override"),
                 f"{_AVG_POOL} divisor_override", 2, 3),
        *_layers("AdaptiveAvgPool", lambda n: _build_function(f"adaptive_avg_pool{n}d", "output_size"), "output_size"),
        *_layers("LPPool", lambda n: _build_function(f"lp_pool{n}d", *_LP_POOL.split()), _LP_POOL),
        *_layers("BatchNorm", lambda _: _build_batch_norm, _BATCH_NORM),
        _layer(nn.SyncBatchNorm, _build_batch_norm, f"{_BATCH_NORM} process_group"),
        *_layers("InstanceNorm", lambda _: _build_instance_norm, _BATCH_NORM),
        _layer(nn.LayerNorm, _build_function("layer_norm", "normalized_shape", "eps", parameters=_AFFINE),
              "normalized_shape eps elementwise_affine bias"),
        _layer(nn.RMSNorm, _build_function("rms_norm", "normalized_shape", "eps", parameters=("weight",)),
              "normalized_shape eps elementwise_affine"),
        _layer(nn.GroupNorm, _build_function("group_norm", "num_groups", "eps", parameters=_AFFINE),
              "num_groups num_channels eps affine bias"),
        _function(nn.LocalResponseNorm, "local_response_norm", "size alpha beta k"),
        _layer(nn.Dropout, _build_dropout, _DROPOUT, draws=True),
        *_layers("Dropout", lambda _: _build_dropout, _DROPOUT, draws=True),
        _layer(nn.AlphaDropout, _build_dropout, _DROPOUT),
        _layer(nn.FeatureAlphaDropout, _build_dropout, _DROPOUT),
        *(
            layer
            for name, mode in _PADS.items()
            for layer in _layers(f"{name}Pad", lambda _, mode=mode: _build_pad(mode), "padding")
        ),
        *_layers("ConstantPad", lambda _: _build_pad("constant"), "padding value"),
        _layer(nn.Upsample, _build_upsample, "size scale_factor mode align_corners recompute_scale_factor"),
        _layer(nn.UpsamplingNearest2d, _build_upsample, "size scale_factor"),
        _layer(nn.UpsamplingBilinear2d, _build_upsample, "size scale_factor"),
        _layer(nn.Identity, lambda module, context: eqx.nn.Identity(), ""),
        _layer(nn.PReLU, _build_function("prelu", parameters=("weight",)), "num_parameters init"),
        _layer(nn.RReLU, _build_rrelu, "lower upper inplace"),
        _layer(nn.Softmax, _build_softmax("softmax"), "dim"),
        _layer(nn.Softmin, _build_softmax("softmin"), "dim"),
        _layer(nn.LogSoftmax, _build_softmax("log_softmax"), "dim"),
        _layer(nn.Softmax2d, lambda module, context: context.call("softmax", dim=-3), ""),
        _layer(nn.Hardtanh, _build_function("hardtanh", "min_val", "max_val"),
              "min_val max_val inplace min_value max_value"),
        _function(nn.Flatten, "flatten", "start_dim end_dim"),
        _function(nn.Unflatten, "unflatten", "dim unflattened_size"),
        _function(nn.PixelShuffle, "pixel_shuffle", "upscale_factor"),
        _function(nn.PixelUnshuffle, "pixel_unshuffle", "downscale_factor"),
        _function(nn.ChannelShuffle, "channel_shuffle", "groups"),
        _function(nn.Unfold, "im2col", "kernel_size dilation padding stride"),
        _function(nn.Fold, "fold", "output_size kernel_size dilation padding stride"),
        _function(nn.CosineSimilarity, "cosine_similarity", "dim eps", "x1 x2"),
        _layer(nn.PairwiseDistance, _build_distance, "p eps keepdim", "x1 x2"),
        _function(nn.ReLU, "relu", "inplace"),
        _function(nn.ReLU6, "relu6", "inplace"),
        _function(nn.LeakyReLU, "leaky_relu", "negative_slope inplace"),
        _function(nn.ELU, "elu", "alpha inplace"),
        _function(nn.SELU, "selu", "inplace"),
        _function(nn.CELU, "celu", "alpha inplace"),
        _function(nn.GELU, "gelu", "approximate"),
        _function(nn.SiLU, "silu", "inplace"),
        _function(nn.Mish, "mish", "inplace"),
        _function(nn.Hardswish, "hardswish", "inplace"),
        _function(nn.Hardsigmoid, "hardsigmoid", "inplace"),
        _function(nn.Softplus, "softplus", "beta threshold"),
        _function(nn.Softsign, "softsign"),
        _function(nn.Softshrink, "softshrink", "lambd"),
        _function(nn.Hardshrink, "hardshrink", "lambd"),
        _function(nn.Tanhshrink, "tanhshrink"),
        _function(nn.Threshold, "threshold", "threshold value inplace"),
        _function(nn.Sigmoid, "sigmoid"),
        _function(nn.LogSigmoid, "log_sigmoid"),
        _function(nn.Tanh, "tanh"),
        _function(nn.GLU, "glu", "dim"),
    )
}  # fmt: skip


# Classes made of other modules, by name: some are private, or cost time to import.
_MADE_OF_OTHERS = {
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.nn.utils.parametrize.ParametrizationList",
    "torch.nn.utils.parametrizations._WeightNorm",
    "torch.nn.utils.parametrizations._SpectralNorm",
    "torch.nn.modules.transformer.Transformer",
    "torch.nn.modules.transformer.TransformerEncoderLayer",
    "torch.nn.modules.transformer.TransformerDecoderLayer",
    "torch.nn.modules.transformer.TransformerEncoder",
    "torch.nn.modules.transformer.TransformerDecoder",
}

FRAMEWORK = Framework(
    name="torch",
    converters=LAYERS,
    recorded=RecordedClasses(takes=lambda kind: full_name(kind) in _MADE_OF_OTHERS),
)
