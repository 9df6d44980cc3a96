"""Set-up of the tests with torch."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Test processes run side by side; torch's threads would wait for each other on few cores."""
    torch.set_num_threads(1)
