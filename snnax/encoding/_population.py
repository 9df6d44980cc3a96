"""Population coding: a scalar as the activity of neurons with Gaussian tuning curves."""

import operator

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._values import as_values, widened


def population(
    values: Float[Array, "..."], num_neurons: int, lower: float, upper: float, *, width: float | None = None
) -> Float[Array, "... neurons"]:
    r"""The activity of `num_neurons` neurons per value, with centres $c_k$ evenly over the range, both ends included:

    $$ a_k = \exp\left(-\frac{(x - c_k)^2}{2 \sigma^2}\right) $$

    The activity is a number in [0, 1], which `rate` takes as the probability of a spike and `latency` as a value. One
    neuron alone has its centre in the middle. (Gaussian receptive fields as in Bohte, Kok & La Poutre 2002,
    doi:10.1016/S0925-2312(01)00658-0, where centres and widths are placed a little differently.)

    **Arguments:**

    - `values`: any shape; a value outside of the range excites the neurons at its end, the less the farther it is.
    - `num_neurons`: per value, 1 or more.
    - `lower`, `upper`: the centres of the first and the last neuron, in the units of `values`.
    - `width`: $\sigma$ in the units of `values`; the distance between two centres (the whole range for one neuron)
      when not given.

    **Returns:** one more axis, the last, of `num_neurons`; in the dtype of `values`, differentiable.

    **Raises:** `TypeError` for integers, `ValueError` for NaN, no neuron, an empty range or a width that is not
    positive.

    >>> [round(activity, 3) for activity in population(jnp.array(0.5), 3, 0.0, 1.0).tolist()]
    [0.607, 1.0, 0.607]
    >>> import jax
    >>> from snnax import encoding
    >>> activity = population(jnp.array([0.1, 0.5]), 3, 0.0, 1.0)
    >>> encoding.rate(activity, 100, key=jax.random.key(0)).shape
    (100, 2, 3)
    """
    values = as_values("population", values)
    num_neurons = operator.index(num_neurons)
    if num_neurons < 1:
        raise ValueError(f"population needs num_neurons >= 1, found {num_neurons}")
    if not lower < upper:
        raise ValueError(f"population needs a range with lower < upper, found lower={lower}, upper={upper}")
    if width is not None and not width > 0:
        raise ValueError(f"width of population must be positive, found {width}")
    x = widened(values)[..., None]
    if num_neurons == 1:
        centres, spacing = jnp.full((1,), (lower + upper) / 2, x.dtype), upper - lower
    else:
        centres, spacing = jnp.linspace(lower, upper, num_neurons, dtype=x.dtype), (upper - lower) / (num_neurons - 1)
    distance = (x - centres.reshape((1,) * values.ndim + (-1,))) / (spacing if width is None else width)
    return jnp.exp(-(distance**2) / 2).astype(values.dtype)
