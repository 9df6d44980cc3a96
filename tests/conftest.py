"""What every test may use; the strictness of JAX's own checks is set per folder."""

import gc
import itertools
import os
import pathlib
import shutil

import hypothesis
import jax
import pytest


pytest_plugins = ["pytester", "tests.annotations", "tests.timing"]

# The same examples in every run: what fails on one machine fails on all, and nothing is written to the disk.
hypothesis.settings.register_profile("snnax", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("snnax")

# Most of the time goes into compiling programs that run once. A program in one part takes three quarters of that of one
# in several; and the older emitters of XLA, where it still has them, two thirds.
FAST_TO_COMPILE = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_TO_COMPILE}"

COMPILED_PROGRAMS = pytest.StashKey[str]()
LARGEST_CACHE = 2_000_000_000  # bytes


def pytest_configure(config: pytest.Config) -> None:
    """What one process of a run has compiled, all load, and so do later runs: a third of the time of a whole one.

    Workers are told the folder by the process that starts them. It is emptied when it has grown large.
    """
    if hasattr(config, "workerinput"):
        folder = config.workerinput["compiled_programs"]  # pyright: ignore[reportAttributeAccessIssue]
    else:
        cache = config.cache
        assert cache is not None, "pytest's own plugin `cacheprovider` is off"
        if sum(file.stat().st_size for file in cache.mkdir("compiled").iterdir()) > LARGEST_CACHE:
            shutil.rmtree(cache.mkdir("compiled"))
        folder = config.stash[COMPILED_PROGRAMS] = str(cache.mkdir("compiled"))
    for name, value in {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.0}.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # for the processes that tests start
    # For the same reason. See `optimised`.
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_finish() -> None:
    """What is imported by now stays; JAX makes many objects, of which few are garbage that only a collector finds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["compiled_programs"] = node.config.stash[COMPILED_PROGRAMS]


@pytest.fixture
def optimised():
    """Programs are compiled as they are for users: for tests that run them for long, or look at what was compiled."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


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
