"""What every test may use; the strictness of JAX's own checks is set per folder."""

import itertools

import jax
import pytest


@pytest.fixture
def getkey():
    """A function that returns another key at every call, the same ones in every run."""
    seeds = itertools.count()
    return lambda: jax.random.key(next(seeds))
