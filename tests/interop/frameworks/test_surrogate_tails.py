"""Slopes far from threshold are those of the frameworks' formulas: not below zero, not NaN, in any precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch


norse = pytest.importorskip("norse.torch.functional")
snntorch = pytest.importorskip("snntorch.surrogate")
activation = pytest.importorskip("spikingjelly.activation_based.surrogate")

from snnax_interop.frameworks.norse._surrogates import METHODS  # noqa: E402
from snnax_interop.frameworks.snntorch._surrogates import SparseFastSigmoid  # noqa: E402
from snnax_interop.frameworks.spikingjelly._surrogates import SoftSign, SuperSpike  # noqa: E402


X = np.array([0.3, 1.0, 40.0, 1e3, -0.3, -1.0, -40.0, 1e7, 1e15, -1e7, -1e15])
CASES = {
    "SpikingJelly SoftSign": (SoftSign(2.0), activation.SoftSign(alpha=2.0)),
    "SpikingJelly SuperSpike": (SuperSpike(1.5), activation.SuperSpike(alpha=1.5)),
    "Norse super": (METHODS["super"](100.0), lambda x: norse.threshold.threshold(x, "super", 100.0)),
    "Norse circ": (METHODS["circ"](0.5), lambda x: norse.threshold.threshold(x, "circ", 0.5)),
    "snnTorch SFS": (SparseFastSigmoid(25.0, 0.5), snntorch.SFS(slope=25, B=0.5)),
    "snnTorch fast_sigmoid": (METHODS["super"](100.0).__class__(25.0), snntorch.fast_sigmoid(slope=25)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_slope_far_from_threshold_is_that_of_the_framework(name):
    ours, theirs = CASES[name]
    x = torch.from_numpy(X).requires_grad_()
    theirs(x).sum().backward()
    assert x.grad is not None and x.grad.sum() > 0
    slopes = jax.vmap(jax.grad(ours))
    with jax.enable_x64(True):
        # Beyond 1e6 the formula of Norse's circ subtracts what is equal in float64.
        size = 7 if name == "Norse circ" else X.size
        np.testing.assert_allclose(slopes(jnp.asarray(X))[:size], x.grad.numpy()[:size], rtol=1e-9)
    for dtype in (jnp.float32, jnp.bfloat16):
        found = slopes(jnp.asarray(X, dtype)).astype(jnp.float32)
        assert jnp.isfinite(found).all() and jnp.all(found >= 0)
