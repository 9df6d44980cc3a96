"""A converted network against the torch module that it comes from, in float64: the tests' own comparison.

The torch side runs with hooks of the tests' own; nothing is taken from the recording.
"""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import snntorch
import torch
from torch import nn
from torch.utils import _pytree as pytree

from snnax_interop import Converted

from .float64 import doubled, float_is_double
from .torch_networks import Case


VALUE_TOLERANCE = 1e-10  # relative to the largest magnitude of an array: float64 sums in another order
GRADIENT_TOLERANCE = 1e-8  # the same, through some ten layers and time steps
ROUNDING = 1e-13  # of the largest gradient: what is left of one that is zero
MARGIN = 1e-5  # between a float32 membrane and its threshold; closer than that, rounding may decide about a spike

SPIKING = (snntorch.Leaky, norse.LIFCell)
NEURONS = (*SPIKING, norse.LICell)


@dataclasses.dataclass
class TorchRun:
    """Outputs, and by neuron: outputs over time, last state, distance to threshold (infinite where it is not known).

    The second use of a neuron in one time step counts as another one, named `path_2`. `spiking` names those that spike.
    `gradients` are those of a loss with respect to parameters and inputs, by name, where they were asked for.
    """

    outputs: Any
    spikes: dict[str, torch.Tensor]
    states: dict[str, dict[str, torch.Tensor]]
    margins: dict[str, torch.Tensor]
    spiking: tuple[str, ...]
    gradients: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    @property
    def flat(self) -> tuple[str, ...]:
        """The names of the gradients that are zero, but for rounding."""
        sizes = {name: float(each.abs().max()) for name, each in self.gradients.items()}
        return tuple(name for name, size in sizes.items() if size <= 1e-9 * max(sizes.values()))


def run_torch(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    outside: bool = False,
    uses: tuple[tuple[str, int], ...] = (),
) -> TorchRun:
    """Run a module as its author would, in the dtype that it has. `uses`: calls per time step, where not one."""
    outs: dict[str, list[torch.Tensor]] = {}
    margins: dict[str, list[torch.Tensor]] = {}
    states = {}
    spiking = {}
    calls = collections.Counter()

    def watch(path, neuron, args, result):
        number = calls[path] % dict(uses).get(path, 1) + 1
        calls[path] += 1
        name = path if number == 1 else f"{path}_{number}"
        out = result[0] if isinstance(result, tuple) else result
        if isinstance(neuron, snntorch.Leaky):
            state, threshold, known = {"v": neuron.mem}, neuron.threshold, neuron.reset_delay
        else:
            state, known = {"v": result[1].v, "i": result[1].i}, False
            threshold = neuron.p.v_th if isinstance(neuron, norse.LIFCell) else torch.inf
        margin = (state["v"] - threshold).abs().detach()
        outs.setdefault(name, []).append(out.clone())  # forward may go on to write into it
        margins.setdefault(name, []).append(margin if known else torch.where(out == 0, margin, torch.inf))
        states[name] = state
        spiking[name] = isinstance(neuron, SPIKING)

    neurons = [(path, child) for path, child in module.named_modules() if isinstance(child, NEURONS)]
    handles = [child.register_forward_hook(functools.partial(watch, path)) for path, child in neurons]
    for _, child in neurons:
        if isinstance(child, snntorch.Leaky):
            child.mem = torch.zeros(0)
    outputs = run_outside(module, *inputs) if outside else module(*inputs)
    outputs = jax.tree.map(lambda leaf: leaf, outputs)  # JAX sorts the keys of a dict
    for handle in handles:
        handle.remove()
    stacked = {path: torch.stack(each) for path, each in outs.items()}
    distances = {path: torch.stack(each) for path, each in margins.items()}
    return TorchRun(outputs, stacked, states, distances, tuple(name for name in spiking if spiking[name]))


def run_outside(module: nn.Module, *sequences: torch.Tensor) -> Any:
    """The caller's loop: states that forward takes behind its inputs are handed from call to call."""
    takes_state = len(inspect.signature(module.forward).parameters) > len(sequences)
    outs, states = [], ()
    for inputs in zip(*sequences, strict=True):
        out = pytree.tree_map(lambda x: x, module(*inputs, *states))
        states = pytree.tree_map(lambda x: x, out[1:]) if takes_state else ()
        outs.append(out)
    stacked = [
        torch.stack(each) if isinstance(each[0], torch.Tensor) else each[0]
        for each in zip(*map(pytree.tree_leaves, outs), strict=True)
    ]
    return pytree.tree_unflatten(stacked, pytree.tree_structure(outs[0]))


def tensors_of(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def arrays_of(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in pytree.tree_leaves(tree) if isinstance(leaf, jax.Array)]


def fixed_weights(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.normal(size=shape) for shape in shapes]


def difference(expected: Any, found: Any) -> float:
    """The largest difference, relative to the largest magnitude."""
    expected, found = np.asarray(expected), np.asarray(found)
    assert expected.shape == found.shape
    return float(np.abs(expected - found).max(initial=0)) / max(float(np.abs(expected).max(initial=0)), 1e-12)


def assert_same(
    module: nn.Module,
    converted: Converted,
    inputs: tuple[torch.Tensor, ...],
    outside: bool = False,
    inert: tuple = (),
    uses: tuple[tuple[str, int], ...] = (),
) -> TorchRun:
    """Both sides in float64: equal spikes; outputs, final states, parameter and input gradients within tolerance.

    Parameters named in `inert` may have a gradient of zero. `uses`: calls of neurons per time step, where not one.

    **Returns:** the side of torch.
    """
    double = doubled(module)
    given = tuple(x.double().requires_grad_() if x.is_floating_point() else x for x in inputs)
    with float_is_double(double):
        run = run_torch(double, given, outside, uses)
        for path in run.spiking:
            assert run.spikes[path].any(), f"'{path}' never spikes"
        expected = tensors_of(run.outputs)
        weights = fixed_weights([tuple(each.shape) for each in expected])
        loss = sum((out * torch.from_numpy(weight)).sum() for out, weight in zip(expected, weights, strict=True))
        named = {name: each for name, each in double.named_parameters() if each.requires_grad}
        varied = {f"input {number}": x for number, x in enumerate(given) if x.requires_grad}
        wanted = {**named, **varied}
        gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    for (name, tensor), gradient in zip(wanted.items(), gradients, strict=True):
        run.gradients[name] = torch.zeros_like(tensor) if gradient is None else gradient

    def functional(pair):
        network, arrays = pair
        outputs, states, spikes = network._run(arrays)
        leaves = zip(jax.tree.leaves(outputs), weights, strict=True)
        return sum(jnp.sum(leaf * weight) for leaf, weight in leaves), (outputs, states, spikes)

    with jax.enable_x64(True):
        arrays = tuple(jnp.asarray(x.detach().numpy()) for x in given)
        (of_network, of_inputs), (outputs, states, spikes) = eqx.filter_jit(eqx.filter_grad(functional, has_aux=True))(
            (converted.astype("float64"), arrays)
        )
    found = {name: of_network.parameters[converted.plan.canonical[name]] for name in named}
    found |= dict(zip(varied, jax.tree.leaves(of_inputs), strict=True))
    for path, each in run.spikes.items():
        if path in run.spiking:
            np.testing.assert_array_equal(spikes[path], each.detach().numpy(), err_msg=path)
        else:
            assert difference(each.detach(), spikes[path]) <= VALUE_TOLERANCE, path
    assert spikes.keys() == run.spikes.keys()
    assert_same_structure(run.outputs, outputs)
    for one, other in zip(expected, arrays_of(outputs), strict=True):
        assert difference(one.detach(), other) <= VALUE_TOLERANCE
    assert states.keys() == run.states.keys()
    for path, fields in run.states.items():
        assert states[path].keys() == fields.keys()
        for field, value in fields.items():
            assert difference(value.detach(), states[path][field]) <= VALUE_TOLERANCE, f"{path}.{field}"
    largest = max(float(gradient.abs().max()) for gradient in run.gradients.values())
    for name, gradient in run.gradients.items():
        assert gradient.any() or name in inert, f"the gradient of '{name}' is zero"
        if name.startswith("gains.") and float(gradient.abs().max()) <= ROUNDING * largest:
            # The gain before a normalisation has no effect: both sides have what rounding leaves.
            assert float(np.abs(found[name]).max()) <= ROUNDING * largest, name
            continue
        assert difference(gradient, found[name]) <= GRADIENT_TOLERANCE, name
    return run


def assert_same_elsewhere(case: Case, module: nn.Module, converted: Converted) -> TorchRun:
    """`assert_same` with another batch size and another length at once; where that fails, which of them does alone."""

    def compare(shape: Any) -> TorchRun:
        return assert_same(module, converted, case.inputs(shape, 11), case.loop == "outside", case.inert, case.uses)

    try:
        return compare(case.other)
    except Exception as error:
        for name in ("other_batch", "other_length"):
            if getattr(case, name) is not None:
                error.add_note(f"with {name} alone: {_outcome(compare, getattr(case, name))}")
        raise


def _outcome(compare: Callable[[Any], Any], shape: Any) -> str:
    try:
        compare(shape)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "the same"


def assert_same_structure(expected: Any, found: Any) -> None:
    def shape(leaf):
        return tuple(leaf.shape) if isinstance(leaf, torch.Tensor | jax.Array) else leaf

    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    assert pytree.tree_map(shape, found) == pytree.tree_map(shape, expected)
