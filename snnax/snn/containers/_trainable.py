"""What of a model learns."""

from collections.abc import Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax

from ..layers import BatchNorm


Model = TypeVar("Model")


def trainable(model: Model, *, fixed: Iterable[str] = ()) -> Model:
    """A filter, the model with True where a leaf learns: all float arrays but the running statistics of `BatchNorm`.

    Gradients of statistics are zero anyway; with the filter an optimiser that decays weights leaves them alone too.

    **Arguments:** `model`: any model or layer; `fixed`: names of fields that shall not learn wherever they are, such
    as `"threshold"`, `"decay_mem"`, or of a node, such as `"conv1"`, with all that is in it. For anything finer change
    the filter with `eqx.tree_at`.

    **Returns:** a tree of the structure of `model`, for `eqx.partition`, `eqx.filter` and `optax.masked`.

    **Raises:** `ValueError` for a name under which the model has no float array.

    >>> import equinox as eqx
    >>> from snnax import snn
    >>> model = snn.Sequential(snn.BatchNorm(3), snn.LIF(3, 0.9))
    >>> learning, rest = eqx.partition(model, snn.trainable(model, fixed=["threshold"]))
    >>> [leaf.shape for leaf in jax.tree.leaves(learning)]  # weight and bias, and the decay
    [(3,), (3,), ()]
    """
    names = list(fixed)
    statistics = {id(x) for layer in _batch_norms(model) for x in (layer.mean, layer.var)}
    found: set[str] = set()

    def learns(path: tuple[Any, ...], leaf: Any) -> bool:
        if not eqx.is_inexact_array(leaf) or id(leaf) in statistics:
            return False
        named = {_name(entry) for entry in path} & set(names)
        found.update(named)
        return not named

    spec = jax.tree_util.tree_map_with_path(learns, model)
    unknown = [name for name in names if name not in found]
    if unknown:
        paths = [path for path, leaf in jax.tree.leaves_with_path(model) if eqx.is_inexact_array(leaf)]
        known = sorted({_name(entry) for path in paths for entry in path})
        raise ValueError(f"the model has no float arrays under {', '.join(map(repr, unknown))}; it has {known}")
    return spec


def _batch_norms(model: Any) -> list[BatchNorm]:
    is_norm = lambda node: isinstance(node, BatchNorm)  # noqa: E731
    return [node for node in jax.tree.leaves(model, is_leaf=is_norm) if is_norm(node)]


def _name(entry: Any) -> str:
    return str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry))))
