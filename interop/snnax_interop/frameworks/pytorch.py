"""The layers of torch.nn."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from torch import nn

from snnax import snn

from ..converters.context import Site
from ..converters.leaf import Leaf
from ..nodes.dropout import FeatureDropout
from ..nodes.wrappers import ChannelsSecond
from ..ops import ELEMENTWISE, conv_padding


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


def leaf_of(module: nn.Module) -> Leaf:
    """The leaf of a torch layer, also of a framework's subclass of it."""
    return next(LEAVES[kind] for kind in type(module).__mro__ if kind in LEAVES)


def _check_option(module: Any, site: Site, option: str, allowed: Any, advice: str) -> None:
    found = getattr(module, option)
    if found != allowed:
        raise leaf_of(module).refuse(site.path, option, found, allowed=repr(allowed), advice=advice)


def _build_embedding(module: Any, site: Site) -> Any:
    _check_embedding(module, site)
    return site.call("embedding", "weight", padding_idx=module.padding_idx)


def _build_embedding_bag(module: Any, site: Site) -> Any:
    _check_embedding(module, site)
    return site.call("embedding_bag", "weight", mode=module.mode, padding_idx=module.padding_idx)


def _check_embedding(module: Any, site: Site) -> None:
    for option, allowed in (("max_norm", None), ("scale_grad_by_freq", False)):
        _check_option(module, site, option, allowed, "Bound the weights in training, after the update")


def _build_cell(op: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh"} | (
            {"b_ih": "bias_ih", "b_hh": "bias_hh"} if module.bias else {}
        )
        return site.call(op, **{name: site.parameter(key) for name, key in names.items()})

    return build


def _build_rnn_cell(module: Any, site: Site) -> Any:
    return _build_cell(f"rnn_{module.nonlinearity}_cell")(module, site)


def _build_recurrent(module: Any, site: Site) -> Any:
    # Dropout in training mode draws random numbers, which the recording refuses.
    return site.call(
        module.mode.lower(),
        params=[site.parameter(name) for name in module._flat_weights_names],
        has_biases=module.bias,
        num_layers=module.num_layers,
        dropout=0.0,
        train=False,
        bidirectional=module.bidirectional,
        batch_first=module.batch_first,
    )


def _build_attention(module: Any, site: Site) -> Any:
    matrices = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    parameters: dict[str, Any] = dict.fromkeys((*matrices, "in_proj_bias", "bias_k", "bias_v"))
    parameters |= {name: site.parameter(name) for name in parameters if getattr(module, name) is not None}
    return site.call(
        "multi_head_attention_forward",
        **parameters,
        embed_dim_to_check=module.embed_dim,
        num_heads=module.num_heads,
        add_zero_attn=module.add_zero_attn,
        dropout_p=0.0,
        out_proj_weight=site.parameter("out_proj.weight"),
        out_proj_bias=None if module.out_proj.bias is None else site.parameter("out_proj.bias"),
        training=False,
        use_separate_proj_weight=not module._qkv_same_embed_dim,
        batch_first=module.batch_first,
    )


def _build_pool(op: str, *options: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        _check_option(module, site, "return_indices", False, "Unpooling cannot be converted")
        return _build_function(op, *options)(module, site)

    return build


def _build_distance(module: Any, site: Site) -> Any:
    return site.call("pairwise_distance", p=module.norm, eps=module.eps, keepdim=module.keepdim)


def _build_rrelu(module: Any, site: Site) -> Any:
    if module.training:
        raise leaf_of(module).refuse(
            site.path, "training", True, allowed="evaluation mode", advice="Call module.eval() before converting"
        )
    return site.call("leaky_relu", negative_slope=(module.lower + module.upper) / 2)


def _build_transposed(spatial: int) -> Callable[[Any, Site], Any]:
    options = ("stride", "padding", "output_padding", "groups", "dilation")
    return _build_function(f"conv_transpose{spatial}d", *options, parameters=_AFFINE)


def _build_instance_norm(module: Any, site: Site) -> Any:
    if not module.track_running_stats:
        return site.call("instance_norm", "weight", "bias", eps=module.eps)
    return _build_norm("batch_norm", *_NORM)(module, site)


def _build_upsample(module: Any, site: Site) -> Any:
    modes = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic")
    if module.mode not in modes:
        raise leaf_of(module).refuse(
            site.path, "mode", module.mode, allowed=", ".join(modes), advice="Use one of these"
        )
    options = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    return _build_function("interpolate", *options)(module, site)


def _build_pad(mode: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        return site.call("pad", pad=module.padding, mode=mode, value=getattr(module, "value", 0.0))

    return build


def _build_dropout(module: Any, site: Site) -> Any:
    if not module.training or module.p == 0:
        return eqx.nn.Identity()
    kind = type(module)
    if kind is not nn.Dropout and site.batch_axis != 0:
        raise leaf_of(module).refuse(
            site.path, "training", True, allowed="evaluation mode, or inputs whose first axis is the batch",
            advice="Call module.eval() before converting",
        )  # fmt: skip
    return eqx.nn.Dropout(module.p) if kind is nn.Dropout else FeatureDropout(module.p)


def _build_norm(op: str, *names: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        if module.training or not module.track_running_stats:
            raise leaf_of(module).refuse(
                site.path, "training", module.training, allowed="evaluation mode with running statistics",
                advice="Call module.eval() before converting",
            )  # fmt: skip
        return site.call(op, *names, eps=module.eps)

    return build


def _build_batch_norm(module: Any, site: Site) -> Any:
    """In evaluation mode a function of the running statistics; in training a layer that keeps them as its state."""
    if not module.training:
        return _build_norm("batch_norm", *_NORM)(module, site)
    for option, allowed in (("track_running_stats", True), ("momentum", "a number")):
        if not getattr(module, option):
            raise leaf_of(module).refuse(
                site.path, option, getattr(module, option), allowed=str(allowed),
                advice="Set it, or call module.eval() before converting",
            )  # fmt: skip
    if site.batch_axis not in (0, None):
        raise leaf_of(module).refuse(
            site.path, "training", True, allowed="the batch as the first axis", advice="Permute before the layer"
        )
    norm = snn.BatchNorm(
        module.num_features,
        axis_name=site.axis_name,
        momentum=module.momentum,
        epsilon=module.eps,
        use_weight=module.weight is not None,
        use_bias=module.bias is not None,
    )
    names = {"mean": "running_mean", "var": "running_var"}
    names |= {name: name for name in _AFFINE if getattr(module, name) is not None}
    norm = eqx.tree_at(
        lambda norm: [getattr(norm, name) for name in names], norm, [site.parameter(key) for key in names.values()]
    )
    return norm if site.batch_axis == 0 else ChannelsSecond(norm)


def _build_function(op: str, *options: str, parameters: tuple[str, ...] = ()) -> Callable[[Any, Site], Any]:
    """A function of the input, of parameters of the module, and of the attributes that it takes as options."""

    def build(module: Any, site: Site) -> Any:
        return site.call(op, *parameters, **{name: getattr(module, name) for name in options})

    return build


def _build_softmax(op: str) -> Callable[[Any, Site], Any]:
    def build(module: Any, site: Site) -> Any:
        if module.dim is None:
            raise leaf_of(module).refuse(
                site.path, "dim", None, allowed="an axis", advice="torch guesses the axis from the rank; name it"
            )
        return site.call(op, dim=module.dim)

    return build


def _leaf(kind: type, build: Callable[[Any, Site], Any], options: str, inputs: str = "input") -> Leaf:
    """The leaf of a class, with its constructor's arguments and the inputs of its operation, separated by spaces."""
    return Leaf(kind, "torch", tuple(options.split()), build, inputs=tuple(inputs.split()))


def _leaves(
    name: str, build: Callable[[int], Callable[[Any, Site], Any]], options: str, *dimensions: int
) -> list[Leaf]:
    """A layer that torch has for several numbers of spatial axes."""
    return [_leaf(getattr(nn, f"{name}{spatial}d"), build(spatial), options) for spatial in dimensions or (1, 2, 3)]


def _function(kind: type, op: str, options: str = "", inputs: str = "input") -> Leaf:
    """A class whose constructor's arguments are all options of its operation."""
    leaf = _leaf(kind, _build_function(op, *options.split()), options, inputs)
    return dataclasses.replace(leaf, acts_on="elements" if op in ELEMENTWISE else None)


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

LEAVES = {
    leaf.kind: leaf
    for leaf in (
        dataclasses.replace(_leaf(nn.Linear, _build_linear, "in_features out_features bias"), acts_on="last axis"),
        _leaf(
            nn.Bilinear,
            _build_function("bilinear", parameters=_AFFINE),
            "in1_features in2_features out_features bias",
            "input1 input2",
        ),
        _leaf(nn.Embedding, _build_embedding, f"{_EMBEDDING} _freeze"),
        _leaf(nn.EmbeddingBag, _build_embedding_bag, f"{_EMBEDDING} mode include_last_offset",
              "input offsets per_sample_weights"),
        *_leaves("Conv", _build_conv, _CONV),
        *_leaves("ConvTranspose", _build_transposed, _TRANSPOSED),
        _leaf(nn.RNNCell, _build_rnn_cell, f"{_CELL} nonlinearity", "input hx"),
        _leaf(nn.LSTMCell, _build_cell("lstm_cell"), _CELL, "input hx"),
        _leaf(nn.GRUCell, _build_cell("gru_cell"), _CELL, "input hx"),
        _leaf(nn.RNN, _build_recurrent, f"{_RECURRENT} nonlinearity", "input hx"),
        _leaf(nn.LSTM, _build_recurrent, f"{_RECURRENT} proj_size", "input hx"),
        _leaf(nn.GRU, _build_recurrent, _RECURRENT, "input hx"),
        _leaf(nn.MultiheadAttention, _build_attention, _ATTENTION, _ATTENTION_INPUTS),
        *_leaves("MaxPool", lambda n: _build_pool(f"max_pool{n}d", *_MAX_POOL.split()), f"{_MAX_POOL} return_indices"),
        *_leaves("AdaptiveMaxPool", lambda n: _build_pool(f"adaptive_max_pool{n}d", "output_size"),
                 "output_size return_indices"),
        *_leaves("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL.split()), _AVG_POOL, 1),
        *_leaves("AvgPool", lambda n: _build_function(f"avg_pool{n}d", *_AVG_POOL.split(), "divisor_override"),
                 f"{_AVG_POOL} divisor_override", 2, 3),
        *_leaves("AdaptiveAvgPool", lambda n: _build_function(f"adaptive_avg_pool{n}d", "output_size"), "output_size"),
        *_leaves("LPPool", lambda n: _build_function(f"lp_pool{n}d", *_LP_POOL.split()), _LP_POOL),
        *_leaves("BatchNorm", lambda _: _build_batch_norm, _BATCH_NORM),
        _leaf(nn.SyncBatchNorm, _build_batch_norm, f"{_BATCH_NORM} process_group"),
        *_leaves("InstanceNorm", lambda _: _build_instance_norm, _BATCH_NORM),
        _leaf(nn.LayerNorm, _build_function("layer_norm", "normalized_shape", "eps", parameters=_AFFINE),
              "normalized_shape eps elementwise_affine bias"),
        _leaf(nn.RMSNorm, _build_function("rms_norm", "normalized_shape", "eps", parameters=("weight",)),
              "normalized_shape eps elementwise_affine"),
        _leaf(nn.GroupNorm, _build_function("group_norm", "num_groups", "eps", parameters=_AFFINE),
              "num_groups num_channels eps affine bias"),
        _function(nn.LocalResponseNorm, "local_response_norm", "size alpha beta k"),
        *(
            dataclasses.replace(leaf, draws=True)
            for leaf in (
                _leaf(nn.Dropout, _build_dropout, _DROPOUT),
                *_leaves("Dropout", lambda _: _build_dropout, _DROPOUT),
            )
        ),
        _leaf(nn.AlphaDropout, _build_dropout, _DROPOUT),
        _leaf(nn.FeatureAlphaDropout, _build_dropout, _DROPOUT),
        *(
            leaf
            for name, mode in _PADS.items()
            for leaf in _leaves(f"{name}Pad", lambda _, mode=mode: _build_pad(mode), "padding")
        ),
        *_leaves("ConstantPad", lambda _: _build_pad("constant"), "padding value"),
        _leaf(nn.Upsample, _build_upsample, "size scale_factor mode align_corners recompute_scale_factor"),
        _leaf(nn.UpsamplingNearest2d, _build_upsample, "size scale_factor"),
        _leaf(nn.UpsamplingBilinear2d, _build_upsample, "size scale_factor"),
        _leaf(nn.Identity, lambda module, site: eqx.nn.Identity(), ""),
        _leaf(nn.PReLU, _build_function("prelu", parameters=("weight",)), "num_parameters init"),
        _leaf(nn.RReLU, _build_rrelu, "lower upper inplace"),
        _leaf(nn.Softmax, _build_softmax("softmax"), "dim"),
        _leaf(nn.Softmin, _build_softmax("softmin"), "dim"),
        _leaf(nn.LogSoftmax, _build_softmax("log_softmax"), "dim"),
        _leaf(nn.Softmax2d, lambda module, site: site.call("softmax", dim=-3), ""),
        _leaf(nn.Hardtanh, _build_function("hardtanh", "min_val", "max_val"),
              "min_val max_val inplace min_value max_value"),
        _function(nn.Flatten, "flatten", "start_dim end_dim"),
        _function(nn.Unflatten, "unflatten", "dim unflattened_size"),
        _function(nn.PixelShuffle, "pixel_shuffle", "upscale_factor"),
        _function(nn.PixelUnshuffle, "pixel_unshuffle", "downscale_factor"),
        _function(nn.ChannelShuffle, "channel_shuffle", "groups"),
        _function(nn.Unfold, "im2col", "kernel_size dilation padding stride"),
        _function(nn.Fold, "fold", "output_size kernel_size dilation padding stride"),
        _function(nn.CosineSimilarity, "cosine_similarity", "dim eps", "x1 x2"),
        _leaf(nn.PairwiseDistance, _build_distance, "p eps keepdim", "x1 x2"),
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
