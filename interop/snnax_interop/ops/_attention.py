"""Attention."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._layers import linear
from .mixing import Mixing, Operand
from .registry import op


def _keys(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Each query by itself, unless its place counts; all keys and values together."""
    causal = arguments["is_causal"]
    axes = {"query": (-2, -1) if causal else (-1,), "key": (-2, -1), "value": (-2,), "attn_mask": (-1,)}
    return axes.get(operand.name, ())


@op("scaled_dot_product_attention", axes=Mixing(_keys))
def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Array:
    if dropout_p > 0 or enable_gqa:
        raise NotImplementedError("dropout_p or enable_gqa")
    if is_causal:
        attn_mask = jnp.tril(jnp.ones((query.shape[-2], key.shape[-2]), bool))
    if attn_mask is not None and attn_mask.dtype == bool:
        attn_mask = _added(~attn_mask, query.dtype)
    return _weights(query, key, attn_mask, scale) @ value


def _added(excluded: Array, dtype) -> Array:
    """What a mask adds to the scores."""
    return jnp.where(excluded, -jnp.inf, jnp.zeros((), dtype))


def _weights(query, key, mask=None, scale=None) -> Array:
    """`mask` adds to the scores. A row of minus infinity only has the weights zero."""
    scores = query @ jnp.swapaxes(key, -1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    counts = (mask > -jnp.inf).any(-1, keepdims=True)
    weights = jax.nn.softmax(jnp.where(counts, scores + mask, 0), axis=-1)
    return jnp.where(counts, weights, 0)


def _all_heads(operand: Operand, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Features; each query by itself, unless its place counts; all keys and values together."""
    time = operand.rank - 2 if operand.rank < 3 or arguments["batch_first"] else 0
    if operand.name == "query":
        return (time, -1) if arguments["is_causal"] else (-1,)
    if operand.name in ("key", "value"):
        return (time, -1)
    masks = {"key_padding_mask": (-1,), "attn_mask": (-2, -1) if arguments["is_causal"] else (-1,)}
    return masks.get(operand.name, range(operand.rank))


@op("multi_head_attention_forward", axes=Mixing(_all_heads))
def multi_head_attention(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
    batch_first=False,
) -> tuple[Array, Array | None]:
    """As `F.multi_head_attention_forward`, and with the batch first if asked. Sequences may lack the batch axis."""
    if static_k is not None or static_v is not None or (training and dropout_p > 0):
        raise NotImplementedError("static_k, static_v or dropout (training mode)")
    if attn_mask is not None and attn_mask.ndim > 2:
        raise NotImplementedError("an attn_mask for each head; allowed is one of two axes")
    batched = query.ndim == 3
    if batched and not batch_first:
        query, key, value = (jnp.swapaxes(each, 0, 1) for each in (query, key, value))
    matrices: Any = (
        (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else jnp.split(in_proj_weight, 3)
    )
    biases = (None,) * 3 if in_proj_bias is None else jnp.split(in_proj_bias, 3)
    q, k, v = (linear(*each) for each in zip((query, key, value), matrices, biases, strict=True))
    # One more key and value: a learnt one, and one of zeros.
    if bias_k is not None:
        k, v = (
            jnp.concatenate([each, jnp.broadcast_to(bias.reshape(1, -1), (*each.shape[:-2], 1, each.shape[-1]))], -2)
            for each, bias in ((k, bias_k), (v, bias_v))
        )
    if add_zero_attn:
        k, v = (jnp.concatenate([each, jnp.zeros_like(each[..., :1, :])], axis=-2) for each in (k, v))
    if is_causal and key_padding_mask is None and not need_weights:  # torch leaves out the mask that it is given
        attn_mask = ~jnp.tril(jnp.ones((q.shape[-2], k.shape[-2]), bool))
    padding = None if key_padding_mask is None else key_padding_mask[..., None, None, :]
    mask = None
    for each in (attn_mask, padding):
        if each is not None:
            added = _added(each, q.dtype) if each.dtype == bool else each
            mask = added if mask is None else mask + added
    if mask is not None:
        mask = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, k.shape[-2] - mask.shape[-1])])
    q, k, v = (
        jnp.swapaxes(each.reshape(*each.shape[:-1], num_heads, each.shape[-1] // num_heads), -2, -3)
        for each in (q, k, v)
    )
    weights = _weights(q, k, mask)
    heads = jnp.swapaxes(weights @ v, -2, -3)
    out = linear(heads.reshape(*heads.shape[:-2], -1), out_proj_weight, out_proj_bias)
    out = jnp.swapaxes(out, 0, 1) if batched and not batch_first else out
    if not need_weights:
        return out, None
    return out, weights.mean(-3) if average_attn_weights else weights
