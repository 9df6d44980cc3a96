"""Who may import whom, read from the source of every file, and what an import really loads, seen in a new process."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("snnax/**/*.py"), *ROOT.glob("interop/snnax_interop/**/*.py")])
# The folders of snnax, and which others each may import.
LAYERS = {
    "surrogate": set(),
    "engine": set(),
    "snn": {"surrogate", "engine"},
    "encoding": set(),
    "losses": set(),
    "metrics": set(),
    "initialisation": {"engine", "snn"},
    "serialisation": set(),
    "events": set(),
    "plot": set(),
}
# Imported by interop/snnax_interop/frameworks/<name>.py or files in a folder <name>, and nowhere else.
FOLDERS = {path.stem for path in ROOT.glob("interop/snnax_interop/frameworks/*") if not path.stem.startswith("_")}
FRAMEWORKS = FOLDERS - {"pytorch", "snntorch_releases"} | {"sinabs"}
OPTIONAL = {*FRAMEWORKS, "tonic", "nir"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "interop" if "snnax_interop" in path.parts else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, also by name (`require("x")`, `import_module("x")`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("require", "_require", "import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def forbidden(module: str, target: str) -> str | None:
    """Why `module` must not import `target`, or None."""
    top, *below = target.split(".")
    if target.startswith("__future__.annotations"):
        return "blinds the runtime checks of annotations"
    home = f"snnax_interop.frameworks.{top}"
    if top in FRAMEWORKS and module != home and not module.startswith(f"{home}."):
        return f"only snnax_interop.frameworks.{top} imports {top}"
    if module.split(".")[0] == "snnax_interop":
        private = top == "snnax" and any(part.startswith("_") and not part.startswith("__") for part in below)
        return "the bridge uses public names of snnax only" if private else None
    if top in {"torch", "snnax_interop", *OPTIONAL}:
        return "the core is free of torch and of the bridge"
    if top == "matplotlib" and module != "snnax.plot._axes":
        return "only snnax.plot._axes imports matplotlib"
    layer = ".".join(module.split(".")[1:2])
    if top != "snnax" or not layer:
        return None
    if layer not in LAYERS:
        return f"snnax.{layer} has no place in LAYERS of this test"
    allowed = {layer, *LAYERS[layer]}
    return None if below and below[0] in allowed else f"snnax.{layer} may import {sorted(allowed)} of snnax only"


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a file does that it must not do."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    found = [
        f"line {line}: {module} imports {target}: {reason}"
        for line, target in imported(tree, package)
        if (reason := forbidden(module, target))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            local = [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)]
            found += [f"line {inner.lineno}: an import inside the function {node.name}" for inner in local]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"line {node.lineno}: a library file prints")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_keeps_to_the_rules(path):
    assert violations(path.read_text(), module_name(path), path.name == "__init__.py") == []


def test_the_files_are_found():
    names = {module_name(path) for path in FILES}
    assert {"snnax", "snnax.snn._lif", "snnax.engine", "snnax_interop", "snnax_interop.errors"} <= names
    assert {name.split(".")[1] for name in names if name.startswith("snnax.")} == set(LAYERS)
    assert {"snntorch", "norse", "spikingjelly", "sinabs"} <= FRAMEWORKS


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("snnax.surrogate._a", "from ..snn import LIF", "snnax.surrogate may import"),
        ("snnax.surrogate._a", "from .. import engine", "snnax.surrogate may import"),
        ("snnax.surrogate._a", "import snnax", "snnax.surrogate may import"),
        ("snnax.engine._a", "import snnax.snn._lif", "snnax.engine may import"),
        ("snnax.engine._a", "from ..surrogate import ATan", "snnax.engine may import"),
        ("snnax.nowhere._a", "from ..snn import LIF", "no place in LAYERS"),
        ("snnax.snn._a", "import torch.nn", "free of torch"),
        ("snnax.snn._a", "from snnax_interop import from_torch", "free of torch"),
        ("snnax.snn._a", "if TYPE_CHECKING:\n    import torch", "free of torch"),
        ("snnax", "from . import snn\nimport nir", "free of torch"),
        ("snnax.plot._raster", "from matplotlib.figure import Figure", "only snnax.plot._axes imports matplotlib"),
        ("snnax_interop.convert", "import snntorch as snn", "only snnax_interop.frameworks.snntorch"),
        ("snnax_interop.convert", "require('norse', 'norse')", "only snnax_interop.frameworks.norse"),
        ("snnax_interop.convert", "importlib.import_module('sinabs.layers')", "only snnax_interop.frameworks.sinabs"),
        ("snnax_interop.frameworks.norse", "from spikingjelly import activation_based", "frameworks.spikingjelly"),
        ("snnax_interop.convert", "from snnax.engine._step import step", "public names"),
        ("snnax_interop.convert", "from __future__ import annotations", "blinds"),
        ("snnax_interop.convert", "def f():\n    import json", "inside the function f"),
        ("snnax.snn._a", "class A:\n    async def f(self):\n        from . import _lif", "inside the function f"),
        ("snnax.snn._a", "def f():\n    print(1)", "prints"),
    ],
)
def test_a_file_that_breaks_a_rule_is_found(module, source, message):
    found = violations(source, module, is_package="." not in module)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("snnax.snn._a", "from ..engine import step\nfrom ._lif import LIF\nimport jax"),
        ("snnax.engine._a", "from ._wiring import State\nfrom . import _step"),
        ("snnax", "from . import engine, snn"),
        ("snnax_interop.convert", "import torch\nfrom snnax import snn, __version__\nfrom .errors import InteropError"),
        ("snnax_interop.frameworks.norse", "import norse.torch"),
        ("snnax_interop.data", "def f():\n    '''>>> print(1)'''\n    return require('tonic', 'tonic')"),
    ],
)
def test_a_file_that_keeps_the_rules_is_let_through(module, source):
    assert violations(source, module, is_package="." not in module) == []


def loaded(statement: str) -> set[str]:
    """The top-level modules that a statement loads in a new process."""
    code = f"import sys; {statement}; sys.stdout.write(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_the_core_loads_neither_torch_nor_the_bridge():
    modules = loaded("import snnax")
    assert {"snnax", "jax", "equinox"} <= modules
    assert modules.isdisjoint({"torch", "snnax_interop", *OPTIONAL})


def test_importing_the_bridge_loads_no_framework_that_is_not_asked_for():
    modules = loaded("import snnax_interop")
    assert {"snnax_interop", "torch", "snnax"} <= modules
    assert modules.isdisjoint(OPTIONAL)


def test_a_loaded_module_is_seen():
    assert "decimal" in loaded("import decimal")
    with pytest.raises(AssertionError, match="No module named 'no_such_module'"):
        loaded("import no_such_module")
