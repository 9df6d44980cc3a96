"""The table of slowest files, and the compiled programs that the processes of a run share."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest


ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_files_are_shown_with_what_all_phases_of_their_tests_took(pytester, monkeypatch, options):
    pytester.makepyfile(
        test_waits="""
            import time
            import pytest

            @pytest.fixture
            def slow():
                time.sleep(0.3)
                yield
                time.sleep(0.3)

            @pytest.mark.parametrize("number", range(2))
            def test_waits(slow, number):
                time.sleep(0.3)
        """,
        test_works="""
            import time

            def test_works():
                end = time.process_time() + 0.6
                while time.process_time() < end:
                    pass

            def test_fails():
                assert False
        """,
        test_skipped="""
            import pytest
            pytest.skip("no tests here", allow_module_level=True)
        """,
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = pytester.runpytest_subprocess("-p", "tests.timing", *options)
    run.assert_outcomes(passed=3, failed=1, skipped=1)
    shown = [line.split() for line in run.outlines if re.search(r"\btest_\w+\.py$", line)]
    files = {file: (float(wall), float(processor), int(tests)) for wall, processor, tests, file in shown}
    assert list(files) == sorted(files, key=lambda file: -files[file][0])
    assert set(files) == {"test_waits.py", "test_works.py"}
    wall, processor, tests = files["test_waits.py"]
    assert wall >= 1.8 and processor < 1 and tests == 2
    wall, processor, tests = files["test_works.py"]
    assert 0.5 < processor <= wall + 0.1 and tests == 2
    [(tests, number, total, whole)] = re.findall(
        r"^(\d+) tests of (\d+) files took (\d+) s, and (\d+) s of the processor$", run.stdout.str(), re.MULTILINE
    )
    assert (int(tests), int(number)) == (4, 2)
    assert int(total) >= 1 and int(whole) >= 1


def test_what_is_compiled_is_kept_for_other_processes():
    @jax.jit
    def compiled_for_all(x):
        return 3 * x

    compiled_for_all(jnp.ones(3))
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)  # pyright: ignore[reportAttributeAccessIssue]
    assert any("compiled_for_all" in path.name for path in folder.iterdir())


@pytest.mark.full
@pytest.mark.parametrize(
    ("options", "runs"), [((), [[40, 40], [80, 80], [40, 40]]), (("-n", "2"), [[40, 40]])], ids=["alone", "two workers"]
)
def test_workers_and_later_runs_share_a_folder_that_is_emptied_when_it_is_large(pytester, monkeypatch, options, runs):
    pytester.makeconftest("""
        import tests.conftest
        from tests.conftest import pytest_configure, pytest_configure_node
        tests.conftest.LARGEST_CACHE = 100
    """)
    pytester.makepyfile("""
        import os
        import pathlib
        import time
        import jax
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_folder(number):
            folder = jax.config.jax_compilation_cache_dir
            kept = pathlib.Path(folder) / f"kept-{number}"
            kept.write_bytes((kept.read_bytes() if kept.exists() else b"") + b"." * 40)
            pathlib.Path(f"ran-{number}").write_text(f"{folder} {os.getpid()}")
            time.sleep(0.5)
    """)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for sizes in runs:
        pytester.runpytest_subprocess(*options).assert_outcomes(passed=2)
        folders, processes = zip(*(path.read_text().split() for path in pytester.path.glob("ran-*")), strict=True)
        assert len(set(folders)) == 1 and len(set(processes)) == (2 if options else 1)
        assert [path.stat().st_size for path in pathlib.Path(folders[0]).glob("kept-*")] == sizes
