"""An option to rewrite the printed programs."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--write-programs", action="store_true", help="rewrite tests/interop/ir/programs; without -n")


@pytest.fixture(scope="session")
def write_programs(request) -> bool:
    return request.config.getoption("--write-programs", default=False)
