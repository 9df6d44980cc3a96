"""Who may import whom, read from the source of every file, and what an import really loads, seen in a new process."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("snnax/**/*.py"), *ROOT.glob("interop/snnax_interop/**/*.py")])
# The folders of snnax, and which others each may import: by their public names, never a private file of theirs.
_BELOW_SNN = {"domains", "surrogate", "engine"}
FOLDERS = {
    "domains": set(),
    "surrogate": {"domains"},
    "engine": set(),
    "snn.parts": _BELOW_SNN,
    "snn.neurons": {*_BELOW_SNN, "snn.parts"},
    "snn.layers": {*_BELOW_SNN, "snn.parts", "snn.neurons"},
    "snn.containers": {*_BELOW_SNN, "snn.parts", "snn.neurons", "snn.layers"},
    "snn": {*_BELOW_SNN, "snn.parts", "snn.neurons", "snn.layers", "snn.containers"},
    "encoding": set(),
    "losses": set(),
    "metrics": set(),
    "initialisation": {"engine", "snn"},
    "serialisation": set(),
    "events": set(),
    "plot": set(),
}
# Imported by interop/snnax_interop/frameworks/<name>.py or files in a folder <name>, and nowhere else.
_FILES = {path.stem for path in ROOT.glob("interop/snnax_interop/frameworks/*") if not path.stem.startswith("_")}
FRAMEWORKS = _FILES - {"pytorch", "snntorch_releases"} | {"sinabs"}
# The folders of the bridge, floor by floor from the top; imports go to lower floors, or stay in the folder.
FLOORS = (
    {"convert"},
    {"lower"},
    {"symbols", "verify", "checkpoint"},
    {"loops", "frameworks"},
    {"trace"},
    {"converters"},
    {"runtime"},
    {"nodes", "data"},
    {"ops", "transfer"},
    {"ir"},
    {"progress"},
    {"_core", "_optional"},
    {"errors"},
)
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
        if top == "snnax_interop":
            return upward(module, below)
        private = top == "snnax" and any(part.startswith("_") and not part.startswith("__") for part in below)
        return "the bridge uses public names of snnax only" if private else None
    if top in {"torch", "snnax_interop", *OPTIONAL}:
        return "the core is free of torch and of the bridge"
    if top == "matplotlib" and module != "snnax.plot._axes":
        return "only snnax.plot._axes imports matplotlib"
    folder, _ = home_of(module)
    if top != "snnax" or not folder:
        return None
    if folder not in FOLDERS:
        return f"snnax.{folder} has no place in FOLDERS of this test"
    allowed = {folder, *FOLDERS[folder]}
    if folder_of(target) not in allowed:
        return f"snnax.{folder} may import {sorted(allowed)} of snnax only"
    other, file = home_of(target)
    return f"{file} is a private file of snnax.{other}" if file and other != folder else None


def upward(module: str, below: list[str]) -> str | None:
    """Why a file of the bridge must not import another one, or None."""
    room = (module.split(".")[1:] or [""])[0]
    if not room or not below or below[0] == room:
        return None
    floors = {folder: number for number, floor in enumerate(FLOORS) for folder in floor}
    if room not in floors or below[0] not in floors:
        return f"{room if room not in floors else below[0]} has no place in FLOORS of this test"
    if floors[below[0]] > floors[room]:
        return None
    return f"imports go down: {below[0]} is no lower floor than {room}"


def home_of(module: str) -> tuple[str, str]:
    """The folder below snnax that holds a file, and the name of the file if it is a private one."""
    parts = module.split(".")[1:]
    for place, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            return ".".join(parts[:place]), part
    return ".".join(parts), ""


def folder_of(target: str) -> str | None:
    """The folder of FOLDERS that something imported is in."""
    parts = target.split(".")[1:]
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in FOLDERS), None)


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
    assert {"snnax", "snnax.snn.neurons._lif", "snnax.engine", "snnax_interop", "snnax_interop.errors"} <= names
    assert {"snntorch", "norse", "spikingjelly", "sinabs"} <= FRAMEWORKS
    assert {home_of(name)[0] for name in names if name.startswith("snnax.")} == {"", *FOLDERS}


def files_imported(sources: Mapping[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Which of the modules each imports, given their sources and whether they are packages."""
    edges: dict[str, set[str]] = {}
    for module, (source, is_package) in sources.items():
        edges[module] = set()
        for _, target in imported(ast.parse(source), module if is_package else module.rpartition(".")[0]):
            while target not in sources and "." in target:
                target = target.rpartition(".")[0]
            edges[module] |= {target} & set(sources)
    return edges


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where there is no circle."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_of_the_core_import_each_other_in_a_circle():
    files = [path for path in FILES if "snnax_interop" not in path.parts]
    edges = files_imported({module_name(path): (path.read_text(), path.name == "__init__.py") for path in files})
    assert {"snnax.snn.parts", "snnax.snn.neurons._neuron"} <= edges["snnax.snn.neurons._lif"] | edges[
        "snnax.snn.neurons._leaky"
    ]
    assert circle(edges) == []


def test_no_files_of_the_bridge_import_each_other_in_a_circle():
    files = [path for path in FILES if "snnax_interop" in path.parts]
    edges = files_imported({module_name(path): (path.read_text(), path.name == "__init__.py") for path in files})
    assert "snnax_interop.ir.regions" in edges["snnax_interop.symbols.unify"]
    assert circle(edges) == []


def test_a_circle_is_found():
    sources = {
        "a": ("from . import b", True),
        "a.b": ("from .c import name", True),
        "a.c": ("import math", True),
        "a.b.c": ("from ..d import other", False),
        "a.d": ("from .b import thing", False),
    }
    assert files_imported(sources) == {"a": {"a.b"}, "a.b": {"a.b.c"}, "a.c": set(), "a.b.c": {"a.d"}, "a.d": {"a.b"}}
    assert set(circle(files_imported(sources))) == {"a.b", "a.b.c", "a.d"}
    assert circle(files_imported({**sources, "a.d": ("", False)})) == []
    assert circle(files_imported({"a": ("from . import name", True)})) == ["a", "a"]


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("snnax.surrogate._a", "from ..snn import LIF", "snnax.surrogate may import"),
        ("snnax.surrogate._a", "from .. import engine", "snnax.surrogate may import"),
        ("snnax.surrogate._a", "import snnax", "snnax.surrogate may import"),
        ("snnax.engine._a", "import snnax.snn.neurons._lif", "snnax.engine may import"),
        ("snnax.engine._a", "from ..surrogate import ATan", "snnax.engine may import"),
        ("snnax.nowhere._a", "from ..snn import LIF", "no place in FOLDERS"),
        ("snnax.snn.nowhere._a", "from ..parts import Firing", "no place in FOLDERS"),
        ("snnax.snn.parts._a", "from ..neurons import LIF", "snnax.snn.parts may import"),
        ("snnax.snn.parts._a", "from ... import snn", "snnax.snn.parts may import"),
        ("snnax.snn.neurons._a", "from ..layers import Recurrent", "snnax.snn.neurons may import"),
        ("snnax.snn.neurons._a", "from .. import LIF", "snnax.snn.neurons may import"),
        ("snnax.snn.layers._a", "from ..containers import Sequential", "snnax.snn.layers may import"),
        ("snnax.snn.layers._a", "import snnax.snn.containers._graph", "snnax.snn.layers may import"),
        ("snnax.snn.containers._a", "from ...losses import mse_count", "snnax.snn.containers may import"),
        ("snnax.snn.neurons._a", "from ..parts._firing import Firing", "_firing is a private file of snnax.snn.parts"),
        ("snnax.initialisation._a", "from ..engine._step import step", "_step is a private file of snnax.engine"),
        ("snnax.snn.neurons._a", "import torch.nn", "free of torch"),
        ("snnax.snn.neurons._a", "from snnax_interop import from_torch", "free of torch"),
        ("snnax.snn.neurons._a", "if TYPE_CHECKING:\n    import torch", "free of torch"),
        ("snnax", "from . import snn\nimport nir", "free of torch"),
        ("snnax.plot._raster", "from matplotlib.figure import Figure", "only snnax.plot._axes imports matplotlib"),
        ("snnax_interop.ir.program", "from ..lower import calls", "lower is no lower floor than ir"),
        (
            "snnax_interop.loops.roll",
            "from ..frameworks import registry_for",
            "frameworks is no lower floor than loops",
        ),
        ("snnax_interop.trace.record", "from ..nowhere import a", "nowhere has no place in FLOORS"),
        ("snnax_interop.convert", "import snntorch as snn", "only snnax_interop.frameworks.snntorch"),
        ("snnax_interop.convert", "require('norse', 'norse')", "only snnax_interop.frameworks.norse"),
        ("snnax_interop.convert", "importlib.import_module('sinabs.layers')", "only snnax_interop.frameworks.sinabs"),
        ("snnax_interop.frameworks.norse", "from spikingjelly import activation_based", "frameworks.spikingjelly"),
        ("snnax_interop.convert", "from snnax.engine._step import step", "public names"),
        ("snnax_interop.convert", "from __future__ import annotations", "blinds"),
        ("snnax_interop.convert", "def f():\n    import json", "inside the function f"),
        (
            "snnax.snn.neurons._a",
            "class A:\n    async def f(self):\n        from . import _lif",
            "inside the function f",
        ),
        ("snnax.snn.neurons._a", "def f():\n    print(1)", "prints"),
    ],
)
def test_a_file_that_breaks_a_rule_is_found(module, source, message):
    found = violations(source, module, is_package="." not in module)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("snnax.snn.neurons._a", "from ...engine import step\nfrom ._lif import LIF\nimport jax"),
        ("snnax.snn.layers._a", "from ..parts import Firing\nfrom ..neurons import LIF\nfrom ... import engine"),
        ("snnax.snn.containers._a", "from ..layers import Recurrent\nfrom ...surrogate import ATan"),
        ("snnax.initialisation._a", "from .. import snn\nfrom ..snn import LIF"),
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
