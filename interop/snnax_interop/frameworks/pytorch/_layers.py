"""Which layers of torch.nn are converted as a whole, with their options and inputs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from torch import nn

from ...converters.context import ConversionContext
from ...converters.layer import LayerConverter
from ...ops import ELEMENTWISE
from ._build import (
    AFFINE,
    build_attention,
    build_batch_norm,
    build_cell,
    build_conv,
    build_distance,
    build_dropout,
    build_embedding,
    build_embedding_bag,
    build_function,
    build_instance_norm,
    build_linear,
    build_pad,
    build_pool,
    build_recurrent,
    build_rnn_cell,
    build_rrelu,
    build_softmax,
    build_transposed,
    build_upsample,
)


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
    build = build_function(op, *options.split())
    return _layer(kind, build, options, inputs, acts_on="elements" if op in ELEMENTWISE else None)


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
        _layer(nn.Linear, build_linear, "in_features out_features bias", acts_on="last axis"),
        _layer(
            nn.Bilinear,
            build_function("bilinear", parameters=AFFINE),
            "in1_features in2_features out_features bias",
            "input1 input2",
        ),
        _layer(nn.Embedding, build_embedding, f"{_EMBEDDING} _freeze"),
        _layer(nn.EmbeddingBag, build_embedding_bag, f"{_EMBEDDING} mode include_last_offset",
              "input offsets per_sample_weights"),
        *_layers("Conv", build_conv, _CONV),
        *_layers("ConvTranspose", build_transposed, _TRANSPOSED),
        _layer(nn.RNNCell, build_rnn_cell, f"{_CELL} nonlinearity", "input hx"),
        _layer(nn.LSTMCell, build_cell("lstm_cell"), _CELL, "input hx"),
        _layer(nn.GRUCell, build_cell("gru_cell"), _CELL, "input hx"),
        _layer(nn.RNN, build_recurrent, f"{_RECURRENT} nonlinearity", "input hx"),
        _layer(nn.LSTM, build_recurrent, f"{_RECURRENT} proj_size", "input hx"),
        _layer(nn.GRU, build_recurrent, _RECURRENT, "input hx"),
        _layer(nn.MultiheadAttention, build_attention, _ATTENTION, _ATTENTION_INPUTS),
        *_layers("MaxPool", lambda n: build_pool(f"max_pool{n}d", *_MAX_POOL.split()), f"{_MAX_POOL} return_indices"),
        *_layers("AdaptiveMaxPool", lambda n: build_pool(f"adaptive_max_pool{n}d", "output_size"),
                 "output_size return_indices"),
        *_layers("AvgPool", lambda n: build_function(f"avg_pool{n}d", *_AVG_POOL.split()), _AVG_POOL, 1),
        *_layers("AvgPool", lambda n: build_function(f"avg_pool{n}d", *_AVG_POOL.split(), "divisor_override"),
                 f"{_AVG_POOL} divisor_override", 2, 3),
        *_layers("AdaptiveAvgPool", lambda n: build_function(f"adaptive_avg_pool{n}d", "output_size"), "output_size"),
        *_layers("LPPool", lambda n: build_function(f"lp_pool{n}d", *_LP_POOL.split()), _LP_POOL),
        *_layers("BatchNorm", lambda _: build_batch_norm, _BATCH_NORM),
        _layer(nn.SyncBatchNorm, build_batch_norm, f"{_BATCH_NORM} process_group"),
        *_layers("InstanceNorm", lambda _: build_instance_norm, _BATCH_NORM),
        _layer(nn.LayerNorm, build_function("layer_norm", "normalized_shape", "eps", parameters=AFFINE),
              "normalized_shape eps elementwise_affine bias"),
        _layer(nn.RMSNorm, build_function("rms_norm", "normalized_shape", "eps", parameters=("weight",)),
              "normalized_shape eps elementwise_affine"),
        _layer(nn.GroupNorm, build_function("group_norm", "num_groups", "eps", parameters=AFFINE),
              "num_groups num_channels eps affine bias"),
        _function(nn.LocalResponseNorm, "local_response_norm", "size alpha beta k"),
        _layer(nn.Dropout, build_dropout, _DROPOUT, draws=True),
        *_layers("Dropout", lambda _: build_dropout, _DROPOUT, draws=True),
        _layer(nn.AlphaDropout, build_dropout, _DROPOUT),
        _layer(nn.FeatureAlphaDropout, build_dropout, _DROPOUT),
        *(
            layer
            for name, mode in _PADS.items()
            for layer in _layers(f"{name}Pad", lambda _, mode=mode: build_pad(mode), "padding")
        ),
        *_layers("ConstantPad", lambda _: build_pad("constant"), "padding value"),
        _layer(nn.Upsample, build_upsample, "size scale_factor mode align_corners recompute_scale_factor"),
        _layer(nn.UpsamplingNearest2d, build_upsample, "size scale_factor"),
        _layer(nn.UpsamplingBilinear2d, build_upsample, "size scale_factor"),
        _layer(nn.Identity, lambda module, context: eqx.nn.Identity(), ""),
        _layer(nn.PReLU, build_function("prelu", parameters=("weight",)), "num_parameters init"),
        _layer(nn.RReLU, build_rrelu, "lower upper inplace"),
        _layer(nn.Softmax, build_softmax("softmax"), "dim"),
        _layer(nn.Softmin, build_softmax("softmin"), "dim"),
        _layer(nn.LogSoftmax, build_softmax("log_softmax"), "dim"),
        _layer(nn.Softmax2d, lambda module, context: context.call("softmax", dim=-3), ""),
        _layer(nn.Hardtanh, build_function("hardtanh", "min_val", "max_val"),
              "min_val max_val inplace min_value max_value"),
        _function(nn.Flatten, "flatten", "start_dim end_dim"),
        _function(nn.Unflatten, "unflatten", "dim unflattened_size"),
        _function(nn.PixelShuffle, "pixel_shuffle", "upscale_factor"),
        _function(nn.PixelUnshuffle, "pixel_unshuffle", "downscale_factor"),
        _function(nn.ChannelShuffle, "channel_shuffle", "groups"),
        _function(nn.Unfold, "im2col", "kernel_size dilation padding stride"),
        _function(nn.Fold, "fold", "output_size kernel_size dilation padding stride"),
        _function(nn.CosineSimilarity, "cosine_similarity", "dim eps", "x1 x2"),
        _layer(nn.PairwiseDistance, build_distance, "p eps keepdim", "x1 x2"),
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
