"""Trees between torch and JAX, 64-bit values, statistics. `test_transfer_memory` has which memory is shared."""

import doctest
import gc
import os
import pathlib
import threading
from collections import OrderedDict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from snnax import snn
from snnax_interop.errors import TransferError
from snnax_interop.transfer import TransferStatistics, to_jax, to_torch, trees as transfer


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


@pytest.mark.parametrize("copy", ["if_needed", "never", "always"])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 4), (0, 2, 8)])
def test_empty_batches_cross(shape, copy):
    statistics = TransferStatistics()
    assert to_jax(torch.zeros(shape), copy=copy, statistics=statistics).shape == shape
    assert to_jax(np.zeros(shape, np.float32), copy=copy, statistics=statistics).shape == shape
    assert to_torch(jnp.zeros(shape), copy=copy, statistics=statistics).shape == shape
    assert statistics == TransferStatistics()


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


def test_statistics_add_up_over_transfers_and_print():
    statistics = TransferStatistics()
    assert str(statistics) == "0 bytes shared, 0 copied"
    to_jax({"x": torch.ones(64), "y": torch.arange(16)}, statistics=statistics)
    to_jax([torch.ones(64)[1:], torch.ones(8, 8).T], statistics=statistics)
    assert statistics == TransferStatistics(256, 64 + 252 + 256, {"dtype": 64, "alignment": 252, "strides": 256})
    assert str(statistics) == "256 bytes shared, 572 copied (dtype 64, alignment 252, strides 256)"


def test_a_tensor_that_is_in_a_tree_twice_crosses_and_counts_twice():
    tensor, statistics = torch.ones(64), TransferStatistics()
    tree = {"encoder": tensor, "decoder": [tensor]}
    arrays = to_jax(tree, copy="never", statistics=statistics)
    assert same_memory(arrays["encoder"], tensor)
    assert same_memory(arrays["decoder"][0], tensor)
    assert statistics == TransferStatistics(aliased_bytes=512)
    owned = to_torch(arrays, copy="always", statistics=statistics)
    assert owned["encoder"].data_ptr() != owned["decoder"][0].data_ptr()
    assert statistics == TransferStatistics(512, 512, {"requested": 512})


def test_states_that_are_modules_of_equinox_cross_both_ways():
    state = snn.LIF(32, [0.9, 0.8]).init_state((32,))
    tensors = to_torch(state, copy="never")
    assert isinstance(state, eqx.Module) and isinstance(tensors, type(state))
    assert tensors.v.data_ptr() == state.v.unsafe_buffer_pointer()
    again = to_jax(tensors, copy="never")
    assert again.i.unsafe_buffer_pointer() == state.i.unsafe_buffer_pointer()
    assert jax.tree.structure(again) == jax.tree.structure(state)


@pytest.mark.parametrize("convert", [to_jax, to_torch])
def test_threads_share_statistics(convert):
    statistics, number = TransferStatistics(), 200
    start = threading.Barrier(8, timeout=60)
    sources = (torch.ones(64), torch.ones(64)[1:]) if convert is to_jax else (jnp.ones(64), np.ones(64)[:0:-1])

    def work(thread: int) -> list:
        start.wait()
        return [convert({"x": sources, "n": thread}, statistics=statistics) for _ in range(number)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    aliased, copied = sources[0].nbytes * number * 8, sources[1].nbytes * number * 8
    assert statistics == TransferStatistics(aliased, copied, {"alignment" if convert is to_jax else "strides": copied})
    for thread, trees in enumerate(results):
        for tree in trees:
            assert tree["n"] == thread
            assert [np.asarray(x).sum() for x in tree["x"]] == [64, 63]


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads memory and open files under /proc")
def test_ten_thousand_small_batches_leave_nothing_behind():
    def footprint() -> tuple[int, int]:
        gc.collect()
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

    def convert(number: int) -> None:
        for _ in range(number):
            x = torch.ones(1025)
            shared, copied = to_jax((x, x[1:]))
            assert shared.nbytes + copied.nbytes == 8196

    convert(200)
    memory, files = footprint()
    convert(5_000)  # 41 MB of arrays
    more, as_many = footprint()
    assert as_many == files
    assert more - memory < 4e6


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
