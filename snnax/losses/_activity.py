"""Regularisers of the activity of any number of layers: pytrees of spike sequences, such as a list of layer outputs."""

import functools
import operator
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._sequence import as_sequence


def rate_bounds(
    spikes: PyTree[Float[Array, "..."]], *, lower: float | None = None, upper: float | None = None
) -> Float[Array, ""]:
    r"""Quadratic penalty for neurons that spike too rarely or too often.

    With the firing rate $r_n$ of neuron $n$ in spikes per time step, a layer of $N$ neurons adds

    $$ \frac{1}{N} \sum_n \max(0, r_\text{lower} - r_n)^2 + \max(0, r_n - r_\text{upper})^2 $$

    Layers are added and neurons averaged, so that no layer outweighs another by its size.

    **Arguments:** `spikes`: a pytree of sequences `(time, ...)`. `lower`, `upper`: spikes per time step; at least one.

    **Returns:** the penalty, at least float32, 0 when all neurons keep to the bounds. The rate is that of one sample:
    under `jax.vmap` each sample has to keep to the bounds.

    **Raises:** `TypeError` for integers, `ValueError` for no sequence, a scalar, no time step, or no bound or bounds
    that cross.

    >>> rates = jnp.array([[1.0, 0.0], [1.0, 1.0]])  # 1 and 0.5 spikes per time step
    >>> float(rate_bounds([rates], upper=0.75))
    0.03125
    """
    if lower is None and upper is None:
        raise ValueError("rate_bounds needs a bound, found neither lower nor upper")
    if lower is not None and upper is not None and not lower <= upper:
        raise ValueError(f"rate_bounds needs lower <= upper, found lower={lower}, upper={upper}")

    def penalty(xs: Array) -> Array:
        rates = xs.mean(0)
        below = jnp.zeros_like(rates) if lower is None else jax.nn.relu(lower - rates)
        above = jnp.zeros_like(rates) if upper is None else jax.nn.relu(rates - upper)
        return jnp.mean(below**2 + above**2)

    return functools.reduce(operator.add, map(penalty, _sequences("rate_bounds", spikes)))


def sparsity(spikes: PyTree[Float[Array, "..."]], *, reduction: Literal["mean", "sum"] = "mean") -> Float[Array, ""]:
    """The L1 norm of spikes, which are not negative: their number (`"sum"`), or their mean per neuron and time step.

    `"sum"` times a factor is `snntorch.functional.l1_rate_sparsity(factor)` (snnTorch 1.0).

    **Arguments:** `spikes`: a pytree of sequences `(time, ...)`. `reduction`: over everything in the tree.

    **Returns:** a scalar, at least float32. Its gradient is the same for every neuron and time step, silent or not.

    **Raises:** `TypeError` for integers, `ValueError` for no sequence, a scalar, no time step, or another reduction.

    >>> layers = [jnp.ones((2, 3)), jnp.zeros((2, 1))]
    >>> float(sparsity(layers)), float(sparsity(layers, reduction="sum"))
    (0.75, 6.0)
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction of sparsity must be 'mean' or 'sum', found {reduction!r}")
    sequences = _sequences("sparsity", spikes)
    total = functools.reduce(operator.add, (xs.sum() for xs in sequences))
    return total if reduction == "sum" else total / sum(xs.size for xs in sequences)


def _sequences(where: str, tree: object) -> list[Array]:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError(f"{where} needs at least one spike sequence (time, ...), found none in {tree!r}")
    return [as_sequence(where, leaf) for leaf in leaves]
