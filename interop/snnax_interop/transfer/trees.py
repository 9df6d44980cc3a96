"""Trees of arrays between torch and JAX: memory is shared where it can be, and copies are counted.

Tensors in host memory cross as NumPy views and not through DLPack. Both take 17 us; but an array from a view is not
committed to a device (it mixes with sharded parameters, and a compiled function is not compiled again for it), and
torch then refuses to free the memory under it. Memory of an accelerator crosses by DLPack, as does all on the way back.

Shared memory stays one memory: convert weights with `copy="always"`, and share batches that nobody writes to again.

| later                                            | consequence                                                     |
|--------------------------------------------------|-----------------------------------------------------------------|
| torch writes in place: `add_`, an optimiser, a   | the JAX array changes, and with it the result of computations   |
| loader that fills one buffer again and again     | already started, since JAX computes asynchronously              |
| torch writes to an inference tensor              | likewise; outside of `torch.inference_mode`, torch raises after |
|                                                  | it has written                                                  |
| torch writes to what `to_torch` returned         | the "immutable" JAX array changes                               |
| `x.share_memory_()`, which torch also calls on   | JAX reads freed memory, since torch moves `x`; not if `x` is    |
| what it sends to another process: into a queue,  | shared already, as the batches of workers are                   |
| with a dataset to workers by spawn or forkserver |                                                                 |
| `x.resize_()`, `x.untyped_storage().resize_()`   | torch raises (on an accelerator: JAX reads freed memory)        |
| `x.data = y`, `x.set_(y)`, `del x`               | nothing, the array keeps the memory alive                       |
| the array is donated (`jax.jit(donate_argnums)`) | the array is deleted, `x` stays intact, no memory is saved      |
|                                                  | (on an accelerator: JAX writes its result into `x`)             |
| the array is donated or deleted after `to_torch` | nothing, the tensor keeps the memory alive (on an accelerator:  |
|                                                  | JAX refuses to have it donated)                                 |
| array and tensor are dropped while kernels of    | nothing (on an accelerator: JAX may use the memory again before |
| torch that read the tensor still run             | they have read it; call `torch.cuda.synchronize()` first)       |
| a mapped file changes (`np.memmap`)              | the array changes; if the file is cut short, the process dies   |
| many arrays of `DataLoader` workers are kept     | each holds a file descriptor, up to the limit of `ulimit -n`    |
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.core import Tracer
from jax.sharding import NamedSharding, Sharding
from jaxtyping import PyTree

from ..errors import TransferError
from .tensor import (
    TO_TORCH,
    Copy,
    array_obstacle,
    as_numpy,
    as_tensor,
    check_copy,
    copy_of,
    prepare_array,
    prepare_tensor,
    refusal,
    refuse_copy,
)


_SCALARS = (bool, int, float, complex, str, bytes, np.generic)
_LOCK = threading.Lock()


@dataclass
class TransferStatistics:
    """How many bytes crossed without a copy, how many by a copy, and why. Loaders add to one from their own threads.

    `reasons` splits `copied_bytes`: `"requested"` (`copy="always"`), `"dtype"` (64-bit integers narrowed),
    `"byte-order"` (not the machine's), `"conjugate"` (lazy conjugation or negation), `"strides"` (to JAX: not
    row-major; to torch: negative), `"alignment"` (to JAX: not at a multiple of 64 bytes), `"read-only"` (memory that
    torch must not write to), `"placement"` (another device, or a shard that is not a contiguous aligned part). Bytes
    are those of the result, under the first reason that holds; what is in a tree twice crosses and counts twice.
    """

    aliased_bytes: int = 0
    copied_bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, *, aliased: int, copied: int, reason: str) -> None:
        """Count one array: `aliased` and `copied` bytes, the latter for `reason`."""
        with _LOCK:
            self.aliased_bytes += aliased
            self.copied_bytes += copied
            if copied:
                self.reasons[reason] = self.reasons.get(reason, 0) + copied

    def __str__(self) -> str:
        why = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return f"{self.aliased_bytes} bytes shared, {self.copied_bytes} copied" + (f" ({why})" if why else "")


def to_jax(
    tree: PyTree,
    copy: Copy = "if_needed",
    *,
    sharding: PyTree[Sharding | None] = None,
    statistics: TransferStatistics | None = None,
) -> PyTree:
    """The same tree with a JAX array for each torch tensor and NumPy array.

    Shapes and dtypes stay, except that 64-bit integers become 32-bit while `jax_enable_x64` is off, if all values fit.
    Python and NumPy scalars, strings, `None` and JAX arrays pass unchanged. Gradients do not cross.

    **Arguments:**

    - `tree`: tensors and arrays in any pytree: dict, list, tuple, namedtuple, registered dataclass, nested.
    - `copy`: `"if_needed"` shares the memory of row-major tensors that are aligned to 64 bytes, and makes one row-major
        copy of others. `"never"` raises instead of copying. `"always"` returns memory that nothing else writes to.
    - `sharding`: where to; by default JAX's default device, and a tensor on an accelerator stays there. On CPU, the
        shards along the leading axis share memory too. With devices of other processes, each process passes its share
        of the array, all of one shape: nothing is exchanged, so that no process knows what the others pass. A tree of
        shardings may say it for branches of `tree`, such as `[frames, labels]`.
    - `statistics`: counts what was shared and what was copied.

    **Raises:** `TransferError` naming the leaf's path: for a dtype that JAX would narrow or does not have; sparse,
    nested, quantised and meta tensors; integers out of range; a copy under `copy="never"`; objects that are no pytree.
    `ValueError` when a shape does not divide over the sharding, when that has no device of this process or is a tree
    that does not fit, or for another `copy`.

    **Example:**

    >>> import torch
    >>> from snnax_interop.transfer import TransferStatistics, to_jax
    >>> batch = {"image": torch.zeros(8, 1, 28, 28), "label": torch.arange(8)}
    >>> statistics = TransferStatistics()
    >>> arrays = to_jax(batch, statistics=statistics)
    >>> arrays["image"].unsafe_buffer_pointer() == batch["image"].data_ptr()
    True
    >>> print(arrays["label"].dtype, statistics, sep="; ")
    int32; 25088 bytes shared, 32 copied (dtype 32)
    """
    check_copy(copy)
    counts = statistics or TransferStatistics()
    places = _places(sharding, tree)
    return _map(lambda path, leaf: _leaf_to_jax(path, leaf, copy, next(places), counts), tree)


def to_torch(tree: PyTree, copy: Copy = "if_needed", *, statistics: TransferStatistics | None = None) -> PyTree:
    """The same tree with a torch tensor for each JAX array and NumPy array; waits until their values are there.

    Shapes and dtypes stay. Python and NumPy scalars, strings, `None` and torch tensors pass unchanged. Arrays on
    several devices, and on an accelerator that torch cannot use, are gathered into host memory.

    **Arguments:**

    - `tree`: arrays in any pytree.
    - `copy`: `"if_needed"` shares memory where it can; writing to such a tensor changes the immutable JAX array.
        `"never"` raises instead of copying. `"always"` returns memory of torch's own, as parameters need.
    - `statistics`: counts what was shared and what was copied.

    **Raises:** `TransferError` naming the leaf's path: for tracers; typed PRNG keys; dtypes that torch does not have
    (int4, ...); deleted arrays; a copy under `copy="never"`; objects that are no pytree, and models, which torch could
    not run. `ValueError` for another `copy`.

    **Example:**

    >>> import jax.numpy as jnp
    >>> from snnax_interop.transfer import to_torch
    >>> weights = to_torch({"weight": jnp.eye(2)}, copy="always")
    >>> weights["weight"].add_(1)
    tensor([[2., 1.],
            [1., 2.]])
    """
    check_copy(copy)
    counts = statistics or TransferStatistics()
    return _map(lambda path, leaf: _leaf_to_torch(path, leaf, copy, counts), tree, is_leaf=_is_model)


def _is_model(node: Any) -> bool:
    """Whether a node is a layer or a model, and not states or other values that are Equinox modules too."""
    return isinstance(node, eqx.Module) and callable(node)


def _map(convert: Callable[[str, Any], Any], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """`convert` of each leaf and its path. Trees that cannot be taken apart or rebuilt are refused with a remedy."""
    try:
        leaves, structure = jax.tree.flatten_with_path(tree, is_leaf)
    except ValueError as error:
        raise TransferError(f"the tree cannot be taken apart: {error} Use dictionary keys of one type") from error
    converted = [convert(jax.tree_util.keystr(keys, simple=True, separator="."), leaf) for keys, leaf in leaves]
    try:
        return jax.tree.unflatten(structure, converted)
    except Exception as error:  # whatever a constructor raises that is given the other framework's arrays
        do = "pass its parts in a dict, list or tuple (a PackedSequence: torch.nn.utils.rnn.pad_packed_sequence)"
        raise TransferError(
            f"a class in the tree does not hold the converted arrays: {type(error).__name__}: {error}; {do}"
        ) from error


def _leaf_to_jax(path: str, leaf: Any, copy: Copy, sharding: Sharding | None, statistics: TransferStatistics) -> Any:
    if not isinstance(leaf, torch.Tensor | np.ndarray):
        return _pass(path, leaf, (jax.Array, *_SCALARS))
    if sharding is not None:
        _check_divides(path, leaf.shape, sharding)
    # Evaluated at once, so that the result is an array and no tracer even while `jit` traces
    with _explained(path, leaf, "JAX", "pass a plain tensor in host memory"), jax.ensure_compile_time_eval():
        if isinstance(leaf, np.ndarray):
            prepared, reason = prepare_array(leaf, copy, path)
            start, on_host = prepared.ctypes.data, True
        else:
            tensor, reason = prepare_tensor(leaf, copy, path)
            start, on_host = tensor.data_ptr(), tensor.device.type == "cpu"
            prepared = as_numpy(tensor) if on_host else jax.dlpack.from_dlpack(tensor)
        if sharding is None or sharding.is_fully_addressable:
            array = jax.device_put(prepared, sharding, may_alias=True)
        else:
            array = jax.make_array_from_process_local_data(sharding, prepared)
        # Whether JAX shares what it was given is read off the result, not assumed
        total = aliased = 0
        for shard in array.addressable_shards:
            total += shard.data.nbytes
            if not reason and (shard.device.platform == "cpu") == on_host:
                inside = start <= shard.data.unsafe_buffer_pointer() < start + prepared.nbytes
                aliased += shard.data.nbytes if inside else 0
    if aliased < total and copy == "never":
        found = f"an array that JAX had to copy to place it on {array.sharding}"
        allowed = "a device that shares the memory, with contiguous aligned shards"
        raise refusal(path, found, allowed, 'change the sharding, or allow copy="if_needed"')
    statistics.add(aliased=aliased, copied=total - aliased, reason=reason or "placement")
    return array


def _leaf_to_torch(path: str, leaf: Any, copy: Copy, statistics: TransferStatistics) -> Any:
    if _is_model(leaf):
        do = (
            "take the weights of a conversion, or its gradients, with state_dict(converted); make a torch module of a "
            "native model with to_torch_module(model); single arrays are jax.tree.leaves(model)"
        )
        raise refusal(path, f"a model, of the class {type(leaf).__qualname__}", "arrays, in any tree of them", do)
    if isinstance(leaf, Tracer):
        do = "convert outside of jit, grad, vmap and scan"
        raise refusal(path, "a traced JAX array, which has no values yet", "arrays with values", do)
    if not isinstance(leaf, jax.Array | np.ndarray):
        return _pass(path, leaf, (torch.Tensor, *_SCALARS))
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise refusal(path, "a typed PRNG key", "arrays of numbers", "pass jax.random.key_data(key)")
    native = leaf.dtype.newbyteorder("=")
    if native not in TO_TORCH:
        allowed = ", ".join(dtype.name for dtype in TO_TORCH)
        raise refusal(path, f"an array of {leaf.dtype}", allowed, "cast it with .astype(...) first")
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise refusal(path, "a deleted JAX array", "arrays with values", "convert it before it is donated")
    with _explained(path, leaf, "torch", "pass a plain array on one device"):
        obstacle = array_obstacle(path, leaf) if isinstance(leaf, np.ndarray) else _device_obstacle(leaf)
        if obstacle:
            refuse_copy(copy, path, f"an array of {leaf.dtype}", obstacle)
            tensor = copy_of(leaf, native) if isinstance(leaf, np.ndarray) else _gathered(path, leaf)
        else:
            tensor = as_tensor(leaf) if isinstance(leaf, np.ndarray) else torch.from_dlpack(leaf)
            if copy == "always":
                tensor = tensor.clone()
                if tensor.is_cuda:  # JAX does not wait for torch before it writes to the memory of a donated array
                    torch.cuda.current_stream(tensor.device).synchronize()
    reason = "requested" if copy == "always" else obstacle
    aliased = 0 if reason else tensor.nbytes
    statistics.add(aliased=aliased, copied=tensor.nbytes - aliased, reason=reason)
    return tensor


def _device_obstacle(array: jax.Array) -> str:
    """Why torch cannot share a JAX array; `""`: it can."""
    platforms = [device.platform for device in array.devices()]
    reachable = platforms == ["cpu"] or (platforms == ["gpu"] and torch.cuda.is_available())
    return "" if reachable else "placement"


def _gathered(path: str, array: jax.Array) -> torch.Tensor:
    """One copy in host memory; `np.asarray` would leave a second one with the array, for as long as that lives."""
    if not (array.is_fully_addressable or array.is_fully_replicated):
        do = "gather it with jax.experimental.multihost_utils.process_allgather"
        raise refusal(path, "an array whose parts are in several processes", "parts in this process", do)
    tensor = torch.empty(array.shape, dtype=TO_TORCH[array.dtype], device="cpu")
    whole, host = as_numpy(tensor), jax.local_devices(backend="cpu")[0]
    for shard in array.addressable_shards[: 1 if array.is_fully_replicated else None]:
        whole[shard.index] = shard.data if shard.device.platform == "cpu" else jax.device_put(shard.data, host)
    return tensor


def _pass(path: str, leaf: Any, allowed: tuple[type, ...]) -> Any:
    if isinstance(leaf, allowed):
        return leaf
    found = f"an object of type {type(leaf).__module__}.{type(leaf).__qualname__}"
    if isinstance(leaf, torch.nn.Module):
        do = "pass its state_dict(), or convert the module with from_torch"
    elif isinstance(leaf, Mapping):
        do = "pass dict(x)"
    elif isinstance(leaf, Iterable):
        do = "pass list(x) or tuple(x)"
    elif callable(leaf):
        do = "take functions out first, as with equinox.partition"
    else:
        do = "convert it to one of them"
    do += ", or register its type (jax.tree_util.register_dataclass)"
    raise refusal(path, found, "arrays, scalars and strings in dicts, lists, tuples and registered types", do)


def _places(sharding: PyTree[Sharding | None], tree: PyTree) -> Iterator[Sharding | None]:
    """The sharding of every leaf of `tree`."""
    if sharding is None or isinstance(sharding, Sharding):
        return itertools.repeat(sharding)

    def is_none(place: Any) -> bool:
        return place is None

    def repeat(place: Sharding | None, branch: PyTree) -> list[Sharding | None]:
        return [place] * len(jax.tree.leaves(branch))

    try:
        return iter(jax.tree.leaves(jax.tree.map(repeat, sharding, tree, is_leaf=is_none), is_leaf=is_none))
    except ValueError as error:
        raise ValueError(
            f"found a tree of shardings that does not fit: {error} Allowed: one sharding, or a tree of them as the "
            "beginning of the tree of arrays; torch's default_collate makes a list of a tuple"
        ) from error


def _check_divides(path: str, shape: tuple[int, ...], sharding: Sharding) -> None:
    place = f"at '{path}': " if path else ""
    # Every axis divides over any number of these devices, which shows how many parts of it this process has
    divisible = (sharding.num_devices,) * len(shape)
    fits = not isinstance(sharding, NamedSharding) or len(sharding.spec) <= len(shape)
    indices = sharding.addressable_devices_indices_map(divisible).values() if fits else []
    if fits and not indices:
        raise ValueError(
            f"{place}found {sharding}, where process {jax.process_index()} has no device; allowed: devices of all "
            "processes that load; make the mesh of jax.devices()"
        )
    starts = [{index[axis].start for index in indices if index is not None} for axis in range(len(shape))]
    if not fits or any(size % len(parts) for size, parts in zip(shape, starts, strict=True)):
        own = "" if sharding.is_fully_addressable else f"the share of process {jax.process_index()} of "
        raise ValueError(
            f"{place}found shape {tuple(shape)}; allowed: shapes that divide over {own}{sharding}; choose a batch size "
            "that is a multiple of the number of shards, and DataLoader(drop_last=True) for the last batch"
        )


@contextmanager
def _explained(path: str, leaf: Any, to: str, do: str) -> Iterator[None]:
    """What torch and JAX raise about memory that they cannot share becomes one kind of error, with the path."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, BufferError, AssertionError) as error:
        raise TransferError(f"{type(leaf).__qualname__} cannot cross to {to}: {error}; {do}", path=path) from error
