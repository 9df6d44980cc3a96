"""What cannot cross between torch and JAX: each refusal names the leaf, what is allowed and what to do."""

import warnings
from collections import UserDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.masked import masked_tensor

from snnax_interop.errors import InteropError, TransferError
from snnax_interop.transfer import to_jax, to_torch, trees as transfer


@dataclass
class Unregistered:
    events: object


class Encoding(Mapping):
    """A mapping that is no `dict`, as tokenizers return."""

    def __init__(self, events: object):
        self.events = events

    def __getitem__(self, key: str) -> object:
        return getattr(self, key)

    def __iter__(self):
        return iter(["events"])

    def __len__(self) -> int:
        return 1


class Named(dict):
    """A subclass of `dict`, which is no pytree either."""


def with_warnings_ignored(make):
    def made():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()

    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.eye(4).to_sparse(), r"sparse or nested.*call \.to_dense\(\)"),
        (with_warnings_ignored(lambda: torch.eye(4).to_sparse_csr()), r"sparse or nested.*call \.to_dense\(\)"),
        (with_warnings_ignored(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])), "pad it"),
        (
            with_warnings_ignored(lambda: torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8)),
            r"quantised.*\.dequantize\(\)",
        ),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            r"sparse or nested.*torch\.jagged.*pad it",
        ),
        (lambda: torch.ones(4, device="meta"), "meta device.*materialise"),
        (with_warnings_ignored(lambda: torch.zeros(4, dtype=torch.complex32)), r"complex32; allowed: bool.*cast it"),
        (lambda: torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4_e2m1fn_x2; allowed: bool"),
        (lambda: np.array(["a", "b"]), "<U1; allowed: bool"),
        (lambda: np.array([None, {}]), "object; allowed: bool"),
        (lambda: np.zeros(4, dtype=[("t", "i4"), ("x", "i2")]), "fields of a structured array"),
        (lambda: np.zeros(4, dtype="M8[s]"), "datetime64.*; allowed: bool"),
        (lambda: np.zeros(4, dtype=np.longdouble), "allowed: bool"),
        (lambda: np.ma.masked_array(np.zeros(4, np.float32), mask=True), "masked.*fill it"),
        (lambda: Unregistered(torch.ones(4)), "Unregistered.*register_dataclass"),
        (lambda: {torch.ones(4)}, r"builtins\.set.*allowed: arrays.*pass list\(x\)"),
        (lambda: UserDict(input_ids=torch.ones(4)), r"collections\.UserDict.*allowed: arrays.*pass dict\(x\)"),
        (lambda: Encoding(torch.ones(4)), r"Encoding.*allowed: arrays.*pass dict\(x\).*register_dataclass"),
        (lambda: Named(x=torch.ones(4)), r"Named.*pass dict\(x\)"),
        (lambda: deque([torch.ones(4)]), r"deque.*pass list\(x\) or tuple\(x\)"),
        (lambda: torch.Size([4]), r"torch\.Size.*pass list\(x\) or tuple\(x\)"),
        (lambda: torch.nn.Linear(2, 2), r"Linear.*pass its state_dict\(\), or convert the module with from_torch"),
        (lambda: eqx.nn.MLP(2, 2, 2, 1, activation=abs, key=jax.random.key(0)).activation, "equinox.partition"),
        (lambda: torch.float32, r"torch\.dtype.*convert it to one of them"),
        (lambda: object(), r"builtins\.object.*allowed: arrays"),
        (with_warnings_ignored(lambda: torch.nn.LazyLinear(2).weight), "UninitializedParameter cannot cross to JAX"),
    ],
)
@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
def test_what_cannot_cross_to_jax_is_refused_with_its_path(make, message, copy):
    with pytest.raises(TransferError, match=rf"(?s)^at 'batch\.1': .*{message}") as caught:
        to_jax({"batch": [1, make()]}, copy=copy)
    assert caught.value.path == "batch.1"
    assert isinstance(caught.value, InteropError)


def test_the_remedies_for_mappings_work():
    for tree in (UserDict(events=torch.ones(4)), Encoding(torch.ones(4)), Named(events=torch.ones(4))):
        assert to_jax(dict(tree))["events"].tolist() == [1] * 4


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
def test_tensors_that_only_look_like_memory_are_refused(copy):
    with FakeTensorMode():
        fake = torch.ones(4)
    masked = masked_tensor(torch.ones(4), torch.tensor([True, False, True, False]))
    for wrapper, name in ((fake, "FakeTensor"), (masked, "MaskedTensor")):
        with pytest.raises(TransferError, match=rf"(?s)at 'x': {name} cannot cross to JAX.*pass a plain tensor"):
            to_jax({"x": wrapper}, copy)


def test_a_tree_that_does_not_hold_arrays_is_refused():
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    with pytest.raises(TransferError, match=r"does not hold the converted arrays.*pad_packed_sequence"):
        to_jax({"batch": packed})
    assert to_jax(torch.nn.utils.rnn.pad_packed_sequence(packed))[0].tolist() == [[1, 1], [1, 1], [1, 0]]


@pytest.mark.parametrize("convert", [to_jax, to_torch])
def test_a_tree_that_cannot_be_taken_apart_is_refused(convert):
    with pytest.raises(TransferError, match=r"cannot be taken apart: .*keys of one type"):
        convert({1: torch.ones(2), "x": torch.ones(2)})


def test_an_array_in_several_processes_is_refused(monkeypatch):
    array = jnp.ones(4)
    monkeypatch.setattr(transfer, "_device_obstacle", lambda array: "placement")
    assert to_torch(array).tolist() == [1] * 4
    monkeypatch.setattr(type(array), "is_fully_replicated", property(lambda self: False))
    monkeypatch.setattr(type(array), "is_fully_addressable", property(lambda self: False))
    with pytest.raises(TransferError, match=r"at 'x': .*several processes.*process_allgather"):
        to_torch({"x": array})


def test_another_error_of_torch_says_where_and_what_to_do():
    with pytest.raises(
        TransferError, match=r"(?s)^at 'x': .*cannot cross to JAX: .*pass a plain tensor in host memory"
    ):
        torch.func.vmap(lambda x: to_jax({"x": x}) and x)(torch.ones(3, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jax.random.key(0), r"typed PRNG key.*jax\.random\.key_data"),
        (lambda: jnp.zeros(4, jnp.int4), r"array of int4; allowed: bool.*\.astype"),
        (lambda: jnp.zeros(4, jnp.float8_e4m3), r"array of float8_e4m3; allowed: bool.*\.astype"),
        (lambda: np.zeros(4, jax.dtypes.float0), r"array of .*float0.*; allowed: bool"),
        (lambda: np.ma.masked_array(np.zeros(4), mask=True), "masked.*fill it"),
        (lambda: jax.ShapeDtypeStruct((4,), jnp.float32), "ShapeDtypeStruct.*allowed: arrays"),
        (lambda: Unregistered(jnp.ones(4)), "Unregistered.*register_dataclass"),
        (lambda: UserDict(x=jnp.ones(4)), r"UserDict.*pass dict\(x\)"),
        (lambda: np.zeros(4, dtype=[("t", "i4")]), "allowed: bool"),
    ],
)
@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
def test_what_cannot_cross_to_torch_is_refused_with_its_path(make, message, copy):
    with pytest.raises(TransferError, match=rf"^at 'state\.v': .*{message}"):
        to_torch({"state": {"u": 1, "v": make()}}, copy=copy)


def test_tracers_are_refused():
    for transform in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(TransferError, match=r"at '0': found a traced JAX array.*outside of jit"):
            transform(lambda x: to_torch([x]))(jnp.ones(()) if transform is jax.grad else jnp.ones(2))


@pytest.mark.parametrize("convert", [to_jax, to_torch])
def test_an_unknown_copy_mode_is_refused(convert):
    # The first is what the type checker of the test run raises, the second what a user sees
    with pytest.raises((TypeError, ValueError), match=r"(?s)if_needed.*never.*always"):
        convert(torch.ones(2), copy="sometimes")
