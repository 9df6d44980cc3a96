"""What happens to shared memory later: one test for each row of the table in `transfer`, named at the test."""

import gc
import pathlib
import signal
import subprocess
import sys
import threading
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from snnax_interop.errors import TransferError
from snnax_interop.transfer import to_jax, to_torch


FILES = pathlib.Path("/proc/self/fd")


# Row "torch writes in place"
@pytest.mark.parametrize(("copy", "seen"), [("if_needed", 7), ("never", 7), ("always", 1)])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.fill_(7),
        lambda x: x.data.fill_(7),
        lambda x: torch.full((64,), 7.0, out=x),
        lambda x: x.numpy().fill(7),
        lambda x: x.view(8, 8).T.copy_(torch.full((8, 8), 7.0)),
    ],
    ids=["fill_", "data", "out", "NumPy", "view"],
)
def test_what_torch_writes_shows_unless_copied(write, copy, seen):
    tensor = torch.ones(64)
    array = to_jax(tensor, copy)
    write(tensor)
    assert tensor.tolist() == [7] * 64
    assert np.asarray(array).tolist() == [seen] * 64


# Row "torch writes in place"
@pytest.mark.parametrize("copy", ["never", "always"])
def test_an_optimiser_writes_to_shared_parameters(copy):
    parameter = torch.nn.Parameter(torch.ones(64))
    array = to_jax(parameter, copy)
    parameter.grad = torch.ones(64)
    torch.optim.SGD([parameter], lr=0.5).step()
    assert np.asarray(array).tolist() == [0.5 if copy == "never" else 1.0] * 64


# Row "torch writes in place": a computation that has started, but not read its argument yet
@pytest.mark.parametrize(("copy", "seen"), [("if_needed", 7), ("always", 1)])
def test_a_computation_under_way_sees_what_torch_writes(copy, seen):
    started, written = threading.Event(), threading.Event()

    def wait() -> np.ndarray:
        started.set()
        return np.asarray(written.wait(60), np.float32)

    @jax.jit
    def late(x: jax.Array) -> jax.Array:
        return x * jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.float32))

    tensor = torch.ones(64)
    array, results = to_jax(tensor, copy), []
    thread = threading.Thread(target=lambda: results.append(np.asarray(late(array)).tolist()))
    thread.start()
    assert started.wait(60)
    tensor.fill_(7)
    written.set()
    thread.join(60)
    assert results == [[seen] * 64]


# Row "torch writes to what `to_torch` returned"
@pytest.mark.parametrize(("copy", "seen"), [("if_needed", 5), ("never", 5), ("always", 1)])
def test_writing_to_what_to_torch_returned_changes_the_array_unless_copied(copy, seen):
    array = jnp.ones(64)
    to_torch(array, copy).fill_(5)
    assert np.asarray(array).tolist() == [seen] * 64


# Row "torch writes to an inference tensor"
def test_an_inference_tensor_is_written_to_like_any_other():
    with torch.inference_mode():
        tensor = torch.ones(64)
    array, owned = to_jax(tensor, "never"), to_jax(tensor, "always")
    with torch.inference_mode():
        tensor.add_(1)
    assert np.asarray(array).tolist() == [2] * 64
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        tensor.add_(1)
    assert np.asarray(array).tolist() == [3] * 64
    assert np.asarray(owned).tolist() == [1] * 64


# Row "`x.resize_()`"
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize(
    "resize",
    [lambda x: x.resize_(4096), lambda x: x.untyped_storage().resize_(0), lambda x: x.untyped_storage().resize_(4096)],
    ids=["tensor", "free", "grow"],
)
def test_torch_refuses_to_resize_shared_memory(resize, dtype):
    tensor = torch.ones(64).to(dtype)
    array, start = to_jax(tensor, copy="never"), tensor.data_ptr()
    with pytest.raises(RuntimeError, match="not resizable"):
        resize(tensor)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr() == start
    assert (array == 1).all()


# Row "`x.resize_()`": a copy leaves the tensor as free as it was
def test_torch_resizes_what_was_copied():
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="always")
    tensor.resize_(4096)
    tensor.untyped_storage().resize_(0)
    assert np.asarray(array).tolist() == [1] * 64


# Row "`x.share_memory_()`". The array must not be read any more
@pytest.mark.parametrize("copy", ["never", "always"])
def test_sharing_a_tensor_with_processes_frees_the_memory_under_the_array(copy):
    memory = torch.ones(64).numpy()
    tensor = torch.from_numpy(memory)
    lives = weakref.ref(memory)
    del memory
    array = to_jax(tensor, copy)
    start = tensor.data_ptr()
    tensor.share_memory_()
    gc.collect()
    assert lives() is None
    assert tensor.data_ptr() != start
    assert (array.unsafe_buffer_pointer() == start) == (copy == "never")
    if copy == "always":
        assert np.asarray(array).tolist() == [1] * 64


# Row "`x.share_memory_()`": what is shared with processes already, as batches of workers are, does not move
def test_a_tensor_that_is_shared_already_stays():
    tensor = torch.ones(64).share_memory_()
    array = to_jax(tensor, copy="never")
    tensor.share_memory_()
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    assert np.asarray(array).tolist() == [1] * 64


# Row "`x.data = y`"
@pytest.mark.parametrize(
    "replace",
    [
        lambda x: x.set_(torch.zeros(8)),
        lambda x: setattr(x, "data", torch.zeros(8)),
        lambda x: torch.utils.swap_tensors(x, torch.zeros(8)),
    ],
    ids=["set_", "data", "swap_tensors"],
)
def test_replacing_the_memory_of_a_tensor_leaves_the_array_alone(replace):
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="never")
    replace(tensor)
    gc.collect()
    assert tensor.tolist() == [0] * 8
    assert np.asarray(array).tolist() == [1] * 64


# Row "`x.data = y`": `del x`, in both directions
def test_memory_outlives_its_first_owner():
    tensor = torch.from_numpy(memory := torch.arange(64, dtype=torch.int32).numpy())
    lives = weakref.ref(memory)
    array = to_jax(tensor, copy="never")
    del tensor, memory
    gc.collect()
    assert lives() is not None
    assert array.tolist() == list(range(64))
    back = to_torch(array, copy="never")
    del array
    gc.collect()
    assert back.tolist() == list(range(64))
    del back
    gc.collect()
    assert lives() is None


# Row "the array is donated"
def test_a_donated_array_leaves_the_tensor_alone():
    tensor = torch.ones(64)
    array = to_jax(tensor, copy="never")
    result = jax.jit(lambda x: x.at[:].set(5), donate_argnums=0)(array)
    assert result[0] == 5
    assert result.unsafe_buffer_pointer() != tensor.data_ptr()
    assert array.is_deleted()
    assert tensor.tolist() == [1] * 64
    with pytest.raises(TransferError, match=r"deleted JAX array.*before it is donated"):
        to_torch(array)


# Row "the array is donated or deleted after `to_torch`"
@pytest.mark.parametrize("end", [lambda x: x.delete(), jax.jit(lambda x: x.at[:].set(5), donate_argnums=0)])
def test_the_end_of_an_array_leaves_its_tensor_alone(end):
    array = jnp.ones(64)
    tensor = to_torch(array, copy="never")
    end(array)
    del array
    gc.collect()
    others = [jnp.zeros(64) + number for number in range(8)]  # would get the memory, were it free
    assert tensor.data_ptr() not in [other.unsafe_buffer_pointer() for other in others]
    assert tensor.tolist() == [1] * 64


# Row "a mapped file changes"
@pytest.mark.parametrize(("copy", "seen"), [("never", 3), ("always", 1)])
def test_what_is_written_to_a_mapped_file_shows_unless_copied(tmp_path, copy, seen):
    path = tmp_path / "events.bin"
    path.write_bytes(bytes([1] * 64))
    array = to_jax(np.memmap(path, np.uint8, "r"), copy)
    with path.open("r+b") as file:
        file.write(bytes([3] * 64))
    assert np.asarray(array).tolist() == [seen] * 64


# Row "a mapped file changes": cut short
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not cut mapped files")
@pytest.mark.full
def test_a_process_dies_of_a_mapped_file_that_is_cut_short(tmp_path):
    code = """
import os, sys
import numpy as np
from snnax_interop.transfer import to_jax
with open(sys.argv[1], "wb") as file:
    file.write(bytes(1 << 16))
mapped = np.memmap(sys.argv[1], np.uint8, "r")
owned, shared = to_jax(mapped, "always"), to_jax(mapped, "never")
os.truncate(sys.argv[1], 0)
print(np.asarray(owned).sum(), flush=True)
np.asarray(shared).sum()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "events.bin")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.stdout, result.returncode) == ("0\n", -signal.SIGBUS), result.stderr


# Row "many arrays of `DataLoader` workers are kept"
@pytest.mark.skipif(not FILES.exists(), reason="counts open files under /proc")
@pytest.mark.parametrize(("copy", "each"), [("never", 1), ("always", 0)])
@pytest.mark.full
def test_each_kept_array_of_a_worker_holds_a_file_descriptor(copy, each):
    def open_files() -> int:
        gc.collect()
        return len(list(FILES.iterdir()))

    loader = DataLoader(TensorDataset(torch.ones(8, 64)), num_workers=1, multiprocessing_context="fork", timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of fork, while JAX has threads
        arrays = [to_jax(x, copy) for (x,) in loader]
    many = open_files()
    assert len(arrays) == 8
    arrays.clear()
    assert many - open_files() == 8 * each
