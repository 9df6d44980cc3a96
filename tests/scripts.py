"""The scripts of the project as modules: they are run by path, and no package holds them."""

import importlib.util
import pathlib
from types import ModuleType


ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load_script(path: pathlib.Path) -> ModuleType:
    """The module of a script, anew at every call."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_example(name: str) -> ModuleType:
    return load_script(EXAMPLES / f"{name}.py")
