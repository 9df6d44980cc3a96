"""Converted networks against the torch modules that they come from, and what else holds of a conversion.

Every comparison is on inputs that the conversion has not seen, and shows first that all spiking layers spike and all
gradients flow.
"""

import copy
import functools
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from helpers.compare import (
    NEURONS,
    SPIKING,
    arrays_of,
    assert_same,
    assert_same_elsewhere,
    assert_same_structure,
    run_torch,
    tensors_of,
)
from helpers.isolation import assert_unchanged, photograph
from helpers.torch_networks import CASES
from torch import nn
from torch.utils import _pytree as pytree

from snnax import snn
from snnax_interop import Converted, WeightMappingError, from_torch, state_dict, to_jax


MARGIN = 1e-5  # between a float32 membrane and its threshold; closer than that, rounding may decide about a spike

by_case = pytest.mark.parametrize("name", CASES)


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


run = eqx.filter_jit(lambda network, *inputs: network(*inputs))  # operation by operation, it would take longer


def as_arrays(tensors: tuple[torch.Tensor, ...]) -> tuple[jax.Array, ...]:
    return tuple(to_jax(x) for x in tensors)


@by_case
def test_a_converted_network_computes_the_same_at_another_batch_size_and_length(name):
    assert_same_elsewhere(CASES[name], *network(name))


@by_case
def test_float32_agrees_but_for_spikes_whose_membrane_touches_the_threshold(name):
    module, converted = network(name)
    inputs = fresh(name)
    with torch.no_grad():
        torch_run = run_torch(copy.deepcopy(module), inputs, CASES[name].loop == "outside")
    outputs, spikes = eqx.filter_jit(lambda *x: (converted(*x), converted.spikes(*x)))(*as_arrays(inputs))
    flipped = np.zeros(len(next(iter(torch_run.spikes.values()))), bool)
    for path, expected in torch_run.spikes.items():
        if isinstance(module.get_submodule(path), SPIKING):
            assert expected.any()
            differ = (expected.numpy() != np.asarray(spikes[path])).reshape(len(expected), -1)
            flipped |= differ.any(1)
    if flipped.any():
        step = int(np.argmax(flipped))
        closest = min(float(each[step].min()) for each in torch_run.margins.values())
        assert closest < MARGIN
        return
    assert_same_structure(torch_run.outputs, outputs)
    for one, other in zip(tensors_of(torch_run.outputs), arrays_of(outputs), strict=True):
        np.testing.assert_allclose(other, one.numpy(), rtol=1e-5, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("name", ["nested blocks", "time last", "norse SequentialState"])
def test_a_second_call_of_the_same_shapes_does_not_compile_again(name):
    _, converted = network(name)
    traced = []

    @eqx.filter_jit
    def traced_run(converted, *arrays):
        traced.append(len(traced))
        return converted(*arrays)

    jax.block_until_ready(traced_run(converted, *as_arrays(fresh(name))))
    moved = jax.tree.map(lambda leaf: leaf * 2 if eqx.is_inexact_array(leaf) else leaf, converted)
    jax.block_until_ready(traced_run(moved, *as_arrays(fresh(name, seed=12))))
    assert traced == [0]


def test_a_converted_network_runs_under_vmap():
    _, converted = network("time first")
    (first,), (second,) = as_arrays(fresh("time first")), as_arrays(fresh("time first", seed=12))
    together = jax.jit(jax.vmap(converted))(jnp.stack([first, second]))
    for index, x in enumerate((first, second)):
        for one, other in zip(run(converted, x), together, strict=True):
            np.testing.assert_allclose(one, other[index], rtol=1e-5, atol=1e-6)


@pytest.mark.full
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
    for one, other in zip(arrays_of(run(converted, *inputs)), arrays_of(run(again, *inputs)), strict=True):
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

    def of_sample(sample):
        states = model.init_states(input_shape=sample.shape[1:])
        return model(states, sample)[1][-1]

    expected = eqx.filter_jit(converted.spikes)(x)
    last = list(expected)[-1]
    outs = jax.tree.leaves(jax.jit(jax.vmap(of_sample, in_axes=1, out_axes=1))(x))
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


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_inputs_of_other_types_than_floats_keep_them(dtype):
    module = Counts()
    (x,) = (torch.randint(0, 4, (3, 8, 5), generator=torch.Generator().manual_seed(1)).to(dtype),)
    converted = from_torch(module, (x,))
    counts, membranes = run(converted, to_jax(x.flip(0)))
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


@pytest.mark.full
def test_steps_that_are_picked_after_the_loop_are_those_at_any_length():
    module = Moments()
    converted = from_torch(module, (torch.rand(3, 8, 5) * 4,))
    for length in (8, 9, 17, 20):
        (x,) = (torch.rand((2, length, 5), generator=torch.Generator().manual_seed(2)) * 4,)
        found, expected = run(converted, to_jax(x)), module(x)
        assert len(found[-1]["all"]) == length
        assert all(bool((each > 1).any()) for each in expected[:3])
        for a, b in zip(jax.tree.leaves(found), pytree.tree_leaves(expected), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-5, atol=1e-5)
