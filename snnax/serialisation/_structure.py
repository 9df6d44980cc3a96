"""What a tree is apart from its values: classes, static fields and functions by their paths.

Everything is described by text, which can be compared between processes and machines: objects without their addresses,
functions and classes by their public names. Two functions of one name are taken for the same.
"""

import dataclasses
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ._leaf import LeafSpec, leaf_spec


Parts = tuple[dict[str, str], dict[str, LeafSpec]]
MISSING = object()
LIBRARY = __name__.partition(".")[0]


def outline(tree: Any) -> tuple[list[tuple[str, str]], list[tuple[str, LeafSpec, Any]]]:
    """What a tree consists of: path and description of every node and static part; path, kind and value of all leaves.

    >>> parts, leaves = outline({"a": (1.0, None), "b": abs})
    >>> parts
    [('', 'dict'), ("['a']", 'tuple'), ("['a'][1]", 'None'), ("['b']", 'builtins.abs')]
    >>> [(path, str(spec), value) for path, spec, value in leaves]
    [("['a'][0]", 'a Python float', 1.0)]
    """
    parts, leaves = [], []
    _walk(tree, (), parts, leaves)
    return parts, leaves


def _walk(node, path, parts, leaves):
    name = jax.tree_util.keystr(path)
    spec = leaf_spec(node)
    if spec is not None:
        leaves.append((name, spec, node))
        return
    children, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if [keys for keys, _ in children] == [()]:
        parts.append((name, describe(node)))
        return
    parts.append((name, "None" if node is None else class_name(type(node))))
    keys = [key for (key,), _ in children]
    parts.extend((name + static, describe(value)) for static, value in _static_parts(node, keys, treedef))
    for (key,), child in children:
        _walk(child, (*path, key), parts, leaves)


def _static_parts(node: Any, keys: list[Any], treedef: Any) -> Iterator[tuple[str, Any]]:
    """What a node holds beside its children: static fields by name, or the auxiliary data of its registration."""
    if dataclasses.is_dataclass(node) and all(isinstance(key, jax.tree_util.GetAttrKey) for key in keys):
        dynamic = {key.name for key in keys}
        yield from ((f".{name}", value) for name, value in _fields(node) if name not in dynamic)
    # The auxiliary data of dicts are their keys, which the paths of the children show.
    elif node is not None and not isinstance(node, tuple | list | dict):
        yield ".<static>", treedef.node_data()[1]


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that are set."""
    for field in dataclasses.fields(value):
        found = getattr(value, field.name, MISSING)
        if found is not MISSING:
            yield field.name, found


def describe(value: Any) -> str:
    """A text that is the same in every process for the same static value.

    >>> describe((1, "a", abs, functools.partial(sorted, reverse=True)))
    "(1, 'a', builtins.abs, functools.partial(builtins.sorted, reverse=True))"
    >>> describe(object())
    '<object object>'
    """
    if isinstance(value, functools.partial):
        options = [f"{name}={describe(option)}" for name, option in value.keywords.items()]
        return f"functools.partial({', '.join([*map(describe, (value.func, *value.args)), *options])})"
    if isinstance(value, np.ndarray | jax.Array):
        digest = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:16]
        return f"array of shape {value.shape}, dtype {value.dtype} and SHA-256 {digest}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{class_name(type(value))}({', '.join(f'{name}={describe(item)}' for name, item in _fields(value))})"
    if isinstance(value, tuple | list | set | frozenset):
        items = map(describe, value) if isinstance(value, tuple | list) else sorted(map(describe, value))
        body = ", ".join(items)
        if type(value) is tuple:
            return f"({body},)" if len(value) == 1 else f"({body})"
        return f"{class_name(type(value))}({body})"
    if isinstance(value, Mapping):
        items = ", ".join(f"{describe(key)}: {describe(item)}" for key, item in value.items())
        return f"{class_name(type(value))}({items})"
    if callable(value) and (getattr(value, "__qualname__", None) or getattr(value, "__name__", None)):
        return class_name(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def class_name(value: Any) -> str:
    """The public name of a class or function: that of its module without private files, `snnax.snn.LIF`.

    A module that moves to another private file keeps its checkpoints, and so does one of this library that moves to
    another folder below `snnax.snn`, where all public names are. What a script defines has the name that it has when
    the script is imported.
    """
    name = getattr(value, "__qualname__", None) or value.__name__
    module = getattr(value, "__module__", None) or ""
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file is not None else module
    public = [part for part in module.split(".") if not part.startswith("_") or part == "__main__"]
    if public[:1] == [LIBRARY]:
        public = public[:2]
    builtin = isinstance(value, type) and module == "builtins"
    return name if builtin else ".".join([*public, name])


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where two trees differ first; `found` or `expected` is None where one of them has nothing there."""

    path: str
    found: str | None
    expected: str | None


def first_difference(found: Parts, expected: Parts) -> Difference | None:
    """Where two outlines, each a dict of parts and one of leaves by path, differ first.

    Other classes and static fields come before missing and unexpected leaves, and these before other shapes and dtypes:
    the cause before its consequences.
    """
    ours, theirs = {**expected[0], **expected[1]}, {**found[0], **found[1]}
    shared = [path for path in ours if path in theirs]
    other_nodes = [path for path in shared if path in expected[0] or path in found[0]]
    # A leaf before a node without one: the leaf is what somebody misses.
    missing = [path for path in (*expected[1], *expected[0]) if path not in theirs]
    unexpected = [path for path in (*found[1], *found[0]) if path not in ours]
    for path in (*other_nodes, *missing, *unexpected, *shared):
        if ours.get(path) != theirs.get(path):
            return Difference(path, _text(theirs.get(path)), _text(ours.get(path)))
    return None


def _text(part: str | LeafSpec | None) -> str | None:
    return None if part is None else str(part)
