"""Every example in a docstring runs and is true."""

import ast
import doctest
import importlib
import inspect
import pkgutil

import pytest

import snnax


pytestmark = pytest.mark.full


MODULES = ["snnax", *(module.name for module in pkgutil.walk_packages(snnax.__path__, "snnax."))]


def examples(module):
    """The tests of all docstrings, read from the source: the annotation checks wrap functions, and hide them so."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    named = {
        getattr(node, "name", module.__name__): ast.get_docstring(node)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    parse = doctest.DocTestParser().get_doctest
    return [parse(text, dict(vars(module)), name, module.__file__, None) for name, text in named.items() if text]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    module = importlib.import_module(name)
    tests = examples(module)
    written = sum(line.strip().startswith(">>> ") for line in inspect.getsource(module).splitlines())
    assert sum(len(test.examples) for test in tests) == written, "an example was not found"
    for test in tests:
        report = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert result.failed == 0, "".join(report)


def test_there_are_examples():
    assert sum(len(examples(importlib.import_module(name))) for name in MODULES) >= 10


def test_a_false_example_is_found():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "false", None, None)
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed == 1
