"""The distribution `snnax-bridge`: its names agree, and another project's `snnax` in its place is found."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import snnax
from snnax._overlay import warn_of_another_project
from tests.scripts import ROOT


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("snnax/**/*.py"),
    *ROOT.glob("interop/**/*.py"),
    *ROOT.glob("examples/*.py"),
]
# What the other project has, as far as an import sees it.
THEIRS = {"__init__.py": "from . import utils, snn", "functional/__init__.py": "", "utils/__init__.py": ""}
OURS = {"__init__.py": "from . import engine", "engine/__init__.py": "import a_package_that_is_not_installed"}


def write(folder: pathlib.Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def imported(statement: str, *folders: pathlib.Path, options: tuple[str, ...] = ("-I", "-S")) -> str:
    """What a statement writes to stderr in a new process, with `folders` and, by default, no installed packages."""
    code = f"import sys; sys.path[:0] = {[str(each) for each in folders]!r}; {statement}"
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).stderr


def test_extras_refer_to_the_distribution_itself():
    assert PROJECT["name"] == "snnax-bridge"
    own = [each for lines in EXTRAS.values() for each in lines if each.startswith("snnax")]
    assert len(own) >= 8
    for each in own:
        found = re.fullmatch(r"snnax-bridge\[([a-z,]+)\]", each)
        assert found and set(found[1].split(",")) <= EXTRAS.keys(), each


def test_pip_is_never_told_to_install_the_other_project():
    lines = [line for path in TEXTS for line in re.findall(r"pip install [^\n`]*`?[^\n`]*", path.read_text())]
    assert len(lines) >= 5
    for line in lines:
        assert re.match(r"pip install ('\.\[[\w{}]+\]'|\.[^\w]|snnax` fetches another)", line), line


def test_every_extra_that_the_bridge_asks_for_exists():
    asked = {
        extra
        for path in ROOT.glob("interop/**/*.py")
        for extra in re.findall(r'require\("[\w.]+", "(\w+)"\)', path.read_text())
    }
    assert {"interop", "safetensors"} <= asked <= EXTRAS.keys()


@pytest.mark.parametrize(
    ("files", "where"),
    [
        (THEIRS, "in .*snnax, which is not that one"),
        ({"__init__.py": "version = '0.0.2'"}, "in .*snnax, which is not that one"),
        ({"__init__.py": "from jax import a_name_of_old"}, "in .*snnax, which is not that one"),
        (OURS | THEIRS, "in .*snnax, which is not that one"),
        ({"engine/__init__.py": ""}, "in .*snnax, which is not that one, or not all of it"),
        ({"../snnax.py": ""}, r"in .*snnax\.py, which is not that one"),
        ({}, "Found snnax nowhere"),
    ],
    ids=[
        "theirs",
        "theirs, which can be imported",
        "theirs, which fails",
        "theirs over ours",
        "uninstalled",
        "a file",
        "none",
    ],
)
def test_the_bridge_names_another_snnax_in_the_place_of_its_core(tmp_path, files, where):
    write(tmp_path / "snnax", files)
    error = imported("import snnax_interop", tmp_path, ROOT / "interop")
    last = error.splitlines()[-1]
    assert last.startswith("snnax_interop.errors.MissingDependencyError: the core of snnax_interop"), error
    assert re.search(where, last), last
    assert "pip uninstall snnax snnax-bridge; then, in a checkout of snnax-bridge: pip install '.[interop]'" in last


def test_a_core_that_lacks_a_package_says_so_itself(tmp_path):
    write(tmp_path / "snnax", OURS)
    error = imported("import snnax_interop", tmp_path, ROOT / "interop")
    assert error.endswith("ModuleNotFoundError: No module named 'a_package_that_is_not_installed'\n")


def test_files_of_both_projects_in_one_folder_are_a_warning(tmp_path):
    write(tmp_path, THEIRS)
    with pytest.warns(UserWarning, match=r"files of two projects.*snnax\.functional, snnax\.utils\).*pip uninstall"):
        warn_of_another_project(tmp_path)
    warn_of_another_project(pathlib.Path(snnax.__file__).parent)


@pytest.mark.full
def test_importing_a_core_with_files_of_the_other_project_warns(tmp_path):
    for path in (ROOT / "snnax").iterdir():
        (tmp_path / "snnax").mkdir(exist_ok=True)
        (tmp_path / "snnax" / path.name).symlink_to(path)
    write(tmp_path / "snnax" / "functional", {"__init__.py": ""})
    error = imported("import snnax; assert snnax.snn.LIF", tmp_path, options=())
    assert "UserWarning" in error and "files of two projects" in error
    assert "Traceback" not in error
