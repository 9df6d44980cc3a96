"""The layers of the core against the framework that each of them is at home in: outputs, states and gradients.

As for the neurons: in float64, over batches of sequences, from states that are not at rest; nothing here goes through
the converter. Parameters are those of the framework's module, under its names, and all of them are compared.

Left out is what these layers do not have: snnTorch's SLSTM with other sizes of input and hidden state (it zeroes its
states), `inhibition` of both its LSTMs (which they ignore), `reset_delay=False` of RSynaptic (likewise),
`LeakyParallel(dropout)` (likewise), `state_quant`, a BatchNorm without or with averaged running statistics, and
`ceil_mode`, `dilation`, `count_include_pad=False` and `divisor_override` of torch's pooling.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from norse.torch import LIFParameters, LIFRecurrentCell
from norse.torch.functional.lif import LIFState

from snnax import snn, surrogate


pytestmark = [pytest.mark.full, pytest.mark.usefixtures("double_precision")]

NUM_STEPS, BATCH, SIZE, DT = 20, 3, 6, 1e-3
KEY = jax.random.key(0)
ATAN = surrogate.ATan(2.0)  # the default of snnTorch


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer twice, on sequences `(time, batch, ...)`: a module with its loop in torch, and a function in JAX.

    `loop(module, xs, *states)` and `run(parameters, xs, *states)` return outputs and final states. `x` and `states` are
    the shapes of one sample; outputs of an `exact` layer are spikes, or otherwise equal to the last bit.
    """

    module: Callable[[], torch.nn.Module]
    loop: Callable[..., Any]
    run: Callable[..., Any]
    x: tuple[int, ...] = (SIZE,)
    states: tuple[tuple[int, ...], ...] = ()
    exact: bool = True
    binary: bool = False
    scale: float = 1.0


CASES: dict[str, Case] = {}


def ramp(shape, offset=0.0):
    return np.cos(np.arange(1.0, np.prod(shape) + 1) + offset).reshape(shape)


def filled(module, scale=1.0):
    """The module with other weights and biases than those it drew, where they are not frozen."""
    with torch.no_grad():
        for index, (name, value) in enumerate(module.named_parameters()):
            if value.requires_grad and ("weight" in name or "bias" in name):
                value.copy_(torch.tensor(scale * ramp(value.shape, index)))
    return module


def stepped(module, xs, *states):
    """A loop over a module that returns its output first and its states last."""
    outs = []
    for x in xs:
        out = module(x, *states)
        outs.append(out[0])
        states = out[-len(states) :]
    return torch.stack(outs), states


def placed(layer, **values):
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in values], layer, list(values.values()))


def batched(model, states, xs, axis: int | None = 0):
    states, outs = jax.vmap(model, in_axes=(axis, 1), out_axes=(0, 1), axis_name="batch")(states, xs)
    return outs[-1], states


def layers(build, pack, read):
    """What runs the layers that `build` makes of parameters, of which the last has a state."""

    def run(p, xs, *states):
        built = build(p)
        outs, after = batched(snn.Sequential(*built), [None] * (len(built) - 1) + [pack(*states)], xs)
        return outs, read(after[-1])

    return run


# LSTMs


def slstm(p, prefix, reset="none"):
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values = {name: p[prefix + name] for name in names if prefix + name in p}
    hidden, size = values["weight_hh"].shape[1], values["weight_ih"].shape[1]
    options: Any = {"use_bias": "bias_ih" in values, "surrogate": ATAN, "key": KEY}
    return placed(snn.SLSTM(size, hidden, p.get("threshold", 0.1), reset, **options), **values)


def lstm_state(c, v):
    return snn.LSTMState(v, c)


def slstm_case(reset, bias):
    return Case(
        lambda: filled(snntorch.SLSTM(SIZE, SIZE, bias, 0.1, learn_threshold=True, reset_mechanism=reset)),
        stepped,
        layers(lambda p: [slstm(p, "lstm_cell.", reset)], lstm_state, lambda s: (s.c, s.v)),
        states=((SIZE,),) * 2,
    )


def lstm_loop(cell, xs, c, h):
    hidden = []
    for x in xs:
        h, c = cell(x, (h, c))
        hidden.append(h)
    return torch.stack(hidden), (c, h)


def lstm_hidden(p, xs, c, v):
    """The hidden states of all time steps, which is what torch's LSTM gives."""

    def step(state, x):
        state, _ = jax.vmap(slstm(p, ""))(state, x)
        return state, state.v

    state, hidden = jax.lax.scan(step, lstm_state(c, v), xs)
    return hidden, (state.c, state.v)


def sconvlstm_case(reset, options, pool):
    def build(p):
        weight, bias = p["conv.weight"], {"bias": p["conv.bias"]} if "conv.bias" in p else {}
        conventions: Any = {"pool": pool, "use_bias": bool(bias), "surrogate": ATAN, "key": KEY}
        cell = snn.SConvLSTM(2, 3, weight.shape[2:], p["threshold"], reset, **conventions)
        return [placed(cell, weight=weight, **bias)]

    theirs: Any = {"threshold": 0.05, "learn_threshold": True, "reset_mechanism": reset, **options}
    return Case(
        lambda: filled(snntorch.SConv2dLSTM(2, 3, (3, 5), **theirs), 0.5),
        stepped,
        layers(build, lstm_state, lambda s: (s.c, s.v)),
        x=(2, 5, 6),
        states=((3, 5, 6),) * 2,
    )


POOLS: dict[str, tuple[dict[str, Any], Any]] = {
    "": ({}, None),
    "max_pool": ({"max_pool": 2}, snn.MaxPool(2)),
    "avg_pool": ({"avg_pool": (1, 2), "bias": False}, snn.AvgPool((1, 2))),
}
for bias in (True, False):
    module = functools.partial(torch.nn.LSTMCell, SIZE, 4, bias)
    CASES[f"torch LSTMCell bias={bias}"] = Case(
        lambda module=module: filled(module()), lstm_loop, lstm_hidden, states=((4,),) * 2, exact=False
    )
for reset in ("none", "subtract", "zero"):
    CASES[f"snntorch SLSTM {reset}"] = slstm_case(reset, bias=True)
    for name, pool in POOLS.items():
        CASES[f"snntorch SConv2dLSTM {reset} {name}"] = sconvlstm_case(reset, *pool)
CASES["snntorch SLSTM bias=False"] = slstm_case("none", bias=False)


# LeakyParallel


def leaky_parallel_case(decay, full, bias=True, **options):
    """`decay` of parameters is what the layer is built with."""

    def module():
        learn: Any = {"learn_threshold": True, "graded_spikes_factor": 1.5, "learn_graded_spikes_factor": True}
        module = snntorch.LeakyParallel(SIZE, 4, bias=bias, threshold=0.4, weight_hh_enable=full, **learn, **options)
        filled(module, 0.4)
        if not full:
            module.weight_hh_enable()  # which makes it diagonal
        return module

    def build(p):
        values = {"weight_ih": p["rnn.weight_ih_l0"]}
        values |= {"weight_hh": p["rnn.weight_hh_l0"]} if full else {}
        values |= {"bias": p["rnn.bias_ih_l0"] + p["rnn.bias_hh_l0"]} if bias else {}
        conventions: Any = {"decay": decay(p), "amplitude": p["graded_spikes_factor"], "surrogate": ATAN, "key": KEY}
        return [placed(snn.LeakyParallel(SIZE, 4, p["threshold"], use_bias=bias, **conventions), **values)]

    return Case(
        module,
        lambda module, xs: (module(xs), tuple(module.rnn(xs)[1])),  # the module itself keeps its state, and starts at 0
        layers(build, lambda: snn.HiddenState(jnp.zeros((BATCH, 4))), lambda s: (s.v,)),
    )


CASES["snntorch LeakyParallel full"] = leaky_parallel_case(lambda p: None, True, learn_beta=True)
CASES["snntorch LeakyParallel bias=False"] = leaky_parallel_case(lambda p: None, True, False, learn_beta=True)
CASES["snntorch LeakyParallel diagonal"] = leaky_parallel_case(
    lambda p: jnp.diag(p["rnn.weight_hh_l0"]), False, learn_beta=True
)
CASES["snntorch LeakyParallel fixed beta"] = leaky_parallel_case(lambda p: 0.9, False, beta=0.9)


# Recurrent neurons


def linear(weight, bias=None):
    layer = eqx.nn.Linear(*weight.shape[::-1], use_bias=bias is not None, key=KEY)
    return placed(layer, weight=weight) if bias is None else placed(layer, weight=weight, bias=bias)


def convolution(weight, bias):
    layer = eqx.nn.Conv2d(*weight.shape[1::-1], weight.shape[2:], padding="SAME", key=KEY)
    return placed(layer, weight=weight, bias=bias.reshape(-1, 1, 1))


def recurrent_layers(build):
    """As `layers`, with states in snnTorch's order: spikes, synapse if there is one, membrane."""

    def pack(z, *rest):
        *currents, v = rest
        return snn.RecurrentState(snn.NeuronState(v, *currents), z)

    return layers(build, pack, lambda s: (s.z, *(() if s.i is None else (s.i,)), s.v))


def recurrent_case(kind, connection, reset, firing=None, **options):
    connect, connect_options, shape, beta = CONNECTIONS[connection]
    decays = ["beta", "alpha"] if kind is snntorch.RSynaptic else ["beta"]

    def module():
        values = {"threshold": 0.6, **dict(zip(decays, (beta, 0.8), strict=False)), **connect_options}
        values = {n: torch.tensor(v) if isinstance(v, list) else v for n, v in values.items()}
        values |= {f"learn_{name}": True for name in (*decays, "threshold")}
        return filled(kind(**values, reset_mechanism=reset, **options), 0.5)

    def build(p):
        factors = [snn.Factor(p[name], constraint="clip") for name in decays]
        conventions: Any = {"reset_delay": True, "keep_input": False, "surrogate": ATAN, **(firing or {})}
        return [snn.Recurrent(snn.LIF(shape, factors, p["threshold"], reset, **conventions), connect(p))]

    return Case(module, stepped, recurrent_layers(build), x=shape, states=(shape,) * (len(decays) + 1))


BETAS = [0.9, 1.0, 0.5, 1.2, 0.0, 0.7]  # with bounds, where the gradient passes, and what is beyond
CONNECTIONS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], Any]] = {
    "linear": (
        lambda p: linear(p["recurrent.weight"], p["recurrent.bias"]),
        {"linear_features": SIZE},
        (SIZE,),
        BETAS,
    ),
    "one to one": (
        lambda p: snn.OneToOne(p["V"]),
        {"all_to_all": False, "V": [0.5, -0.7, 1.1, 0.3, 0.9, -0.4]},
        (SIZE,),
        BETAS,
    ),
    "convolution": (
        lambda p: convolution(p["recurrent.weight"], p["recurrent.bias"]),
        {"conv2d_channels": 2, "kernel_size": 3},
        (2, 4, 3),
        0.8,
    ),
}
for kind in (snntorch.RLeaky, snntorch.RSynaptic):
    for connection in CONNECTIONS:
        for reset in ("subtract", "zero", "none"):
            CASES[f"snntorch {kind.__name__} {connection} {reset}"] = recurrent_case(kind, connection, reset)
    CASES[f"snntorch {kind.__name__} inhibition"] = recurrent_case(
        kind, "linear", "subtract", {"winner_take_all": True}, inhibition=True
    )
for reset in ("subtract", "zero"):
    CASES[f"snntorch RLeaky reset_delay=False {reset}"] = recurrent_case(
        snntorch.RLeaky, "linear", reset, {"reset_delay": "undone", "detach_reset": False}, reset_delay=False
    )


class NorseCell(torch.nn.Module):
    """A recurrent cell of Norse with its constants as parameters, and states in snnTorch's order."""

    def __init__(self, autapses):
        super().__init__()
        constants = {"tau_syn_inv": 150.0, "tau_mem_inv": 120.0, "v_leak": 0.1, "v_th": 0.4, "v_reset": -0.2}
        self.p = torch.nn.ParameterDict({name: torch.tensor(value) for name, value in constants.items()})
        self.cell = LIFRecurrentCell(
            4,
            SIZE,
            LIFParameters(**self.p, method="super", alpha=torch.tensor(100.0)),
            input_weights=torch.nn.Parameter(torch.tensor(ramp((SIZE, 4)))),
            recurrent_weights=torch.nn.Parameter(torch.tensor(ramp((SIZE, SIZE), 1.0))),
            autapses=autapses,
            dt=DT,
        )

    def forward(self, x, z, i, v):
        _, state = self.cell(x, LIFState(z, v, i))
        return state.z, state.i, state.v


def norse_case(autapses):
    def build(p):
        weight = p["cell.recurrent_weights"]
        neuron = snn.LIF(
            SIZE,
            [snn.Rate(DT * p["p.tau_mem_inv"]), snn.Rate(DT * p["p.tau_syn_inv"])],
            p["p.v_th"],
            p["p.v_reset"],
            v_leak=p["p.v_leak"],
            synapse_order="jump-read-decay",
            input_scale="one_minus_decay",
            surrogate=surrogate.SuperSpike(1.0),  # what Norse 1.1 makes of every alpha
        )
        connection = linear(weight if autapses else weight * (1 - jnp.eye(SIZE)))
        return [linear(p["cell.input_weights"]), snn.Recurrent(neuron, connection)]

    return Case(lambda: NorseCell(autapses), stepped, recurrent_layers(build), x=(4,), states=((SIZE,),) * 3)


for autapses in (False, True):
    CASES[f"norse LIFRecurrentCell autapses={autapses}"] = norse_case(autapses)


# BatchNorm: a run in training, and one more with the statistics that it left


def folded(module, xs):
    return module(xs.flatten(0, 1)).unflatten(0, xs.shape[:2])


def norm_case(kind, once, statistics, shape, affine, **constants):
    steps = NUM_STEPS if statistics == "per_step" else None

    def module():
        module = filled(kind(3, *([] if steps is None else [steps]), affine=affine, **constants))
        for index, (name, value) in enumerate(module.named_buffers()):
            if "running" in name:
                value.copy_(torch.tensor(2 + ramp(value.shape, index)))
        return module

    def loop(module, xs):
        outs = [once(module.train(), xs), once(module.eval(), xs)]
        norms = [module] if steps is None else list(module)
        means, variances = (torch.stack([norm.get_buffer(f"running_{s}") for norm in norms]) for s in ("mean", "var"))
        return torch.cat(outs), (means.squeeze(0), variances.squeeze(0))

    def run(p, xs):
        names = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        if steps is not None:
            p = {n: jnp.stack([p[f"{t}.{n}"] for t in range(steps)]) for n in names.values() if f"0.{n}" in p}
        values = {ours: p[theirs] for ours, theirs in names.items() if theirs in p}
        options: Any = {"statistics": statistics, "momentum": constants["momentum"], "epsilon": constants["eps"]}
        options |= {f"use_{name}": name in p for name in ("weight", "bias")}
        layer = snn.BatchNorm(3, axis_name="batch", steps=steps, **options)
        model = snn.Sequential(placed(layer, **values))
        outs, states = batched(model, model.init_states(input_shape=shape), xs, None)
        model = eqx.nn.inference_mode(snn.update_statistics(model, states))
        again, _ = batched(model, model.init_states(input_shape=shape), xs, None)
        return jnp.concatenate([outs, again]), (model[0].mean, model[0].var)

    return Case(module, loop, run, x=shape, exact=False, scale=2.0)


NORMS: dict[str, tuple[Any, Any, Any]] = {
    "step": (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, lambda module, xs: torch.stack([module(x) for x in xs])),
    "sequence": (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, folded),
    "per_step": (
        snntorch.BatchNormTT1d,
        snntorch.BatchNormTT2d,
        lambda module, xs: torch.stack([norm(x) for norm, x in zip(module, xs, strict=True)]),
    ),
}
for statistics, (flat, spatial, once) in NORMS.items():
    plain: Any = {"affine": False, "momentum": 0.4, "eps": 1e-2}
    usual: Any = {"affine": True, "momentum": 0.1, "eps": 1e-5}
    for kind, shape, options in ((flat, (3,), usual), (flat, (3, 4), plain), (spatial, (3, 4, 2), usual)):
        name = f"{kind.__name__} of {statistics} on {len(shape)} axes"
        CASES[name] = norm_case(kind, once, statistics, shape, **options)


# Pooling, of spikes above all: equal elements are the rule


def pool_case(module, layer, shape, binary):
    return Case(
        module,
        lambda module, xs: (folded(module, xs), ()),
        lambda p, xs: (batched(snn.Sequential(layer), [None], xs)[0], ()),
        x=shape,
        exact=isinstance(layer, snn.MaxPool),
        binary=binary,
    )


POOLINGS: dict[str, tuple[tuple[int, ...], tuple[Any, ...], bool]] = {
    "1d": ((2, 11), (3,), True),
    "1d overlapping": ((2, 11), (3, 2, 1), True),
    "2d": ((2, 7, 6), (2,), True),
    "2d one size each": ((2, 7, 6), ((3, 2), (2, 1), (1, 0)), True),
    "2d reals": ((2, 7, 6), ((3, 2), (2, 1), (1, 0)), False),
    "3d": ((2, 5, 4, 6), (2,), True),
    "3d one size each": ((2, 5, 4, 6), ((2, 3, 2), (1, 2, 2), (1, 1, 0)), True),
}
for name, (shape, sizes, binary) in POOLINGS.items():
    for kind, layer in (("Max", snn.MaxPool(*sizes)), ("Avg", snn.AvgPool(*sizes))):
        module = functools.partial(getattr(torch.nn, f"{kind}Pool{name[:2]}"), *sizes)
        CASES[f"{kind}Pool {name}"] = pool_case(module, layer, shape, binary)


def in_torch(case, xs, first):
    """Outputs, final states, and gradients of what has one: None for buffers and what is frozen."""
    module = case.module()
    named = [*module.named_parameters(), *module.named_buffers()]
    values = {name: value for name, value in named if value.is_floating_point() and value.numel()}
    arrays = {name: value.detach().numpy().copy() for name, value in values.items()}
    x = torch.tensor(xs, requires_grad=True)
    states = [torch.tensor(s, requires_grad=True) for s in first]
    outs, after = case.loop(module, x, *states)
    loss = (outs * torch.tensor(ramp(outs.shape))).sum()
    loss = loss + sum((s * torch.tensor(ramp(s.shape, n))).sum() for n, s in enumerate(after))
    loss.backward()
    leaves = {**values, "x": x, **{f"state {n}": s for n, s in enumerate(states)}}
    gradients = {name: None if leaf.grad is None else leaf.grad.numpy() for name, leaf in leaves.items()}
    return arrays, outs.detach().numpy(), [s.detach().numpy() for s in after], gradients


def in_jax(case, arrays, xs, first):
    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def value(arguments):
        p, xs, first = arguments
        outs, after = case.run(p, xs, *first)
        loss = jnp.sum(outs * ramp(outs.shape))
        return loss + sum(jnp.sum(s * ramp(s.shape, n)) for n, s in enumerate(after)), (outs, after)

    (_, (outs, after)), (p, x, states) = value(jax.tree.map(jnp.asarray, (arrays, xs, first)))
    return outs, after, {**p, "x": x, **{f"state {n}": s for n, s in enumerate(states)}}


def assert_close(found, wanted, name):
    assert found.dtype == wanted.dtype == np.float64, name
    atol = 1e-10 * max(np.abs(wanted).max(), 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=atol, err_msg=name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_layer_computes_what_its_framework_does(case):
    random = np.random.default_rng(0)
    xs = case.scale * random.normal(size=(NUM_STEPS, BATCH, *case.x))
    xs = (xs > 1).astype(float) if case.binary else xs
    first = [0.3 * random.normal(size=(BATCH, *shape)) for shape in case.states]
    arrays, expected, expected_states, expected_gradients = in_torch(case, xs, first)
    outs, states, gradients = in_jax(case, arrays, xs, first)

    assert np.count_nonzero(expected) / expected.size > 0.02, "a silent layer proves nothing"
    assert_close(outs, expected, "outputs")
    if case.exact:
        np.testing.assert_array_equal(outs, expected)
    if len(np.unique(expected)) <= 2:
        assert np.count_nonzero(expected) / expected.size < 0.95, "a saturated layer proves nothing"
    for index, (found, wanted) in enumerate(zip(states, expected_states, strict=True)):
        assert_close(found, wanted, f"final state {index}")
    assert gradients.keys() == expected_gradients.keys()
    for name, wanted in expected_gradients.items():
        if wanted is None:  # a buffer, or frozen
            assert not np.any(gradients[name]), name
            continue
        assert np.abs(wanted).max() > 1e-3, f"the gradient of {name} is zero"
        assert_close(gradients[name], wanted, name)
