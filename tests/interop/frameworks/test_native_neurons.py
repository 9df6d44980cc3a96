"""The neurons of the core against the framework that each of them is at home in: spikes, states and gradients.

In float64, over sequences, from states that are not at rest; every parameter that the framework differentiates is
compared. Nothing here goes through the converter.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from norse.torch.functional import izhikevich, lif, lif_adex, lif_ex, lif_refrac, lsnn

from snnax import snn, surrogate


pytestmark = [pytest.mark.full, pytest.mark.usefixtures("double_precision")]

NUM_STEPS, SIZE, DT = 40, 6, 1e-3
SUPER = surrogate.SuperSpike(1.0)  # what Norse 1.1 makes of every alpha


@dataclasses.dataclass(frozen=True)
class Case:
    """A neuron twice: `step(parameters, state, x)` in torch and `build(parameters)` in JAX.

    `state` names the state fields in the order of the torch state, `parameters` holds what is differentiated, and
    `scale` multiplies standard normal inputs.
    """

    parameters: dict[str, float]
    state: tuple[str, ...]
    step: Callable[[dict[str, torch.Tensor], tuple[torch.Tensor, ...], torch.Tensor], Any]
    build: Callable[[dict[str, Any]], Any]
    pack: Callable[..., Any]
    scale: float = 1.0
    shift: float = 0.0
    start: float = 0.1
    rtol: float = 1e-10


CASES: dict[str, Case] = {}


def weights(shape):
    return np.cos(np.arange(1.0, np.prod(shape) + 1)).reshape(shape)


def neuron(v, i=None, a=None):
    return snn.NeuronState(v, i, a)


# Norse


def rates(p, *names):
    return [snn.Rate(DT * p[name]) for name in names]


def norse_lsnn(step, recurrent):
    def run(p, state, x):
        parameters = lsnn.LSNNParameters(**p, method="super", alpha=torch.tensor(100.0))
        if not recurrent:
            z, state = step(x, lsnn.LSNNFeedForwardState(*state), parameters, DT)
            return z, (state.v, state.i, state.b - p["v_th"])
        first = lsnn.LSNNState(torch.zeros_like(x), *state)
        eye = torch.eye(SIZE)
        z, state = step(x, first, eye, 0 * eye, parameters, DT)
        return z, (state.v, state.i, state.b - p["v_th"])

    def with_threshold(p, state, x):
        v, i, a = state
        return run(p, (v, i, a + p["v_th"]), x)

    return with_threshold


LSNN_PARAMETERS = {
    "tau_syn_inv": 150.0,
    "tau_mem_inv": 120.0,
    "tau_adapt_inv": 60.0,
    "v_leak": 0.1,
    "v_th": 0.6,
    "v_reset": -0.2,
    "beta": 0.7,
}
for recurrent in (False, True):
    CASES[f"norse lsnn{' recurrent' * recurrent}"] = Case(
        LSNN_PARAMETERS,
        ("v", "i", "a"),
        norse_lsnn(lsnn.lsnn_step if recurrent else lsnn.lsnn_feed_forward_step, recurrent),
        lambda p, recurrent=recurrent: snn.LSNN(
            SIZE,
            rates(p, "tau_mem_inv", "tau_syn_inv"),
            rates(p, "tau_adapt_inv")[0],
            p["v_th"],
            p["v_reset"],
            jump=p["beta"],
            v_leak=p["v_leak"],
            detach_reset=recurrent,
            surrogate=SUPER,
        ),
        neuron,
        scale=3.0,
    )


def norse_lif_ex(p, state, x):
    parameters = lif_ex.LIFExParameters(**p, method="super", alpha=torch.tensor(100.0))
    z, state = lif_ex.lif_ex_feed_forward_step(x, lif_ex.LIFExFeedForwardState(*state), parameters, DT)
    return z, (state.v, state.i)


EX = {"tau_syn_inv": 150.0, "tau_mem_inv": 120.0, "v_leak": 0.1, "v_th": 0.9, "v_reset": -0.2, "delta_T": 0.6}
CASES["norse lif_ex"] = Case(
    EX,
    ("v", "i"),
    norse_lif_ex,
    lambda p: snn.EIF(
        SIZE,
        rates(p, "tau_mem_inv", "tau_syn_inv"),
        p["v_th"],
        p["v_reset"],
        delta_T=p["delta_T"],
        v_leak=p["v_leak"],
        synapse_order="jump-read-decay",
        detach_reset=False,
        surrogate=SUPER,
    ),
    neuron,
    rtol=1e-8,
)


def norse_lif_adex(p, state, x):
    parameters = lif_adex.LIFAdExParameters(**p, method="super", alpha=100.0)
    z, state = lif_adex.lif_adex_feed_forward_step(x, lif_adex.LIFAdExFeedForwardState(*state), parameters, DT)
    return z, (state.v, state.i, state.a)


CASES["norse lif_adex"] = Case(
    {**EX, "adaptation_current": 2.0, "adaptation_spike": 0.3, "tau_ada_inv": 30.0},
    ("v", "i", "a"),
    norse_lif_adex,
    lambda p: snn.AdEx(
        SIZE,
        rates(p, "tau_mem_inv", "tau_syn_inv"),
        rates(p, "tau_ada_inv")[0],
        p["v_th"],
        p["v_reset"],
        coupling=p["adaptation_current"],
        jump=p["adaptation_spike"],
        delta_T=p["delta_T"],
        v_leak=p["v_leak"],
        synapse_order="jump-read-decay",
        detach_reset=False,
        surrogate=SUPER,
    ),
    neuron,
    rtol=1e-8,
)


def norse_izhikevich(p, state, x):
    parameters = izhikevich.IzhikevichParameters(**p, method="super", alpha=100.0)
    state = izhikevich.IzhikevichState(*state)
    z, state = izhikevich.izhikevich_feed_forward_step(x, state, parameters, DT)
    return z, (state.v, state.u)


CASES["norse izhikevich"] = Case(
    {"a": 0.02, "b": 0.2, "c": -65.0, "d": 6.0, "sq": 0.04, "mn": 5.0, "bias": 140.0, "v_th": 30.0},
    ("v", "a"),
    norse_izhikevich,
    lambda p: snn.Izhikevich(
        SIZE,
        p["a"],
        p["b"],
        p["c"],
        p["d"],
        dt=250 * DT,
        threshold=p["v_th"],
        quadratic=p["sq"],
        linear=p["mn"],
        constant=p["bias"],
        detach_reset=False,
        surrogate=SUPER,
    ),
    lambda v, a: snn.NeuronState(v, None, a),
    scale=20.0,
    shift=30.0,
    start=-60.0,
    rtol=1e-8,
)


def norse_lif_refrac(p, state, x):
    inner = {name: p[name] for name in p if name != "rho_reset"}
    inner = lif.LIFParameters(**inner, method="super", alpha=torch.tensor(100.0))
    parameters = lif_refrac.LIFRefracParameters(lif=inner, rho_reset=p["rho_reset"])
    v, i, rho = state
    first = lif_refrac.LIFRefracFeedForwardState(lif.LIFFeedForwardState(v, i), rho)
    z, state = lif_refrac.lif_refrac_feed_forward_step(x, first, parameters, DT)
    return z, (state.lif.v, state.lif.i, state.rho)


CASES["norse lif_refrac"] = Case(
    {
        "tau_syn_inv": 150.0,
        "tau_mem_inv": 120.0,
        "v_leak": 0.1,
        "v_th": 0.3,
        "v_reset": -0.2,
        "rho_reset": 3.0,
    },
    ("v", "i", "rho"),
    norse_lif_refrac,
    lambda p: snn.Refractory(
        snn.LIF(
            SIZE,
            rates(p, "tau_mem_inv", "tau_syn_inv"),
            p["v_th"],
            p["v_reset"],
            v_leak=p["v_leak"],
            input_scale="one_minus_decay",
            synapse_order="jump-read-decay",
            detach_reset=False,
            surrogate=SUPER,
        ),
        p["rho_reset"],
        surrogate=SUPER,
    ),
    lambda v, i, rho: snn.RefractoryState(snn.NeuronState(v, i), rho),
    scale=3.0,
)


# snnTorch


def snntorch_module(kind, p, **options):
    """The module with parameters that keep their graph: they are put in the place of its own."""
    module = kind(**options, spike_grad=snntorch.surrogate.fast_sigmoid(slope=25))
    for name, value in p.items():
        if name in module._buffers or name in module._parameters:
            module._buffers.pop(name, None)
            module._parameters.pop(name, None)
            module.__dict__.pop(name, None)
            object.__setattr__(module, name, value)
    return module


def snntorch_lapicque(reset):
    def step(p, state, x):
        module = snntorch_module(snntorch.Lapicque, p, R=1.0, C=1.0, time_step=1.0, reset_mechanism=reset)
        spikes, mem = module(x[None], *(s[None] for s in state))
        return spikes[0], (mem[0],)

    return step


def snntorch_alpha(reset):
    def step(p, state, x):
        module = snntorch_module(snntorch.Alpha, p, alpha=0.9, beta=0.8, reset_mechanism=reset)
        mem, exc, inh = (s[None] for s in state)
        spikes, exc, inh, mem = module(x[None], exc, inh, mem)
        return spikes[0], (mem[0], exc[0], inh[0])

    return step


for reset in ("subtract", "zero", "none"):
    delayed: Any = {"reset_delay": True, "keep_input": False} if reset != "none" else {}
    CASES[f"snntorch lapicque {reset}"] = Case(
        {"R": 5.0, "C": 3.0, "threshold": 0.4},
        ("v",),
        snntorch_lapicque(reset),
        lambda p, reset=reset, delayed=delayed: snn.Lapicque(
            SIZE, p["R"], p["C"], p["threshold"], reset, surrogate=surrogate.FastSigmoid(25.0), **delayed
        ),
        neuron,
    )
    CASES[f"snntorch alpha {reset}"] = Case(
        {"alpha": 0.9, "beta": 0.7, "threshold": 0.5},
        ("v", "i_exc", "i_inh"),
        snntorch_alpha(reset),
        lambda p, reset=reset: snn.Alpha(
            SIZE,
            snn.Factor(p["alpha"]),
            snn.Factor(p["beta"]),
            p["threshold"],
            reset,
            surrogate=surrogate.FastSigmoid(25.0),
        ),
        snn.AlphaState,
    )


# SpikingJelly, where it is installed


def spikingjelly_step(name, p, state, x, **options):
    """One step of a node whose scalar parameters are replaced by tensors that keep their graph."""
    neurons = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    surrogates = pytest.importorskip("spikingjelly.activation_based.surrogate")
    node = getattr(neurons, name)(surrogate_function=surrogates.ATan(alpha=2.0), **options)
    node.v = state[0]
    if len(state) > 1:
        node.w = state[1]
    for key, value in p.items():
        node._parameters.pop(key, None)
        object.__setattr__(node, key, value)
    spikes = node(x)
    return spikes, (node.v, node.w) if len(state) > 1 else (node.v,)


def rate(p, name="tau"):
    return snn.Rate(1 / p[name])


AT_THRESHOLD: Any = {"spike_at_threshold": True, "detach_reset": False, "surrogate": surrogate.ATan(2.0)}
RESET = {"v_threshold": 0.7, "v_reset": -0.1}
for decay_input in (True, False):
    CASES[f"spikingjelly plif decay_input={decay_input}"] = Case(
        {"w": 0.3, **RESET},
        ("v",),
        lambda p, state, x, decay_input=decay_input: spikingjelly_step(
            "ParametricLIFNode", p, state, x, decay_input=decay_input
        ),
        lambda p, decay_input=decay_input: eqx.tree_at(
            lambda layer: layer.decay_mem.value,
            snn.PLIF(
                SIZE,
                2.0,
                p["v_threshold"],
                p["v_reset"],
                v_leak=p["v_reset"],
                input_scale="one_minus_decay" if decay_input else "unit",
                surrogate=surrogate.ATan(2.0),
            ),
            p["w"],
        ),
        neuron,
    )
CASES["spikingjelly qif"] = Case(
    {"tau": 3.0, "v_c": 0.6, "a0": 0.9, "v_rest": 0.05, **RESET},
    ("v",),
    lambda p, state, x: spikingjelly_step("QIFNode", p, state, x),
    lambda p: snn.QIF(
        SIZE,
        rate(p),
        p["v_threshold"],
        p["v_reset"],
        v_rest=p["v_rest"],
        v_critical=p["v_c"],
        gain=p["a0"],
        **AT_THRESHOLD,
    ),
    neuron,
    scale=2.0,
)
CASES["spikingjelly eif"] = Case(
    {"tau": 3.0, "delta_T": 0.8, "theta_rh": 0.5, "v_rest": 0.05, **RESET},
    ("v",),
    lambda p, state, x: spikingjelly_step("EIFNode", p, state, x),
    lambda p: snn.EIF(
        SIZE,
        rate(p),
        p["v_threshold"],
        p["v_reset"],
        delta_T=p["delta_T"],
        theta_rh=p["theta_rh"],
        v_leak=p["v_rest"],
        **AT_THRESHOLD,
    ),
    neuron,
    scale=2.0,
    shift=-0.5,
)
CASES["spikingjelly izhikevich"] = Case(
    {"tau": 3.0, "v_c": 0.6, "a0": 0.9, "v_rest": 0.05, "tau_w": 5.0, "a": 0.4, "b": 0.3, **RESET},
    ("v", "a"),
    lambda p, state, x: spikingjelly_step("IzhikevichNode", p, state, x),
    lambda p: snn.QIF(
        SIZE,
        rate(p),
        p["v_threshold"],
        p["v_reset"],
        v_rest=p["v_rest"],
        v_critical=p["v_c"],
        gain=p["a0"],
        decay_adapt=rate(p, "tau_w"),
        coupling=p["a"],
        jump=p["b"],
        **AT_THRESHOLD,
    ),
    lambda v, a: snn.NeuronState(v, None, a),
    scale=2.0,
)


def both(case):
    """Spikes, final states and gradients of both sides."""
    random = np.random.default_rng(0)
    xs = case.scale * random.normal(size=(NUM_STEPS, SIZE)) + case.shift
    first = [case.start + 0.1 * random.normal(size=SIZE) for _ in case.state]
    out_weights, state_weights = weights((NUM_STEPS, SIZE)), weights((len(first), SIZE))

    p = {name: torch.tensor(value, requires_grad=True) for name, value in case.parameters.items()}
    x = torch.tensor(xs, requires_grad=True)
    start = [torch.tensor(s, requires_grad=True) for s in first]
    state, outs = tuple(start), []
    for step in x:
        out, state = case.step(p, state, step)
        outs.append(out)
    loss = (torch.stack(outs) * torch.tensor(out_weights)).sum()
    loss = loss + sum((s * torch.tensor(w)).sum() for s, w in zip(state, state_weights, strict=True))
    loss.backward()
    expected = torch.stack(outs).detach().numpy(), [s.detach().numpy() for s in state]
    expected_gradients = {name: value.grad for name, value in p.items()}
    expected_gradients |= {"x": x.grad} | {f"first {n}": s.grad for n, s in zip(case.state, start, strict=True)}

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def value(arguments):
        p, xs, first = arguments
        layer = case.build(p)
        states, outs = snn.Sequential(layer)([case.pack(*first)], xs)
        fields = [getattr(states[0], name) for name in case.state]
        total = jnp.sum(outs[-1] * out_weights)
        return total + sum(jnp.sum(s * w) for s, w in zip(fields, state_weights, strict=True)), (outs[-1], fields)

    arguments = (
        {n: jnp.asarray(v) for n, v in case.parameters.items()},
        jnp.asarray(xs),
        list(map(jnp.asarray, first)),
    )
    (_, found), (parameters, x_gradient, first_gradients) = value(arguments)
    found_gradients = parameters | {"x": x_gradient}
    found_gradients |= {f"first {n}": s for n, s in zip(case.state, first_gradients, strict=True)}
    return found, expected, found_gradients, expected_gradients


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_neuron_computes_what_its_framework_does(case):
    (outs, states), (expected, expected_states), gradients, expected_gradients = both(case)
    np.testing.assert_array_equal(outs, expected)
    assert 0.02 < np.count_nonzero(expected) / expected.size < 0.9, "a silent or saturated neuron proves nothing"
    for name, found, wanted in zip(case.state, states, expected_states, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=case.rtol, atol=1e-12, err_msg=name)
    compared = 0
    for name, wanted in expected_gradients.items():
        if wanted is None:  # the framework does not read it
            assert not np.any(np.asarray(gradients[name])), name
            continue
        wanted = wanted.numpy()
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(gradients[name], wanted, rtol=1e-7, atol=case.rtol * max(scale, 1), err_msg=name)
        compared += bool(scale > 0)
    assert compared >= len(case.parameters), "gradients are zero"
