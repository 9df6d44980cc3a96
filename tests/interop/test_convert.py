"""Converted networks against the torch modules that they come from, run by the tests themselves.

The torch side runs in float64 with hooks of the tests' own; nothing is taken from the recording. Every comparison is on
inputs that the conversion has not seen, and shows first that all spiking layers spike and all gradients flow.
"""

import collections
import copy
import dataclasses
import functools
import inspect
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import pytest
import snntorch
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch_networks import CASES

from snnax import snn
from snnax_interop import Converted, WeightMappingError, from_torch, state_dict, to_jax
from snnax_interop.frameworks import registry_for
from snnax_interop.verify.equivalence import _double, _float_is_double


VALUE_TOLERANCE = 1e-10  # relative to the largest magnitude of an array: float64 sums in another order
GRADIENT_TOLERANCE = 1e-8  # the same, through some ten layers and time steps
MARGIN = 1e-5  # between a float32 membrane and its threshold; closer than that, rounding may decide about a spike

SPIKING = (snntorch.Leaky, norse.LIFCell)
NEURONS = (*SPIKING, norse.LICell)

by_case = pytest.mark.parametrize("name", CASES)


@dataclasses.dataclass
class TorchRun:
    """Outputs, and by neuron: outputs over time, last state, distance to threshold (infinite where it is not known).

    The second use of a neuron in one time step counts as another one, named `path_2`. `spiking` names those that spike.
    """

    outputs: Any
    spikes: dict[str, torch.Tensor]
    states: dict[str, dict[str, torch.Tensor]]
    margins: dict[str, torch.Tensor]
    spiking: tuple[str, ...]


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
) -> None:
    """Both sides in float64: equal spikes; outputs, final states, parameter and input gradients within tolerance.

    Parameters named in `inert` may have a gradient of zero. `uses`: calls of neurons per time step, where not one.
    """
    double = _double(module)
    given = tuple(x.double().requires_grad_() if x.is_floating_point() else x for x in inputs)
    with _float_is_double(), registry_for(double).listed(double):
        run = run_torch(double, given, outside, uses)
        for path in run.spiking:
            assert run.spikes[path].any(), f"'{path}' never spikes"
        expected = tensors_of(run.outputs)
        weights = fixed_weights([tuple(each.shape) for each in expected])
        loss = sum((out * torch.from_numpy(weight)).sum() for out, weight in zip(expected, weights, strict=True))
        named = {name: each for name, each in double.named_parameters() if each.requires_grad}
        varied = [x for x in given if x.requires_grad]
        gradients = torch.autograd.grad(loss, [*named.values(), *varied], allow_unused=True)

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
        by_name = {name: of_network.parameters[converted.plan.canonical[name]] for name in named}
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
    for name, gradient in zip(named, gradients, strict=False):
        gradient = torch.zeros_like(named[name]) if gradient is None else gradient
        assert gradient.any() or name in inert, f"the gradient of '{name}' is zero"
        assert difference(gradient, by_name[name]) <= GRADIENT_TOLERANCE, name
    for gradient, other in zip(gradients[len(named) :], jax.tree.leaves(of_inputs), strict=True):
        assert gradient is not None and gradient.any(), "the gradient of an input is zero"
        assert difference(gradient, other) <= GRADIENT_TOLERANCE


def assert_same_structure(expected: Any, found: Any) -> None:
    def shape(leaf):
        return tuple(leaf.shape) if isinstance(leaf, torch.Tensor | jax.Array) else leaf

    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    assert pytree.tree_map(shape, found) == pytree.tree_map(shape, expected)


@functools.cache
def network(name: str) -> tuple[nn.Module, Converted]:
    """A case's module and its conversion. Tests leave both as they are."""
    case = CASES[name]
    module = case.build()
    return module, from_torch(module, case.step(), loop=case.loop)


def fresh(name: str, shape: str = "example", seed: int = 11) -> tuple[torch.Tensor, ...]:
    """Inputs of a case, with values that the conversion has not seen."""
    case = CASES[name]
    return case.inputs(getattr(case, shape), seed)


def as_arrays(tensors: tuple[torch.Tensor, ...]) -> tuple[jax.Array, ...]:
    return tuple(to_jax(x) for x in tensors)


OTHER_LENGTH = [name for name, case in CASES.items() if case.other_length is not None]


@by_case
def test_a_converted_network_computes_the_same_on_other_values(name):
    assert_same(*network(name), fresh(name), CASES[name].loop == "outside")


@by_case
def test_a_converted_network_computes_the_same_on_another_batch_size(name):
    assert_same(*network(name), fresh(name, "other_batch"), CASES[name].loop == "outside")


@pytest.mark.parametrize("name", OTHER_LENGTH)
def test_a_converted_network_computes_the_same_on_another_length(name):
    assert_same(*network(name), fresh(name, "other_length"), CASES[name].loop == "outside")


@by_case
def test_float32_agrees_but_for_spikes_whose_membrane_touches_the_threshold(name):
    module, converted = network(name)
    inputs = fresh(name)
    with torch.no_grad():
        run = run_torch(copy.deepcopy(module), inputs, CASES[name].loop == "outside")
    outputs, spikes = eqx.filter_jit(lambda *x: (converted(*x), converted.spikes(*x)))(*as_arrays(inputs))
    flipped = np.zeros(len(next(iter(run.spikes.values()))), bool)
    for path, expected in run.spikes.items():
        if isinstance(module.get_submodule(path), SPIKING):
            assert expected.any()
            differ = (expected.numpy() != np.asarray(spikes[path])).reshape(len(expected), -1)
            flipped |= differ.any(1)
    if flipped.any():
        step = int(np.argmax(flipped))
        closest = min(float(each[step].min()) for each in run.margins.values())
        assert closest < MARGIN
        return
    assert_same_structure(run.outputs, outputs)
    for one, other in zip(tensors_of(run.outputs), arrays_of(outputs), strict=True):
        np.testing.assert_allclose(other, one.numpy(), rtol=1e-5, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("name", ["nested blocks", "time last", "norse SequentialState"])
def test_a_second_call_of_the_same_shapes_does_not_compile_again(name):
    _, converted = network(name)
    traced = []

    @eqx.filter_jit
    def run(converted, *arrays):
        traced.append(len(traced))
        return converted(*arrays)

    jax.block_until_ready(run(converted, *as_arrays(fresh(name))))
    moved = jax.tree.map(lambda leaf: leaf * 2 if eqx.is_inexact_array(leaf) else leaf, converted)
    jax.block_until_ready(run(moved, *as_arrays(fresh(name, seed=12))))
    assert traced == [0]


def test_a_converted_network_runs_under_vmap():
    _, converted = network("time first")
    (first,), (second,) = as_arrays(fresh("time first")), as_arrays(fresh("time first", seed=12))
    together = jax.vmap(converted)(jnp.stack([first, second]))
    for index, x in enumerate((first, second)):
        for one, other in zip(converted(x), together, strict=True):
            np.testing.assert_allclose(one, other[index], rtol=1e-5, atol=1e-6)


def photograph(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a conversion might leave changed."""
    return {
        "state": {key: value.clone() for key, value in module.state_dict().items()},
        "neurons": {path: child.mem for path, child in module.named_modules() if isinstance(child, snntorch.Leaky)},
        "values": {
            path: child.mem.detach().clone()
            for path, child in module.named_modules()
            if isinstance(child, snntorch.Leaky)
        },
        "gradients": {key: (value.grad, value.requires_grad) for key, value in module.named_parameters()},
        "training": [child.training for child in module.modules()],
        "attributes": [{key: id(value) for key, value in vars(child).items()} for child in module.modules()],
        "hooks": [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules()],
        "random": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "float": torch.Tensor.float,
    }


def assert_unchanged(before: dict[str, Any], module: nn.Module) -> None:
    after = photograph(module)
    for key in ("state", "values"):
        assert before[key].keys() == after[key].keys()
        assert all(torch.equal(value, after[key][name]) for name, value in before[key].items())
    assert all(mem is after["neurons"][path] for path, mem in before["neurons"].items())
    for name, (gradient, required) in before["gradients"].items():
        assert gradient is after["gradients"][name][0] and required == after["gradients"][name][1]
    assert torch.equal(before["random"], after["random"])
    for key in ("training", "attributes", "hooks", "dtype", "grad mode", "float"):
        assert before[key] == after[key], key


@by_case
def test_a_module_is_left_as_it_was_found(name):
    case = CASES[name]
    module = case.build()
    (x,) = case.step()
    used = module(x)
    sum(each.sum() for each in tensors_of(used) if each.requires_grad).backward()
    for child in list(module.modules())[::2]:
        child.training = False
    before = photograph(module)
    converted = from_torch(module, (x,), loop=case.loop)
    assert_unchanged(before, module)
    assert converted.report.verification


def test_training_mode_converts_where_nothing_depends_on_it():
    module = CASES["time first"].build().train()
    converted = from_torch(module, fresh("time first"))
    assert module.training
    assert_same(module, converted, fresh("time first", seed=12))


def test_autograd_may_be_off_while_converting():
    module = CASES["time first"].build()
    with torch.no_grad():
        converted = from_torch(module, fresh("time first"))
    assert_same(module, converted, fresh("time first", seed=12))


SOME = ["nested blocks", "time last", "norse SequentialState"]


@pytest.mark.parametrize("name", SOME)
def test_pickling_keeps_what_a_network_computes(name):
    _, converted = network(name)
    again = pickle.loads(pickle.dumps(converted))
    inputs = as_arrays(fresh(name))
    run = eqx.filter_jit(lambda network, inputs: network(*inputs))
    for one, other in zip(arrays_of(run(converted, inputs)), arrays_of(run(again, inputs)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert repr(again) == repr(converted)
    assert str(again.report) == str(converted.report)
    assert list(state_dict(again)) == list(state_dict(converted))


@by_case
def test_the_report_lists_every_leaf_module(name):
    module, converted = network(name)
    leaves = [path for path, child in module.named_modules() if not list(child.children())]
    paths = [row.path for row in converted.report]
    assert set(paths) == set(leaves)
    assert len(converted.report) == len(paths) >= len(leaves)
    for path in leaves:
        assert any(line.startswith(path + " ") for line in str(converted.report).splitlines())
    assert "ok" in converted.report.verification


@by_case
def test_repr_names_the_kind_of_model_and_its_inputs(name):
    module, converted = network(name)
    count = sum(each.numel() for each in module.parameters())
    assert repr(converted).startswith(f"Converted({type(converted.model).__name__} of {len(converted.report)} modules")
    assert f"{count} trainable parameters" in repr(converted)
    assert "inputs: " in repr(converted)


CHAINS = ["time first", "convolutional frames", "time last", "one step per call", "norse cells"]


@by_case
def test_the_model_is_a_sequential_for_a_chain_and_a_graph_with_the_sources_names_elsewhere(name):
    module, converted = network(name)
    if isinstance(converted.model, snn.Sequential):
        assert name in CHAINS
        return
    assert isinstance(converted.model, snn.Graph)
    assert name not in CHAINS
    neurons = {path for path, child in module.named_modules() if isinstance(child, NEURONS)}
    assert neurons <= set(converted.model.nodes)


@pytest.mark.parametrize("name", ["time first", "convolutional frames", "one step per call"])
def test_the_native_model_computes_the_same_per_sample(name):
    _, converted = network(name)
    (x,) = as_arrays(fresh(name))
    model = converted.model

    def run(sample):
        states = model.init_states(input_shape=sample.shape[1:])
        return model(states, sample)[1][-1]

    expected = converted.spikes(x)
    last = list(expected)[-1]
    outs = jax.tree.leaves(jax.vmap(run, in_axes=1, out_axes=1)(x))
    assert expected[last].any()
    assert any(out.shape == expected[last].shape and bool((out == expected[last]).all()) for out in outs)


@by_case
def test_a_model_trained_by_itself_returns(name):
    _, converted = network(name)
    moved = {key: 1.25 * value for key, value in converted.parameters.items()}
    model = eqx.tree_at(lambda each: each.parameters, converted, moved).model
    again = converted.with_model(model)
    held = {slot.key for slot in jax.tree.leaves(converted.plan.models) if hasattr(slot, "key")}
    assert held & moved.keys()
    for key, value in converted.parameters.items():
        np.testing.assert_array_equal(again.parameters[key], moved[key] if key in held else value)


def test_buffers_that_a_native_model_trained_return_too():
    module, converted = network("static input, global bound")
    model = eqx.tree_at(lambda model: model.nodes["lif1"].decay_mem.value, converted.model, jnp.array(0.75))
    again = converted.with_model(model)
    assert float(state_dict(again)["lif1.beta"]) == 0.75
    assert float(state_dict(again)["lif2.beta"]) == float(module.lif2.beta)


def test_values_that_torch_cannot_hold_must_not_change():
    _, converted = network("norse cells")
    place = next(index for index, layer in enumerate(converted.model.layers) if isinstance(layer, snn.LIF))
    model = eqx.tree_at(lambda model: model.layers[place].decay_mem.value, converted.model, jnp.array(0.5))
    with pytest.raises(WeightMappingError, match="leave it out of the optimiser") as caught:
        converted.with_model(model)
    assert caught.value.path == "lif1.p.rate_tau_mem_inv"


def test_a_model_of_another_structure_is_refused():
    _, converted = network("static input, global bound")
    _, other = network("time first")
    with pytest.raises(WeightMappingError, match="another structure"):
        converted.with_model(other.model)


class Spare(nn.Module):
    """A network with modules that forward never calls."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.unused = nn.Linear(3, 2)
        self.lif = snntorch.Leaky(beta=0.9)
        self.spare_lif = snntorch.Leaky(beta=0.5)

    def forward(self, x):
        mem = self.lif.reset_mem()
        spikes = []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            spikes.append(spk)
        return torch.stack(spikes)


def test_modules_that_are_never_called_stay_in_the_state_dict():
    torch.manual_seed(0)
    module = Spare()
    x = torch.rand(6, 3, 4) * 4
    converted = from_torch(module, (x,))
    returned = state_dict(converted)
    assert list(returned) == list(module.state_dict())
    assert all(torch.equal(returned[key], value) for key, value in module.state_dict().items())
    assert "never called, kept for state_dict only: unused, spare_lif" in str(converted.report)
    assert_same(module, converted, (torch.rand(8, 2, 4) * 4,), inert=("unused.weight", "unused.bias"))


class Counts(nn.Module):
    """Integer spike counts, cast inside."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        mem, spikes = self.lif.reset_mem(), []
        for t in range(x.shape[1]):
            spk, mem = self.lif(self.fc(x[:, t].to(torch.float32)), mem)
            spikes.append(spk)
        return torch.stack(spikes).sum(0), mem


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_inputs_of_other_types_than_floats_keep_them(dtype):
    module = Counts()
    (x,) = (torch.randint(0, 4, (3, 8, 5), generator=torch.Generator().manual_seed(1)).to(dtype),)
    converted = from_torch(module, (x,))
    counts, membranes = converted(to_jax(x.flip(0)))
    expected, mem = module(x.flip(0))
    assert expected.sum() > 0
    np.testing.assert_array_equal(counts, expected.detach().numpy())
    np.testing.assert_allclose(membranes, mem.detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=f"must have dtype {to_jax(x).dtype!s}, found float32"):
        converted(jnp.ones((3, 8, 5)))


class Moments(Counts):
    """Single steps out of a recorded list: from the start, from the end, by the number of the example's last step."""

    def forward(self, x):
        mem, membranes = self.lif.reset_mem(), []
        for t in range(x.shape[1]):
            _, mem = self.lif(self.fc(x[:, t]), mem)
            membranes.append(mem)
        return membranes[1], membranes[-2], membranes[7], torch.stack(membranes[1:-1]), {"all": membranes}


@pytest.mark.parametrize("length", [8, 9, 17, 20])
def test_steps_that_are_picked_after_the_loop_are_those_at_any_length(length):
    module = Moments()
    converted = from_torch(module, (torch.rand(3, 8, 5) * 4,))
    (x,) = (torch.rand((2, length, 5), generator=torch.Generator().manual_seed(2)) * 4,)
    found, expected = converted(to_jax(x)), module(x)
    assert len(found[-1]["all"]) == length
    assert all(bool((each > 1).any()) for each in expected[:3])
    for a, b in zip(jax.tree.leaves(found), pytree.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-5, atol=1e-5)
