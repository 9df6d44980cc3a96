"""`JaxLoader` against the torch loader it wraps. Whatever ends the loop, the thread has to be gone."""

import contextlib
import doctest
import gc
import io
import itertools
import re
import signal
import threading
import time
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from snnax_interop.data import JaxLoader, loader as data
from snnax_interop.errors import TransferError
from snnax_interop.transfer import TransferStatistics
from tests.terminal import Terminal


TEN = TensorDataset(torch.arange(10.0))


class Stream(IterableDataset):
    def __iter__(self):
        yield from torch.arange(6.0)


class Endless:
    """Batches without end; says whether its iterator was closed."""

    def __init__(self):
        self.loaded = 0
        self.closed = threading.Event()

    def __iter__(self):
        try:
            while True:
                self.loaded += 1
                yield {"x": torch.full((16,), float(self.loaded))}
        finally:
            self.closed.set()


class Failing:
    def __iter__(self):
        yield torch.ones(2)
        raise LookupError("the disk is full")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "JaxLoader"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    for thread in threads():
        thread.join(timeout=10)
    assert not threads()


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
def test_batches_are_those_of_the_loader_in_every_epoch(prefetch):
    dataset = TensorDataset(torch.rand(23, 3), torch.arange(23))
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(dataset, batch_size=4, shuffle=True, generator=generator)
    expected = [list(loader) for _ in range(2)]
    generator.manual_seed(0)
    batches = JaxLoader(loader, prefetch=prefetch)
    assert len(batches) == 6
    epochs = [list(batches) for _ in range(2)]
    assert not np.array_equal(epochs[0][0][1], epochs[1][0][1])
    for epoch, reference in zip(epochs, expected, strict=True):
        assert len(epoch) == 6
        for (x, y), (x_torch, y_torch) in zip(epoch, reference, strict=True):
            assert isinstance(x, jax.Array)
            assert y.dtype == jnp.int32
            np.testing.assert_array_equal(x, x_torch)
            np.testing.assert_array_equal(y, y_torch)


def test_the_seed_of_torch_fixes_the_order_as_without_the_thread():
    loader = DataLoader(TensorDataset(torch.arange(50.0)), batch_size=5, shuffle=True)
    orders = []
    for batches in (loader, JaxLoader(loader)):
        torch.manual_seed(3)
        orders.append([np.asarray(batch).tolist() for (batch,) in batches])
    assert orders[0] == orders[1]
    assert sorted(value for batch in orders[0] for value in batch) == list(range(50))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_share_the_memory_of_the_loader(prefetch):
    tensors = [torch.ones(16), torch.ones(32)]
    batches = JaxLoader(tensors, prefetch=prefetch, copy="never")
    pointers = [batch.unsafe_buffer_pointer() for batch in batches]
    assert pointers == [tensor.data_ptr() for tensor in tensors]
    assert batches.statistics == TransferStatistics(aliased_bytes=192)
    list(batches)
    assert batches.statistics == TransferStatistics(aliased_bytes=384)


def test_a_loader_that_reuses_its_memory_needs_copies():
    class Reusing:
        def __iter__(self):
            buffer = torch.zeros(16)
            for value in range(4):
                yield buffer.fill_(value)

    assert [batch[0].item() for batch in list(JaxLoader(Reusing()))] == [3, 3, 3, 3]
    batches = JaxLoader(Reusing(), copy="always")
    assert [batch[0].item() for batch in list(batches)] == [0, 1, 2, 3]
    assert batches.statistics.reasons == {"requested": 256}


def test_the_thread_loads_ahead_and_no_further():
    source = Endless()
    with iter(JaxLoader(source, prefetch=3)) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while source.loaded < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert source.loaded == 5  # the caller's, three in the queue, one in the thread's hands
    assert source.closed.is_set()


def test_without_prefetch_there_is_no_thread():
    source = Endless()
    with iter(JaxLoader(source, prefetch=0)) as batches:
        next(batches)
        assert not threads()
        assert source.loaded == 1
    assert source.closed.is_set()
    assert next(batches, None) is None


def leave_by_break(source):
    for _ in JaxLoader(source):
        assert len(threads()) == 1
        break


def leave_by_error(source):
    with pytest.raises(ZeroDivisionError, match="division"):
        for batch in JaxLoader(source):
            del batch["x"]
            raise ZeroDivisionError("division by zero")


def leave_by_interrupt(source):
    with pytest.raises(KeyboardInterrupt, match="enough"):
        for _ in JaxLoader(source):
            raise KeyboardInterrupt("enough")


def leave_by_close(source):
    batches = iter(JaxLoader(source))
    next(batches)
    batches.close()
    batches.close()
    assert next(batches, None) is None


def leave_by_with(source):
    with iter(JaxLoader(source)) as batches:
        next(batches)


def leave_by_closing(source):
    with contextlib.closing(iter(JaxLoader(source))) as batches:
        next(batches)


def leave_by_garbage_collection(source):
    batches = iter(JaxLoader(source))
    next(batches)
    reference = weakref.ref(batches)
    cycle: list = [batches]
    cycle.append(cycle)
    del batches, cycle
    assert reference() is not None
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_error,
        leave_by_interrupt,
        leave_by_close,
        leave_by_with,
        leave_by_closing,
        leave_by_garbage_collection,
    ],
)
def test_every_way_to_leave_ends_the_thread_and_the_source(leave):
    source = Endless()
    leave(source)
    assert not threads()
    assert source.closed.is_set()


def test_closing_wakes_a_caller_that_waits_in_another_thread():
    release = threading.Event()

    class Slow:
        def __iter__(self):
            yield torch.ones(1)
            release.wait(timeout=20)

    batches = iter(JaxLoader(Slow()))
    next(batches)
    results = []
    caller = threading.Thread(target=lambda: results.append(next(batches, "ended")))
    caller.start()
    threading.Timer(0.2, release.set).start()
    batches.close()
    caller.join(timeout=10)
    assert results == ["ended"]


@pytest.fixture
def interruptible():
    """Tests that run in the background may ignore what Ctrl-C sends."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_waiting_for_a_batch_ends_the_thread():
    release = threading.Event()

    class Slow:
        def __iter__(self):
            release.wait(timeout=20)
            yield torch.ones(1)

    def interrupt(thread):
        signal.pthread_kill(thread, signal.SIGINT)
        time.sleep(2)  # a busy machine may take its time to deliver the signal
        release.set()

    batches = iter(JaxLoader(Slow()))
    threading.Timer(0.5, interrupt, [threading.get_ident()]).start()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        next(batches)
    assert not threads()
    assert next(batches, None) is None


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_of_the_loader_surfaces_after_the_batches_before_it(prefetch):
    batches = iter(JaxLoader(Failing(), prefetch=prefetch))
    assert next(batches).tolist() == [1, 1]
    with pytest.raises(LookupError, match="the disk is full") as caught:
        next(batches)
    frames = [(frame.name, frame.line) for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == ("__iter__", 'raise LookupError("the disk is full")')
    assert caught.value.__cause__ is None
    assert next(batches, None) is None
    assert not threads()


def test_the_very_exception_of_the_loader_is_raised():
    error = LookupError("this one")

    def fail(samples):
        raise error

    with pytest.raises(LookupError, match="this one") as caught:
        list(JaxLoader(DataLoader(TEN, collate_fn=fail)))
    assert caught.value is error


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_of_the_transfer_says_which_leaf(prefetch):
    source = [{"x": torch.ones(2)}, {"x": torch.ones(2, dtype=torch.float64)}]
    batches = iter(JaxLoader(source, prefetch=prefetch))
    next(batches)
    with pytest.raises(TransferError, match=r"at 'x': found a torch tensor of torch\.float64"):
        next(batches)


def test_an_error_of_the_transfer_does_not_keep_the_source_open():
    source = Endless()
    batches = iter(JaxLoader(source, sharding=NamedSharding(jax.make_mesh((1,), ("batch",)), jax.P(None, "batch"))))
    with pytest.raises(ValueError, match=r"at 'x': found shape \(16,\)") as caught:
        next(batches)
    assert caught.value.__traceback__ is not None
    assert source.closed.is_set()


def test_the_thread_does_not_keep_a_batch_that_the_caller_dropped():
    release = threading.Event()

    class Slow:
        def __iter__(self):
            yield from map(torch.ones, [1])  # holds no batch either
            release.wait(timeout=20)

    batches = iter(JaxLoader(Slow(), copy="always"))
    batch = weakref.ref(next(batches))
    deadline = time.monotonic() + 10
    while batch() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert batch() is None
    release.set()
    assert next(batches, None) is None


def test_an_error_that_the_caller_never_sees_ends_the_thread():
    batches = iter(JaxLoader(Failing(), prefetch=1))
    for thread in threads():
        thread.join(timeout=10)
    del batches
    assert not threads()


def test_the_error_of_a_loader_that_cannot_start_surfaces():
    class Broken:
        def __iter__(self):
            raise LookupError("no such file")

    with pytest.raises(LookupError, match="no such file"):
        iter(JaxLoader(Broken()))


def test_the_thread_converts_with_the_settings_of_the_caller():
    loader = DataLoader(TensorDataset(torch.ones(4, dtype=torch.float64)), batch_size=2)
    with jax.enable_x64(True):
        assert [batch.dtype for (batch,) in JaxLoader(loader)] == [jnp.float64, jnp.float64]
    with pytest.raises(TransferError, match="enable jax_enable_x64"):
        list(JaxLoader(loader))


def test_length_is_that_of_the_loader_or_a_type_error():
    assert len(JaxLoader(DataLoader(TEN, batch_size=4))) == 3
    stream = JaxLoader(DataLoader(Stream(), batch_size=4))
    with pytest.raises(TypeError, match="Stream"):
        len(stream)
    with pytest.raises(TypeError, match="len"):
        len(JaxLoader(Endless()))
    assert [batch.shape for batch in stream] == [(4,), (2,)]


def test_every_sample_of_a_dataset_is_a_batch():
    dataset = TensorDataset(torch.arange(3.0), torch.arange(3))
    batches = JaxLoader(dataset)
    assert len(batches) == 3
    for _ in range(2):
        assert [(x.item(), y.item()) for x, y in batches] == [(0, 0), (1, 1), (2, 2)]
    stream = JaxLoader(Stream())
    assert [[batch.item() for batch in stream] for _ in range(2)] == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_map_style_dataset_ends_with_its_length():
    class WithoutEnd(Dataset):
        def __getitem__(self, index):
            return torch.full((2,), float(index))

    with pytest.raises(TypeError, match=r"a WithoutEnd, a map-style dataset without length; allowed: .*__len__"):
        JaxLoader(WithoutEnd())
    WithoutEnd.__len__ = lambda self: 3  # pyright: ignore[reportAttributeAccessIssue]
    assert [batch.tolist() for batch in JaxLoader(WithoutEnd())] == [[0, 0], [1, 1], [2, 2]]


def test_what_can_be_iterated_once_is_refused_the_second_time():
    batches = JaxLoader(iter([torch.ones(2), torch.ones(2)]))
    assert len(list(batches)) == 2
    with pytest.raises(ValueError, match=r"found a list_iterator, which can be iterated once; allowed: .*__iter__"):
        iter(batches)


def test_what_is_no_iterable_is_refused():
    # The first is what a user sees, the second what the type checker of the test run raises
    with pytest.raises(TypeError, match=r"(?s)found a int; allowed: a DataLoader|loader.*Iterable"):
        JaxLoader(5)


def test_nested_batches_of_strings_and_numbers_keep_their_structure():
    samples = [{"x": (torch.ones(2), [index, 0.5]), "name": f"n{index}", "none": None} for index in range(3)]
    (first, last) = JaxLoader(DataLoader(samples, batch_size=2, collate_fn=list))
    assert [sample["name"] for sample in [*first, *last]] == ["n0", "n1", "n2"]
    assert [sample["x"][1] for sample in [*first, *last]] == [[0, 0.5], [1, 0.5], [2, 0.5]]
    assert isinstance(last[0]["x"][0], jax.Array)
    assert last[0]["none"] is None


def test_repr_names_the_loader_and_the_options():
    shown = repr(JaxLoader(DataLoader(TEN, batch_size=4), prefetch=1))
    assert shown == (
        "JaxLoader(DataLoader of 3 batches, prefetch=1, sharding=None, copy='if_needed', seed=None, progress=False)"
    )
    assert repr(JaxLoader(Endless())).startswith("JaxLoader(Endless, prefetch=2")


def test_progress_shows_a_bar_on_a_terminal():
    batches = JaxLoader(DataLoader(TEN, batch_size=4), progress=True)
    with contextlib.redirect_stderr(Terminal()) as stderr:
        assert len(list(batches)) == 3
        assert "3/3" in stderr.getvalue() and "0/3" in stderr.getvalue()
        for _ in batches:
            break
        assert stderr.getvalue().count("0/3") == 2


@pytest.mark.parametrize(("loader", "of"), [(DataLoader(TEN, batch_size=4), "/3"), (Endless(), "")])
def test_progress_is_one_line_per_epoch_in_a_file(loader, of):
    batches = JaxLoader(loader, progress=True)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        for epoch, wanted in enumerate((3, 2)):
            with iter(batches) as taken:
                assert len(list(itertools.islice(taken, wanted))) == wanted
            lines = stderr.getvalue().splitlines()
            assert len(lines) == epoch + 1
            assert re.fullmatch(rf"epoch {epoch + 1}: {wanted}{of} batches in \d+\.\d s", lines[-1])


def of_lengths(lengths):
    return [torch.ones(2, length) for length in lengths]


def test_shapes_that_keep_changing_are_warned_of_once():
    loader = JaxLoader(of_lengths(range(1, 9)))
    with pytest.warns(
        UserWarning, match=r"the 6 batches so far have 6 different shapes, the last \[\(2, 6\)\]"
    ) as found:
        received = 0
        for _ in range(3):
            for _batch in loader:
                received += 1
    assert received == 24 and len(found) == 1
    assert all(name in str(found[0].message) for name in ("PadSequences(multiple=...)", "PackEvents", "drop_last=True"))


@pytest.mark.parametrize("lengths", [[4, 4, 4, 3], [1, 2, 3, 4, 5] * 4, [*[3] * 12, *range(4, 9), 9]])
def test_a_few_shapes_are_not_warned_of(lengths):
    loader = JaxLoader(of_lengths(lengths))
    assert [batch.shape[1] for _ in range(3) for batch in loader] == lengths * 3


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"prefetch is -1; allowed: 0 \(no thread\)"):
        JaxLoader([], prefetch=-1)
    # The first is what the type checker of the test run raises, the second what a user sees
    with pytest.raises((TypeError, ValueError), match=r"(?s)if_needed.*never.*always"):
        JaxLoader([], copy="sometimes")  # pyright: ignore[reportArgumentType]


def test_a_sharding_takes_the_batches_to_its_devices():
    sharding = NamedSharding(jax.make_mesh((1,), ("batch",)), jax.P("batch"))
    tensors = [torch.ones(4, 16), torch.ones(2, 16)]
    batches = list(JaxLoader(tensors, sharding=sharding, copy="never"))
    assert [batch.sharding for batch in batches] == [sharding, sharding]
    assert [batch.unsafe_buffer_pointer() for batch in batches] == [tensor.data_ptr() for tensor in tensors]


def test_the_example_in_the_documentation_runs():
    results = doctest.testmod(data)
    assert results.attempted > 3
    assert results.failed == 0
