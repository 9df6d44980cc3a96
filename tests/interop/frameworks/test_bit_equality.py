"""Updates of snnTorch's neurons in float32, bit by bit, where XLA does not contract `a * b + c` into one rounding.

The flag that turns this off must be set before JAX starts, so a process of its own computes everything.
"""

import json
import os
import subprocess
import sys

import pytest


pytestmark = pytest.mark.full


_SCRIPT = """
import json, warnings
warnings.simplefilter("ignore")
import numpy as np, snntorch, torch
from snnax_interop import from_torch, to_jax


class Bare(torch.nn.Module):
    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        states = self.neuron.reset_mem()
        states = states if isinstance(states, tuple) else (states,)
        spikes, membranes = [], []
        for t in range(x.shape[0]):
            found = self.neuron(x[t], *states)
            states = found if hasattr(self.neuron, "recurrent") else found[1:]
            spikes.append(found[0])
            membranes.append(found[-1])
        return torch.stack(spikes), torch.stack(membranes)


torch.manual_seed(0)
vector = torch.rand(40)
neurons = {}
for reset in ("subtract", "zero", "none"):
    for delay in (True, False):
        options = {"reset_mechanism": reset, "reset_delay": delay}
        neurons[f"Leaky {reset} {delay}"] = snntorch.Leaky(beta=0.9, **options)
        neurons[f"Synaptic {reset} {delay}"] = snntorch.Synaptic(alpha=0.8, beta=0.9, **options)
    neurons[f"Alpha {reset}"] = snntorch.Alpha(alpha=0.8, beta=0.7, reset_mechanism=reset)
    neurons[f"Lapicque {reset}"] = snntorch.Lapicque(R=2.3, C=3.7, time_step=0.7, reset_mechanism=reset)
    for delay in (True, False):
        one_to_one = {"V": vector - 0.5, "all_to_all": False, "reset_mechanism": reset}
        neurons[f"RLeaky {reset} {delay}"] = snntorch.RLeaky(beta=0.9, reset_delay=delay, **one_to_one)
    neurons[f"RSynaptic {reset}"] = snntorch.RSynaptic(alpha=0.8, beta=0.9, **one_to_one)
neurons["Leaky vectors"] = snntorch.Leaky(beta=vector, threshold=vector + 0.5, graded_spikes_factor=0.7)
neurons["Lapicque beta"] = snntorch.Lapicque(beta=0.7)
results = {}
for name, neuron in neurons.items():
    module, x = Bare(neuron), torch.rand(30, 4, 40) * 2 - 0.4
    converted = from_torch(module, (x[:6],))
    with torch.no_grad():
        expected = module(x)
    differences = [int((np.asarray(a) != b.numpy()).sum()) for a, b in zip(converted(to_jax(x)), expected)]
    results[name] = [int((expected[0] != 0).sum()), *differences]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results() -> dict[str, list[int]]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_max_isa=AVX", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_spikes_and_membranes_are_equal_to_the_bit(results):
    assert len(results) == 29
    assert all(found[0] > 0 for name, found in results.items() if "none" not in name), results
    assert {name: found[1:] for name, found in results.items()} == {name: [0, 0] for name in results}
