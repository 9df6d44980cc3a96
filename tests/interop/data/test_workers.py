"""The options of a `DataLoader` whose workers are safe beside JAX."""

import doctest
import multiprocessing

import jax.numpy as jnp
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, get_worker_info

from snnax_interop import JaxLoader, worker_options
from snnax_interop.data import workers


pytestmark = pytest.mark.full


def collate_with_jax(samples) -> tuple:
    """What hangs in a worker made by fork."""
    total = jnp.sum(jnp.array([value.item() for (value,) in samples]))
    return torch.tensor(float(total)), get_worker_info().num_workers, multiprocessing.parent_process().pid


def test_workers_may_call_jax_beside_a_live_jax():
    jnp.ones(3).block_until_ready()
    options = worker_options(2, timeout=60)
    loader = DataLoader(TensorDataset(torch.arange(12.0)), batch_size=3, collate_fn=collate_with_jax, **options)
    totals, counts, parents = zip(*JaxLoader(loader), strict=True)
    assert [total.item() for total in totals] == [3, 12, 21, 30]
    assert set(counts) == {2}
    assert set(parents) == {multiprocessing.current_process().pid}


def test_no_worker_needs_no_other_option():
    assert worker_options(0) == {"num_workers": 0}
    assert len(list(DataLoader(TensorDataset(torch.arange(12.0)), **worker_options(0)))) == 12


def test_the_options_are_those_of_a_loader():
    options = worker_options(3, timeout=7)
    context = options.pop("multiprocessing_context")
    assert context.get_start_method() == "forkserver"
    assert options == {"num_workers": 3, "persistent_workers": True, "timeout": 7}


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match=r"num_workers is -1; allowed: 0 \(load in this process\)"):
        worker_options(-1)


def test_the_example_in_the_documentation_runs():
    results = doctest.testmod(workers)
    assert results.attempted == 3
    assert results.failed == 0
