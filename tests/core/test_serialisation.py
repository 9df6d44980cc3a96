"""A checkpoint comes back exactly or not at all."""

import collections
import dataclasses
import enum
import functools
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from snnax import engine, snn, surrogate
from snnax.serialisation import CheckpointError, Checkpoints, load, read_metadata, save
from snnax.serialisation._structure import class_name
from snnax.serialisation._temporary import open_temporary


# Runs are compared to the bit with those of other processes, which are optimised.
pytestmark = pytest.mark.usefixtures("optimised")


class Pair(NamedTuple):
    first: Any
    second: Any


class Colour(enum.IntEnum):
    RED = 1


class Block(eqx.Module):
    weight: jax.Array
    layers: Any
    name: str = eqx.field(static=True, default="block")


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass
class Unnamed:
    """A dataclass whose registration gives its children no names."""

    value: Any
    power: int

    def tree_flatten(self):
        return (self.value,), self.power

    @classmethod
    def tree_unflatten(cls, power, children):
        return cls(children[0], power)


def arrays(*dtypes):
    """One array per dtype whose bits are all different, among them NaN, infinities and subnormal numbers."""
    bits = np.random.default_rng(0).integers(0, 256, 16 * 16, np.uint8)
    return [jnp.asarray(bits.view(dtype) if dtype is not bool else bits > 127) for dtype in dtypes]


SPECIAL = [0.1, -0.0, 5e-324, float("inf"), float("-inf"), float("nan"), 1.7976931348623157e308]
TREES = {
    "one array": lambda: jnp.arange(3.0),
    "one number": lambda: 3,
    "nothing": lambda: None,
    "no leaves": lambda: {"a": [], "b": ((), {}), "c": None},
    "nested": lambda: {"a": [jnp.ones(2), (jnp.zeros((2, 3)), {"b": 1})], "c": Pair(jnp.arange(2), [None, 2.5])},
    "modules": lambda: Block(jnp.ones(2), [Block(jnp.zeros((1, 2)), (jnp.tanh, abs), "inner"), eqx.nn.Identity()]),
    "no axes, and no elements": lambda: [jnp.float32(1.5), jnp.zeros((0,)), jnp.zeros((2, 0, 3), jnp.int8)],
    "floats": lambda: arrays(jnp.float32, jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2),
    "integers": lambda: arrays(jnp.int8, jnp.int16, jnp.int32, jnp.uint8, jnp.uint16, jnp.uint32, bool),
    "four bits": lambda: [jnp.arange(-8, 8, dtype=jnp.int4), jnp.arange(16, dtype=jnp.uint4)],
    "complex": lambda: [*arrays(jnp.complex64), 1 + 2j, complex("nan-infj")],
    "keys": lambda: [jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), (2, 3)), jax.random.PRNGKey(3)],
    "numbers": lambda: [*SPECIAL, True, False, 0, -1, 2**63, -(10**50), 1 << 20_000],
    "numpy": lambda: [np.arange(3), np.float64(0.1), np.array(2.5), np.asfortranarray(np.ones((2, 3), np.float32))],
    "numpy, of the other byte order": lambda: [np.arange(3, dtype=">i4")],
    "numpy views": lambda: [np.arange(10)[::-2], np.arange(6.0).reshape(2, 3).T, np.array(1, ml_dtypes.bfloat16)],
    "dicts": lambda: {
        "o": collections.OrderedDict(b=1, a=2),
        "d": collections.defaultdict(list, x=jnp.ones(1)),
        "i": {0: 1},
    },
    "partial": lambda: [
        jax.tree_util.Partial(jnp.add, jnp.ones(2)),
        functools.partial(sorted, reverse=True),
        Colour.RED,
    ],
    "unnamed children": lambda: Unnamed(jnp.ones(2), 3),
    "graph": lambda: snn.Graph(
        {"fc": eqx.nn.Linear(2, 3, key=jax.random.key(0)), "lif": snn.LIF(3, 0.9, v_leak=None)},
        {"fc": "input", "lif": "fc"},
        "lif",
    ),
    "stateful": lambda: eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch"),
    "ensemble": lambda: eqx.filter_vmap(lambda key: eqx.nn.MLP(2, 3, 4, 1, key=key))(
        jax.random.split(jax.random.key(0), 5)
    ),
    "hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(1e-3).init(jnp.ones(2)),
    "parts": lambda: optax.multi_transform({"a": optax.adam(0.1), "b": optax.set_to_zero()}, {"w": "a", "v": "b"}).init(
        {"w": jnp.ones(2), "v": jnp.ones(3)}
    ),
    "a method": lambda: eqx.filter_jit(network()[1].init_state),
    "optimiser": lambda: optax.adamw(optax.linear_schedule(1e-3, 0, 10)).init({"w": jnp.ones(3)}),
    "strange names": lambda: {"../../etc/passwd": jnp.ones(1), "ünï 'cödé'\n": 1, "a.npy": jnp.zeros(1)},
}


def bits(leaf):
    """Type and content of a leaf, equal for equal bits only."""
    if eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", str(leaf.dtype), bits(jax.random.key_data(leaf))
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        kind = "jax" if isinstance(leaf, jax.Array) else type(leaf)
        return kind, leaf.shape, np.dtype(leaf.dtype), np.asarray(leaf).tobytes()
    return type(leaf), hex(leaf) if isinstance(leaf, int) else repr(leaf)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert list(map(bits, jax.tree.leaves(found))) == list(map(bits, jax.tree.leaves(expected)))


def blank(tree):
    """Another tree of the same structure without any of the values."""
    empty = {bool: False, int: 0, float: 0.0, complex: 0j}

    def without(leaf):
        if eqx.is_array(leaf) and isinstance(leaf, jax.Array):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        if isinstance(leaf, np.ndarray | np.generic):
            return np.zeros_like(leaf)[()] if isinstance(leaf, np.generic) else np.zeros_like(leaf)
        return empty.get(type(leaf), leaf)

    return jax.tree.map(without, tree)


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_exactly(tmp_path, name):
    tree = TREES[name]()
    save(tmp_path / "tree", tree)
    assert_same(load(tmp_path / "tree", tree), tree)
    assert_same(load(tmp_path / "tree", blank(tree)), tree)


@pytest.mark.parametrize("enabled", [True, False])
def test_64_bits_come_back_exactly_whether_they_are_enabled_or_not(tmp_path, enabled):
    with jax.enable_x64(True):
        tree = [jnp.float64(0.1), jnp.arange(3) + 2**40, jnp.array([1e-300 + 1j]), jnp.uint64(2**64 - 1)]
    save(tmp_path / "tree", tree)
    with jax.enable_x64(enabled):
        assert_same(load(tmp_path / "tree", blank(tree)), tree)


def test_weak_types_make_no_difference(tmp_path):
    weak = jnp.asarray(2.0)
    assert weak.weak_type
    save(tmp_path / "tree", weak)
    assert_same(load(tmp_path / "tree", jnp.zeros((), jnp.float32)), weak)


def test_a_numpy_array_of_the_result_can_be_written_to(tmp_path):
    save(tmp_path / "tree", np.arange(3))
    loaded = load(tmp_path / "tree", np.zeros(3, int))
    loaded[0] = 7
    assert loaded.tolist() == [7, 1, 2]


def test_the_file_is_plain_numpy_and_does_not_depend_on_the_time(tmp_path, monkeypatch):
    save(tmp_path / "a.npz", {"x": jnp.arange(3), "y": jnp.ones((2, 2))}, metadata={"a": 1})
    monkeypatch.setattr(time, "time", lambda: 1e9)
    save(tmp_path / "b.npz", {"x": jnp.arange(3), "y": jnp.ones((2, 2))}, metadata={"a": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["0"].tolist() == [0, 1, 2]
        assert file["1"].shape == (2, 2)


def test_metadata_come_back_without_the_tree(tmp_path):
    metadata = {"accuracy": 0.1, "names": ["a", None, True], "nested": {"": 1}}
    save(tmp_path / "tree", jnp.ones(3), metadata=metadata)
    assert read_metadata(tmp_path / "tree") == metadata
    save(tmp_path / "tree", jnp.ones(3))
    assert read_metadata(tmp_path / "tree") == {}


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ([1], "metadata"),
        ({"a": (1,)}, r"metadata\['a'\]"),
        ({"a": {1: 2}}, r"metadata\['a'\]"),
        ({"a": [np.float32(1)]}, r"metadata\['a'\]\[0\]"),
        ({"a": jnp.ones(2)}, r"metadata\['a'\]"),
    ],
)
def test_metadata_that_json_would_change_are_refused(tmp_path, unchecked, metadata, where):
    with pytest.raises(CheckpointError, match=f"at {where}: found a [a-zA-Z0-9]*, expected a dict"):
        save(tmp_path / "tree", 1, metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def donated():
    array = jnp.arange(3.0)
    array.delete()
    return array


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: np.array([None, {}]), "dtype object, expected a dtype that JAX has"),
        (lambda: np.array(["text"]), "dtype <U4, expected a dtype that JAX has"),
        (lambda: np.zeros(2, [("a", "f4")]), "expected a dtype that JAX has"),
        (lambda: np.array("2020-01-01", "datetime64[D]"), "expected a dtype that JAX has"),
        (lambda: jax.ShapeDtypeStruct((2,), jnp.float32), "found a jax.ShapeDtypeStruct, expected values"),
        (donated, "has been deleted"),
    ],
)
def test_a_leaf_that_cannot_be_stored_is_refused_and_leaves_the_old_file(tmp_path, leaf, message):
    save(tmp_path / "tree", {"a": 1})
    with pytest.raises(CheckpointError, match=rf"tree: at \['a'\]\[1\]: .*{message}"):
        save(tmp_path / "tree", {"a": [1, leaf()]})
    assert load(tmp_path / "tree", {"a": 0}) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["tree"]


def test_leaves_of_one_path_are_refused(tmp_path):
    class Same:
        def __repr__(self):
            return "same"

        def __lt__(self, other):
            return id(self) < id(other)

    with pytest.raises(CheckpointError, match=r"at \[same\]: found two parts of the tree with this path"):
        save(tmp_path / "tree", {Same(): 1, Same(): 2})


def network(size=3, inputs=4, **options):
    return snn.Sequential(eqx.nn.Linear(inputs, size, key=jax.random.key(0)), snn.LIF(size, 0.9, **options))


OTHERS = {
    "reset": (lambda: network(reset="zero"), r"\.layers\[1\]\.firing\.reset", "'subtract'", "'zero'"),
    "shape": (lambda: network(size=5), r"\.layers\[0\]\.out_features", "3", "5"),
    "class": (
        lambda: snn.Sequential(network()[0], snn.LI(3, 0.9)),
        r"\.layers\[1\]",
        r"snnax\.snn\.LIF",
        r"snnax\.snn\.LI",
    ),
    "function": (lambda: snn.Sequential(network()[0], jax.nn.relu), r"\.layers\[1\]", "snnax.snn.LIF", "jax.nn.*relu"),
    "surrogate": (
        lambda: network(surrogate=surrogate.ATan()),
        r"\.layers\[1\]\.firing\.surrogate",
        "snnax.surrogate.SuperSpike",
        "snnax.surrogate.ATan",
    ),
    "missing leaf": (
        lambda: snn.Sequential(*network(), eqx.nn.PReLU()),
        r"\.layers\[2\]\.negative_slope",
        "nothing in the file",
        r"array of shape \(\) and dtype float32",
    ),
    "unexpected leaf": (
        lambda: network()[:1],
        r"\.layers\[1\]\.integration\.decay_mem\.value",
        r"array of shape \(\) and dtype float32",
        None,
    ),
    "None for a leaf": (
        lambda: eqx.tree_at(lambda model: model.layers[0].bias, network(), None),
        r"\.layers\[0\]\.bias",
        r"array of shape \(3,\) and dtype float32",
        "None",
    ),
    "wrong shape": (
        lambda: eqx.tree_at(lambda model: model.layers[0].bias, network(), jnp.zeros(4)),
        r"\.layers\[0\]\.bias",
        r"array of shape \(3,\) and dtype float32",
        r"array of shape \(4,\) and dtype float32",
    ),
    "wrong dtype": (
        lambda: eqx.tree_at(lambda model: model.layers[0].bias, network(), jnp.zeros(3, jnp.bfloat16)),
        r"\.layers\[0\]\.bias",
        r"array of shape \(3,\) and dtype float32",
        r"array of shape \(3,\) and dtype bfloat16",
    ),
    "a number": (
        lambda: eqx.tree_at(lambda model: model.layers[0].bias, network(), 1.0),
        r"\.layers\[0\]\.bias",
        r"array of shape \(3,\) and dtype float32",
        "a Python float",
    ),
    "the whole tree": (lambda: [network()], "the root", "snnax.snn.Sequential", "list"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_tree_of_another_structure_is_refused(tmp_path, name):
    other, where, found, expected = OTHERS[name]
    save(tmp_path / "tree", network())
    finding = f"found {found}, " + (
        "which the given tree does not have" if expected is None else f"expected {expected};"
    )
    with pytest.raises(CheckpointError, match=f"tree: at {where}: {finding}") as error:
        load(tmp_path / "tree", other())
    assert error.value.file == str(tmp_path / "tree")
    assert error.value.path in str(error.value)


@pytest.mark.parametrize(
    ("saved", "like", "message"),
    [
        (1, 1.0, "found a Python int, expected a Python float"),
        (1, True, "found a Python int, expected a Python bool"),
        (1, np.int64(1), "found a Python int, expected array of shape"),
        (np.float64(1), np.float32(1), r"dtype float64, expected .* dtype float32; .* enable 64 bits in JAX"),
        (np.float32(1), np.float64(1), r"dtype float32, expected .* dtype float64; build the tree as it was"),
        ("a", "b", "found 'a', expected 'b'"),
        (abs, len, "found builtins.abs, expected builtins.len"),
        (functools.partial(max, 1), functools.partial(max, 2), r"max, 1\), expected .*max, 2\)"),
        (jax.random.key(0), jax.random.key(0, impl="rbg"), r"dtype key<fry>, expected .* key<rbg>"),
        (jax.random.PRNGKey(0), jax.random.key(0), r"dtype uint32, expected key of shape \(\)"),
        ([1], (1,), "found list, expected tuple"),
        ([1], [1, 2], r"at \[1\]: found nothing in the file, expected a Python int"),
        ({"a": 1}, {"b": 1}, r"at \['b'\]: found nothing in the file"),
        ({"a": 1, "c": 1}, {"a": 1}, r"at \['c'\]: found a Python int, which the given tree does not have"),
        ({"a": ()}, {}, r"at \['a'\]: found tuple, which"),
        (Unnamed(1, 2), Unnamed(1, 3), r"at .<static>: found 2, expected 3"),
    ],
)
def test_nothing_is_cast_dropped_or_filled_in(tmp_path, saved, like, message):
    save(tmp_path / "tree", saved)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "tree", like)


def members(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file, content):
    """A zip file of these members, with whatever is in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of duplicates
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content:
                archive.writestr(name, data)


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


TREE = {"a": jnp.arange(40.0), "b": [jnp.ones((2, 3), jnp.int8), 5]}


def changed(file, change):
    """The checkpoint of TREE with its members changed."""
    save(file, TREE)
    content = members(file)
    content = change(content) or content
    write(file, content.items() if isinstance(content, dict) else content)


def header(**entries):
    def change(content):
        content["checkpoint.json"] = json.dumps(json.loads(content["checkpoint.json"]) | entries)

    return change


def leaf(index, **entries):
    def change(content):
        read = json.loads(content["checkpoint.json"])
        read["leaves"][index] |= entries
        content["checkpoint.json"] = json.dumps(read)

    return change


def member(name, data):
    return lambda content: content | {name: data}


HUGE = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(127) + b"\n"
)
HOSTILE = {
    "objects": (member("0.npy", npy(np.array([print], object))), r"at \['a'\]: found .*'\|O'.* expected .*'<f4'"),
    "an absurd shape": (member("0.npy", HUGE), r"at \['a'\]: found a member .*1000000000000000.* expected .*\(40,\)"),
    "another dtype": (member("0.npy", npy(np.arange(40))), r"at \['a'\]: found a member"),
    "too little": (lambda c: c | {"0.npy": c["0.npy"][:-1]}, r"at \['a'\]: found 159 bytes .* expected 160"),
    "too much": (lambda c: c | {"0.npy": c["0.npy"] + b"0"}, r"at \['a'\]: found 161 bytes .* expected 160"),
    "no data": (member("1.npy", b""), r"at \['b'\]\[0\]: found a member '1.npy' that begins with b''"),
    "a member fewer": (lambda c: {k: v for k, v in c.items() if k != "1.npy"}, r"at \['b'\]\[0\]: cannot read"),
    "a member more": (member("../../evil", b""), r"found members that no leaf owns: \['../../evil'\]"),
    "a member twice": (lambda c: [*c.items(), ("0.npy", c["1.npy"])], "found the member '0.npy' twice"),
    "no header": (lambda c: {"0.npy": c["0.npy"]}, "found a zip file without the member 'checkpoint.json'"),
    "no JSON": (member("checkpoint.json", b"\xff{"), "cannot read the member 'checkpoint.json'"),
    "deep JSON": (member("checkpoint.json", b"[" * 100_000), "cannot read the member 'checkpoint.json'"),
    "other JSON": (member("checkpoint.json", b"[1]"), "of something else"),
    "a newer version": (header(version=4), "found format version 4, expected at most 3; use the snnax"),
    "no version": (header(version=None), "found format version None, expected at most 3"),
    "another format": (header(format="other"), "of something else"),
    "no structure": (header(structure=[]), "found an incomplete member"),
    "no metadata": (header(metadata=None), "found an incomplete member"),
    "no leaves": (header(leaves=[]), r"at \['a'\]: found nothing in the file"),
    "odd leaves": (header(leaves=[[]]), "found a malformed leaf"),
    "a negative size": (leaf(0, shape=[-40]), "found a malformed leaf"),
    "a size that is none": (leaf(0, shape=[40.0]), "found a malformed leaf"),
    "an absurd size": (leaf(0, shape=[10**30]), r"at \['a'\]: found array of shape \(10{30},\)"),
    "an odd kind": (leaf(0, kind="pickle"), "found a malformed leaf"),
    "an odd member": (leaf(0, member=[]), "found a malformed leaf"),
    "a path twice": (leaf(1, path="['a']"), "found a malformed leaf"),
    "a path that is none": (leaf(1, path=None), "found a malformed leaf"),
    "an odd number": (leaf(2, value="__import__('os')"), r"at \['b'\]\[1\]: cannot make a Python int of it"),
    "a number that is none": (leaf(2, value=None), r"at \['b'\]\[1\]: cannot make a Python int of it"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_was_tampered_with_is_refused(tmp_path, unchecked, name):
    change, message = HOSTILE[name]
    changed(tmp_path / "tree", change)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "tree", TREE)


def test_the_changed_files_are_refused_for_their_changes(tmp_path):
    changed(tmp_path / "tree", lambda content: None)
    assert_same(load(tmp_path / "tree", TREE), TREE)


@pytest.mark.parametrize("impl", ["no such generator", "rbg", None, [], {}])
def test_keys_of_another_generator_are_refused(tmp_path, unchecked, impl):
    save(tmp_path / "tree", jax.random.key(0))
    content = members(tmp_path / "tree")
    leaf(0, value=impl)(content)
    write(tmp_path / "tree", content.items())
    with pytest.raises(CheckpointError, match=r"at the root: cannot make key of shape .* of it"):
        load(tmp_path / "tree", jax.random.key(0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (pickle.dumps([1]), "found a pickle file, which is never loaded"),
        (b"not a checkpoint", "found no zip file"),
        (b"PK\x03\x04", "found a zip file that is truncated"),
    ],
)
@pytest.mark.parametrize("read", [lambda file: load(file, TREE), read_metadata])
def test_a_file_of_another_kind_is_refused(tmp_path, read, content, message):
    (tmp_path / "tree").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "tree")


def test_the_error_can_be_sent_to_another_process():
    error = CheckpointError("found 1, expected 2", file=Path("net.ckpt"), path=".a")
    sent = pickle.loads(pickle.dumps(error))
    assert (str(sent), sent.file, sent.path) == ("net.ckpt: at .a: found 1, expected 2", "net.ckpt", ".a")


def test_a_file_that_does_not_exist_is_just_that(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(tmp_path / "nothing", TREE)


def test_a_compressed_member_is_refused_before_it_grows(tmp_path):
    save(tmp_path / "tree", TREE)
    content = members(tmp_path / "tree")
    with zipfile.ZipFile(tmp_path / "tree", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="bytes are said to hold"):
        load(tmp_path / "tree", TREE)


def test_a_flipped_byte_in_a_leaf_is_found_and_the_leaf_is_named(tmp_path):
    save(tmp_path / "tree", TREE)
    data = bytearray((tmp_path / "tree").read_bytes())
    for path, values in (("['a']", np.arange(40.0, dtype="f4")), ("['b'][0]", np.ones((2, 3), np.int8))):
        place = data.index(values.tobytes()) + 3
        damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"Bad CRC-32.*the file is damaged; use another copy") as error:
            load(tmp_path / "damaged", TREE)
        assert error.value.path == path
        assert read_metadata(tmp_path / "damaged") == {}, "the metadata are not damaged"


def test_no_flipped_bit_anywhere_changes_a_value(tmp_path):
    """Bytes that do not matter, such as dates, may be damaged; all others must be found."""
    save(tmp_path / "tree", TREE)
    data = (tmp_path / "tree").read_bytes()
    found = 0
    for place in range(len(data)):
        (tmp_path / "damaged").write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            loaded = load(tmp_path / "damaged", TREE)
        except CheckpointError:
            found += 1
        else:
            assert_same(loaded, TREE)
    assert found > 0.85 * len(data)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    save(tmp_path / "tree", TREE)
    data = (tmp_path / "tree").read_bytes()
    for size in range(0, len(data), 7):
        (tmp_path / "tree").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"truncated|empty|no zip file"):
            load(tmp_path / "tree", TREE)


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save(tmp_path / "tree", TREE)

    def interrupt(_):
        assert len(list(tmp_path.iterdir())) == 2, "no temporary file was there"
        raise KeyboardInterrupt("now")

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt, match="now"):
        save(tmp_path / "tree", {"a": jnp.zeros(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["tree"]
    assert_same(load(tmp_path / "tree", TREE), TREE)


def test_a_file_has_the_rights_that_other_new_files_have(tmp_path):
    save(tmp_path / "tree", 1)
    (tmp_path / "other").touch()
    assert (tmp_path / "tree").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "folder", keep=2)
    assert (checkpoints.steps(), checkpoints.latest(), len(checkpoints)) == ((), None, 0)
    for step in (0, 5, 100_000_000_000, 7):
        checkpoints.save(step, {"step": step}, metadata={"loss": 1.0})
    assert checkpoints.steps() == (7, 100_000_000_000)
    assert checkpoints.latest() == 100_000_000_000
    assert len(checkpoints) == 2
    assert checkpoints.restore({"step": 0}) == (100_000_000_000, {"step": 100_000_000_000})
    assert checkpoints.restore({"step": 0}, step=7) == (7, {"step": 7})
    assert read_metadata(checkpoints.path(7)) == {"loss": 1.0}
    folder = str(tmp_path / "new" / "folder")
    assert repr(checkpoints) == f"Checkpoints({folder!r}, keep=2, steps=[7, 100000000000])"


def test_all_checkpoints_are_kept_where_asked(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=None)
    for step in range(6):
        checkpoints.save(step, step)
    assert checkpoints.steps() == tuple(range(6))


def test_a_step_is_saved_again_in_its_place(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, 1)
    checkpoints.save(3, 2)
    assert checkpoints.restore(0) == (3, 2)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    others = {".step_00000009.ckpt.12-ab.tmp", "step_x.ckpt", "step_9.ckpt.bak", "step_9.ckpt", "notes.txt"}
    for name in others:
        (tmp_path / name).write_text("x")
    (tmp_path / "step_00000011.ckpt").mkdir()
    checkpoints.save(1, 1)
    checkpoints.save(2, 2)
    assert checkpoints.steps() == (2,)
    assert checkpoints.restore(0) == (2, 2)
    assert {file.name for file in tmp_path.iterdir()} == {*others, "step_00000011.ckpt", "step_00000002.ckpt"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: Checkpoints(folder, keep=0), "keep must be at least 1, or None .* found 0"),
        (lambda folder: Checkpoints(folder).save(-1, 1), "a step must not be negative, found -1"),
        (lambda folder: Checkpoints(folder, keep=2).save(1, 1), r"step 1 is older than the 2 checkpoints .* \[4, 6\]"),
        (
            lambda folder: Checkpoints(folder).restore(0, step=5),
            r"no checkpoint of step 5, expected one of the steps \[4, 6\]",
        ),
        (
            lambda folder: Checkpoints(folder / "empty").restore(0),
            "found no checkpoint, expected at least one; save one first",
        ),
    ],
)
def test_a_step_that_cannot_be_is_refused(tmp_path, call, message):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, 1)
    checkpoints.save(6, 1)
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert checkpoints.steps() == (4, 6)


def test_a_damaged_checkpoint_is_named_and_none_is_taken_instead(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, TREE)
    checkpoints.path(3).write_bytes(checkpoints.path(3).read_bytes()[:-5])
    message = r"step_00000003\.ckpt: found a zip file that is truncated .* step 3; restore\(like, step=2\) .* \[1, 2\]"
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoints.restore(TREE)
    assert error.value.file == str(checkpoints.path(3))
    assert_same(checkpoints.restore(TREE, step=2), (2, TREE))


# Runs in this process and in new ones.
TRAINING = """
import sys
import equinox as eqx, jax, jax.numpy as jnp, optax
from snnax import engine, snn, surrogate
from snnax.serialisation import Checkpoints

OPTIMISER = optax.adam(1e-2)

def start():
    key, subkey = jax.random.split(jax.random.key(7))
    model = snn.Sequential(eqx.nn.Linear(4, 5, key=subkey), snn.LIF(5, [0.9, 0.8], 0.3))
    return {"model": model, "optimiser": OPTIMISER.init(eqx.filter(model, eqx.is_array)), "key": key, "step": 0}

@eqx.filter_jit
def update(model, optimiser, key):
    xs = jax.random.normal(key, (12, 4))
    loss = lambda model: jnp.mean((jnp.mean(model(model.init_states(), xs)[1][-1], 0) - 0.5) ** 2)
    updates, optimiser = OPTIMISER.update(eqx.filter_grad(loss)(model), optimiser)
    return eqx.apply_updates(model, updates), optimiser

def train(run, steps):
    for _ in range(steps):
        key, subkey = jax.random.split(run["key"])
        model, optimiser = update(run["model"], run["optimiser"], subkey)
        run = {"model": model, "optimiser": optimiser, "key": key, "step": run["step"] + 1}
    return run
"""
RESUME = """
checkpoints = Checkpoints(sys.argv[1])
step, run = checkpoints.restore(eqx.filter_eval_shape(start))
assert step == run["step"] == 3
checkpoints.save(6, train(run, 3))
"""


@pytest.mark.full
def test_training_goes_on_bit_for_bit_in_a_new_process(tmp_path):
    names: dict[str, Any] = {"__name__": "script"}
    exec(TRAINING, names)
    start, train = names["start"], names["train"]
    checkpoints = Checkpoints(tmp_path / "run")
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        straight = train(start(), 6)
        checkpoints.save(3, train(start(), 3))
    script = tmp_path / "script.py"
    script.write_text(TRAINING + RESUME)
    run = subprocess.run(
        [sys.executable, script, tmp_path / "run"], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    step, resumed = checkpoints.restore(eqx.filter_eval_shape(start))
    assert step == 6
    assert_same(resumed, straight)
    for before, after in zip(
        *(jax.tree.leaves(eqx.filter(r["model"], eqx.is_array)) for r in (start(), resumed)), strict=True
    ):
        assert not np.array_equal(before, after), "a parameter was not trained"


KILLED = """
import sys, itertools, numpy as np
from snnax.serialisation import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in itertools.count():
    checkpoints.save(step, {"values": np.full(2_000_000, step), "step": step})
"""


OVER_DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P, SingleDeviceSharding
from snnax.serialisation import load, save

mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))
places = {
    "parts": NamedSharding(mesh, P("a", "b")),
    "copies": NamedSharding(mesh, P()),
    "both": NamedSharding(mesh, P("b")),
    "another device": SingleDeviceSharding(jax.devices()[2]),
}
values = {name: jax.random.normal(jax.random.key(index), (4, 6)) for index, name in enumerate(places)}
values |= {"keys": jax.random.split(jax.random.key(5), 4), "key": jax.random.key(6), "64 bits": np.arange(8.0)}
places |= {"keys": NamedSharding(mesh, P("a")), "key": places["copies"], "64 bits": NamedSharding(mesh, P("b"))}
with jax.enable_x64(True):
    tree = jax.device_put(values, places)
    tree["nowhere"] = jax.random.key(7)
    save(sys.argv[1], tree)
    zeros = jax.tree.map(lambda leaf: jax.device_put(jax.numpy.zeros_like(leaf), leaf.sharding), tree)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
zeros["nowhere"] = jax.random.key(0)
assert tree["64 bits"].dtype == "float64" and not zeros["nowhere"].committed
for like in (zeros, abstract):
    found = load(sys.argv[1], like)
    for name, place in places.items():
        assert found[name].sharding == place, (name, found[name].sharding)
        bits = [jax.random.key_data(each) if "key" in name else each for each in (found[name], tree[name])]
        assert bits[0].dtype == bits[1].dtype and np.asarray(bits[0]).any()
        np.testing.assert_array_equal(*bits)
assert not load(sys.argv[1], zeros)["nowhere"].committed
"""


@pytest.mark.full
def test_arrays_come_back_to_the_devices_that_they_are_expected_on(tmp_path):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", OVER_DEVICES, str(tmp_path / "tree.ckpt")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr


LOADED = """
import re, sys
from pathlib import Path
import jax, jax.numpy as jnp
from snnax.serialisation import load

like = {"weights": jax.ShapeDtypeStruct((32, 1 << 20), jnp.float32), "bias": jax.ShapeDtypeStruct((3,), jnp.float32)}
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
jax.block_until_ready(jnp.ones(3))
before = peak()
tree = jax.block_until_ready(load(sys.argv[1], like))
print((peak() - before) / tree["weights"].nbytes)
moved = jax.jit(lambda array: array + 1, donate_argnums=0)(tree["weights"])
assert moved.min() == moved.max() == 8 and tree["weights"].is_deleted() and tree["bias"].sum() == 3
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc")
def test_loading_takes_little_more_memory_than_what_is_loaded(tmp_path):
    file = tmp_path / "tree.ckpt"
    save(file, {"weights": np.full((32, 1 << 20), 7, np.float32), "bias": np.ones(3, np.float32)})
    command = [sys.executable, "-W", "error", "-c", LOADED, str(file)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    assert 0.5 < float(process.stdout) < 1.2


@pytest.mark.full
def test_a_process_that_is_killed_while_it_saves_leaves_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    like = {"values": np.zeros(2_000_000, int), "step": 0}
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path])
    try:
        deadline = time.monotonic() + 120
        # Killed in the middle of a save: a temporary file is there.
        while not (len(checkpoints) and any(tmp_path.glob(".*.tmp"))):
            assert time.monotonic() < deadline and process.poll() is None, "it saved nothing"
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    step, tree = checkpoints.restore(like)
    assert tree["step"] == step == checkpoints.latest()
    assert np.all(tree["values"] == step)
    left = list(tmp_path.glob(".*.tmp"))
    checkpoints.save(step + 1, tree)
    assert len(left) <= 1 and not list(tmp_path.glob(".*.tmp"))
    assert len(list(tmp_path.iterdir())) == len(checkpoints) == 2


def test_files_of_living_writers_stay_and_others_go(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    alive, stream = open_temporary(tmp_path)
    dead, ended = open_temporary(tmp_path)
    ended.close()
    older = tmp_path / ".step_00000003.ckpt.123-0123abcd.tmp"
    foreign = [tmp_path / name for name in (".notes.tmp", ".snnax-1.tmp", "step.tmp")]
    for path in (older, *foreign):
        path.touch()
    with stream:
        checkpoints.save(1, np.ones(3))
        assert alive.exists() and not dead.exists() and not older.exists() and all(path.exists() for path in foreign)
    checkpoints.save(2, np.ones(3))
    assert not alive.exists()


def test_a_file_that_is_replaced_keeps_its_mode_and_a_link_its_target(tmp_path):
    target, link = tmp_path / "real" / "tree.ckpt", tmp_path / "latest.ckpt"
    target.parent.mkdir()
    save(target, np.ones(3))
    target.chmod(0o640)
    link.symlink_to(target)
    save(link, np.full(3, 2.0))
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(load(target, np.ones(3)), np.full(3, 2.0))
    dangling = tmp_path / "dangling.ckpt"
    dangling.symlink_to(tmp_path / "new.ckpt")
    save(dangling, np.ones(3))
    assert dangling.is_symlink() and (tmp_path / "new.ckpt").is_file()


def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path):
    path = tmp_path / ("n" * 250 + ".ckpt")
    save(path, np.ones(3))
    assert load(path, np.zeros(3)).sum() == 3


def test_restoring_beside_a_writer_takes_a_newer_checkpoint_for_one_that_is_gone(tmp_path, monkeypatch):
    reader, writer = Checkpoints(tmp_path, keep=1), Checkpoints(tmp_path, keep=1)
    writer.save(1, np.full(3, 1.0))
    calls = []

    def late(path, like):
        calls.append(path)
        if len(calls) < 3:
            writer.save(len(calls) + 1, np.full(3, len(calls) + 1.0))
        return load(path, like)

    monkeypatch.setattr("snnax.serialisation._checkpoints.load", late)
    step, tree = reader.restore(np.zeros(3))
    assert step == 3 and tree.tolist() == [3, 3, 3] and len(calls) == 3

    def later(path, like):
        writer.save(4, np.full(3, 4.0))
        return load(path, like)

    monkeypatch.setattr("snnax.serialisation._checkpoints.load", later)
    with pytest.raises(FileNotFoundError):
        reader.restore(np.zeros(3), step=3)  # that one and no other was asked for


@pytest.mark.parametrize("as_module", [True, False])
@pytest.mark.full
def test_a_class_of_a_script_has_the_same_name_when_the_script_is_imported(tmp_path, as_module):
    (tmp_path / "training.py").write_text(
        "import equinox as eqx, sys\n"
        "from snnax.serialisation import load, save\n"
        "class Net(eqx.Module):\n    value: float\n"
        "if __name__ == '__main__':\n    save(sys.argv[1], Net(2.5))\n"
    )
    first = ["-m", "training"] if as_module else ["training.py"]
    second = ["-c", "import sys, training; assert training.load(sys.argv[1], training.Net(0.0)).value == 2.5"]
    for arguments in (first, second):
        command = [sys.executable, *arguments, "net.ckpt"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr


def test_a_file_names_what_it_holds_by_public_names_whatever_folder_they_are_defined_in():
    kinds = {name: kind for name, kind in vars(snn).items() if isinstance(kind, type)}
    assert len(kinds) > 50
    kinds = {name: kind for name, kind in kinds.items() if kind.__module__.startswith("snnax.snn.")}
    assert {name: class_name(kind) for name, kind in kinds.items()} == {name: f"snnax.snn.{name}" for name in kinds}
    assert class_name(engine.Repeat) == "snnax.engine.Repeat"


def test_the_file_says_what_it_holds(tmp_path):
    save(tmp_path / "tree", network(), metadata={"epoch": 1})
    read = json.loads(members(Path(tmp_path / "tree"))["checkpoint.json"])
    assert read["structure"][".layers[1]"] == "snnax.snn.LIF"
    assert read["structure"][".layers[1].shape"] == "(3,)"
    weight = {"path": ".layers[0].weight", "kind": "array", "shape": [3, 4], "dtype": "float32", "member": "0.npy"}
    assert read["leaves"][0] == weight | {"value": None}
