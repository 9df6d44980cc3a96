"""What every test may use; the strictness of JAX's own checks is set per folder."""

import itertools
import pathlib

import jax
import pytest


@pytest.fixture
def getkey():
    """A function that returns another key at every call, the same ones in every run."""
    seeds = itertools.count()
    return lambda: jax.random.key(next(seeds))


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Each compiled program holds memory and several maps of it; the system ends a process that has 65530."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def quick_compilation():
    """Most of the time goes into compiling programs that run once. A module that wants them fast overrides this."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
