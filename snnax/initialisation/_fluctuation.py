"""Fluctuation-driven initial weights, derived for neurons in discrete time."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)


def fluctuation_driven(
    layer: Any,
    *,
    key: Array,
    input_rate: float,
    decay_mem: float,
    decay_syn: float | None = None,
    input_scale: Literal["unit", "one_minus_decay"] = "unit",
    threshold: float = 1.0,
    std: float = 0.5,
    mean: float = 0.0,
) -> Any:
    r"""A copy of a layer with normally distributed weights that let membrane potentials fluctuate close to threshold.

    After Rossbroich, Gygax & Zenke 2022 (doi:10.1088/2634-4386/ac97bb), whose target
    $\xi = (\theta - \mu_U) / \sigma_U$ is `(1 - mean) / std`; here for discrete time. A membrane that is not reset is
    $v_t = \sum_k h_k I_{t-k}$ with

    $$ h_k = \sum_{j \le k} \beta^{k-j} \alpha^j, \quad \sum_k h_k = \frac{1}{(1 - \alpha)(1 - \beta)}, \quad
       \sum_k h_k^2 = \frac{1 + \alpha \beta}{(1 - \alpha \beta)(1 - \alpha^2)(1 - \beta^2)} $$

    for a membrane decay $\beta$ and a synaptic decay $\alpha$ (0 without a synapse: $\sum_k h_k^2 = 1/(1-\beta^2)$).
    Each of $n$ inputs spikes independently with probability $p$ per time step, a Bernoulli process, so that
    $\text{E}[I] = n p \, \text{E}[w]$, and $I$ varies over time with variance $n p (1 - p) \, \text{E}[w^2]$ (a Poisson
    process would have $n p \, \text{E}[w^2]$). Hence

    $$ \text{E}[w] = \frac{\theta \, \text{mean}}{n p \sum_k h_k}, \qquad
       \text{Var}[w] = \frac{(\theta \, \text{std})^2}{n p (1 - p) \sum_k h_k^2} - \text{E}[w]^2 $$

    This is the fluctuation over time of an average neuron. The neurons differ: each has a mean potential of its own,
    $p \sum_j w_j \sum_k h_k$. Neurons at the border of a zero-padded convolution have fewer inputs, and fluctuate less.

    **Arguments:**

    - `layer`: `eqx.nn.Linear` or `eqx.nn.Conv*`; a bias is set to 0.
    - `key`: for the draw.
    - `input_rate`: $p$, spikes per time step of one input, between 0 and 1; such as `metrics.firing_rates` measures it.
    - `decay_mem`, `decay_syn`: factors per time step of the neurons that follow, `exp(-dt / tau)`; in [0, 1).
    - `input_scale`: that of the neurons; `"one_minus_decay"` divides the weights by `1 - decay_mem`.
    - `threshold`: $\theta$.
    - `std`: standard deviation over time of the membrane potential, in units of the threshold.
    - `mean`: its mean, in units of the threshold; 0 balances excitation and inhibition.

    **Returns:** the layer with new weights, in the dtype of the old ones.

    **Raises:** `TypeError` for another layer, `ValueError` for a value out of its range, or a `mean` that alone causes
    more fluctuation than `std`.

    >>> linear = eqx.nn.Linear(100, 1000, key=jax.random.key(0))
    >>> linear = fluctuation_driven(linear, key=jax.random.key(1), input_rate=0.5, decay_mem=0.0, std=0.5)
    >>> print(round(float(linear.weight.std()), 2))  # 0.5 / sqrt(100 * 0.5 * 0.5)
    0.1
    """
    if type(layer) not in (eqx.nn.Linear, *CONVOLUTIONS):
        raise TypeError(
            "fluctuation_driven draws the weights of eqx.nn.Linear and eqx.nn.Conv*, whose neurons all have the same "
            f"number of inputs; found {type(layer).__name__}: call it for each of those layers of a model"
        )
    if key is None:
        raise ValueError("fluctuation_driven draws random weights and found key=None: pass key=jax.random.key(seed)")
    if not 0 < input_rate < 1:
        raise ValueError(f"input_rate must lie between 0 and 1 (spikes per time step), found {input_rate}")
    alpha = 0.0 if decay_syn is None else decay_syn
    for name, decay in {"decay_mem": decay_mem, "decay_syn": alpha}.items():
        if not 0 <= decay < 1:
            raise ValueError(f"{name} must lie in [0, 1): a potential that never decays has no variance; found {decay}")
    if input_scale not in ("unit", "one_minus_decay"):
        raise ValueError(f"input_scale must be 'unit' or 'one_minus_decay', found {input_scale!r}")
    if not (std > 0 and threshold > 0):
        raise ValueError(f"std and threshold must be positive, found std={std}, threshold={threshold}")
    # A receptive field (one row) of the weights: [out, in], or [out, in / groups, kernel...].
    fan_in = math.prod(layer.weight.shape[1:])
    scale = 1.0 if input_scale == "unit" else 1 - decay_mem
    kernel_sum = scale / ((1 - alpha) * (1 - decay_mem))
    squares = (1 + alpha * decay_mem) / ((1 - alpha * decay_mem) * (1 - alpha**2) * (1 - decay_mem**2))
    weight_mean = threshold * mean / (fan_in * input_rate * kernel_sum)
    second_moment = (threshold * std) ** 2 / (fan_in * input_rate * (1 - input_rate) * scale**2 * squares)
    if second_moment < weight_mean**2:
        smallest = std * abs(weight_mean) / math.sqrt(second_moment)
        raise ValueError(
            f"equal weights that give the mean potential {mean} already fluctuate by std={smallest:.3g}, "
            f"found the smaller std={std}: raise std or lower mean"
        )
    noise = jax.random.normal(key, layer.weight.shape, layer.weight.dtype)
    weight = weight_mean + math.sqrt(second_moment - weight_mean**2) * noise
    bias = None if layer.bias is None else jnp.zeros_like(layer.bias)
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (weight, bias), is_leaf=lambda x: x is None)
