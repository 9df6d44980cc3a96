"""The printed program of every network of the zoo, behind all passes: a change of one shows what a pass has changed.

`pytest tests/interop/ir/test_printed_programs.py --write-programs` writes `programs/` anew; read the difference.
"""

import pathlib
import re

import pytest
import zoo
from helpers import torch_networks
from helpers.programs import NETWORKS, traced


pytestmark = pytest.mark.usefixtures("double_precision")

FOLDER = pathlib.Path(__file__).parent / "programs"
GROUPS = {name: group for group in (*zoo.GROUPS, torch_networks) for name in group.CASES}


def printed(name: str) -> str:
    """The last program, without line numbers, which change with whatever is above them."""
    return re.sub(r"(# \w+\.py):\d+", r"\1", str(traced(name).last))


def read(path: pathlib.Path) -> dict[str, str]:
    """The programs of a group by the name of their network."""
    blocks = path.read_text().split("\n\n\n") if path.exists() else []
    return {name.removeprefix("== "): text for name, _, text in (block.strip("\n").partition("\n") for block in blocks)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_program_of_a_network_is_printed_as_on_file(name, write_programs):
    group = GROUPS[name]
    path = FOLDER / f"{group.__name__.split('.')[-1]}.txt"
    known = read(path)
    if write_programs:
        known[name] = printed(name)
        path.write_text("\n\n\n".join(f"== {each}\n{known[each]}" for each in group.CASES if each in known) + "\n")
    assert known[name] == printed(name)


@pytest.mark.parametrize("group", (*zoo.GROUPS, torch_networks), ids=lambda group: group.__name__)
def test_no_program_is_on_file_without_its_network(group):
    assert list(read(FOLDER / f"{group.__name__.split('.')[-1]}.txt")) == list(group.CASES)
