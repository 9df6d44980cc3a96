"""Batch normalisation of spiking networks, with its running statistics as explicit state."""

import math
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ...domains import FRACTION, NOT_NEGATIVE, check
from ...engine import AbstractContainer, AbstractSequenceLayer, walk
from ..parts import output_dtype, owned


Model = TypeVar("Model", bound=AbstractContainer)


class BatchNormState(eqx.Module):
    """Running statistics `(channels,)`, or `(steps, channels)`, and the number of time steps seen."""

    mean: Float[Array, "*steps channels"]
    var: Float[Array, "*steps channels"]
    step: Int[Array, ""]


class BatchNorm(AbstractSequenceLayer):
    r"""Batch normalisation per channel, the first axis of the input, over batch and space.

    $$ y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta $$

    Ioffe & Szegedy 2015 (arXiv:1502.03167). Over time, `statistics` says which values $\mu$ and $\sigma^2$ are of:

    - `"step"`: of one time step, and the running statistics take part in every step, as in a Python loop in torch.
    - `"sequence"`: of all time steps together, as in SpikingJelly's multi-step mode and in tdBN (Zheng et al. 2021,
      arXiv:2011.05280). In training it needs the whole sequence at once, so that it cannot be stepped.
    - `"per_step"`: of one time step, with running statistics, $\gamma$ and $\beta$ of its own for each of `steps` time
      steps: BNTT (Kim & Panda 2021, doi:10.3389/fnins.2021.773954; snnTorch's `BatchNormTT` has no $\beta$:
      `use_bias=False`).

    In training the batch is the axis that `jax.vmap` was given as `axis_name`; with `axis_name=None` there is one
    sample. `eqx.nn.inference_mode(model)` switches to the running statistics. As everything that changes, these are
    state: a model starts from those that it holds, and `snn.update_statistics(model, states)` puts those of returned
    states back into it.

    >>> from snnax import snn
    >>> model = snn.Sequential(BatchNorm(2, axis_name="batch"))
    >>> states = model.init_states(input_shape=(2, 4))
    >>> xs = jax.random.normal(jax.random.key(0), (8, 5, 2, 4))  # (batch, time, channels, space)
    >>> after, outs = jax.vmap(model, in_axes=(None, 0), axis_name="batch")(states, xs)
    >>> model = snn.update_statistics(model, after)
    >>> bool(jnp.all(model[0].mean != 0))
    True
    """

    weight: Array | None
    bias: Array | None
    mean: Array
    var: Array
    inference: bool
    statistics: Literal["step", "sequence", "per_step"] = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    axis_name: Any = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        *,
        axis_name: Any = None,
        statistics: Literal["step", "sequence", "per_step"] = "step",
        steps: int | None = None,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        use_weight: bool = True,
        use_bias: bool = True,
        inference: bool = False,
        key: Any = None,
    ):
        """**Arguments:**

        - `channels`: size of the first axis of the input.
        - `axis_name`: of the batch axis, as in `jax.vmap(..., axis_name=...)`; several names in a tuple.
        - `statistics`, `steps`: see above; `steps` is the number of time steps of `"per_step"`.
        - `momentum`: the share that the new statistics get in the running ones; `epsilon`: added to the variance.
        - `use_weight`, `use_bias`: whether there is a $\\gamma$ and a $\\beta$.
        - `inference`: whether the running statistics are used, and not changed.

        **Raises:** `ValueError` for options that are unknown or do not go together.
        """
        del key
        if statistics not in ("step", "sequence", "per_step"):
            raise ValueError(f"statistics must be 'step', 'sequence' or 'per_step', found {statistics!r}")
        if (steps is not None) != (statistics == "per_step"):
            raise ValueError(f"steps goes with statistics='per_step', found steps={steps} and {statistics!r}")
        check("momentum", momentum, FRACTION)
        check("epsilon", epsilon, NOT_NEGATIVE)
        shape = (channels,) if steps is None else (steps, channels)
        dtype = jnp.result_type(float)
        self.weight = jnp.ones(shape, dtype) if use_weight else None
        self.bias = jnp.zeros(shape, dtype) if use_bias else None
        self.mean, self.var = jnp.zeros(shape, dtype), jnp.ones(shape, dtype)
        self.inference = inference
        self.statistics = statistics
        self.channels = channels
        self.steps = steps
        self.axis_name = axis_name
        self.momentum = momentum
        self.epsilon = epsilon

    @property
    def needs_whole_sequence(self) -> bool:
        """Whether this is training on statistics of the whole sequence."""
        return self.statistics == "sequence" and not self.inference

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> BatchNormState:
        """The running statistics that the layer holds, at the first time step; in JAX's default float.

        **Raises:** `ValueError` for an input whose first axis is not that of the channels.
        """
        del key
        if shape is not None and (not shape or shape[0] != self.channels):
            raise ValueError(f"BatchNorm was built for {self.channels} channels, found inputs of shape {tuple(shape)}")
        mean, var = (owned(value, value.shape) for value in jax.lax.stop_gradient((self.mean, self.var)))
        return BatchNormState(mean, var, jnp.zeros((), jnp.int32))

    def __call__(
        self, state: BatchNormState, x: Shaped[Array, "channels ..."], *, key: Any = None
    ) -> tuple[BatchNormState, Float[Array, "channels ..."]]:
        """One time step; returns the new statistics and the normalised input in its dtype.

        A time step beyond `steps` has the statistics and parameters of the last one.

        **Raises:** `ValueError` in training on statistics of the whole sequence, or of one value per channel.
        """
        del key
        if self.needs_whole_sequence:
            raise ValueError(
                "BatchNorm(statistics='sequence') needs the whole sequence in training and cannot be stepped: run the "
                "model with snnax.engine.layerwise and not in a feedback loop, or take statistics='step'"
            )
        return self._step(state, x, None)

    def apply_sequence(
        self, state: BatchNormState, xs: Shaped[Array, "time channels ..."], *, keys: Any = None, mask: Any = None
    ) -> tuple[BatchNormState, Float[Array, "time channels ..."]]:
        """A whole sequence, as described for `snn.AbstractSequenceLayer`.

        Steps that a sample's `mask` leaves out do not enter the statistics; these are the same for all samples of a
        batch, and so go on with those that are longer.
        """
        del keys
        if not self.needs_whole_sequence:
            return jax.lax.scan(lambda state, inputs: self._step(state, *inputs), state, (xs, mask))
        if xs.shape[0] == 0:
            return state, xs
        wide = xs.astype(state.mean.dtype)
        mean, var, size = self._statistics(wide, mask)
        state = self._updated(state, slice(None), mean, var, size)
        return state, self._normalised(wide, mean, var, slice(None)).astype(output_dtype(xs))

    def _step(self, state: BatchNormState, x: Array, counts: Array | None) -> tuple[BatchNormState, Array]:
        row = slice(None) if self.steps is None else jnp.minimum(state.step, self.steps - 1)
        # In float32 at least: half precision has too few digits for a variance.
        wide = x.astype(state.mean.dtype)[None]
        mean, var = state.mean[row], state.var[row]
        if not self.inference:
            mean, var, size = self._statistics(wide, None if counts is None else counts[None])
            state = self._updated(state, row, mean, var, size)
        out = self._normalised(wide, mean, var, row)[0].astype(output_dtype(x))
        passed = jnp.ones((), bool) if counts is None else self._over_batch(counts.astype(wide.dtype)) > 0
        return BatchNormState(state.mean, state.var, state.step + passed.astype(state.step.dtype)), out

    def _over_batch(self, x: Array) -> Array:
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)

    def _statistics(self, xs: Array, mask: Array | None) -> tuple[Array, Array, Array]:
        """Mean and biased variance per channel over batch, time and space, and how many values they are of."""
        axes = (0, *range(2, xs.ndim))
        counts = jnp.ones(xs.shape[0], xs.dtype) if mask is None else mask.astype(xs.dtype)
        weights = counts.reshape(-1, *(1,) * (xs.ndim - 1))
        self._check_size(xs.shape[0] * math.prod(xs.shape[2:]))
        size = self._over_batch(counts.sum() * math.prod(xs.shape[2:]))
        mean = self._over_batch((weights * xs).sum(axes)) / jnp.maximum(size, 1)
        centred = xs - _over_space(mean, xs)
        return mean, self._over_batch((weights * centred**2).sum(axes)) / jnp.maximum(size, 1), size

    def _check_size(self, values: int) -> None:
        """**Raises:** `ValueError` where a channel has one value, which is its own mean."""
        if values * (1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)) == 1:
            batch = "the batch has one sample" if self.axis_name is not None else "it sees no batch"
            raise ValueError(
                f"BatchNorm in training needs more than one value per channel, and {batch}: all outputs would be 0. "
                "Name the batch, BatchNorm(..., axis_name='batch') in jax.vmap(..., axis_name='batch'), or switch to "
                "the running statistics: eqx.nn.inference_mode(model)"
            )

    def _updated(self, state: BatchNormState, row: Any, mean: Array, var: Array, size: Array) -> BatchNormState:
        mean, var, size = jax.lax.stop_gradient((mean, var, size))
        # Running variances are unbiased, as in torch; without any value there is nothing to learn.
        share = jnp.where(size > 0, self.momentum, 0.0).astype(mean.dtype)
        unbiased = var * (size / jnp.maximum(size - 1, 1))
        return BatchNormState(
            state.mean.at[row].set((1 - share) * state.mean[row] + share * mean),
            state.var.at[row].set((1 - share) * state.var[row] + share * unbiased),
            state.step,
        )

    def _normalised(self, xs: Array, mean: Array, var: Array, row: Any) -> Array:
        out = (xs - _over_space(mean, xs)) * jax.lax.rsqrt(_over_space(var, xs) + self.epsilon)
        if self.weight is not None:
            out = out * _over_space(self.weight[row].astype(xs.dtype), xs)
        return out if self.bias is None else out + _over_space(self.bias[row].astype(xs.dtype), xs)


def _over_space(per_channel: Array, xs: Array) -> Array:
    """`(channels,)` for `(time, channels, *space)`."""
    return per_channel.reshape(1, -1, *(1,) * (xs.ndim - 2))


def update_statistics(model: Model, states: Any) -> Model:
    """A model whose `BatchNorm` layers hold the running statistics of states that a run returned.

    **Arguments:** `states`: of one sample, or of a batch along leading axes: these are the same for all its samples
    where the layers know the batch as `axis_name`, and are averaged where they do not.

    **Returns:** the model with other `mean` and `var`, and nothing else changed.

    **Raises:** `ValueError` for a layer in training that the model uses twice: each use has statistics of its own.
    """
    found: dict[int, tuple[str, Array, Array]] = {}
    for path, node, state in _with_states(model, states, ""):
        if isinstance(node, BatchNorm):
            if id(node) in found and not node.inference:
                raise ValueError(
                    f"'{found[id(node)][0]}' and '{path}' are one BatchNorm, whose two uses have statistics of their "
                    "own: build the model with two layers"
                )
            found[id(node)] = path, _one_copy(node, state.mean, node.mean), _one_copy(node, state.var, node.var)
    if not found:
        return model
    paths = [path for path, _, _ in found.values()]

    def where(model):
        nodes = dict(walk(model))
        return [leaf for path in paths for leaf in (nodes[path].mean, nodes[path].var)]

    return eqx.tree_at(where, model, [leaf for _, mean, var in found.values() for leaf in (mean, var)])


def _one_copy(node: BatchNorm, new: Array, old: Array) -> Array:
    copies = new.reshape(-1, *old.shape).astype(old.dtype)
    return copies.mean(0) if node.axis_name is None else copies[0]


def _with_states(model: AbstractContainer, states: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    of = model.unpack_states(states)
    for name, node in model.named_nodes.items():
        if isinstance(node, AbstractContainer):
            yield from _with_states(node, of[name], f"{path}{name}.")
        else:
            yield path + name, node, of.get(name)
