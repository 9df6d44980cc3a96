"""Weights from a state_dict or a file into a conversion."""

import collections
import doctest
import functools
import importlib.util
import pathlib
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snnax_interop import (
    MissingDependencyError,
    WeightMappingError,
    _optional,
    from_torch,
    load_state_dict,
    state_dict,
    to_jax,
)
from snnax_interop.frameworks import snntorch_releases


pytestmark = pytest.mark.full


INPUTS, HIDDEN, OUTPUTS = 6, 8, 5
X = torch.rand(9, 3, INPUTS, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two neurons, a layer under two names, running statistics, a layer that is never called."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(INPUTS, HIDDEN)
        self.lif1 = snntorch.Leaky(beta=0.7 + 0.05 * seed, threshold=0.8 + 0.05 * seed)
        self.shared = nn.Linear(HIDDEN, HIDDEN)
        self.alias = self.shared
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.lif2 = snntorch.Leaky(beta=torch.full((HIDDEN,), 0.5 + 0.1 * seed), learn_beta=True)
        self.unused = nn.Linear(2, 3)
        with torch.no_grad():
            self.norm.running_mean.normal_(0, 0.1)
            self.norm.num_batches_tracked += 3 * seed
        self.eval()

    def forward(self, x):
        mem1, mem2, spikes = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in range(x.size(0)):
            spk, mem1 = self.lif1(self.fc(x[step]) * 4, mem1)
            spk, mem2 = self.lif2(self.norm(self.alias(self.shared(spk) * 3)) * 3, mem2)
            spikes.append(spk)
        return torch.stack(spikes), mem2


@functools.cache
def converted():
    return from_torch(Net(), (X,))


def trained():
    return Net(seed=3).state_dict()


def refused(source, message, **options):
    with pytest.raises(WeightMappingError, match=message):
        load_state_dict(converted(), source, **options)


def assert_holds(loaded, values):
    taken = state_dict(loaded)
    assert list(taken) == list(values)
    for key, value in values.items():
        assert taken[key].dtype == value.dtype
        assert torch.equal(taken[key], value), key


# Values


@pytest.mark.usefixtures("double_precision")
def test_a_conversion_with_other_weights_computes_what_their_module_computes():
    x, fresh, module = X.double(), Net().double(), Net(seed=3).double()
    own = from_torch(fresh, (x,))
    loaded = load_state_dict(own, module.state_dict())
    spikes, mem = module(x)
    found, found_mem = loaded(to_jax(x))
    before = own(to_jax(x))[0]
    assert 0 < spikes.sum() < spikes.numel()
    np.testing.assert_array_equal(found, spikes.detach().numpy())
    np.testing.assert_allclose(found_mem, mem.detach().numpy(), rtol=1e-10, atol=1e-10)
    assert (np.asarray(before) != np.asarray(found)).any()
    assert_holds(loaded, module.state_dict())


def test_the_weights_return_to_a_module_that_is_built_from_code():
    loaded = load_state_dict(converted(), trained())
    rebuilt = Net(seed=1)
    rebuilt.load_state_dict(state_dict(loaded), strict=True)
    spikes, mem = rebuilt(X)
    assert spikes.sum() > 0
    np.testing.assert_allclose(loaded(to_jax(X))[1], mem.detach().numpy(), rtol=1e-4, atol=1e-4)
    assert state_dict(loaded)["norm.num_batches_tracked"].item() == 9


def test_the_conversion_itself_keeps_its_values_and_its_structure():
    loaded = load_state_dict(converted(), trained())
    assert_holds(converted(), Net().state_dict())
    assert jax.tree.structure(loaded) == jax.tree.structure(converted())


def test_the_loaded_values_are_copies():
    values = trained()
    loaded = load_state_dict(converted(), values)
    values["fc.weight"].zero_()
    assert state_dict(loaded)["fc.weight"].any()


def test_wider_numbers_are_cast_to_those_of_the_conversion():
    values = trained()
    wide = {key: value.double() if value.is_floating_point() else value.int() for key, value in values.items()}
    assert_holds(load_state_dict(converted(), wide), values)


def test_a_float64_conversion_of_a_float32_module_takes_float64_values_as_they_are():
    values = {key: value.double() if value.is_floating_point() else value for key, value in trained().items()}
    values["fc.weight"] = values["fc.weight"] / 3
    with jax.enable_x64(True):
        loaded = load_state_dict(converted().astype("float64"), values)
        assert loaded.parameters["fc.weight"].dtype == jnp.float64
        np.testing.assert_array_equal(loaded.parameters["fc.weight"], values["fc.weight"].numpy())


def test_numbers_that_are_not_finite_load_as_in_torch():
    values = trained()
    values["fc.bias"][:] = torch.tensor([torch.nan, torch.inf] * 4)
    values["alias.weight"][0] = values["shared.weight"][0] = torch.nan
    taken = state_dict(load_state_dict(converted(), values))
    torch.testing.assert_close(taken["fc.bias"], values["fc.bias"], rtol=0, atol=0, equal_nan=True)


class Exact(nn.Module):
    """Values that JAX cannot hold: int64 beyond int32, and float64 without x64."""

    def __init__(self, steps, beta):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        nn.init.uniform_(self.fc.weight, 0.4, 0.6)  # all spike on inputs in [0, 1)
        self.lif = snntorch.Leaky(beta=np.float64(beta))
        self.register_buffer("steps", torch.tensor(steps))

    def forward(self, x):
        mem = self.lif.reset_mem()
        for step in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[step]) * 3, mem)
        return spk, mem


@pytest.mark.parametrize(("before", "after"), [(2**40, 2**41 + 1), (2**40, 7), (7, 2**40 + 1), (7, 9)])
def test_values_that_jax_cannot_hold_load_exactly(before, after):
    module, x = Exact(after, 0.9), torch.rand(5, 2, 4)
    loaded = load_state_dict(from_torch(Exact(before, 0.3), (x,)), module.state_dict())
    assert_holds(loaded, module.state_dict())
    np.testing.assert_allclose(loaded(to_jax(x))[1], module(x)[1].detach().numpy(), rtol=1e-5, atol=1e-5)


def test_every_key_has_its_place():
    for own in (converted(), from_torch(Exact(2**40, 0.5), (torch.rand(5, 2, 4),))):
        names = {own.plan.canonical[key] for key in own.plan.keys}
        assert names <= own.parameters.keys() | own.buffers.keys()
        assert names.isdisjoint(own.parameters.keys() & own.buffers.keys())


# Prefixes and entries


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.", "model._orig_mod."])
def test_what_wrappers_put_before_all_keys_is_left_out(prefix):
    values = trained()
    assert_holds(load_state_dict(converted(), {prefix + key: value for key, value in values.items()}), values)


def test_the_state_dict_of_a_wrapped_module_loads():
    module = Net(seed=3)
    assert_holds(load_state_dict(converted(), nn.DataParallel(module).state_dict()), module.state_dict())
    assert_holds(load_state_dict(converted(), torch.compile(module, backend="eager").state_dict()), module.state_dict())


def test_a_prefix_that_only_some_keys_have_stays():
    values = {f"module.{key}" if "lif" in key else key: value for key, value in trained().items()}
    refused(values, r"8 missing: 'lif1.threshold'.*\n  8 unexpected: 'module.lif1.threshold'")
    refused(
        {f"other.{key}": value for key, value in trained().items()},
        r"21 missing: .*\n  21 unexpected: 'other.fc.weight'",
    )


def test_a_prefix_of_the_networks_own_keys_stays():
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            collections.OrderedDict(net=nn.Linear(4, 3), lif=snntorch.Leaky(beta=0.9, init_hidden=True))
        )

    class Wrapper(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.net = build(seed)

        def forward(self, x):
            return self.net(x)

    own, values = from_torch(Wrapper(0), (torch.rand(2, 4) * 5,), loop="outside"), Wrapper(1).state_dict()
    assert set(values) >= {"net.net.weight", "net.lif.beta"}
    for prefix in ("", "net.", "module.net."):
        assert_holds(load_state_dict(own, {prefix + key: value for key, value in values.items()}), values)


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model"])
def test_the_state_dict_in_a_checkpoint_is_found(entry):
    checkpoint = {"epoch": 3, entry: trained(), "optimizer": {"state": {}, "lr": 0.1}}
    assert_holds(load_state_dict(converted(), checkpoint), trained())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"epoch": 3, "weights": {}}, "found no state_dict but a dict of 'epoch', 'weights'. Allowed: tensors by key"),
        ({"model": {}, "state_dict": {}}, "a dict of 'model', 'state_dict'"),
        ({"state_dict": {"fc.weight": [1.0]}}, "a dict of 'state_dict'"),
        ({"fc.weight": torch.ones(2), "epoch": 3}, "a dict of 'fc.weight', 'epoch'"),
        ({str(number): number for number in range(30)}, "'8', '9', and 20 more"),
    ],
)
def test_what_holds_no_state_dict_is_refused(source, message):
    refused(source, message)


# What does not fit


def test_missing_and_unexpected_keys_are_all_named():
    values = trained()
    values["fc.wieght"] = values.pop("fc.weight")
    del values["norm.running_var"]
    refused(
        values,
        r"the state_dict does not fit the network\n"
        r"  2 missing: 'fc.weight' float32 \(8, 6\); 'norm.running_var' float32 \(8,\)\n"
        r"  1 unexpected: 'fc.wieght' float32 \(8, 6\)\n"
        r"Allowed: the keys, shapes and kinds of dtype",
    )


def test_the_first_ten_keys_of_many_are_named():
    values = {f"layer{number}": torch.ones(1) for number in range(20)}
    refused(values, r"  21 missing: 'fc.weight'.*; and 11 more\n  20 unexpected: .*; 'layer9' .*; and 10 more\n")
    refused({}, r"  21 missing: 'fc.weight'.*; and 11 more\nAllowed")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fc.weight", torch.ones(8, 7), r"shape, expected float32 \(8, 6\), found float32 \(8, 7\)"),
        ("lif1.beta", torch.ones(1), r"shape, expected float32 \(\), found float32 \(1,\)"),
        ("lif1.threshold", torch.tensor(1), r"kind of dtype, expected float32 \(\), found int64 \(\)"),
        ("norm.num_batches_tracked", torch.tensor(1.0), "kind of dtype, expected int64"),
        ("norm.num_batches_tracked", torch.tensor(True), "kind of dtype, expected int64"),
        ("fc.bias", torch.ones(8, dtype=torch.complex64), "kind of dtype, expected float32"),
        ("fc.bias", torch.ones(8).to_sparse(), r"layout, .* found float32 \(8,\) sparse_coo"),
        ("fc.bias", torch.ones(8, device="meta"), r"layout, .* found float32 \(8,\) without values"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(key, value, message):
    refused(trained() | {key: value}, rf"  1 different: '{key}' in {message}")


def test_integers_that_the_module_cannot_hold_are_refused():
    class Counting(Exact):
        def __init__(self):
            super().__init__(0, 0.5)
            self.steps = torch.tensor(3, dtype=torch.int32)

    own, values = from_torch(Counting(), (torch.rand(5, 2, 4),)), Counting().state_dict()
    assert_holds(load_state_dict(own, values | {"steps": torch.tensor(4)}), values | {"steps": torch.tensor(4).int()})
    with pytest.raises(WeightMappingError, match=r"'steps' in the range of integers, expected int32"):
        load_state_dict(own, values | {"steps": torch.tensor(2**40)})


def test_one_tensor_with_two_values_is_refused():
    values = trained()
    values["alias.weight"] = values["alias.weight"] + 1
    refused(values, "at 'alias.weight': has another value than 'shared.weight', and both are one tensor")


def test_a_gradient_takes_no_weights():
    gradient = jax.tree.map(lambda leaf: None, converted())
    with pytest.raises(TypeError, match="found a gradient or a part of one"):
        load_state_dict(gradient, trained())


# Values that the conversion was made with


def test_another_reset_mechanism_is_refused():
    refused(
        trained() | {"lif1.reset_mechanism_val": torch.tensor(1)},
        "at 'lif1.reset_mechanism_val': found 1, expected 0, with which the network was converted",
    )


def test_a_factor_of_graded_spikes_that_was_left_out_is_refused():
    refused(trained() | {"lif1.graded_spikes_factor": torch.tensor(2.0)}, "found 2.0, expected 1.0, with which")


class Reading(nn.Module):
    """A buffer, a parameter, and a number computed from a buffer that Python looks into; another buffer is not read."""

    def __init__(self, scale=2.0):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.lif = snntorch.Leaky(beta=0.9)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("gate", torch.tensor(1.0))
        self.register_buffer("gain", torch.tensor(3.0))
        self.offset = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        mem = self.lif.reset_mem()
        for step in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[step]) * float(self.scale) * self.gain + self.offset.item(), mem)
            if self.gate * 2 > 1:
                spk = spk * 2
        return spk, mem


def test_a_value_that_forward_reads_in_python_is_refused():
    x, module = torch.rand(5, 2, 4), Reading()
    own = from_torch(module, (x,))
    assert_holds(load_state_dict(own, module.state_dict()), module.state_dict())
    for key in ("scale", "gate", "offset"):
        with pytest.raises(WeightMappingError, match=f"at '{key}': found 7.0, expected .*, with which the network was"):
            load_state_dict(own, module.state_dict() | {key: torch.tensor(7.0)})
    values = module.state_dict() | {"gain": torch.tensor(7.0)}
    loaded = load_state_dict(own, values)
    module.load_state_dict(values)
    np.testing.assert_allclose(loaded(to_jax(x))[1], module(x)[1].detach().numpy(), rtol=1e-5, atol=1e-5)


# Files


def save_legacy(values, path):
    torch.save(values, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize("wrap", [lambda values: values, lambda values: {"epoch": 3, "state_dict": values}])
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_files_of_torch_load(save, wrap, kind, tmp_path):
    path = tmp_path / "net.pt"
    save(wrap(trained()), path)
    assert_holds(load_state_dict(converted(), kind(path)), trained())


class Hostile:
    """An object whose pickle writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self.path, "executed")


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_the_code_in_a_file_is_not_executed(save, tmp_path):
    path, mark = tmp_path / "net.pt", tmp_path / "mark"
    save({**trained(), "extra": Hostile(mark)}, path)
    refused(path, "net.pt' holds more than tensors, or is damaged .*Objects with code of their own are never loaded")
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.read_text() == "executed"


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(nn.Linear(2, 3), path)
    refused(path, "holds more than tensors.*Write the weights alone: torch.save")


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_damaged_file_is_refused(save, tmp_path):
    path = tmp_path / "net.pt"
    save(trained(), path)
    whole = path.read_bytes()
    for length in [0, 1, 40, *range(100, len(whole) - 1, len(whole) // 40)]:
        path.write_bytes(whole[:length])
        refused(path, "or is damaged")
    path.write_bytes(b"not a file of weights")
    refused(path, "or is damaged")


@pytest.mark.parametrize("found", [[1, 2], 3, torch.ones(2), {"epoch": 3}, {1: torch.ones(2)}])
def test_a_file_without_a_state_dict_is_refused(found, tmp_path):
    torch.save(found, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", f"found no state_dict but a {type(found).__name__}")


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_state_dict(converted(), tmp_path / "nothing.pt")


def test_safetensors_are_asked_for_with_their_pip_line(monkeypatch, tmp_path):
    network = converted()  # which imports its framework

    def absent(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(_optional.importlib, "import_module", absent)
    line = r"safetensors is not installed; in a checkout of .*: pip install '\.\[safetensors\]'"
    with pytest.raises(MissingDependencyError, match=line):
        load_state_dict(network, tmp_path / "net.safetensors")


with_safetensors = pytest.mark.skipif(
    importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed"
)


@with_safetensors
def test_files_of_safetensors_load(tmp_path):
    writer = importlib.import_module("safetensors.torch")
    values = {key: value.clone() for key, value in trained().items()}
    writer.save_file(values, tmp_path / "net.safetensors")
    assert_holds(load_state_dict(converted(), tmp_path / "net.safetensors"), values)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_state_dict(converted(), tmp_path / "nothing.safetensors")


@with_safetensors
@pytest.mark.parametrize("content", [b"", b"12345", b"\xff" * 40])
def test_damaged_files_of_safetensors_are_refused(content, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(content)
    refused(tmp_path / "net.safetensors", "net.safetensors' holds more than tensors, or is damaged")


# Releases of snnTorch


def as_of_release_0_8(values):
    """What snnTorch 0.8 wrote: states are buffers."""
    states = {"lif1.mem": torch.zeros(3, HIDDEN), "lif2.mem": torch.zeros(0), "lif2.syn_exc": torch.zeros(0)}
    return dict(values) | states


def without_factors(values):
    return {key: value for key, value in values.items() if not key.endswith("graded_spikes_factor")}


def test_states_that_were_saved_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"dropped the states .* kept: lif1.mem, lif2.mem, lif2.syn_exc"):
        loaded = load_state_dict(converted(), as_of_release_0_8(trained()), version="0.9.4")
    assert_holds(loaded, trained())


def test_missing_factors_of_graded_spikes_are_one_with_a_warning():
    with pytest.warns(UserWarning, match="taken as 1, .*: lif1.graded_spikes_factor, lif2.graded_spikes_factor"):
        loaded = load_state_dict(converted(), without_factors(trained()), version="1.0.0")
    assert_holds(loaded, trained())


@pytest.mark.parametrize(
    ("older", "sign"), [(as_of_release_0_8, "lif1.mem"), (without_factors, "no lif1.graded_spikes_factor")]
)
def test_weights_of_an_older_release_ask_which_one_trained_them(older, sign):
    refused(older(trained()), rf"an older snnTorch .*{sign}.* Which release trained them\? Say so with version='0.9.4'")
    refused(
        older(trained()), "snnTorch 0.9.1 trained these weights, and it computed Leaky differently", version="0.9.1"
    )


@pytest.mark.parametrize("version", ["0.8", "0.9", "0.9.3", "0.7.0"])
def test_a_release_that_computed_otherwise_is_refused_whatever_the_keys_are(version):
    refused(trained(), f"snnTorch {version} trained these weights", version=version)


@pytest.mark.parametrize("version", ["0.9.4", "0.10", "1", "1.0.0"])
def test_a_release_that_computes_the_same_loads_without_a_warning(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(load_state_dict(converted(), trained(), version=version), trained())


@pytest.mark.parametrize("version", ["", "new", "v1", "0.9.x", "1.0.0rc1"])
def test_a_version_that_is_no_number_is_an_error(version):
    with pytest.raises(ValueError, match=f"must be the number of a snnTorch release, .* found '{version}'"):
        load_state_dict(converted(), trained(), version=version)


def test_states_of_other_modules_are_unexpected():
    refused(trained() | {"fc.mem": torch.zeros(1)}, "1 unexpected: 'fc.mem'")
    refused(trained() | {"mem": torch.zeros(1)}, "1 unexpected: 'mem'")


def test_a_missing_factor_that_is_not_one_stays_missing():
    class Graded(Exact):
        def __init__(self):
            super().__init__(0, 0.5)
            self.lif = snntorch.Leaky(beta=0.5, graded_spikes_factor=2.0)

    own = from_torch(Graded(), (torch.rand(5, 2, 4),))
    with pytest.raises(WeightMappingError, match=r"1 missing: 'lif\.graded_spikes_factor'"):
        load_state_dict(own, without_factors(Graded().state_dict()), version="1.0.0")


def test_states_of_a_shared_neuron_are_left_out_under_each_of_its_names():
    class Shared(Exact):
        def __init__(self):
            super().__init__(0, 0.5)
            self.other = self.lif

    own, values = from_torch(Shared(), (torch.rand(5, 2, 4),)), Shared().state_dict()
    with pytest.warns(UserWarning, match="lif.mem, other.mem"):
        loaded = load_state_dict(own, values | dict.fromkeys(["lif.mem", "other.mem"], torch.zeros(1)), version="1.0")
    assert_holds(loaded, values)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("Leaky", "Leaky"), ("RLeaky", "RLeaky"), ("Synaptic", "Synaptic"), ("RSynaptic", "RSynaptic"), ("Alpha", "")],
)
def test_neurons_that_stayed_the_same_load_from_any_release(kind, names):
    values, own = {"lif.beta": torch.ones(()), "lif.mem": torch.zeros(0)}, {"lif.beta": torch.zeros(())}
    load = functools.partial(snntorch_releases.as_present, values, own, {"lif": kind}, "0.8.1")
    if names:
        with pytest.raises(WeightMappingError, match=f"it computed {names} differently"):
            load()
    else:
        with pytest.warns(UserWarning, match="lif.mem"):
            assert load() == {"lif.beta": torch.ones(())}


def test_a_network_that_is_one_neuron_loads():
    def build(beta):
        return snntorch.Leaky(beta=beta, init_hidden=True)

    own = from_torch(build(0.3), (torch.rand(2, 4) * 5,), loop="outside")
    values = dict(build(0.9).state_dict())
    with pytest.warns(UserWarning, match="kept: mem"):
        assert_holds(load_state_dict(own, values | {"mem": torch.zeros(0)}, version="0.9.4"), values)


def test_the_example_in_the_documentation_runs():
    results = doctest.testmod(sys.modules[load_state_dict.__module__])
    assert results.attempted > 5
    assert results.failed == 0
