"""What every test may use; the strictness of JAX's own checks is set per folder."""

import itertools

import jax
import pytest


@pytest.fixture
def getkey():
    """A function that returns another key at every call, the same ones in every run."""
    seeds = itertools.count()
    return lambda: jax.random.key(next(seeds))


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Each compiled program holds several memory maps, and a process dies at the system's limit of them (65530)."""
    yield
    jax.clear_caches()
