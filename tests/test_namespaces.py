"""What `import snnax` and `import snnax_interop` give: the public names, and no others."""

import importlib
import re
import subprocess
import sys
import types

import pytest

import snnax
import snnax_interop
from tests.scripts import ROOT


SUBMODULES = ["encoding", "events", "initialisation", "losses", "metrics", "plot", "serialisation"]


@pytest.mark.full
def test_submodules_of_the_core_are_imported_when_they_are_asked_for():
    code = f"""
import sys
import snnax
for name in {SUBMODULES}:
    assert f"snnax.{{name}}" not in sys.modules, name
    assert getattr(snnax, name) is sys.modules[f"snnax.{{name}}"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_of_the_core_is_an_attribute_and_is_listed():
    folders = {path.parent.name for path in ROOT.glob("snnax/*/__init__.py")}
    assert folders >= {*SUBMODULES}
    checks = {"jaxtyping"}  # which the tests write into all modules of the core
    assert sorted({*dir(snnax)} - checks) == sorted([*folders, "Repeat", "__version__"])
    for name in folders:
        assert getattr(snnax, name) is importlib.import_module(f"snnax.{name}")


def test_another_name_is_an_attribute_error_that_knows_the_right_one():
    with pytest.raises(AttributeError, match="module 'snnax' has no attribute 'loses'") as raised:
        _ = snnax.loses  # pyright: ignore[reportAttributeAccessIssue]
    assert (raised.value.name, raised.value.obj) == ("loses", snnax)


def test_the_bridge_lists_what_it_exports_and_no_folders():
    text = (ROOT / "interop" / "snnax_interop" / "__init__.py").read_text()
    exported = {after for before, after in re.findall(r"(\w+) as (\w+)", text) if before == after}
    assert len(exported) > 20
    assert dir(snnax_interop) == sorted({*exported, "data", "errors", "transfer"})
    for name in exported:
        assert not isinstance(getattr(snnax_interop, name), types.ModuleType)
