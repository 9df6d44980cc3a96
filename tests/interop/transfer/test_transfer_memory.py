"""Which memory torch and JAX share and which is copied: every dtype in every layout, in both directions.

What is shared is read off the pointers. That a copy is one copy is read off all allocations, torch's and NumPy's, and
off the pointer of the result, which is the one allocation.
"""

import tracemalloc
import warnings
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental.layout import Format, Layout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from snnax_interop.errors import TransferError
from snnax_interop.transfer import TransferStatistics, to_jax, to_torch


NARROW = ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "bfloat16", "float32", "complex64"]
FLOATS_8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
WIDE = ["int64", "uint64", "float64", "complex128"]  # as such under x64 only

# Of 4096 elements that start at a multiple of 64 bytes: why JAX cannot share them, and how they are laid out
LAYOUTS = {
    "whole": ("", lambda x: x),
    "zero-dimensional": ("", lambda x: x[0].clone()),
    "empty": ("", lambda x: x[:0].reshape(3, 0, 4)),
    "later rows": ("", lambda x: x.view(64, 64)[1:]),
    "aligned part": ("", lambda x: x[64:]),
    "batch of one, channels last": ("", lambda x: x.view(1, 1, 64, 64).to(memory_format=torch.channels_last)),
    "one element off": ("alignment", lambda x: x[1:]),
    "32 bytes off": ("alignment", lambda x: x[32 // x.itemsize :]),
    "zero-dimensional view": ("alignment", lambda x: x.view(64, 64)[5, 3]),
    "later columns": ("strides", lambda x: x.view(64, 64)[:, 1:]),
    "every other row": ("strides", lambda x: x.view(64, 64)[::2]),
    "every other element": ("strides", lambda x: x[::2]),
    "expanded": ("strides", lambda x: x.view(4096, 1).expand(4096, 3)),
    "transposed": ("strides", lambda x: x.view(64, 64).T),
    "permuted": ("strides", lambda x: x.view(4, 16, 64).permute(0, 2, 1)),
    "channels last": ("strides", lambda x: x.view(4, 4, 16, 16).to(memory_format=torch.channels_last)),
    "channels last 3d": ("strides", lambda x: x.view(4, 4, 4, 8, 8).to(memory_format=torch.channels_last_3d)),
}
LAZY = {
    "conjugated": ("conjugate", lambda x: x.conj()),
    "conjugated and transposed": ("conjugate", lambda x: x.view(64, 64).mH),
    "imaginary part of a conjugate": ("conjugate", lambda x: x.conj().imag),
    "negated": ("conjugate", lambda x: torch._neg_view(x)),
    "real part": ("strides", lambda x: x.real),
    "imaginary part": ("strides", lambda x: x.imag),
    "as pairs of reals": ("", lambda x: torch.view_as_real(x)),
}
# The same of NumPy arrays, first why JAX cannot share them and then why torch cannot
ARRAYS = {
    "whole": ("", "", lambda x: x),
    "later rows": ("", "", lambda x: x.reshape(64, 64)[1:]),
    "one element off": ("alignment", "", lambda x: x[1:]),
    "zero-dimensional view": ("alignment", "", lambda x: x[5:6].reshape(())),
    "later columns": ("strides", "", lambda x: x.reshape(64, 64)[:, 1:]),
    "every other row": ("strides", "", lambda x: x.reshape(64, 64)[::2]),
    "transposed": ("strides", "", lambda x: x.reshape(64, 64).T),
    "permuted": ("strides", "", lambda x: x.reshape(4, 16, 64).transpose(0, 2, 1)),
    "reversed": ("strides", "strides", lambda x: x[::-1]),
    "one row, reversed": ("", "strides", lambda x: x.reshape(1, 4096)[::-1]),
    "broadcast": ("strides", "read-only", lambda x: np.broadcast_to(x[:, None], (4096, 3))),
    "read-only": ("", "read-only", lambda x: np.frombuffer(memoryview(x.view(np.uint8)).toreadonly(), x.dtype)),
    "Fortran order": ("strides", "", lambda x: x.reshape((64, 64), order="F")),
}


class Allocations(TorchDispatchMode):
    """The memory of all results of torch's functions, by address."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in jax.tree.leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.sizes[storage.data_ptr()] = storage.nbytes()
        return result


@contextmanager
def one_allocation(source: int, nbytes: int):
    """Beside the memory at `source`, torch allocates `nbytes` once (and scalars), and NumPy next to nothing."""
    address: list[int] = []
    tracemalloc.start()
    try:
        with Allocations() as allocations:
            yield address
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    large = {start: size for start, size in allocations.sizes.items() if size > 8 and start != source}
    assert large == {address[0]: nbytes}
    assert peak < nbytes / 2


def elements(dtype: str, number: int = 4096) -> torch.Tensor:
    drawn = torch.randint(0, 100, (number,), generator=torch.Generator().manual_seed(0))
    return drawn > 50 if dtype == "bool" else drawn.float().to(getattr(torch, dtype))


def numpy_elements(dtype: str) -> np.ndarray:
    """The memory of `elements`, so that it starts at a multiple of 64 bytes."""
    return elements(dtype).view(torch.uint8).numpy().view(jnp.dtype(dtype))


def in_order(x: torch.Tensor | np.ndarray | jax.Array) -> bytes:
    if isinstance(x, torch.Tensor):
        return x.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return np.asarray(x).tobytes()


def check_to_jax(source: torch.Tensor | np.ndarray, reason: str, name: str) -> None:
    start = source.data_ptr() if isinstance(source, torch.Tensor) else source.ctypes.data
    statistics = TransferStatistics()
    array = to_jax(source, statistics=statistics)
    assert array.dtype.name == name
    assert array.shape == tuple(source.shape)
    assert array.format.layout.major_to_minor == tuple(range(array.ndim))
    assert in_order(array) == in_order(source)
    if reason:
        assert statistics == TransferStatistics(copied_bytes=array.nbytes, reasons={reason: array.nbytes})
        assert array.unsafe_buffer_pointer() != start
        with pytest.raises(TransferError, match=rf"^at 'x': .* needs a copy \({reason}\).*allow copy=\"if_needed\""):
            to_jax({"x": source}, copy="never")
    else:
        assert statistics == TransferStatistics(aliased_bytes=array.nbytes)
        assert array.size == 0 or to_jax(source, copy="never").unsafe_buffer_pointer() == start
    statistics = TransferStatistics()
    owned = to_jax(source, copy="always", statistics=statistics)
    assert owned.size == 0 or owned.unsafe_buffer_pointer() != start
    assert in_order(owned) == in_order(source)
    assert statistics.aliased_bytes == 0
    assert statistics.reasons == ({"requested": owned.nbytes} if owned.nbytes else {})


def check_to_torch(source: jax.Array | np.ndarray, reason: str, name: str) -> None:
    start = source.unsafe_buffer_pointer() if isinstance(source, jax.Array) else source.ctypes.data
    statistics = TransferStatistics()
    tensor = to_torch(source, statistics=statistics)
    assert tensor.dtype == getattr(torch, name)
    assert tensor.shape == source.shape
    assert in_order(tensor) == in_order(source)
    if reason:
        assert tensor.is_contiguous()
        assert statistics == TransferStatistics(copied_bytes=tensor.nbytes, reasons={reason: tensor.nbytes})
        assert tensor.data_ptr() != start
        with pytest.raises(TransferError, match=rf"^at 'x': .* needs a copy \({reason}\).*allow copy=\"if_needed\""):
            to_torch({"x": source}, copy="never")
    else:
        assert statistics == TransferStatistics(aliased_bytes=tensor.nbytes)
        assert tensor.nbytes == 0 or to_torch(source, copy="never").data_ptr() == start
    statistics = TransferStatistics()
    owned = to_torch(source, copy="always", statistics=statistics)
    assert owned.nbytes == 0 or owned.data_ptr() != start
    assert in_order(owned) == in_order(source)
    assert statistics.aliased_bytes == 0
    assert statistics.reasons == ({"requested": owned.nbytes} if owned.nbytes else {})


@pytest.mark.parametrize(("reason", "lay_out"), LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", NARROW + FLOATS_8 + WIDE)
def test_tensors_of_every_dtype_and_layout(dtype, reason, lay_out):
    with jax.enable_x64(dtype in WIDE):
        check_to_jax(lay_out(elements(dtype)), reason, dtype)


@pytest.mark.parametrize(("reason", "lay_out"), LAZY.values(), ids=LAZY.keys())
def test_lazily_conjugated_and_negated_tensors(reason, lay_out):
    tensor = lay_out(torch.complex(elements("float32"), elements("float32").flip(0)))
    check_to_jax(tensor, reason, str(tensor.dtype).removeprefix("torch."))


@pytest.mark.parametrize(("to_jax_copies", "to_torch_copies", "lay_out"), ARRAYS.values(), ids=ARRAYS.keys())
@pytest.mark.parametrize("dtype", NARROW + FLOATS_8 + WIDE)
def test_numpy_arrays_of_every_dtype_and_layout(dtype, to_jax_copies, to_torch_copies, lay_out):
    with jax.enable_x64(dtype in WIDE):
        check_to_jax(lay_out(numpy_elements(dtype)), to_jax_copies, dtype)
    check_to_torch(lay_out(numpy_elements(dtype)), to_torch_copies, dtype)


@pytest.mark.parametrize("shape", [(64,), (), (3, 0, 4), (3, 5)])
@pytest.mark.parametrize("dtype", NARROW + FLOATS_8 + WIDE)
def test_jax_arrays_of_every_dtype(dtype, shape):
    with jax.enable_x64(dtype in WIDE):
        check_to_torch(jnp.ones(shape, dtype), "", dtype)


def test_a_jax_array_with_a_layout_of_its_own_keeps_it():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    array = jax.device_put(jnp.arange(12.0).reshape(3, 4), Format(Layout((1, 0)), sharding))
    check_to_torch(array, "", "float32")
    assert to_torch(array).stride() == (1, 3)


@pytest.mark.parametrize(
    ("dtype", "reason"), [(">f4", "byte-order"), (">i2", "byte-order"), (">c8", "byte-order"), (">i8", "dtype")]
)
def test_numpy_arrays_of_foreign_byte_order(dtype, reason):
    source = np.arange(64).astype(dtype)
    statistics = TransferStatistics()
    array = to_jax(source, statistics=statistics)
    assert np.asarray(array).tolist() == source.tolist()
    assert statistics.reasons == {reason: array.nbytes}
    with pytest.raises(TransferError, match=rf"needs a copy \({reason}\).*cast it where it is made"):
        to_jax(source, copy="never")
    statistics = TransferStatistics()
    assert to_torch(source, statistics=statistics).tolist() == source.tolist()
    assert statistics.reasons == {"byte-order": source.nbytes}
    with pytest.raises(TransferError, match=r"needs a copy \(byte-order\).*newbyteorder"):
        to_torch(source, copy="never")


def test_fields_of_structured_arrays_and_unaligned_numpy_memory():
    events = np.zeros(16, [("t", "i4"), ("x", "i2")])  # 6 bytes each: an int32 does not start at multiples of 4
    events["t"] = np.arange(16)
    unaligned = np.frombuffer(bytearray(65), np.uint8)[1:].view(np.int32)
    unaligned[:] = np.arange(16)
    for source, to_jax_copies, to_torch_copies in (
        (events["t"], "strides", "strides"),
        (events["x"], "strides", ""),
        (unaligned, "alignment", "alignment"),
    ):
        check_to_jax(source, to_jax_copies, source.dtype.name)
        check_to_torch(source, to_torch_copies, source.dtype.name)


@pytest.mark.parametrize(("alias", "name"), [(np.longlong, "int64"), (np.ulonglong, "uint64"), (np.intc, "int32")])
def test_other_names_of_c_for_the_same_integers(alias, name):
    source = numpy_elements(name).view(alias)
    with jax.enable_x64(True):
        check_to_jax(source, "", name)
    check_to_torch(source, "", name)


def inference(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tensor.clone()


class Events(torch.Tensor):
    """A subclass, as of vision libraries."""


KINDS = {
    "leaf": lambda x: x.requires_grad_(),
    "result": lambda x: x.requires_grad_() * 1,
    "parameter": lambda x: torch.nn.Parameter(x),
    "buffer": lambda x: torch.nn.Buffer(x),
    "inference tensor": inference,
    "subclass": lambda x: x.as_subclass(Events),
    "shared with processes": lambda x: x.share_memory_(),
}


@pytest.mark.parametrize("no_grad", [False, True])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_tensor_crosses_detached_without_a_copy(make, no_grad):
    tensor = make(elements("float32"))
    required = tensor.requires_grad
    with torch.set_grad_enabled(not no_grad):
        check_to_jax(tensor, "", "float32")
    assert tensor.requires_grad == required
    transposed = tensor.reshape(64, 64).T
    check_to_jax(transposed, "strides", "float32")


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_numpy_files(tmp_path, mode):
    np.save(tmp_path / "events.npy", numpy_elements("int16"))  # the header takes a multiple of 64 bytes
    loaded = np.load(tmp_path / "events.npy", mmap_mode=mode)
    raw = np.memmap(tmp_path / "events.npy", np.int16, mode, offset=loaded.offset)
    for mapped in (loaded, raw):
        check_to_jax(mapped, "", "int16")
        check_to_torch(mapped, "read-only" if mode == "r" else "", "int16")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors, and says so once
            check_to_jax(torch.from_numpy(mapped), "", "int16")


def test_checkpoints_mapped_into_memory(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = {"weight": elements("float32"), "half": elements("bfloat16", 63), "small": elements("float8_e5m2")}
    torch.save(weights, tmp_path / "weights.pt")
    safetensors.save_file(weights, tmp_path / "weights.safetensors")
    for loaded in (
        torch.load(tmp_path / "weights.pt", mmap=True),
        safetensors.load_file(tmp_path / "weights.safetensors"),
    ):
        for name, tensor in loaded.items():
            # Where a file starts its tensors is the format's business; what is aligned is shared
            check_to_jax(
                tensor, "alignment" if tensor.data_ptr() % 64 else "", str(tensor.dtype).removeprefix("torch.")
            )
            assert in_order(tensor) == in_order(weights[name])


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.full
def test_batches_of_worker_processes(method):
    dataset = TensorDataset(elements("float32").view(64, 64), elements("uint8").view(64, 64))
    loader = DataLoader(dataset, batch_size=32, num_workers=1, multiprocessing_context=method, timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of fork, while JAX has threads
        batches = list(loader)
    for number, (x, y) in enumerate(batches):
        assert x.is_shared()
        check_to_jax(x, "", "float32")
        check_to_jax(y, "", "uint8")
        assert in_order(x) == in_order(dataset.tensors[0][32 * number : 32 * number + 32])
    assert len(batches) == 2


COPIES = {
    "alignment": lambda: elements("float32", 1 << 18)[1:],
    "strides": lambda: elements("float32", 1 << 18).view(512, 512).T,
    "strides of bfloat16": lambda: elements("bfloat16", 1 << 18).view(512, 512).T,
    "strides of float8": lambda: elements("float8_e5m2", 1 << 18).view(512, 512).T,
    "expanded": lambda: elements("float32", 512).view(512, 1).expand(512, 512),
    "conjugate": lambda: torch.complex(*elements("float32", 1 << 18).view(2, -1)).conj(),
    "conjugate and strides": lambda: torch.complex(*elements("float32", 1 << 18).view(2, -1)).view(256, 512).mH,
    "dtype": lambda: elements("int64", 1 << 18),
    "dtype and strides": lambda: elements("uint64", 1 << 18).view(512, 512).T,
    "NumPy, alignment": lambda: elements("float32", 1 << 18).numpy()[1:],
    "NumPy, strides": lambda: elements("float32", 1 << 18).numpy().reshape(512, 512).T,
    "NumPy, byte order": lambda: elements("float32", 1 << 18).numpy().astype(">f4"),
    "NumPy, dtype and byte order": lambda: elements("int64", 1 << 18).numpy().astype(">i8"),
}


@pytest.mark.parametrize(
    ("make", "copy"),
    [(make, "if_needed") for make in COPIES.values()] + [(lambda: elements("float32", 1 << 18), "always")],
    ids=[*COPIES.keys(), "requested"],
)
def test_one_copy_on_the_way_to_jax_is_one(make, copy):
    source = make()
    with Allocations():  # once before, for what is imported and allocated at first use
        to_jax(source, copy)
    start = source.untyped_storage().data_ptr() if isinstance(source, torch.Tensor) else source.ctypes.data
    size = 4 if source.dtype in (torch.int64, torch.uint64, np.dtype(">i8")) else source.itemsize
    with one_allocation(start, size * int(np.prod(source.shape))) as address:
        array = to_jax(source, copy)
        address.append(array.unsafe_buffer_pointer())


@pytest.mark.parametrize(
    ("make", "copy"),
    [
        (lambda: jnp.arange(1 << 18), "always"),
        (lambda: np.arange(1 << 18), "always"),
        (lambda: np.arange(1 << 18).reshape(512, 512).T, "always"),
        (lambda: np.arange(1 << 18)[::-1], "if_needed"),
        (lambda: np.arange(1 << 18).astype(">i8"), "if_needed"),
        (lambda: np.broadcast_to(np.arange(512), (512, 512)), "if_needed"),
        (lambda: np.broadcast_to(np.arange(512), (512, 512)), "always"),
    ],
    ids=["JAX", "NumPy", "transposed", "reversed", "byte order", "read-only", "read-only, always"],
)
def test_one_copy_on_the_way_to_torch_is_one(make, copy):
    source = make()
    with Allocations():
        to_torch(source, copy)
    start = source.unsafe_buffer_pointer() if isinstance(source, jax.Array) else source.ctypes.data
    with one_allocation(start, source.nbytes) as address:
        address.append(to_torch(source, copy).data_ptr())
