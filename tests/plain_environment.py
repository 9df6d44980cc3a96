"""Code in a process where only those packages can be imported that an installation of the project brings along."""

import functools
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement

from tests.scripts import ROOT


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# To the rest of Python, the hidden packages are as those that are not installed.
_HIDING = """
import json, sys
from importlib.machinery import PathFinder

folders, hidden, code, file = json.loads(sys.stdin.read())

class Installed:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)

sys.path[:0] = folders
sys.meta_path[:] = [Installed if finder is PathFinder else finder for finder in sys.meta_path]
exec(compile(code, file, "exec"), {"__name__": "__main__"})
"""


def run_installed(extras: Iterable[str], code: str, file: str = "code") -> subprocess.CompletedProcess:
    """Run code as after `pip install '.[extras]'` in an empty environment."""
    folders = [str(ROOT), str(ROOT / "interop")]
    given = json.dumps([folders, sorted(hidden_packages(frozenset(extras))), code, file])
    command = [sys.executable, "-c", _HIDING]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)


def hidden_packages(extras: frozenset[str]) -> set[str]:
    """The top-level names of all that is installed here and does not belong to such an installation."""
    belongs = distributions(extras) | {"snnax", canonical(PROJECT["name"])}
    return {
        name
        for name, providers in importlib.metadata.packages_distributions().items()
        if belongs.isdisjoint(map(canonical, providers))
    }


@functools.cache
def distributions(extras: frozenset[str]) -> set[str]:
    """The distributions that pip installs with these extras, by their metadata here."""
    own = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    waiting = [Requirement(line) for line in own]
    found: dict[str, set[str]] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        if name == canonical(PROJECT["name"]):
            waiting += [
                Requirement(line) for extra in requirement.extras for line in PROJECT["optional-dependencies"][extra]
            ]
            continue
        wanted = {"", *requirement.extras}
        new = wanted - found.get(name, set())
        if new:
            found[name] = found.get(name, set()) | new
            waiting += [each for each in _required(name) if _applies(each, new)]
    return set(found)


def _required(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []  # of another platform, or an extra that is not installed here


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
