"""Along which axes operations mix elements.

`WORK` is for those whose result keeps an axis along which they mix: where that is the batch, they would go on
unnoticed with one sample. Reductions need no entry: their result shows that the batch is gone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


# From the name of a tensor argument, its rank, and all arguments by name: its axes, negative ones from the end.
Worked = Callable[[str, int, Mapping[str, Any]], Iterable[int]]


def _named(argument: str = "dim") -> Worked:
    """The axes that an argument names; all where it is None."""

    def worked(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
        dims = arguments[argument]
        return range(rank) if dims is None or dims == () else (dims,) if isinstance(dims, int) else dims

    return worked


def _last(count: int) -> Worked:
    return lambda name, rank, arguments: range(-min(count, rank), 0)


def _from(first: int) -> Worked:
    return lambda name, rank, arguments: range(first, rank)


def _normalized(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    return range(-len(arguments["normalized_shape"]), 0)


def _padded(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    """Sizes come in pairs, from the last axis on."""
    return {-1 - place // 2 for place, size in enumerate(arguments["pad"]) if size != 0}


def _recurrent(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    """The sequence and its features; the batch is axis 1, or 0 in a sequence with `batch_first`."""
    batch = 0 if name == "input" and arguments["batch_first"] else 1
    return [axis for axis in range(rank) if rank < 3 or axis != batch]


def _attention(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    if name in ("query", "key", "value"):
        batch = 0 if arguments["batch_first"] else 1
        return [axis for axis in range(rank) if rank < 3 or axis != batch]
    return range(1 if name == "key_padding_mask" and rank == 2 else 0, rank)


def _flipped(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    dims = arguments["dims"] or (arguments["named"]["dims"],)
    return [axis for each in dims for axis in (each if isinstance(each, tuple) else (each,))]


def _picked(name: str, rank: int, arguments: Mapping[str, Any]) -> Iterable[int]:
    """The axis that is picked from; an index of its own batch axis makes one of the result."""
    return (arguments["dim"],) if name == "input" else ()


WORK: dict[str, Worked] = {
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "cumsum", "cumprod", "normalize", "glu"), _named()),
    **dict.fromkeys(("sort", "argsort", "diff", "repeat_interleave", "cummax", "cummin", "logcumsumexp"), _named()),
    **dict.fromkeys(("take_along_dim", "scatter", "scatter_add", "index_add"), _named()),
    "rot90": _named("dims"),
    "fliplr": lambda name, rank, arguments: (1,),
    "flipud": lambda name, rank, arguments: (0,),
    "roll": _named("dims"),
    "unfold": _named("dimension"),
    "flip": _flipped,
    "reversed": lambda name, rank, arguments: (0,),
    "index_select": _picked,
    "gather": _named(),
    **{f"{name}{n}d": _last(n) for n in (1, 2, 3) for name in
       ("conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool")},
    **dict.fromkeys(("tril", "triu", "scaled_dot_product_attention", "fold"), _last(2)),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "im2col"), _last(3)),
    **dict.fromkeys(("group_norm", "instance_norm", "channel_shuffle", "local_response_norm"), _from(1)),
    "interpolate": _from(2),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    "pad": _padded,
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "lstm", "gru"), _recurrent),
    "multi_head_attention_forward": _attention,
}  # fmt: skip
