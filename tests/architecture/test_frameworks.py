"""What the bridge knows of a framework is in that framework's record, and nothing is loaded that is not used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from .test_imports import FRAMEWORKS


BRIDGE = Path(__file__).parents[2] / "interop" / "snnax_interop"
NEUTRAL = sorted(path for path in BRIDGE.glob("**/*.py") if BRIDGE / "frameworks" not in path.parents)
# The packages, and the options of their neurons that the bridge asks for by name.
WORDS = (*FRAMEWORKS, "spike_grad", "surrogate_function")
# Text that names a framework to its users, by file: none so far. Docstrings and comments may.
MESSAGES: dict[str, frozenset[str]] = {}


def named(source: str, messages: frozenset[str] = frozenset()) -> list[str]:
    """The lines of code that name a framework, outside of docstrings and of the given messages."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    found = []
    for node in ast.walk(tree):
        texts = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        if id(node) in docstrings or (messages.issuperset(texts) and texts):
            continue
        found += [
            f"line {getattr(node, 'lineno', 0)}: {text}"
            for text in texts
            if any(word in text.lower() for word in WORDS)
        ]
    return found


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda path: str(path.relative_to(BRIDGE)))
def test_a_neutral_file_names_no_framework(path):
    assert named(path.read_text(), MESSAGES.get(str(path.relative_to(BRIDGE)), frozenset())) == []


@pytest.mark.parametrize("folder", ["converters", "checkpoint", "runtime", "verify", "frameworks"])
def test_classes_are_told_by_what_they_are_and_not_by_what_they_have(folder):
    found = [
        f"{path.name}:{node.lineno}"
        for path in sorted(BRIDGE.glob(f"{folder}/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "hasattr"
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "messages", "count"),
    [
        ("import snntorch", (), 1),
        ("from .frameworks import norse as n", (), 1),
        ("'''Of Norse.'''\nclass A:\n    '''Of sinabs.'''\n    def f(self):\n        '''Of Norse.'''", (), 0),
        ("def f(x):\n    return x.spike_grad", (), 1),
        ("def f(x):\n    return getattr(x, 'surrogate_function')", (), 1),
        ("x = source.startswith('snntorch.')", (), 1),
        ("def norse_of(x): ...", (), 1),
        ("f(sinabs=1)", (), 1),
        ("x = 'snnTorch has no such key'", ("snnTorch has no such key",), 0),
        ("x = 'snnTorch has no such key'", ("another",), 1),
        ("x = 1  # as in SpikingJelly", (), 0),
    ],
)
def test_a_framework_that_is_named_is_found(source, messages, count):
    assert len(named(source, frozenset(messages))) == count


def test_every_framework_is_known_by_its_package():
    found = in_new_process(
        "from snnax_interop.frameworks import KNOWN; print(*KNOWN, *(k.module for k in KNOWN.values()))"
    )
    names, modules = found[: len(found) // 2], found[len(found) // 2 :]
    assert {module.removeprefix(".") for module in modules} == FRAMEWORKS - {"sinabs"} | {"pytorch"}
    for name, module in zip(names, modules, strict=True):
        framework = importlib.import_module(module, "snnax_interop.frameworks").FRAMEWORK
        assert framework.name == name
        assert {each.framework for each in framework.converters.values()} == {name}
        assert all(kind is each.kind for kind, each in framework.converters.items())
        assert {kind.__module__.split(".")[0] for kind in framework.converters} == {name}


def test_a_framework_is_loaded_with_the_first_network_of_it():
    code = """
import sys, torch
from snnax_interop.frameworks import registry_for
print(*sorted({'snntorch', 'norse', 'spikingjelly'} & set(sys.modules)), 'before')
registry_for(torch.nn.Linear(1, 1))
print(*sorted({'snntorch', 'norse', 'spikingjelly'} & set(sys.modules)), 'after')
import snntorch
registry = registry_for(snntorch.Leaky(beta=0.9))
print(*(each.name for each in registry.frameworks), *sorted({'norse', 'spikingjelly'} & set(sys.modules)))
"""
    assert in_new_process(code) == ["before", "after", "torch", "snntorch"]


def in_new_process(code: str) -> list[str]:
    """The words that a program prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()
