"""Set-up of the tests with torch."""

import multiprocessing

import jax
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Test processes run side by side; torch's threads would wait for each other on few cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def one_import_for_all_workers():
    """Whichever test starts the server of worker processes, those of later tests have imported the bridge already."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["snnax_interop"])


@pytest.fixture
def double_precision(monkeypatch):
    """snnTorch casts spikes with `.float()`, which would round thresholds and gradients that meet them."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)
