"""Trees between torch and JAX: which memory is shared is read off the pointers, what is copied is proved by writing."""

import doctest
import gc
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from snnax_interop import transfer
from snnax_interop.errors import TransferError
from snnax_interop.transfer import TransferStatistics, to_jax, to_torch


NARROW = ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "bfloat16", "float32", "complex64"]
FLOATS_8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
WIDE = ["int64", "uint64", "float64", "complex128"]
Pair = namedtuple("Pair", ["first", "second"])


@jax.tree_util.register_dataclass
@dataclass
class Registered:
    events: object
    label: object


def ones(dtype: str, *shape: int) -> torch.Tensor:
    return torch.ones(shape).to(getattr(torch, dtype))


def same_memory(array: jax.Array, tensor: torch.Tensor) -> bool:
    return array.unsafe_buffer_pointer() == tensor.data_ptr()


def flat() -> torch.Tensor:
    return torch.arange(4096, dtype=torch.float32)


@pytest.mark.parametrize("dtype", NARROW + FLOATS_8)
def test_every_dtype_crosses_both_ways_without_a_copy(dtype):
    tensor = ones(dtype, 3, 5)
    array = to_jax(tensor, copy="never")
    assert array.dtype.name == dtype
    assert array.shape == (3, 5)
    assert same_memory(array, tensor)
    assert (array == 1).all()
    back = to_torch(array, copy="never")
    assert back.dtype == tensor.dtype
    assert back.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", WIDE)
def test_wide_dtypes_cross_without_a_copy_under_x64(dtype):
    tensor = ones(dtype, 3, 5)
    with jax.enable_x64(True):
        array = to_jax(tensor, copy="never")
        assert array.dtype.name == dtype
        assert same_memory(array, tensor)
        assert to_torch(array, copy="never").data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
def test_wide_floats_are_refused_and_never_narrowed(dtype, copy):
    with pytest.raises(TransferError, match=r"cast it to (float32|complex64), or enable jax_enable_x64"):
        to_jax(ones(dtype, 3), copy=copy)
    with pytest.raises(TransferError, match=r"cast it to (float32|complex64), or enable jax_enable_x64"):
        to_jax(np.ones(3, dtype), copy=copy)


@pytest.mark.parametrize(
    ("wide", "narrow", "fits", "below", "beyond"),
    [
        ("int64", "int32", [-(2**31), 0, 2**31 - 1], -(2**31) - 1, 2**31),
        ("uint64", "uint32", [0, 7, 2**32 - 1], None, 2**32),
        ("uint64", "uint32", [0, 7, 2**32 - 1], None, 2**64 - 1),
    ],
)
@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["torch", "numpy"])
def test_wide_integers_narrow_only_within_range(make, wide, narrow, fits, below, beyond):
    dtype = getattr(torch if make is torch.tensor else np, wide)
    array = to_jax(make(fits, dtype=dtype))
    assert array.dtype.name == narrow
    assert np.asarray(array).tolist() == fits
    for value in (below, beyond):
        if value is not None:
            with pytest.raises(TransferError, match=rf"at '1\.y'.*outside {narrow}.*enable jax_enable_x64"):
                to_jax([1, {"y": make([0, value], dtype=dtype)}])
    with pytest.raises(TransferError, match=r"needs a copy \(dtype\).*cast it where it is made"):
        to_jax(make(fits, dtype=dtype), copy="never")


def test_empty_wide_integers_narrow():
    assert to_jax(torch.zeros(0, 3, dtype=torch.int64)).dtype == jnp.int32
    assert to_jax(np.zeros((0, 3), np.uint64)).dtype == jnp.uint32


SHARED = {
    "whole": lambda: flat(),
    "zero-dimensional": lambda: torch.tensor(3.0),
    "aligned rows": lambda: flat().reshape(64, 64)[1:],
    "aligned part": lambda: flat()[16:],
    "batch of one, channels last": lambda: flat().reshape(1, 1, 64, 64).to(memory_format=torch.channels_last),
}
COPIED = {
    "4 bytes off": ("alignment", lambda: flat()[1:]),
    "8 bytes off": ("alignment", lambda: flat()[2:]),
    "32 bytes off": ("alignment", lambda: flat()[8:]),
    "zero-dimensional view": ("alignment", lambda: flat().reshape(64, 64)[5, 3]),
    "columns": ("strides", lambda: flat().reshape(64, 64)[:, 1:]),
    "every other row": ("strides", lambda: flat().reshape(64, 64)[::2]),
    "every other element": ("strides", lambda: flat()[::2]),
    "expanded": ("strides", lambda: flat().reshape(4096, 1).expand(4096, 3)),
    "transposed": ("strides", lambda: flat().reshape(64, 64).T),
    "permuted": ("strides", lambda: flat().reshape(4, 16, 64).permute(0, 2, 1)),
    "channels last": ("strides", lambda: flat().reshape(4, 4, 16, 16).to(memory_format=torch.channels_last)),
    "channels last 3d": ("strides", lambda: flat().reshape(4, 4, 4, 8, 8).to(memory_format=torch.channels_last_3d)),
    "conjugated": ("conjugate", lambda: torch.complex(flat(), flat()).conj()),
    "negated": ("conjugate", lambda: torch.complex(flat(), flat()).conj().imag),
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED.keys())
def test_row_major_aligned_memory_is_shared(make):
    tensor, statistics = make(), TransferStatistics()
    array = to_jax(tensor, copy="never", statistics=statistics)
    assert same_memory(array, tensor)
    assert statistics == TransferStatistics(aliased_bytes=tensor.nbytes)
    np.testing.assert_array_equal(np.asarray(array), tensor.numpy())


@pytest.mark.parametrize(("reason", "make"), COPIED.values(), ids=COPIED.keys())
def test_other_memory_is_copied_once_into_row_major_order(reason, make):
    tensor, statistics = make(), TransferStatistics()
    array = to_jax(tensor, statistics=statistics)
    assert array.format.layout.major_to_minor == tuple(range(tensor.ndim))
    np.testing.assert_array_equal(np.asarray(array), tensor.resolve_conj().resolve_neg().numpy())
    assert statistics == TransferStatistics(copied_bytes=tensor.nbytes, reasons={reason: tensor.nbytes})
    with pytest.raises(TransferError, match=rf'at \'x\': .* needs a copy \({reason}\).*allow copy="if_needed"'):
        to_jax({"x": tensor}, copy="never")


@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 4), (0, 2, 8)])
def test_empty_batches_cross(shape, copy):
    statistics = TransferStatistics()
    assert to_jax(torch.zeros(shape), copy=copy, statistics=statistics).shape == shape
    assert to_jax(np.zeros(shape, np.float32), copy=copy, statistics=statistics).shape == shape
    assert to_torch(jnp.zeros(shape), copy=copy, statistics=statistics).shape == shape
    assert statistics == TransferStatistics()


@pytest.mark.parametrize("make", [*SHARED.values(), COPIED["4 bytes off"][1]])
def test_always_gives_memory_that_torch_does_not_write_to(make):
    tensor, statistics = make(), TransferStatistics()
    array = to_jax(tensor, copy="always", statistics=statistics)
    before = tensor.clone().numpy()
    tensor.fill_(-1)
    np.testing.assert_array_equal(np.asarray(array), before)
    assert statistics.reasons == {"requested": tensor.nbytes}


def test_if_needed_shows_what_torch_writes_later():
    tensor = torch.zeros(64)
    array = to_jax(tensor)
    tensor.fill_(7)
    assert np.asarray(array).tolist() == [7] * 64


def test_shared_arrays_are_not_committed_to_a_device():
    assert not to_jax(torch.zeros(64), copy="never").committed


def test_arrays_cross_while_jit_traces():
    tensor = torch.ones(64)

    @jax.jit
    def add(x):
        constant = to_jax(tensor, copy="never")
        assert same_memory(constant, tensor)
        return x + constant

    assert add(1.0).tolist() == [2.0] * 64


def test_memory_outlives_the_tensor():
    tensor = torch.arange(1 << 20, dtype=torch.int32)
    array = to_jax(tensor, copy="never")
    del tensor
    gc.collect()
    others = [torch.full((1 << 20,), -1, dtype=torch.int32) for _ in range(4)]
    assert array[-1] == (1 << 20) - 1
    assert len(others) == 4


@pytest.mark.parametrize(
    "replace", [lambda x: x.set_(torch.zeros(8)), lambda x: setattr(x, "data", torch.zeros(8))], ids=["set_", "data"]
)
def test_replacing_the_memory_of_a_tensor_leaves_the_array_alone(replace):
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="never")
    replace(tensor)
    gc.collect()
    assert np.asarray(array).tolist() == [1] * 64


@pytest.mark.parametrize(
    "resize", [lambda x: x.resize_(4096), lambda x: x.untyped_storage().resize_(0)], ids=["tensor", "storage"]
)
def test_torch_refuses_to_resize_shared_memory(resize):
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="never")
    with pytest.raises(RuntimeError, match="not resizable"):
        resize(tensor)
    assert np.asarray(array).tolist() == [1] * 64


def test_a_donated_array_leaves_the_tensor_alone():
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="never")
    result = jax.jit(lambda x: x.at[:].set(5), donate_argnums=0)(array)
    assert result[0] == 5
    assert array.is_deleted()
    assert tensor.tolist() == [1] * 64
    with pytest.raises(TransferError, match=r"deleted JAX array.*before it is donated"):
        to_torch(array)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Parameter(torch.ones(64)),
        lambda: torch.ones(64, requires_grad=True) * 1,
        lambda: torch.nn.Linear(16, 4).weight,
    ],
    ids=["parameter", "result", "weight"],
)
def test_tensors_that_require_gradients_cross_detached(make):
    tensor = make()
    array = to_jax(tensor, copy="never")
    assert tensor.requires_grad
    assert same_memory(array, tensor)
    np.testing.assert_array_equal(np.asarray(array), tensor.detach().numpy())


def test_inference_and_subclassed_and_shared_tensors_cross_without_a_copy():
    class Events(torch.Tensor):
        pass

    with torch.inference_mode():
        inference = torch.ones(64)
    for tensor in (inference, torch.ones(64).as_subclass(Events), torch.ones(64).share_memory_()):
        assert same_memory(to_jax(tensor, copy="never"), tensor)


def test_mapped_files_cross_without_a_copy(tmp_path):
    np.save(tmp_path / "events.npy", np.arange(64, dtype=np.float32))
    mapped = np.load(tmp_path / "events.npy", mmap_mode="r")  # the header takes a multiple of 64 bytes
    array = to_jax(mapped, copy="never")
    assert array.unsafe_buffer_pointer() == mapped.ctypes.data
    assert array[63] == 63


def test_trees_keep_their_structure_and_scalars_their_type():
    kept = [1, 2.5, True, "label", b"raw", None, np.float64(3), 2j]
    tree = OrderedDict(z=Pair(torch.ones(2), (torch.zeros(1), kept)), a=[Registered(np.ones(2, np.float32), {})])
    result = to_jax(tree)
    assert list(result) == ["z", "a"]
    assert isinstance(result["z"], Pair)
    assert result["z"].second[1] == kept
    assert [type(x) for x in result["z"].second[1]] == [type(x) for x in kept]
    leaves = [result["z"].first, result["z"].second[0], result["a"][0].events]
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = to_jax(result)
    assert again["z"].first is result["z"].first
    back = to_torch(result)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert isinstance(back["a"][0].events, torch.Tensor)
    assert back["z"].second[1] == kept
    assert to_torch(back)["z"].first is back["z"].first


def test_numpy_arrays_share_aligned_memory_and_copy_the_rest():
    aligned = torch.arange(64, dtype=torch.float32).numpy()
    swapped = aligned.astype(">f4")
    frozen = torch.ones(64).numpy()
    frozen.flags.writeable = False
    for array in (aligned, frozen):
        assert to_jax(array, copy="never").unsafe_buffer_pointer() == array.ctypes.data
    statistics = TransferStatistics()
    for array in (aligned[1:], aligned[::-1], swapped):
        np.testing.assert_array_equal(np.asarray(to_jax(array, statistics=statistics)), array)
    assert statistics.reasons == {"alignment": 63 * 4, "strides": 64 * 4, "dtype": 64 * 4}
    assert statistics.aliased_bytes == 0
    owned = to_jax(aligned, copy="always")
    aligned[:] = -1
    assert owned[3] == 3


def test_statistics_add_up_over_transfers_and_print():
    statistics = TransferStatistics()
    assert str(statistics) == "0 bytes shared, 0 copied"
    to_jax({"x": torch.ones(64), "y": torch.arange(16)}, statistics=statistics)
    to_jax([torch.ones(64)[1:], torch.ones(8, 8).T], statistics=statistics)
    assert statistics == TransferStatistics(256, 64 + 252 + 256, {"dtype": 64, "alignment": 252, "strides": 256})
    assert str(statistics) == "256 bytes shared, 572 copied (dtype 64, alignment 252, strides 256)"


def test_to_torch_shares_memory_that_torch_can_then_write_to():
    array, statistics = jnp.arange(64.0), TransferStatistics()
    tensor = to_torch(array, statistics=statistics)
    assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    assert statistics == TransferStatistics(aliased_bytes=256)
    tensor[0] = 5
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    assert np.asarray(array)[0] == 5


@pytest.mark.parametrize("make", [lambda: jnp.arange(64.0), lambda: np.arange(64, dtype=np.float32)])
def test_to_torch_always_gives_torch_memory_of_its_own(make):
    array, statistics = make(), TransferStatistics()
    tensor = to_torch(array, copy="always", statistics=statistics)
    tensor.fill_(-1)
    assert np.asarray(array).tolist() == list(range(64))
    assert statistics == TransferStatistics(copied_bytes=256, reasons={"requested": 256})


def test_to_torch_of_numpy_shares_writeable_row_major_memory():
    array = np.arange(64, dtype=np.float32)
    assert to_torch(array, copy="never").data_ptr() == array.ctypes.data
    half = array.astype(jnp.bfloat16)
    assert to_torch(half, copy="never").dtype == torch.bfloat16
    frozen = array.copy()
    frozen.flags.writeable = False
    for other, reason in ((frozen, "read-only"), (array[::-1], "strides"), (array.astype(">f4"), "dtype")):
        statistics = TransferStatistics()
        assert to_torch(other, statistics=statistics).tolist() == other.tolist()
        assert statistics.reasons == {reason: 256}
        with pytest.raises(TransferError, match=rf"needs a copy \({reason}\)"):
            to_torch(other, copy="never")


def test_a_permuted_jax_array_keeps_its_values_in_torch():
    array = jax.dlpack.from_dlpack(torch.arange(12.0).reshape(3, 4).T)
    assert to_torch(array).tolist() == np.asarray(array).tolist()


def test_a_sharding_that_does_not_fit_the_shape_is_refused():
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("batch",)), jax.P("batch"))
    tensor = torch.ones(4, 8)
    array = to_jax(tensor, sharding=sharding, copy="never")
    assert array.sharding == sharding
    assert same_memory(array, tensor)
    with pytest.raises(ValueError, match=r"at 'y': found shape \(\); allowed: shapes that divide over"):
        to_jax({"y": torch.tensor(1.0)}, sharding=sharding)


def test_the_examples_in_the_documentation_run():
    results = doctest.testmod(transfer)
    assert results.attempted > 5
    assert results.failed == 0
