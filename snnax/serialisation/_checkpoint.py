"""One tree in one file: save, load, and the metadata."""

import os
from typing import Any

import jax

from ._archive import ADVICE, HEADER, ArchiveReader, write_archive
from ._error import CheckpointError
from ._leaf import NUMBERS, LeafSpec, decode, decode_number, encode, leaf_spec, stored_dtype
from ._structure import Difference, first_difference, outline
from ._upgrade import from_version_1, from_version_2


FORMAT, VERSION = "snnax checkpoint", 3
File = str | os.PathLike[str]


def save(path: File, tree: Any, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a pytree to one file: a model, the state of an optimiser, keys, counters, or all of them in a dict.

    Arrays of every dtype of JAX, typed keys (`jax.random.key`) and Python numbers are stored exactly. Classes, static
    fields and functions are stored as descriptions only, which `load` compares (functions by name). The
    file appears at once or not at all: an interrupted save leaves an older file of the name as it was.

    >>> import tempfile, jax.numpy as jnp
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = folder.name + "/net.ckpt"
    >>> save(file, {"weight": jnp.arange(3), "step": 7}, metadata={"accuracy": 0.9})
    >>> load(file, {"weight": jnp.zeros(3, int), "step": 0})
    {'step': 7, 'weight': Array([0, 1, 2], dtype=int32)}
    >>> read_metadata(file)
    {'accuracy': 0.9}
    >>> folder.cleanup()

    **Arguments:** `path`: of the file; its folder exists. `tree`: any pytree of values; may hold arrays of any shape.
    `metadata`: a dict of JSON values, returned by `read_metadata` without reading the tree.

    **Raises:** `CheckpointError` naming the leaf for arrays that JAX does not have (objects, strings), for arrays of
    which this process holds only parts, for `jax.ShapeDtypeStruct` and where two leaves have the same path; and for
    metadata that JSON would change. `OSError` where the file cannot be written.
    """
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise CheckpointError(f"found a {type(metadata).__name__}, expected a dict", file=path, path="metadata")
    _check_json(metadata, "metadata", path)
    parts, leaves = outline(tree)
    records, arrays = [], {}
    for name, spec, leaf in leaves:
        try:
            value, array = encode(spec, leaf)
        # JAX raises RuntimeError for arrays that were donated.
        except (TypeError, RuntimeError) as error:
            raise CheckpointError(str(error), file=path, path=name or "the root") from error
        record = {"path": name, "kind": spec.kind, "value": value}
        if array is not None:
            member = f"{len(arrays)}.npy"
            arrays[member] = array
            record |= {"shape": spec.shape, "dtype": spec.dtype, "member": member}
        records.append(record)
    _check_unique([name for name, *_ in (*parts, *leaves)], path)
    header = {"format": FORMAT, "version": VERSION, "metadata": metadata, "structure": dict(parts), "leaves": records}
    write_archive(path, header, arrays)


def load(path: File, like: Any) -> Any:
    """Read a tree that `save` wrote.

    **Arguments:** `path`: of the file. `like`: a tree of the same structure, whose values are ignored: a new model, or
    its skeleton from `eqx.filter_eval_shape(make_model)`, where arrays are `jax.ShapeDtypeStruct`.

    **Returns:** a tree of the structure of `like`, with functions and static fields from there and all values from the
    file: numpy arrays where `like` has such, JAX arrays where it has JAX arrays or `jax.ShapeDtypeStruct`, numbers
    where it has numbers. A JAX array gets the sharding of the one in `like`, or the default device where that was put
    nowhere. Of several processes each loads the parts for its devices.

    **Raises:** `CheckpointError` where the file is damaged, where it is no checkpoint, and where `like` differs from
    what was saved in anything but values. Nothing is cast, dropped or filled in. `FileNotFoundError` without a file.

    Files of earlier versions of the format are read as well.
    """
    with ArchiveReader(path) as archive:
        header = _read_header(archive)
        structure, records = header["structure"], _read_records(header, path)
        if header["version"] == 1:
            structure, records = _upgraded(structure, records, path)
        parts, leaves = outline(like)
        if header["version"] < 3:
            structure = from_version_2(structure, dict(parts))
        found = structure, {name: spec for name, (spec, _) in records.items()}
        expected = dict(parts), {name: spec for name, spec, _ in leaves}
        difference = first_difference(found, expected)
        if difference is not None:
            raise _mismatch(difference, path)
        archive.check_members({record["member"] for _, record in records.values() if "member" in record})
        values = [_read_leaf(archive, name, leaf, *records[name]) for name, _, leaf in leaves]
    # Functions and other objects are leaves to JAX too; they stay what they are in `like`.
    remaining = iter(values)
    return jax.tree.map(lambda leaf: leaf if leaf_spec(leaf) is None else next(remaining), like)


def read_metadata(path: File) -> dict[str, Any]:
    """The `metadata` that a file was saved with; the tree is not read.

    **Raises:** `CheckpointError` for a damaged file and for what is no checkpoint.
    """
    with ArchiveReader(path) as archive:
        return _read_header(archive)["metadata"]


def _read_header(archive):
    """The JSON member, checked for its version and for the kinds of what it holds."""
    header = archive.read_json()
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"found a member {HEADER!r} of something else, expected a file that snnax.serialisation.save wrote",
            file=archive.file,
        )
    if header.get("version") not in (1, 2, VERSION):
        raise CheckpointError(
            f"found format version {header.get('version')!r}, expected at most {VERSION}; "
            "use the snnax version that wrote it",
            file=archive.file,
        )
    structure = header.get("structure")
    valid = isinstance(structure, dict) and all(isinstance(text, str) for text in structure.values())
    if not valid or not isinstance(header.get("metadata"), dict) or not isinstance(header.get("leaves"), list):
        raise CheckpointError(f"found an incomplete member {HEADER!r}; {ADVICE}", file=archive.file)
    return header


def _read_records(header, path):
    """The leaves that the file says it holds, by path."""
    records = {}
    for record in header["leaves"]:
        try:
            spec = LeafSpec(record["kind"], tuple(record.get("shape", ())), record.get("dtype", ""))
            name, member = record["path"], record.get("member", "")
            if name in records or not isinstance(name, str) or not isinstance(member, str):
                raise ValueError(f"path {name!r}, member {member!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"found a malformed leaf in the member {HEADER!r} ({error}); {ADVICE}"
            raise CheckpointError(message, file=path) from error
        records[name] = spec, record
    return records


def _upgraded(structure, records, path):
    try:
        return from_version_1(structure, records)
    except ValueError as error:
        raise CheckpointError(f"found a malformed member {HEADER!r} ({error}); {ADVICE}", file=path) from error


def _read_leaf(archive, name, like, spec, record):
    path = name or "the root"
    try:
        if spec.kind in NUMBERS.values():
            return decode_number(spec.kind, record.get("value"))
        dtype, shape = stored_dtype(like)
        array = archive.read_array(record["member"], shape, dtype, path)
        return decode(like, record.get("value"), array)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot make {spec} of it ({error}); {ADVICE}", file=archive.file, path=path) from error


def _mismatch(difference: Difference, path: File) -> CheckpointError:
    where = difference.path or "the root"
    if difference.found is None:
        text = f"found nothing in the file, expected {difference.expected}; load into the tree that was saved"
    elif difference.expected is None:
        text = f"found {difference.found}, which the given tree does not have; load into the tree that was saved"
    else:
        text = f"found {difference.found}, expected {difference.expected}; build the tree as it was when it was saved"
        if difference.found.endswith("64") and not difference.expected.endswith("64"):
            text += ", or enable 64 bits in JAX (jax_enable_x64)"
    return CheckpointError(text, file=path, path=where)


def _check_unique(names, path):
    seen = set()
    for name in names:
        if name in seen:
            message = "found two parts of the tree with this path, expected one; give the keys of dicts different reprs"
            raise CheckpointError(message, file=path, path=name)
        seen.add(name)


def _check_json(value, where, path):
    """Refuse what JSON would change (tuples, keys that are no strings) or cannot hold (arrays)."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _check_json(item, f"{where}[{key!r}]", path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]", path)
    elif value is not None and type(value) not in (str, int, float, bool):
        allowed = "a dict with string keys, list, str, int, float, bool or None"
        message = f"found a {type(value).__name__}, expected {allowed}; convert it or save it in the tree"
        raise CheckpointError(message, file=path, path=where)
