"""DeltaLeaky: spikes where the membrane changes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import snntorch
import torch
from jaxtyping import Array, Float

from snnax import snn
from snnax.snn.parts import output_dtype
from snnax.surrogate import AbstractSurrogate

from ...converters.base import ModuleCall
from ...converters.context import ConversionContext
from ...converters.neuron import Memory, NeuronCall, NeuronConverter
from ...errors import RecordingError
from ._neuron import SHARED_OPTIONS, check_parameter
from ._step import delta_step
from ._surrogates import surrogate_of


class DeltaState(eqx.Module):
    """Membrane potential `v`."""

    v: Float[Array, "..."]


class DeltaLeaky(snn.AbstractLayer):
    r"""snnTorch's `DeltaLeaky`: $v_t = \beta v_{t-1} + x_t$, $z_t = H(|v_t - v_{t-1}| - \delta)$, without a reset."""

    decay: snn.Factor
    surrogate: AbstractSurrogate
    delta_threshold: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> DeltaState:
        """All zero."""
        del shape, key
        return DeltaState(jnp.zeros(self.shape, jnp.result_type(float)))

    def __call__(self, state: DeltaState, x: Array, *, key: Any = None) -> tuple[DeltaState, Array]:
        """One time step; returns the new state and the spikes in the dtype of `x`."""
        del key
        v = self.decay.leak(state.v) + x.astype(state.v.dtype)
        change = v - state.v
        # The gradient of torch's abs is zero at zero; that of JAX is one.
        size = change * jax.lax.stop_gradient(jnp.sign(change))
        return DeltaState(v), self.surrogate(size - self.delta_threshold).astype(output_dtype(x))


def _build(module: Any, context: ConversionContext) -> DeltaLeaky:
    check_parameter(module, "beta", context)
    return DeltaLeaky(
        snn.Factor(context.neuron_parameter("beta"), constraint="none"),
        surrogate_of(module, context),
        float(module.delta_threshold),
        context.x_shape,
    )


def _read_membrane(module: Any) -> tuple[torch.Tensor, ...]:
    return () if module.mem is None else (module.mem,)


def _reset_membrane(module: Any) -> None:
    module.reset_mem()


def _split(module: Any, call: ModuleCall) -> NeuronCall:
    given = call.arguments("input_", "mem")
    x, states = given["input_"], given.get("mem")
    before = call.kept[0] if states is None and call.kept else None if states is None else states[0]
    if before is not None and before.shape != x.shape:
        raise RecordingError(
            f"DeltaLeaky is given a membrane of shape {tuple(before.shape)} for an input of shape {tuple(x.shape)}. "
            "Allowed: the same shape, or None to begin with",
            framework="snntorch",
        )
    state_in = None if before is None else (before,)
    return NeuronCall(x=x, state_in=state_in, out=call.result[0], state_out=(module.mem,))


def _set_in_vain(module: Any) -> str:
    set_in_vain = [
        name
        for name, default in (("inhibition", False), ("state_quant", False), ("graded_spikes_factor", 1.0))
        if bool(getattr(module, name) != default)
    ]
    return f"{', '.join(set_in_vain)}: ignored, as in snnTorch" if set_in_vain else ""


DELTA_LEAKY = NeuronConverter(
    kind=snntorch.DeltaLeaky,
    framework="snntorch",
    options=(
        "delta_threshold", *SHARED_OPTIONS, "beta", "learn_beta", "graded_spikes_factor",
        "learn_graded_spikes_factor", "reset_delay",
    ),
    build=_build,
    fields=("v",),
    split_call=_split,
    memory=Memory(read=_read_membrane, reset=_reset_membrane, instances=lambda: snntorch.SpikingNeuron.instances),
    caveat=_set_in_vain,
    run=delta_step,
)  # fmt: skip
