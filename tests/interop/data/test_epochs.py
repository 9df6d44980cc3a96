"""Epochs that follow from a seed, whoever loads them, and what is told the number of the epoch."""

import itertools
import threading

import numpy as np
import pytest
import torch
from helpers.noisy_data import Noisy, NoisyAtOnce, NoisyBatches, NoisyStream, Subclass, double_scale, drawn, noise
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from snnax_interop import JaxLoader, worker_options


class NumPyShuffle(Sampler):
    """Draws from NumPy's global generator, half of it while it is iterated."""

    def __iter__(self):
        for index in np.random.permutation(6):
            yield 2 * int(index) + np.random.randint(2)

    def __len__(self):
        return 6


class OwnBatches(Sampler):
    """A batch sampler with a generator of its own."""

    def __init__(self):
        self.generator = None

    def __iter__(self):
        yield from torch.randperm(12, generator=self.generator).reshape(3, 4).tolist()


def shuffled(**options) -> DataLoader:
    return DataLoader(Noisy(), batch_size=4, shuffle=True, **options)


def sampled(sampler) -> DataLoader:
    return DataLoader(Noisy(), batch_size=4, sampler=sampler)


SOURCES = {
    "shuffle": shuffled,
    "own generator": lambda: shuffled(generator=torch.Generator().manual_seed(5)),
    "all at once": lambda: DataLoader(NoisyAtOnce(), batch_size=4, shuffle=True),
    "no batches": lambda: DataLoader(Noisy(), batch_size=None, shuffle=True),
    "replacement": lambda: sampled(RandomSampler(Noisy(), replacement=True, num_samples=12)),
    "weighted": lambda: sampled(WeightedRandomSampler([1.0] * 12, 12)),
    "subset": lambda: sampled(SubsetRandomSampler(range(12))),
    "a sampler that draws by itself": lambda: sampled(NumPyShuffle()),
    "a batch sampler around it": lambda: DataLoader(Noisy(), batch_sampler=BatchSampler(NumPyShuffle(), 4, True)),
    "a batch sampler of its own": lambda: DataLoader(Noisy(), batch_sampler=OwnBatches()),
    "a list of indices": lambda: sampled([3, 1, 4, 1, 5, 9, 2, 6]),
    "stream": lambda: DataLoader(NoisyStream(), batch_size=4),
    "stream, own generator": lambda: DataLoader(NoisyStream(), batch_size=4, generator=torch.Generator()),
    "iterable": NoisyBatches,
    "subclass": lambda: Subclass(Noisy(), batch_size=4, shuffle=True),
    "dataset": Noisy,
    "iterable dataset": NoisyStream,
}


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_epoch_follows_from_the_seed_and_its_number(source, prefetch):
    torch.manual_seed(1)
    first = JaxLoader(source(), prefetch, seed=3)
    epochs = [drawn(first) for _ in range(3)]
    noise()  # whatever else draws
    torch.manual_seed(2)
    assert [drawn(loader) for loader in itertools.repeat(JaxLoader(source(), prefetch, seed=3), 3)] == epochs
    others = [*epochs, drawn(JaxLoader(source(), prefetch, seed=4))]
    values = np.array([np.concatenate([np.ravel(batch) for batch in epoch])[-3:] for epoch in others])
    assert len(np.unique(values)) == values.size  # of each generator, in each epoch, other noise
    third = JaxLoader(source(), prefetch, seed=3)
    third.epoch = 2
    assert drawn(third) == epochs[2]


@pytest.mark.parametrize(
    "source", ["shuffle", "weighted", "a sampler that draws by itself", "a batch sampler of its own"]
)
def test_orders_differ_between_epochs_and_seeds(source):
    loader = JaxLoader(SOURCES[source](), seed=3)
    orders = [[[row[0] for row in batch] for batch in drawn(loader)] for _ in range(2)]
    orders.append([[row[0] for row in batch] for batch in drawn(JaxLoader(SOURCES[source](), seed=4))])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_batches_of_one_epoch_have_noise_of_their_own():
    values = np.concatenate(drawn(JaxLoader(shuffled(), seed=0)))[:, 1:]
    assert len(np.unique(values)) == 36


@pytest.mark.full
def test_workers_load_the_same_batches_and_leave_the_generators_here_alone():
    expected = [drawn(loader) for loader in itertools.repeat(JaxLoader(shuffled(), seed=3), 3)]
    loader = JaxLoader(shuffled(**worker_options(2, timeout=60)), seed=3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert [drawn(loader) for _ in range(3)] == expected
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


class Interrupted(Dataset):
    """Its only sample waits, in the middle of its draws, for another loader to draw."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.inside = threading.Event()
        self.other_drew = threading.Event()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        before = noise()[:2]  # the type checker of the test run draws from Python's generator, in the threads too
        self.inside.set()
        self.other_drew.wait(self.seconds)
        return torch.tensor([*before, *noise()[:2]])


class Other(Dataset):
    def __init__(self, interrupted: Interrupted):
        self.interrupted = interrupted

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        drew = torch.tensor(noise()[:2])
        self.interrupted.other_drew.set()
        return drew


def test_two_loaders_that_load_in_this_process_do_not_disturb_each_other():
    (alone,) = drawn(JaxLoader(Interrupted(seconds=0), seed=3))
    dataset = Interrupted(seconds=1)
    batches = iter(JaxLoader(dataset, seed=3))
    assert dataset.inside.wait(10)
    others = iter(JaxLoader(Other(dataset), seed=4))
    assert drawn(batches) == [alone]
    assert len(drawn(others)) == 1


@pytest.mark.full
def test_workers_of_a_stream_are_seeded_as_they_start():
    options = worker_options(2, timeout=60)
    with pytest.raises(ValueError, match=r"a seed with persistent_workers=True.*allowed: persistent_workers=False"):
        JaxLoader(DataLoader(NoisyStream(), batch_size=2, **options), seed=0)
    options["persistent_workers"] = False
    loaders = [JaxLoader(DataLoader(NoisyStream(), batch_size=2, **options), seed=0) for _ in range(2)]
    epochs = [drawn(loaders[0]) for _ in range(2)]
    torch.manual_seed(1)
    assert [drawn(loaders[1]) for _ in range(2)] == epochs
    assert len(np.unique(np.array(epochs)[..., 1:])) == 72


def test_a_worker_init_fn_finds_the_dataset_to_read_and_to_set():
    options = worker_options(1, timeout=60)
    loader = JaxLoader(DataLoader(Noisy(4), batch_size=4, worker_init_fn=double_scale, **options), seed=0)
    assert [row[0] for row in drawn(loader)[0]] == [0, 2, 4, 6]


def test_the_generators_and_samplers_of_the_caller_stay_as_they_are():
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    loader = shuffled(generator=generator)
    drawn(JaxLoader(loader, seed=0))
    assert torch.equal(generator.get_state(), state)
    assert loader.sampler.generator is generator


@pytest.mark.parametrize("seed", [None, 7])
def test_what_draws_by_the_number_of_the_epoch_is_told(seed):
    sampler = DistributedSampler(Noisy(), num_replicas=2, rank=1, seed=9)
    loaders = sampled(sampler), DataLoader(Noisy(), batch_sampler=BatchSampler(sampler, 4, False))
    for loader in loaders:
        batches = JaxLoader(loader, seed=seed)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            expected = list(sampler)
            sampler.set_epoch(-1)
            assert batches.epoch == epoch
            assert [int(row[0]) for batch in drawn(batches) for row in batch] == expected

    stream = NoisyStream()
    batches = JaxLoader(DataLoader(stream, batch_size=4), seed=seed)
    drawn(batches), drawn(batches)
    assert stream.epochs == [0, 1]


def test_a_seed_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"seed is -1; allowed: 0 and more, or None"):
        JaxLoader([], seed=-1)
    with pytest.raises(ValueError, match=r"epoch is -1; allowed: 0 and more"):
        JaxLoader([]).epoch = -1
