"""Every tensor function against torch: values and gradients, on ties, zeros and bounds too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from snnax_interop.nodes.markers import unseen_write
from snnax_interop.ops import ELEMENTWISE, MIXING, OPS, Steps, op_name


def _random(*shape, seed=0, scale=2.0):
    """Numbers on a coarse grid: ties, zeros and the bounds of the functions below all occur."""
    return np.asarray(np.round(np.random.default_rng(seed).normal(size=shape) * scale * 4) / 4)


def _positive(*shape, seed=0):
    return np.abs(_random(*shape, seed=seed)) + 0.5


X = _random(2, 3, 4)
Y = _random(2, 3, 4, seed=1)
IMAGE = _random(2, 3, 8, 6)
SPIKES = (_random(2, 3, 8, 6, seed=5) > 0).astype(np.float64)
SIGNAL = _random(2, 3, 9)
MASK = X > 0
WHOLE = np.arange(-6, 7)
UNUSUAL = np.where(MASK, np.inf, np.where(Y > 0, np.nan, X))


def _batch_norm(input, mean, variance, *args, **kwargs):
    return F.batch_norm(input, mean.detach(), variance.detach(), *args, **kwargs)


def _recurrent(function):
    """torch's recurrent layers, with the settings by name as the operations have them."""

    def run(input, hx, params, has_biases, num_layers, bidirectional=False, batch_first=False):
        return function(input, hx, params, has_biases, num_layers, 0.0, False, bidirectional, batch_first)

    return run


def _undifferentiated(function):
    """Functions whose gradient torch does not define."""
    return lambda *args: function(*(each.detach() if isinstance(each, torch.Tensor) else each for each in args))


def _stack_of_cells(gates, inputs, hidden, *, layers=1, directions=1, biases=True, projection=None):
    """The parameters of a recurrent layer, in torch's order."""
    out = hidden if projection is None else projection
    shapes = []
    for layer in range(layers):
        for _ in range(directions):
            shapes += [(gates * hidden, inputs if layer == 0 else out * directions), (gates * hidden, out)]
            shapes += [(gates * hidden,)] * 2 if biases else []
            shapes += [] if projection is None else [(projection, hidden)]
    return [_random(*shape, seed=seed, scale=0.5) for seed, shape in enumerate(shapes)]


SEQUENCE = _random(5, 2, 3, seed=8)
CELL = (_random(2, 3), _random(2, 4, seed=1))
EMBEDDED = [_random(6, 2, 4, seed=seed) for seed in range(3)]
MULTI_HEAD = ("multi_head_attention_forward", F.multi_head_attention_forward)
ATTENTION = (4, 2, _random(12, 4, seed=4, scale=0.5), _random(12, seed=5))
PROJECTION = (False, 0.0, _random(4, 4, seed=6, scale=0.5), _random(4, seed=7))
SEPARATE = {
    f"{name}_proj_weight": _random(4, width, seed=seed, scale=0.5)
    for seed, (name, width) in enumerate((("q", 4), ("k", 3), ("v", 5)))
}
PADDING = MASK[:, 0, [0, 1, 2, 3, 1, 1]]
BOTTOM = np.array([[False, True, True], [False, False, True], [True, True, True]])

# Name, torch's function, arguments (arrays become tensors), keyword arguments.
ROWS = [
    *(
        (f"rnn_{name}_cell", getattr(torch, f"rnn_{name}_cell"), (*CELL, *_stack_of_cells(1, 3, 4)), {})
        for name in ("tanh", "relu")
    ),
    ("gru_cell", torch.gru_cell, (*CELL, *_stack_of_cells(3, 3, 4)), {}),
    ("gru_cell", torch.gru_cell, (*CELL, *_stack_of_cells(3, 3, 4, biases=False)), {}),
    ("lstm_cell", torch.lstm_cell, (CELL[0], [CELL[1], _random(2, 4, seed=2)], *_stack_of_cells(4, 3, 4)), {}),
    *(
        (f"rnn_{name}", _recurrent(getattr(torch, f"rnn_{name}")),
         (SEQUENCE, _random(1, 2, 4), _stack_of_cells(1, 3, 4), True, 1), {})
        for name in ("tanh", "relu")
    ),
    ("gru", _recurrent(torch.gru),
     (SEQUENCE, _random(4, 2, 4), _stack_of_cells(3, 3, 4, layers=2, directions=2), True, 2),
     {"bidirectional": True}),
    ("gru", _recurrent(torch.gru),
     (SEQUENCE, _random(1, 5, 4), _stack_of_cells(3, 3, 4, biases=False), False, 1), {"batch_first": True}),
    ("lstm", _recurrent(torch.lstm),
     (SEQUENCE, [_random(2, 2, 2), _random(2, 2, 4)], _stack_of_cells(4, 3, 4, directions=2, projection=2), True, 1),
     {"bidirectional": True}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (X, Y, Y[..., :3]), {}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (X, Y, Y), {"is_causal": True, "scale": 0.3}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (X, Y, Y), {"attn_mask": ~BOTTOM}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (X, Y, Y, X[..., :3]), {}),
    (*MULTI_HEAD, (*EMBEDDED, *ATTENTION, None, None, *PROJECTION), {}),
    (*MULTI_HEAD,
     (*EMBEDDED, *ATTENTION, _random(1, 1, 4), _random(1, 1, 4, seed=1), True, *PROJECTION[1:]),
     {"average_attn_weights": False, "attn_mask": _random(6, 6) > 1, "key_padding_mask": PADDING}),
    (*MULTI_HEAD,
     (EMBEDDED[0], EMBEDDED[1][..., :3], np.repeat(EMBEDDED[2], 2, -1)[..., :5], *ATTENTION[:2], None, None, None, None,
      *PROJECTION),
     {"use_separate_proj_weight": True, "need_weights": False, **SEPARATE}),
    (*MULTI_HEAD,
     (*(each[:, 0] for each in EMBEDDED), *ATTENTION, None, None, *PROJECTION),
     {"need_weights": False, "is_causal": True, "attn_mask": np.triu(np.ones((6, 6), bool), 1)}),
    ("embedding_bag", F.embedding_bag, (np.array([[0, 2, 2], [1, 4, 0]]), _random(5, 3)), {}),
    ("embedding_bag", F.embedding_bag, (np.array([[0, 2, 2], [1, 4, 0]]), _random(5, 3)),
     {"mode": "sum", "per_sample_weights": _random(2, 3, seed=4)}),
    ("embedding_bag", F.embedding_bag, (np.array([[0, 2, 2], [2, 2, 2]]), _random(5, 3)), {"padding_idx": 2}),
    ("embedding_bag", F.embedding_bag, (np.array([[0, 2, 2], [1, 4, 0]]), _random(5, 3)), {"mode": "max"}),
    ("im2col", F.unfold, (IMAGE, 3), {}),
    ("im2col", F.unfold, (IMAGE, (2, 3), 2, 1, (2, 1)), {}),
    ("fold", F.fold, (_random(2, 12, 15), (4, 7), 2), {"dilation": (1, 2), "stride": (1, 1), "padding": (0, 0)}),
    ("fold", F.fold, (_random(12, 12), (4, 5), (2, 2)), {}),
    ("channel_shuffle", F.channel_shuffle, (_random(2, 6, 3, 2), 3), {}),
    *(("interpolate", F.interpolate, (IMAGE,), {"scale_factor": (1.7, 0.6), "mode": mode})
      for mode in ("bicubic", "nearest-exact")),
    ("interpolate", F.interpolate, (IMAGE,), {"size": (3, 11), "mode": "bicubic", "align_corners": True}),
    ("adaptive_max_pool1d", F.adaptive_max_pool1d, (SIGNAL, 4), {}),
    ("adaptive_max_pool2d", F.adaptive_max_pool2d, (SPIKES, (3, None)), {}),
    ("adaptive_max_pool3d", F.adaptive_max_pool3d, (_random(1, 2, 5, 4, 3, scale=0.5), (2, 3, 1)), {}),
    ("lp_pool1d", F.lp_pool1d, (SIGNAL, 2.0, 2), {}),
    ("lp_pool2d", F.lp_pool2d, (_positive(2, 3, 5, 6), 3.0, (2, 3), 2), {"ceil_mode": True}),
    ("lp_pool3d", F.lp_pool3d, (_positive(1, 2, 4, 4, 4), 1.5, 2), {}),
    ("rms_norm", F.rms_norm, (X, (4,), _random(4, seed=2)), {}),
    ("rms_norm", F.rms_norm, (X, (3, 4)), {"eps": 1e-2}),
    ("local_response_norm", F.local_response_norm, (IMAGE, 2), {"alpha": 0.1, "k": 2.0}),
    ("local_response_norm", F.local_response_norm, (SIGNAL, 3), {}),
    ("norm", torch.norm, (X,), {}),
    ("norm", torch.norm, (X,), {"p": 3, "dim": 1, "keepdim": True}),
    ("linalg_norm", torch.linalg.norm, (X,), {"dim": (0, 2)}),
    ("linalg_norm", torch.linalg.norm, (X, 1), {"dim": -1}),
    ("linalg_vector_norm", torch.linalg.vector_norm, (X, float("inf")), {"dim": 1}),
    ("linalg_vector_norm", torch.linalg.vector_norm, (X * (np.abs(X) > 3), 2), {"dim": (1,)}),
    ("cosine_similarity", F.cosine_similarity, (X, Y), {}),
    ("cosine_similarity", F.cosine_similarity, (X, Y[0]), {"dim": -1, "eps": 1e-3}),
    ("pairwise_distance", F.pairwise_distance, (X, Y), {}),
    ("pairwise_distance", F.pairwise_distance, (X, Y), {"p": 1.0, "keepdim": True}),
    *((name, getattr(F, name), (SIGNAL,), {"training": False})
      for name in ("dropout1d", "alpha_dropout", "feature_alpha_dropout")),
    ("dropout2d", F.dropout2d, (IMAGE,), {"training": False}),
    ("dropout3d", F.dropout3d, (_random(1, 2, 3, 2, 2),), {"training": False}),
    ("exp2", torch.exp2, (X,), {}),
    ("sinc", torch.sinc, (X,), {}),
    ("logit", torch.logit, (_positive(2, 3) / 10,), {}),
    ("logit", torch.logit, (X / 4, 0.25), {}),
    ("nan_to_num", torch.nan_to_num, (UNUSUAL,), {}),
    ("nan_to_num", torch.nan_to_num, (UNUSUAL, 1.0), {"posinf": 7.0, "neginf": -7.0}),
    ("clamp_min", torch.clamp_min, (X, 0.5), {}),
    ("clamp_max", torch.clamp_max, (X, 0.5), {}),
    ("floor_divide", _undifferentiated(torch.floor_divide), (X, -_positive(4)), {}),
    ("floor_divide", _undifferentiated(torch.floor_divide), (np.arange(20) / 10, 0.1), {}),
    ("floor_divide", _undifferentiated(torch.floor_divide), (np.array([-7, 7, 8]), 2), {}),
    ("rfloordiv", _undifferentiated(lambda input, other: other // input), (_positive(2, 3), 2.0), {}),
    ("remainder", torch.remainder, (np.arange(20) / 10, 0.1), {}),
    ("fmod", torch.fmod, (np.arange(-20, 20) / 10, -0.1), {}),
    ("addcmul", torch.addcmul, (X, Y, _random(4)), {"value": 0.5}),
    ("addcdiv", torch.addcdiv, (X, Y, _positive(4)), {"value": 0.5}),
    ("hypot", torch.hypot, (X, _positive(4)), {}),
    ("atan2", torch.atan2, (X, Y), {}),
    *((name, getattr(torch, name), (X / 10,), {}) for name in ("asin", "acos", "atanh", "erfinv")),
    *((name, getattr(torch, name), (X,), {}) for name in ("asinh", "erfc", "deg2rad", "rad2deg", "signbit")),
    ("acosh", torch.acosh, (_positive(2, 3) + 1,), {}),
    ("lgamma", torch.lgamma, (_positive(2, 3),), {}),
    *((name, getattr(torch, name), (X, Y), {}) for name in ("logaddexp", "logaddexp2")),
    ("xlogy", torch.xlogy, (X, _positive(4)), {}),
    *((f"bitwise_{name}", getattr(torch, f"bitwise_{name}"), (MASK, Y > 0), {}) for name in ("and", "or", "xor")),
    *((f"bitwise_{name}", getattr(torch, f"bitwise_{name}"), (WHOLE, 6), {})
      for name in ("and", "or", "xor", "left_shift", "right_shift")),
    *(("bitwise_not", torch.bitwise_not, (each,), {}) for each in (MASK, WHOLE)),
    *(("bucketize", torch.bucketize, (X, np.arange(-2, 3) / 2), {"right": right}) for right in (False, True)),
    ("inner", torch.inner, (X, Y[0]), {}),
    ("tensordot", torch.tensordot, (X, Y), {"dims": ((1, 2), (1, 2))}),
    ("tensordot", torch.tensordot, (X, _random(4, 2)), {"dims": 1}),
    ("linalg_vecdot", torch.linalg.vecdot, (X, Y), {"dim": 1}),
    ("cdist", torch.cdist, (X, Y[:, :2]), {}),
    ("cdist", torch.cdist, (X, X), {"p": 1.0}),
    ("addmv", torch.addmv, (_random(3), X[0], _random(4)), {"alpha": 2}),
    *((name, getattr(torch, name), (X,), {"dim": 1}) for name in ("cummax", "cummin", "logcumsumexp")),
    ("cummax", torch.cummax, (SPIKES[0, 0], -1), {}),
    ("trace", torch.trace, (X[0],), {}),
    ("diag", torch.diag, (X[0], 1), {}),
    ("diag", torch.diag, (X[0, 0],), {}),
    ("diagonal", torch.diagonal, (X,), {"offset": -1, "dim1": 1, "dim2": 2}),
    *(("diag_embed", torch.diag_embed, (X,), {"offset": offset, "dim1": 0, "dim2": 2}) for offset in (0, 2, -1)),
    *(("rot90", torch.rot90, (X, k, (1, 2)), {}) for k in (1, -1)),
    *((name, getattr(torch, name), (X,), {}) for name in ("fliplr", "flipud")),
    ("take_along_dim", torch.take_along_dim, (X, np.array([[[2, 0, 2, 1]]]), 1), {}),
    ("take_along_dim", torch.take_along_dim, (X, np.array([3, 23, 3])), {}),
    ("scatter", torch.scatter, (X, 1, np.array([[[2, 0], [0, 1]]]), Y[:1, :2, :2]), {}),
    ("scatter", torch.scatter, (X, -1, np.array([[[3], [0]]])), {"value": 0.5}),
    ("scatter", torch.scatter, (X, 0, np.array([[[1, 0, 1, 1]]]), 2.0), {}),
    ("scatter_add", torch.scatter_add, (X, 1, np.array([[[2, 2], [0, 2]]]), Y[:1, :2, :2]), {}),
    ("index_add", torch.index_add, (X, 1, np.array([2, 0, 2, 2]), _random(2, 4, 4)), {"alpha": 0.5}),
    ("index_add", torch.Tensor.index_add, (X, -1, np.array([1]), Y[..., :1]), {}),
    ("column_stack", torch.column_stack, ([X[0, 0], X[0].T],), {}),
    ("broadcast_tensors", torch.broadcast_tensors, (X, Y[:, :1]), {}),
    ("vsplit", torch.vsplit, (X, 2), {}),
    ("dsplit", torch.dsplit, (X, (1, 2)), {}),
    ("copysign", torch.copysign, (X, Y), {}),
    ("heaviside", _undifferentiated(torch.heaviside), (X, Y), {}),
    ("mv", torch.mv, (X[0], _random(4)), {}),
    ("dot", torch.dot, (_random(4), _random(4, seed=2)), {}),
    ("vdot", torch.vdot, (_random(4), _random(4, seed=2)), {}),
    ("_weight_norm", torch._weight_norm, (_random(4, 3), _positive(4, 1)), {}),
    ("_weight_norm", torch._weight_norm, (_random(4, 3, 2), _positive(1, 3, 1), 1), {}),
    ("_weight_norm", torch._weight_norm, (_random(4, 3), _positive(1), -1), {}),
    ("outer", torch.outer, (_random(4), _random(3, seed=2)), {}),
    ("addmm", torch.addmm, (_random(5), X[0], _random(4, 5, seed=2)), {"beta": 0.5, "alpha": 2}),
    ("baddbmm", torch.baddbmm, (_random(3, 5), X, _random(2, 4, 5, seed=2)), {}),
    ("var_mean", torch.var_mean, (X,), {"dim": 1}),
    ("std_mean", torch.std_mean, (X,), {"dim": (0, 2), "correction": 0, "keepdim": True}),
    ("aminmax", torch.aminmax, (X,), {"dim": 1}),
    ("count_nonzero", torch.count_nonzero, (X,), {"dim": 1}),
    ("sort", torch.sort, (X,), {"dim": 1}),
    ("sort", torch.sort, (X,), {"descending": True}),
    ("argsort", torch.argsort, (X,), {"dim": 1, "descending": True}),
    ("one_hot", F.one_hot, (np.array([[0, 2], [1, 1]]), 4), {}),
    ("diff", torch.diff, (X,), {"n": 2, "dim": 1}),
    ("tril", torch.tril, (X,), {}),
    ("triu", torch.triu, (X, 1), {}),
    ("flip", torch.flip, (X, (0, 2)), {}),
    ("flip", torch.Tensor.flip, (X, 1, 2), {}),
    ("roll", torch.roll, (X, 2, 1), {}),
    ("roll", torch.roll, (X, 5), {}),
    ("index_select", torch.index_select, (X, 1, np.array([2, 0, 2])), {}),
    ("gather", torch.gather, (X, 1, np.array([[[2, 0, 2], [1, 1, 0]]])), {}),
    ("gather", torch.gather, (X, -1, np.array([[[3], [0]]])), {}),
    ("ravel", torch.ravel, (X,), {}),
    ("view_as", torch.Tensor.view_as, (X, _random(6, 4)), {}),
    ("reshape_as", torch.Tensor.reshape_as, (X, _random(6, 4)), {}),
    ("swapdims", torch.swapdims, (X, 0, 1), {}),
    ("broadcast_to", torch.broadcast_to, (X[:, :1], (2, -1, 4)), {}),
    ("tile", torch.tile, (X, (2, 3)), {}),
    ("tile", torch.Tensor.tile, (X, 2, 1, 3), {}),
    ("repeat_interleave", torch.repeat_interleave, (X, 3, 1), {}),
    ("repeat_interleave", torch.repeat_interleave, (X, 2), {}),
    *((name, getattr(torch, name), ([X, Y],), {}) for name in ("hstack", "vstack", "dstack")),
    *((name, getattr(torch, name), ([X[0, 0], Y[0, 0]],), {}) for name in ("hstack", "vstack", "dstack")),
    ("tensor_split", torch.tensor_split, (X, 3, 2), {}),
    ("tensor_split", torch.tensor_split, (X, (1, 2)), {"dim": 1}),
    ("hsplit", torch.hsplit, (X, 3), {}),
    ("hsplit", torch.hsplit, (X[0, 0], (1, 2)), {}),
    ("unfold", torch.Tensor.unfold, (X, 1, 2, 1), {}),
    ("unfold", torch.Tensor.unfold, (SIGNAL, -1, 3, 2), {}),
    ("linear", F.linear, (X, _random(5, 4, seed=2), _random(5, seed=3)), {}),
    ("linear", F.linear, (X, _random(5, 4, seed=2)), {}),
    ("conv1d", F.conv1d, (SIGNAL, _random(4, 3, 3, seed=2), _random(4, seed=3)), {"padding": 1, "stride": 2}),
    ("conv1d", F.conv1d, (SIGNAL, _random(4, 3, 4, seed=2)), {"padding": "same"}),
    (
        "conv2d",
        F.conv2d,
        (IMAGE, _random(4, 3, 3, 2, seed=2), _random(4, seed=3)),
        {"stride": (2, 1), "padding": (1, 0)},
    ),
    ("conv2d", F.conv2d, (IMAGE, _random(6, 1, 3, 3, seed=2)), {"groups": 3, "dilation": 2, "padding": "same"}),
    ("conv2d", F.conv2d, (IMAGE[0], _random(6, 3, 3, 3, seed=2)), {"padding": "valid"}),
    ("conv3d", F.conv3d, (_random(1, 2, 4, 4, 4), _random(3, 2, 2, 2, 2, seed=2)), {"stride": 2}),
    ("conv_transpose1d", F.conv_transpose1d, (SIGNAL, _random(3, 4, 3, seed=2), _random(4, seed=3)), {}),
    (
        "conv_transpose2d",
        F.conv_transpose2d,
        (IMAGE, _random(3, 4, 3, 2, seed=2), _random(4, seed=3), (2, 3), (1, 0), 1),
        {},
    ),
    (
        "conv_transpose2d",
        F.conv_transpose2d,
        (_random(2, 4, 3, 5), _random(4, 3, 3, 2, seed=2)),
        {"groups": 2, "dilation": 2, "padding": 1},
    ),
    ("conv_transpose2d", F.conv_transpose2d, (IMAGE[0], _random(3, 4, 2, 2, seed=2)), {"stride": 2}),
    ("conv_transpose3d", F.conv_transpose3d, (_random(1, 2, 3, 2, 3), _random(2, 3, 2, 2, 2, seed=2)), {"stride": 2}),
    ("bilinear", F.bilinear, (X, Y[..., :3], _random(5, 4, 3, seed=2), _random(5, seed=3)), {}),
    ("embedding", F.embedding, (np.array([[0, 2, 2], [1, 4, 0]]), _random(5, 3)), {}),
    ("embedding", F.embedding, (np.array([[0, 2, 2], [1, 4, 0]]), _random(5, 3)), {"padding_idx": 2}),
    ("pad", F.pad, (X, (1, 2)), {}),
    ("pad", F.pad, (X, (1, -1, 0, 2)), {"value": 1.5}),
    *(("pad", F.pad, (IMAGE, (2, 1, 3, 0), mode), {}) for mode in ("reflect", "replicate", "circular")),
    ("interpolate", F.interpolate, (SIGNAL,), {"size": 5}),
    ("interpolate", F.interpolate, (IMAGE,), {"scale_factor": 2}),
    ("interpolate", F.interpolate, (IMAGE,), {"scale_factor": (0.7, 1.6)}),
    ("interpolate", F.interpolate, (SIGNAL,), {"size": 4, "mode": "linear"}),
    ("interpolate", F.interpolate, (SIGNAL,), {"size": 20, "mode": "linear", "align_corners": True}),
    ("interpolate", F.interpolate, (IMAGE,), {"scale_factor": (1.7, 0.6), "mode": "bilinear"}),
    (
        "interpolate",
        F.interpolate,
        (IMAGE,),
        {"scale_factor": (1.7, 0.6), "mode": "bilinear", "recompute_scale_factor": True},
    ),
    ("interpolate", F.interpolate, (_random(1, 2, 3, 4, 2),), {"size": (5, 2, 1), "mode": "trilinear"}),
    ("pixel_shuffle", F.pixel_shuffle, (_random(2, 8, 3, 2), 2), {}),
    ("pixel_unshuffle", F.pixel_unshuffle, (IMAGE, 2), {}),
    ("adaptive_avg_pool3d", F.adaptive_avg_pool3d, (_random(1, 2, 5, 4, 3), (2, 3, 1)), {}),
    ("group_norm", F.group_norm, (_random(2, 6, 5), 3, _random(6, seed=2), _random(6, seed=3)), {}),
    ("group_norm", F.group_norm, (_random(3, 4), 2), {"eps": 1e-2}),
    ("instance_norm", F.instance_norm, (IMAGE,), {"weight": _random(3, seed=2), "bias": _random(3, seed=3)}),
    ("normalize", F.normalize, (X,), {}),
    ("normalize", F.normalize, (X * (np.abs(X) > 1),), {"dim": -1}),
    ("relu6", F.relu6, (X * 3,), {}),
    ("hardsigmoid", F.hardsigmoid, (X * 2,), {}),
    ("hardswish", F.hardswish, (X * 2,), {}),
    ("mish", F.mish, (X,), {}),
    ("selu", F.selu, (X,), {}),
    ("celu", F.celu, (X,), {"alpha": 0.7}),
    ("log_sigmoid", F.logsigmoid, (X * 10,), {}),
    ("softsign", F.softsign, (X,), {}),
    ("tanhshrink", F.tanhshrink, (X,), {}),
    ("softshrink", F.softshrink, (X, 0.5), {}),
    ("hardshrink", F.hardshrink, (X, 0.5), {}),
    ("threshold", F.threshold, (X, 0.5, -2.0), {}),
    ("prelu", F.prelu, (X, _random(3, seed=2)), {}),
    ("prelu", F.prelu, (X, _random(1, seed=2)), {}),
    ("glu", F.glu, (X,), {}),
    ("softmin", F.softmin, (X,), {"dim": 1}),
    ("rsqrt", torch.rsqrt, (_positive(2, 3),), {}),
    *((name, getattr(torch, name), (_positive(2, 3),), {}) for name in ("log1p", "log2", "log10")),
    *(
        (n, getattr(torch, n), (X,), {})
        for n in ("expm1", "tan", "sinh", "cosh", "atan", "erf", "round", "trunc", "frac")
    ),
    *((name, getattr(torch, name), (UNUSUAL,), {}) for name in ("isnan", "isfinite", "isinf")),
    ("logical_xor", torch.logical_xor, (MASK, Y > 0), {}),
    ("remainder", torch.remainder, (X, 0.75), {}),
    ("remainder", torch.remainder, (X, -_positive(4)), {}),
    ("fmod", torch.fmod, (X, _positive(4)), {}),
    ("lerp", torch.lerp, (X, Y, 0.25), {}),
    ("lerp", torch.lerp, (X, Y, _random(4)), {}),
    ("masked_fill", torch.Tensor.masked_fill, (X, MASK, -1.5), {}),
    ("einsum", torch.einsum, ("bij,bkj->bik", X, Y), {}),
    ("einsum", torch.einsum, ("...j,jk", X, _random(4, 2)), {}),
    ("argmin", torch.argmin, (X,), {"dim": 1}),
    ("prod", torch.prod, (X,), {}),
    ("prod", torch.prod, (X, 1), {}),
    ("any", torch.any, (MASK,), {"dim": 1}),
    ("all", torch.all, (MASK,), {"dim": 2, "keepdim": True}),
    ("logsumexp", torch.logsumexp, (X, (1, 2)), {}),
    ("cumprod", torch.cumprod, (X,), {"dim": 1}),
    ("max_pool1d", F.max_pool1d, (SIGNAL, 3), {}),
    ("max_pool1d", F.max_pool1d, (SIGNAL, 2), {"stride": 2, "ceil_mode": True}),
    ("max_pool2d", F.max_pool2d, (SPIKES, 2), {}),
    ("max_pool2d", F.max_pool2d, (IMAGE, (4, 3)), {}),
    ("max_pool2d", F.max_pool2d, (IMAGE, 3, 2, 1), {"ceil_mode": True}),
    ("max_pool2d", F.max_pool2d, (IMAGE, 2, 1), {"dilation": (2, 1)}),
    ("max_pool3d", F.max_pool3d, (_random(1, 2, 4, 4, 4), 2), {}),
    ("avg_pool1d", F.avg_pool1d, (SIGNAL, 2), {"ceil_mode": True}),
    ("avg_pool2d", F.avg_pool2d, (IMAGE, 2), {}),
    ("avg_pool2d", F.avg_pool2d, (IMAGE, 3, 2, 1), {}),
    ("avg_pool2d", F.avg_pool2d, (IMAGE, 3, 2, 1), {"count_include_pad": False, "ceil_mode": True}),
    ("avg_pool2d", F.avg_pool2d, (IMAGE, 3, 2, 1), {"ceil_mode": True}),
    ("avg_pool2d", F.avg_pool2d, (IMAGE, 3), {"divisor_override": 4}),
    ("avg_pool3d", F.avg_pool3d, (_random(1, 2, 4, 4, 4), 2), {}),
    ("adaptive_avg_pool1d", F.adaptive_avg_pool1d, (SIGNAL, 4), {}),
    ("adaptive_avg_pool2d", F.adaptive_avg_pool2d, (IMAGE, (3, None)), {}),
    ("adaptive_avg_pool2d", F.adaptive_avg_pool2d, (IMAGE, 1), {}),
    (
        "batch_norm",
        _batch_norm,
        (IMAGE, _random(3, seed=2), _positive(3, seed=3), _random(3, seed=4), _random(3, seed=6)),
        {"eps": 1e-3},
    ),
    ("batch_norm", _batch_norm, (SIGNAL[:, :, 0], _random(3, seed=2), _positive(3, seed=3)), {}),
    ("layer_norm", F.layer_norm, (X, [4], _random(4, seed=2), _random(4, seed=3)), {}),
    ("layer_norm", F.layer_norm, (X, [3, 4]), {"eps": 1e-3}),
    ("dropout", F.dropout, (X,), {"training": False}),
    ("relu", F.relu, (X,), {}),
    ("leaky_relu", F.leaky_relu, (X,), {"negative_slope": 0.2}),
    ("elu", F.elu, (X,), {"alpha": 0.7}),
    ("gelu", F.gelu, (X,), {}),
    ("gelu", F.gelu, (X,), {"approximate": "tanh"}),
    ("silu", F.silu, (X,), {}),
    ("softplus", F.softplus, (X * 10,), {"beta": 2.0, "threshold": 5.0}),
    ("hardtanh", F.hardtanh, (X,), {}),
    ("sigmoid", torch.sigmoid, (X,), {}),
    ("tanh", torch.tanh, (X,), {}),
    ("softmax", F.softmax, (X,), {"dim": 1}),
    ("log_softmax", F.log_softmax, (X,), {"dim": -1}),
    ("exp", torch.exp, (X,), {}),
    ("log", torch.log, (_positive(2, 3),), {}),
    ("sqrt", torch.sqrt, (_positive(2, 3),), {}),
    ("square", torch.square, (X,), {}),
    ("sin", torch.sin, (X,), {}),
    ("cos", torch.cos, (X,), {}),
    ("sign", torch.sign, (X,), {}),
    ("floor", torch.floor, (X,), {}),
    ("ceil", torch.ceil, (X,), {}),
    ("neg", torch.neg, (X,), {}),
    ("reciprocal", torch.reciprocal, (_positive(2, 3),), {}),
    ("abs", torch.abs, (X,), {}),
    ("clamp", torch.clamp, (X, -1.0, 1.0), {}),
    ("clamp", torch.clamp, (X,), {"min": 0.0}),
    ("clip", torch.clip, (X,), {"max": 0.5}),
    ("add", torch.add, (X, Y), {"alpha": 3}),
    ("add", torch.add, (X, 2.0), {}),
    ("sub", torch.sub, (X, Y), {}),
    ("subtract", torch.subtract, (X, Y), {"alpha": 2}),
    ("rsub", torch.rsub, (X, Y), {}),
    ("mul", torch.mul, (X, Y), {}),
    ("multiply", torch.multiply, (X, 3), {}),
    ("div", torch.div, (X, _positive(4)), {}),
    ("div", torch.div, (X, 0.75), {"rounding_mode": "floor"}),
    ("divide", torch.divide, (X, 2), {}),
    ("true_divide", torch.true_divide, (X, 2), {}),
    ("rdiv", lambda input, other: other / input, (_positive(2, 3), 2.0), {}),
    ("pow", torch.pow, (X, 2), {}),
    ("pow", torch.pow, (_positive(2, 3), 1.5), {}),
    ("rpow", lambda input, base: base**input, (X, 2.0), {}),
    ("matmul", torch.matmul, (X, _random(4, 5, seed=2)), {}),
    ("mm", torch.mm, (X[0], _random(4, 5, seed=2)), {}),
    ("bmm", torch.bmm, (X, _random(2, 4, 5, seed=2)), {}),
    ("maximum", torch.maximum, (X, Y), {}),
    ("minimum", torch.minimum, (X, Y), {}),
    ("gt", torch.gt, (X, 0), {}),
    ("ge", torch.ge, (X, 0), {}),
    ("lt", torch.lt, (X, Y), {}),
    ("le", torch.le, (X, Y), {}),
    ("eq", torch.eq, (X, 0), {}),
    ("ne", torch.ne, (X, 0), {}),
    ("logical_and", torch.logical_and, (MASK, Y > 0), {}),
    ("logical_or", torch.logical_or, (MASK, Y > 0), {}),
    ("logical_not", torch.logical_not, (MASK,), {}),
    ("where", torch.where, (MASK, X, Y), {}),
    ("sum", torch.sum, (X,), {}),
    ("sum", torch.sum, (X,), {"dim": (0, 2), "keepdim": True}),
    ("sum", torch.sum, (MASK,), {"dim": 1}),
    ("mean", torch.mean, (X,), {"dim": 0}),
    ("amax", torch.amax, (X,), {"dim": 1}),
    ("amin", torch.amin, (X,), {"dim": (1, 2)}),
    ("max", torch.max, (X,), {}),
    ("max", torch.max, (X, 1), {}),
    ("max", torch.max, (X, Y), {}),
    ("min", torch.min, (X,), {"dim": 2, "keepdim": True}),
    ("argmax", torch.argmax, (X,), {"dim": 1}),
    ("var", torch.var, (X,), {"dim": 1}),
    ("std", torch.std, (X,), {"dim": 1, "unbiased": False}),
    ("cumsum", torch.cumsum, (X,), {"dim": 0}),
    ("flatten", torch.flatten, (X,), {"start_dim": 1}),
    ("flatten", torch.flatten, (IMAGE, 1, 2), {}),
    ("unflatten", torch.unflatten, (X, 2, (2, -1)), {}),
    ("view", torch.Tensor.view, (X, 6, -1), {}),
    ("view", torch.Tensor.view, (X, (6, 4)), {}),
    ("reshape", torch.reshape, (X, (4, 6)), {}),
    ("permute", torch.Tensor.permute, (X, 2, 0, 1), {}),
    ("permute", torch.permute, (X,), {"dims": (1, 0, 2)}),
    ("transpose", torch.transpose, (X, 0, -1), {}),
    ("swapaxes", torch.swapaxes, (X, 0, 1), {}),
    ("movedim", torch.movedim, (X, 0, 2), {}),
    ("moveaxis", torch.moveaxis, (X, 2, 0), {}),
    ("t", torch.t, (X[0],), {}),
    ("T", lambda x: x.T, (X[0],), {}),
    ("mT", lambda x: x.mT, (X,), {}),
    ("squeeze", torch.squeeze, (X[:, :1], 1), {}),
    ("squeeze", torch.squeeze, (X[:1, :1],), {}),
    ("unsqueeze", torch.unsqueeze, (X, -1), {}),
    ("expand", torch.Tensor.expand, (X, 5, -1, -1, 4), {}),
    ("expand_as", torch.Tensor.expand_as, (X[:, :1], X), {}),
    ("repeat", torch.Tensor.repeat, (X, 2, 1, 1, 3), {}),
    ("cat", torch.cat, ([X, Y],), {"dim": 1}),
    ("concat", torch.concat, ([X, Y],), {}),
    ("concatenate", torch.concatenate, ([X, Y], -1), {}),
    ("stack", torch.stack, ([X, Y],), {"dim": 2}),
    ("unbind", torch.unbind, (X, 1), {}),
    ("reversed", reversed, (X,), {}),
    ("unseen_write", unseen_write, (X, Y), {}),
    ("off_diagonal_gradient", lambda w: w * (1 - torch.eye(4)) + w.detach() * torch.eye(4), (_random(4, 4),), {}),
    ("split", torch.split, (X, 3, 2), {}),
    ("split", torch.split, (X, [1, 2]), {"dim": 1}),
    ("chunk", torch.chunk, (X, 3, 2), {}),
    ("getitem", lambda x, i: x[i], (X, (slice(None), 1)), {}),
    ("getitem", lambda x, i: x[i], (X, (..., None, slice(1, 3))), {}),
    ("select", torch.select, (X, 1, 2), {}),
    ("narrow", torch.narrow, (X, 1, 1, 2), {}),
    ("setitem", lambda x, i, v: x.index_put((torch.tensor(i),), v), (X, 1, Y[0]), {}),
    ("clone", torch.clone, (X,), {}),
    ("contiguous", torch.Tensor.contiguous, (X,), {}),
    ("float", lambda x: x, (X,), {}),
    ("float", torch.Tensor.float, (MASK,), {}),
    ("double", torch.Tensor.double, (MASK,), {}),
    ("to", torch.Tensor.to, (MASK, torch.float64), {}),
    ("to", torch.Tensor.to, (X, "cpu"), {}),
    ("to", torch.Tensor.to, (X * 2,), {"dtype": torch.int64}),
    ("to", lambda x, other: x.to(other), (X, Y), {}),
    ("type", torch.Tensor.type, (X, torch.int32), {}),
    ("type_as", torch.Tensor.type_as, (X, MASK), {}),
    ("bool", torch.Tensor.bool, (X,), {}),
    ("int", torch.Tensor.int, (X,), {}),
    ("long", torch.Tensor.long, (X,), {}),
    ("detach", torch.detach, (X,), {}),
    ("data", lambda x: x.data, (X,), {}),
    ("zeros", torch.zeros, (2, 3), {}),
    ("zeros", torch.zeros, ((2, 3),), {"dtype": torch.int64}),
    ("ones", torch.ones, (2, 3), {}),
    ("full", torch.full, ((2, 3), 0.25), {}),
    ("tensor", torch.tensor, (0.25,), {}),
    ("tensor", torch.tensor, ([[1, 2], [3, 4]],), {"dtype": torch.float32}),
    ("tensor", torch.tensor, ([True, False],), {}),
    ("zeros_like", torch.zeros_like, (X,), {}),
    ("ones_like", torch.ones_like, (X,), {}),
    ("full_like", torch.full_like, (X, 0.25), {}),
    ("new_zeros", torch.Tensor.new_zeros, (X, 2, 3), {}),
    ("new_ones", torch.Tensor.new_ones, (X, (2, 3)), {}),
    ("new_full", torch.Tensor.new_full, (X, (2, 3), 0.25), {}),
    ("arange", torch.arange, (7,), {}),
    ("arange", torch.arange, (2, 7), {}),
    ("arange", torch.arange, (1, 2.5, 0.5), {}),
    ("arange", torch.arange, (), {"start": 1, "end": 9, "step": 2}),
    ("linspace", torch.linspace, (0.25, 1.25, 5), {}),
]  # fmt: skip


def _name(row):
    name, _, args, kwargs = row
    shown = [str(x) for x in args if isinstance(x, int | float | str | tuple)]
    options = {key: "array" if isinstance(value, np.ndarray) else value for key, value in kwargs.items()}
    return "-".join([name, *shown, *(f"{key}={value}" for key, value in options.items())])


def _tensor(value):
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value.copy())
        return tensor.requires_grad_() if tensor.is_floating_point() else tensor
    return [_tensor(each) for each in value] if isinstance(value, list) else value


def _outputs(result):
    return [each for each in result if each is not None] if isinstance(result, tuple | list) else [result]


def _floats(args):
    flat = [each for arg in args for each in (arg if isinstance(arg, list) else [arg])]
    return [each for each in flat if isinstance(each, np.ndarray) and each.dtype == np.float64]


def test_every_function_has_a_row():
    # What an empty tensor holds is not defined; functions of the user's own have a file of their own.
    tested = {OPS[name].name for name, *_ in ROWS}
    assert tested | {"item", "empty", "empty_like", "new_empty", "custom_function"} == {op.name for op in OPS.values()}
    assert set(OPS) >= ELEMENTWISE | set(MIXING)
    assert not ELEMENTWISE & set(MIXING)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_values_and_gradients_are_those_of_torch(row):
    name, function, args, kwargs = row
    tensors = [_tensor(arg) for arg in args]
    expected = _outputs(function(*tensors, **{key: _tensor(value) for key, value in kwargs.items()}))
    floats = [x for t in tensors for x in (t if isinstance(t, list) else [t])]
    floats = [x for x in floats if isinstance(x, torch.Tensor) and x.requires_grad]
    weights = [_random(*x.shape, seed=9) for x in expected]

    def run(values):
        values = iter(values)

        def place(arg):
            if isinstance(arg, list):
                return [place(each) for each in arg]
            if isinstance(arg, np.ndarray):
                return next(values) if arg.dtype == np.float64 else jnp.asarray(arg)
            return arg

        options = {key: jnp.asarray(value) if isinstance(value, np.ndarray) else value for key, value in kwargs.items()}
        return _outputs(OPS[name](*map(place, args), **options))

    def loss(values):
        found = run(values)
        terms = [jnp.sum(x * w) for x, w in zip(found, weights, strict=True) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(terms, jnp.zeros(())), found

    terms = [(x * torch.from_numpy(w)).sum() for x, w in zip(expected, weights, strict=True) if x.requires_grad]
    with jax.enable_x64(True):
        given = [jnp.asarray(each) for each in _floats(args)]
        # One program for both: what is evaluated operation by operation is compiled operation by operation
        found, gradients = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x)[::-1] if terms else (run(x), []))(given)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == tuple(b.shape)
            np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), rtol=1e-12, atol=1e-12)
    if not terms:
        return
    wanted = torch.autograd.grad(sum(terms), floats, allow_unused=True)
    for a, b in zip(gradients, wanted, strict=True):
        b = np.zeros(a.shape) if b is None else b.numpy()
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-10, atol=1e-10)


# Where a NaN has to be handed on, and where one must not come from: infinity, zeros, and equal values.
POINTS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1.0, 2.0])
PAIRS = [each.ravel() for each in np.meshgrid(POINTS, POINTS)]
WITH_NAN = np.array([[1.0, np.nan, 3.0], [np.nan, 0.0, np.nan], [2.0, 5.0, 2.0]])
LEVEL = np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, -1.0, 2.0]])
AT_POINTS = [
    *((name, getattr(F, name), (POINTS,)) for name in ("relu", "relu6", "leaky_relu", "elu", "softplus", "silu")),
    *((name, getattr(torch, name), (POINTS,)) for name in ("sign", "abs", "exp", "tanh", "sigmoid", "nan_to_num")),
    *((name, getattr(torch, name), (PAIRS[0], PAIRS[1])) for name in ("maximum", "minimum", "logaddexp", "where")),
    *((name, getattr(torch, name), (WITH_NAN, 1)) for name in ("cummax", "cummin", "cumsum", "argmax", "max")),
    *((name, getattr(torch, name), (LEVEL, 1)) for name in ("std", "std_mean", "var", "logsumexp", "max", "amax")),
    ("clamp", torch.clamp, (POINTS, -1.0, 1.0)),
    ("remainder", torch.remainder, (np.array([1e30, -1e30, 5.5, 0.0]), 0.75)),
    ("fmod", torch.fmod, (np.array([1e30, -1e30, 5.5, 0.0]), 0.75)),
    ("heaviside", _undifferentiated(torch.heaviside), (POINTS, np.full(8, 0.5))),
    ("to", torch.Tensor.to, (np.array([300.0, -300.0, 1.5, -1.5]), torch.int8)),
    ("to", torch.Tensor.to, (np.array([300.0, 255.0, 1.5]), torch.uint8)),
    ("div", torch.div, (WHOLE, 4)),
    ("xlogy", torch.xlogy, (np.zeros(3), np.array([1.0, 2.0, np.inf]))),
    ("linalg_vector_norm", torch.linalg.vector_norm, (LEVEL, 2, 1)),
    ("normalize", F.normalize, (LEVEL,)),
]


@pytest.mark.parametrize("row", AT_POINTS, ids=lambda row: f"{row[0]}-{row[2][0].size}")
def test_at_special_points_values_and_gradients_are_those_of_torch(row):
    name, function, args = row
    if name == "where":
        args = (PAIRS[0] > PAIRS[1], *args)
    test_values_and_gradients_are_those_of_torch((name, function, args, {}))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["stack", "cat"])
def test_a_list_over_time_held_as_one_array_joins_as_the_list_does(name, dim):
    joined = OPS[name](Steps(jnp.asarray(X)), dim)
    plain = OPS[name](list(jnp.asarray(X)), dim)
    np.testing.assert_array_equal(joined, plain)


@pytest.mark.parametrize(
    ("name", "op"),
    [("__radd__", "add"), ("add_", "add"), ("__iadd__", "add"), ("__getitem__", "getitem"), ("__rtruediv__", "rdiv"),
     ("__invert__", "bitwise_not"), ("relu_", "relu"), ("index", "index"), ("isub", "sub"),
     ("__xor__", "bitwise_xor"), ("__iand__", "bitwise_and"), ("__rshift__", "bitwise_right_shift"), ("greater", "gt"),
     ("arctan2", "atan2"), ("scatter_", "scatter"),
     ("__floordiv__", "floor_divide"), ("__rfloordiv__", "rfloordiv"), ("__mod__", "remainder")],
)  # fmt: skip
def test_spellings_of_one_operation_share_its_name(name, op):
    assert op_name(name) == op


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "what"),
    [
        ("max_pool2d", (IMAGE, 2), {"return_indices": True}, "return_indices"),
        ("dropout", (X,), {"training": True}, "training"),
        ("batch_norm", (X, None, None), {}, "batch statistics"),
        ("to", (X, "torch.float16"), {}, "a cast to float16"),
        ("instance_norm", (IMAGE, X[0, 0], X[0, 0]), {}, "running statistics that change"),
        ("normalize", (X,), {"p": 1}, "p=1"),
        ("embedding", (X, Y), {"max_norm": 1.0}, "max_norm"),
        ("pad", (X, (-1, 0)), {"mode": "reflect"}, "negative sizes with mode='reflect'"),
        ("interpolate", (IMAGE,), {"scale_factor": 2, "mode": "area"}, "mode='area'"),
        ("norm", (X, "nuc"), {}, "nuclear"),
        ("linalg_norm", (X[0], 1), {}, "vector_norm"),
        ("linalg_vector_norm", (X, 0.5), {}, "order 0.5"),
        ("one_hot", (np.array([0, 1]),), {}, "name the number"),
        ("repeat_interleave", (X, np.array([1, 2])), {}, "for each element"),
        ("scatter", (X, 1, np.array([[[0]]]), Y), {"reduce": "add"}, "scatter_add"),
        ("embedding_bag", (np.array([0, 1]), X[0], np.array([0])), {}, "bags of several sizes"),
        ("adaptive_max_pool1d", (SIGNAL, 2, True), {}, "return_indices"),
        ("scaled_dot_product_attention", (X, Y, Y), {"dropout_p": 0.1}, "dropout_p"),
        ("multi_head_attention_forward", (*EMBEDDED, *ATTENTION, None, None, False, 0.1, X, X), {}, "dropout"),
        ("multi_head_attention_forward", (*EMBEDDED, *ATTENTION, None, None, *PROJECTION),
         {"attn_mask": _random(4, 6, 6)}, "for each head"),
        ("lstm", (SEQUENCE,), {"dropout": 0.1, "train": True}, "dropout between"),
    ],
)  # fmt: skip
def test_forms_that_are_not_converted_say_so(name, args, kwargs, what):
    with pytest.raises(NotImplementedError, match=what):
        OPS[name](*(jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in args), **kwargs)
