"""The code of every page runs with what the line of pip above it installs."""

import ast
import pathlib
import re
import socket

import pytest

from tests.plain_environment import distributions, hidden_packages, run_installed
from tests.scripts import ROOT


README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/*.md"))]


def stretches(page: pathlib.Path) -> list[tuple[frozenset[str], list[str]]]:
    """The extras of every line of pip on a page, with the blocks of code below it, up to the next one.

    Of adjacent lines, which are alternatives, the first one counts.
    """
    before, *parts = re.split(r"pip install (?:'\.\[([\w,]+)\]'|\.(?=[\s`]))", page.read_text())
    assert "```python" not in before, f"{page.name} shows code before it says how to install what the code needs"
    found: list[tuple[frozenset[str], list[str]]] = []
    alternative = False
    for extras, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if alternative:
            found[-1][1].extend(blocks)
        else:
            found.append((frozenset(extras.split(",") if extras else ()), blocks))
        alternative = text.count("\n") == 1
    return [(extras, blocks) for extras, blocks in found if blocks]


def test_every_page_is_found():
    assert len(PAGES) >= 8
    assert [(sorted(extras), len(blocks)) for extras, blocks in stretches(README)] == [
        ([], 4),
        (["snntorch"], 4),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_imports_what_the_line_above_it_does_not_install(page):
    for extras, blocks in stretches(page):
        hidden = hidden_packages(extras)
        for block in blocks:
            for node in ast.walk(ast.parse(block)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert hidden.isdisjoint(name.partition(".")[0] for name in names), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.full
def test_the_first_block_runs_with_what_the_line_above_it_installs(page):
    extras, blocks = stretches(page)[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = f"coordinator, num_processes, process_id = '{address}', 1, 0\n" if "coordinator" in blocks[0] else ""
    done = run_installed(extras, given + blocks[0], str(page))
    assert done.returncode == 0, done.stderr


def test_a_plain_installation_has_neither_torch_nor_tqdm():
    assert {"jax", "optax", "equinox", "numpy"} <= distributions(frozenset())
    assert distributions(frozenset()).isdisjoint({"torch", "tqdm", "matplotlib"})
    assert {"torch", "tqdm", "snntorch", "jax"} <= distributions(frozenset({"snntorch"}))


@pytest.mark.parametrize("name", ["tqdm", "torch", "matplotlib"])
def test_what_is_not_installed_cannot_be_imported(name):
    code = f"import importlib.util\nassert importlib.util.find_spec({name!r}) is None\nimport {name}"
    done = run_installed([], code)
    assert done.stderr.endswith(f"ModuleNotFoundError: No module named '{name}'\n"), done.stderr
