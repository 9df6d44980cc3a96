"""Stopping in the middle of an epoch and continuing there: the batches that remained, then the epochs that follow."""

import contextlib
import copy
import itertools
import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.noisy_data import Noisy, NoisyBatches, NoisyStream, Subclass, drawn
from torch.utils.data import DataLoader, RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from snnax.serialisation import load, save
from snnax_interop import JaxLoader, worker_options
from snnax_interop.data.order import order_of
from tests.terminal import Terminal


pytestmark = pytest.mark.full


def shuffled(size: int = 10, **options) -> DataLoader:
    return DataLoader(Noisy(size), batch_size=3, shuffle=True, **options)


def stream(size: int = 10, **options) -> DataLoader:
    return DataLoader(NoisyStream(size), batch_size=3, **options)


def subclass() -> DataLoader:
    return Subclass(Noisy(10), batch_size=3, shuffle=True)


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state))


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("source", [shuffled, stream, NoisyBatches, subclass])
def test_every_position_continues_with_the_batches_that_remained(source, prefetch):
    loader = JaxLoader(source(), prefetch, seed=3)
    epochs = [drawn(loader) for _ in range(4)]
    assert [len(epoch) for epoch in epochs] == [4, 4, 4, 4]
    for received in range(5):
        before = JaxLoader(source(), prefetch, seed=3)
        drawn(before)
        batches = iter(before)
        assert drawn(itertools.islice(batches, received)) == epochs[1][:received]
        state = through_json(before.state_dict())
        assert (state["epoch"], state["batch"]) == (1, received)
        assert drawn(batches) == epochs[1][received:]
        after = JaxLoader(source(), 2 - prefetch, seed=3)
        after.load_state_dict(state)
        assert after.state_dict() == state
        assert drawn(after) == epochs[1][received:]
        assert after.epoch == 2
        assert [drawn(after), drawn(after)] == epochs[2:]


def test_between_epochs_the_next_one_begins():
    loader = JaxLoader(shuffled(), seed=0)
    assert (loader.epoch, loader.state_dict()["batch"]) == (0, 0)
    drawn(loader)
    state = loader.state_dict()
    assert (loader.epoch, state["epoch"], state["batch"]) == (1, 1, 0)
    after = JaxLoader(shuffled(), seed=0)
    after.load_state_dict(state)
    assert drawn(after) == drawn(loader)


def test_an_epoch_that_is_left_continues_only_when_it_is_asked_for():
    loader = JaxLoader(shuffled(), seed=0)
    epochs = [drawn(loader) for _ in range(2)]
    loader = JaxLoader(shuffled(), seed=0)
    for _ in loader:
        break
    state = loader.state_dict()
    assert drawn(loader) == epochs[1]
    loader.load_state_dict(state)
    assert drawn(loader) == epochs[0][1:]
    assert drawn(loader) == epochs[1]


def test_an_iterator_that_was_replaced_no_longer_counts():
    loader = JaxLoader(shuffled(), seed=0)
    old, new = iter(loader), iter(loader)
    next(new)
    next(old), next(old)
    assert (loader.epoch, loader.state_dict()["batch"]) == (1, 1)
    drawn(old)
    assert (loader.epoch, loader.state_dict()["batch"]) == (1, 1)


def test_a_closed_epoch_is_not_a_finished_one():
    loader = JaxLoader(shuffled(), seed=0)
    with iter(loader) as batches:
        next(batches)
    assert next(batches, None) is None
    assert (loader.epoch, loader.state_dict()["batch"]) == (0, 1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_map_style_loader_continues_with_any_number_of_workers_and_skips_by_index(workers):
    dataset = Noisy(10)
    loader = JaxLoader(DataLoader(dataset, batch_size=3, shuffle=True), seed=0)
    epochs = [drawn(loader) for _ in range(2)]
    state = JaxLoader(shuffled(), seed=0).state_dict() | {"batch": 2}
    dataset.loaded.clear()
    options = worker_options(workers, timeout=60) if workers else {}
    after = JaxLoader(DataLoader(dataset, batch_size=3, shuffle=True, **options), seed=0)
    after.load_state_dict(state)
    assert [drawn(after), drawn(after)] == [epochs[0][2:], epochs[1]]
    assert len(dataset.loaded) == (0 if workers else 4 + 10)


def test_a_stream_continues_with_the_same_number_of_workers_only():
    options = worker_options(2, timeout=60) | {"persistent_workers": False}
    loader = JaxLoader(stream(**options), seed=0)
    epochs = [drawn(loader) for _ in range(2)]
    batches = iter(JaxLoader(stream(**options), seed=0))
    state = loader.state_dict() | {"epoch": 0, "batch": 2}
    batches.close()
    after = JaxLoader(stream(**options), seed=0)
    after.load_state_dict(state)
    assert [drawn(after), drawn(after)] == [epochs[0][2:], epochs[1]]
    with pytest.raises(ValueError, match=r"of a loader with num_workers=2; allowed: num_workers=0"):
        JaxLoader(stream(), seed=0).load_state_dict(state)


def test_batches_that_are_skipped_do_not_become_arrays():
    loader = JaxLoader(stream(), seed=0, copy="always")
    loader.load_state_dict(loader.state_dict() | {"batch": 3})
    (rest,) = loader
    assert loader.statistics.copied_bytes == rest.nbytes


def test_data_that_has_become_less_is_noticed():
    state = JaxLoader(stream(), seed=0).state_dict() | {"batch": 3}
    loader = JaxLoader(stream(size=5), seed=0)
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match=r"an epoch of 2 batches, of which 3 were delivered before"):
        drawn(loader)


@pytest.mark.parametrize("source", [shuffled, stream, NoisyBatches])
def test_a_checkpoint_holds_a_state(source, tmp_path):
    # No thread, since the type checker of the test run draws from Python's generator in `save`
    loader = JaxLoader(source(), prefetch=0, seed=2**40)
    batches = iter(loader)
    next(batches)
    save(tmp_path / "run.ckpt", {"loader": loader.state_dict(), "step": 1})
    rest = drawn(batches)
    after = JaxLoader(source(), seed=2**40)
    after.load_state_dict(load(tmp_path / "run.ckpt", {"loader": after.state_dict(), "step": 0})["loader"])
    assert drawn(after) == rest


def test_a_state_may_hold_its_integers_as_arrays():
    loader = JaxLoader(shuffled(), seed=1)
    state = loader.state_dict() | {"batch": np.int64(2), "epoch": np.array(1), "seed": jax.numpy.array(1)}
    loader.load_state_dict(state)
    assert (loader.epoch, len(drawn(loader))) == (1, 2)


STATE = {"epoch": 0, "batch": 1, "seed": 0, "length": 4, "batch_size": 3, "samples": 10}
STATE["order"] = order_of(shuffled())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (STATE | {"seed": 1}, r"of a loader with seed=1; allowed: seed=0"),
        (STATE | {"length": 5}, r"of a loader with length=5; allowed: length=4"),
        (STATE | {"batch_size": None}, r"of a loader with batch_size=None; allowed: batch_size=3"),
        (STATE | {"samples": 11}, r"of a loader with samples=11; allowed: samples=10"),
        (STATE | {"order": 1}, r"draws its samples in another order; allowed: the shuffle, or the sampler"),
        (STATE | {"batch": 5}, r"found epoch 0, batch 5; allowed: an epoch from 0, a batch from 0 to 4"),
        (STATE | {"batch": -1}, r"found epoch 0, batch -1"),
        (STATE | {"epoch": -1}, r"found epoch -1, batch 1"),
        (STATE | {"epoch": None}, r"found epoch None, batch 1"),
        (STATE | {"epoch": 0.5}, r"found the state .*allowed: integers; 'float' object"),
        (STATE | {"num_workers": 2}, r"found a state of \[.*'num_workers'.*allowed: \['batch', 'batch_size', 'epoch'"),
        ({"epoch": 0}, r"found a state of \['epoch'\]; allowed: .*as JaxLoader.state_dict\(\) returns it"),
        ({}, r"found a state of \[\]"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, message):
    loader = JaxLoader(shuffled(), seed=0)
    assert loader.state_dict().keys() == STATE.keys()
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict(state)
    assert (loader.epoch, len(drawn(loader))) == (0, 4)


class Halves(Sampler):
    def __init__(self):
        self.drawn = 0  # no option

    def __iter__(self):
        self.drawn += 1
        return iter(range(0, 10, 2))


def distributed(**options):
    return DistributedSampler(range(10), num_replicas=2, **options)


ORDERS = {
    "as they are": lambda: {"batch_size": 3},
    "shuffled": lambda: {"batch_size": 3, "shuffle": True},
    "without a rest": lambda: {"batch_size": 3, "shuffle": True, "drop_last": True},
    "one by one": lambda: {"batch_size": None, "shuffle": True},
    "with replacement": lambda: {"batch_size": 3, "sampler": RandomSampler(range(10), replacement=True)},
    "weighted": lambda: {"batch_size": 3, "sampler": WeightedRandomSampler([1.0] * 10, 10)},
    "weighted otherwise": lambda: {"batch_size": 3, "sampler": WeightedRandomSampler([2.0] + [1.0] * 9, 10)},
    "subset": lambda: {"batch_size": 3, "sampler": SubsetRandomSampler(range(5))},
    "another subset": lambda: {"batch_size": 3, "sampler": SubsetRandomSampler(range(5, 10))},
    "distributed": lambda: {"batch_size": 3, "sampler": distributed(rank=0)},
    "distributed by another seed": lambda: {"batch_size": 3, "sampler": distributed(rank=0, seed=1)},
    "list": lambda: {"batch_size": 3, "sampler": [3, 1, 2]},
    "another list": lambda: {"batch_size": 3, "sampler": [1, 3, 2]},
    "batches": lambda: {"batch_sampler": [[3, 1], [2]]},
    "one's own": lambda: {"batch_size": 3, "sampler": Halves()},
}


def test_orders_that_differ_are_told_apart_and_equal_ones_are_not():
    orders = {name: order_of(DataLoader(Noisy(10), **options())) for name, options in ORDERS.items()}
    assert len(set(orders.values())) == len(orders)
    for name, options in ORDERS.items():
        loader = DataLoader(Noisy(10), **options())
        list(loader.sampler)
        assert order_of(loader) == orders[name]
    assert order_of(DataLoader(Noisy(10), 3, sampler=distributed(rank=1))) == orders["distributed"]


def test_without_a_seed_there_is_no_state():
    loader = JaxLoader(shuffled())
    with pytest.raises(ValueError, match=r"found no seed; allowed: JaxLoader\(..., seed=0\)"):
        loader.state_dict()
    with pytest.raises(ValueError, match=r"found no seed"):
        loader.load_state_dict(STATE)


def test_the_bar_starts_at_the_position_and_the_length_stays_that_of_an_epoch():
    loader = JaxLoader(shuffled(), seed=0, progress=True)
    loader.load_state_dict(STATE | {"batch": 3})
    assert len(loader) == 4
    with contextlib.redirect_stderr(Terminal()) as stderr:
        batches = iter(loader)
        assert "3/4" in stderr.getvalue()
        assert len(drawn(batches)) == 1
        assert "4/4" in stderr.getvalue()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copy_begins_with_the_epoch_that_the_original_begins_next(duplicate):
    for seed in (0, None):
        loader = JaxLoader(DataLoader(Noisy(), batch_size=3), seed=seed)
        drawn(loader)
        batches = iter(loader)
        next(batches)
        twin = duplicate(loader)
        assert (twin.epoch, twin.prefetch, twin.seed) == (2, 2, seed)
        assert len(drawn(twin)) == 4
        assert (loader.epoch, twin.epoch) == (1, 3)
        assert len(drawn(batches)) == 3
    twin = duplicate(JaxLoader(shuffled(), seed=0))
    assert drawn(twin) == drawn(JaxLoader(shuffled(), seed=0))


SCRIPT = """
import json, os, signal, sys
sys.path[:0] = [sys.argv[1], os.path.dirname(sys.argv[1])]
from test_position import through_workers
import numpy as np

if __name__ == "__main__":
    batches = through_workers(sys.argv[2])
    stop = int(sys.argv[3])
    if os.path.exists("state.json"):
        batches.load_state_dict(json.load(open("state.json")))
    while batches.epoch < 2:
        for batch in batches:
            with open("log.json", "a") as log:
                log.write(json.dumps(np.asarray(batch).tolist()) + "\\n")
            with open("state.json", "w") as file:
                json.dump(batches.state_dict(), file)
            stop -= 1
            if stop == 0:
                os.kill(os.getpid(), signal.SIGKILL)
"""


def through_workers(kind: str) -> JaxLoader:
    options = worker_options(2, timeout=60)
    if kind == "stream":
        return JaxLoader(stream(size=20, **options | {"persistent_workers": False}), seed=11)
    return JaxLoader(shuffled(size=20, **options), seed=11)


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_a_process_that_is_killed_continues_in_another_and_leaves_no_workers(kind, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for stop in (9, 0):
        command = [sys.executable, script, str(Path(__file__).parent), kind, str(stop)]
        # Waits for the end of all that hold the output, which are the workers too
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
        assert run.returncode == (-signal.SIGKILL if stop else 0), run.stderr
    received = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    loader = through_workers(kind)
    assert received == drawn(loader) + drawn(loader)
    assert len(received) > 9
