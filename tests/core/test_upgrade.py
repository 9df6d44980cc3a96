"""Checkpoints of earlier versions of the format load into the models of today.

`data/version_1.ckpt` was written by snnax when its format had version 1, from `neurons(0.0)` as it is here.
"""

import json
import re
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

from snnax import snn
from snnax.domains import parameters_as_given
from snnax.serialisation import CheckpointError, load
from snnax.serialisation._upgrade import from_version_1


VERSION_1 = Path(__file__).parent / "data" / "version_1.ckpt"


@parameters_as_given()
def neurons(first):
    """Every class whose parts are elsewhere since version 2, each parameter with a number of its own."""
    count = iter(range(1, 1000))

    def n():
        return first + next(count) / 128  # exact in float32

    return {
        "LIF": snn.Sequential(snn.LIF(3, [n(), snn.Rate(n())], n(), n(), v_leak=n(), synapse_order="jump-read-decay")),
        "plain": snn.LIF(None, n(), n(), input_scale="one_minus_decay"),
        "LI": snn.LI(3, [n(), n()]),
        "CubaLI": [snn.CubaLI((2, 3), [n(), n()], v_leak=n())],
        "PLIF": snn.PLIF(3, 2.0 + n(), n()),
        "ALIF": snn.ALIF(3, n(), n(), n(), scale=n(), jump=n()),
        "AdaptiveLIF": snn.AdaptiveLIF(3, n(), n(), n(), coupling=n(), jump=n()),
        "LSNN": snn.LSNN(3, [n(), n()], n(), n()),
        "EIF": snn.EIF(3, [snn.Rate(n()), n()], n(), theta_rh=n(), delta_T=n(), v_leak=n()),
        "AdEx": snn.AdEx(3, snn.Rate(n()), n(), n()),
        "QIF": snn.QIF(3, [n(), n()], n(), v_rest=n(), v_critical=n(), gain=n(), decay_adapt=n()),
        "IF": snn.Recurrent(snn.Refractory(snn.IF(3, n(), n()), n()), snn.OneToOne(n())),
        "Lapicque": snn.Graph(
            {"a.decay_mem": snn.Lapicque(3, n(), n(), n(), dt=0.5)}, {"a.decay_mem": "input"}, "a.decay_mem"
        ),
        "SRM": snn.SRM(3, [n(), n(), n()], n()),
    }


def header() -> dict:
    with zipfile.ZipFile(VERSION_1) as archive:
        return json.loads(archive.read("checkpoint.json"))


def test_a_file_of_version_1_loads_with_all_its_values():
    assert header()["version"] == 1 and ".integration" not in json.dumps(header())
    loaded, expected, other = load(VERSION_1, neurons(5.0)), neurons(0.0), neurons(5.0)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (loaded, expected, other)]
    assert len(leaves[0]) == len(header()["leaves"]) > 60
    for found, wanted in zip(*leaves[:2], strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
    assert sum(not np.array_equal(*pair) for pair in zip(leaves[0], leaves[2], strict=True)) > 50


@pytest.mark.parametrize(
    ("name", "other", "path", "message"),
    [
        ("plain", lambda: snn.LIF(None, 0.5), "input_scale", "found 'one_minus_decay', expected 'unit'"),
        ("LI", lambda: snn.LI(3, 0.5), "decay_syn", "found snnax.snn.Factor, expected None"),
        ("CubaLI", lambda: [snn.CubaLI((2, 3), [0.5, 0.5])], "v_leak", "found array of shape () and dtype float32"),
        (
            "EIF",
            lambda: snn.EIF(3, [0.5, 0.5], v_leak=0.1),
            "decay_mem",
            "found snnax.snn.Rate, expected snnax.snn.Factor",
        ),
    ],
)
def test_what_differs_is_named_by_the_paths_of_today(name, other, path, message):
    place = ("['CubaLI'][0]" if name == "CubaLI" else f"['{name}']") + f".integration.{path}"
    with pytest.raises(CheckpointError, match=re.escape(f"at {place}: {message}")):
        load(VERSION_1, {**neurons(0.0), name: other()})


def test_only_parts_of_the_neurons_themselves_move():
    structure = {
        "": "dict",
        "['x']": "snnax.snn.LIF",
        "['x'].decay_mem": "snnax.snn.Factor",
        "['x'].decay_mem.constraint": "'clip'",
        "['x'].firing": "snnax.snn.Firing",
        "['y.decay_mem']": "somewhere.LIF",
        "['y.decay_mem'].decay_mem": "None",
        "['z']": "snnax.snn.SRM",
        "['z'].decay_mem": "snnax.snn.Factor",
    }
    found, leaves = from_version_1(structure, {"['x'].decay_mem.value": 1, "['z'].decay_mem.value": 2})
    assert leaves == {"['x'].integration.decay_mem.value": 1, "['z'].decay_mem.value": 2}
    moved = {"['x'].decay_mem", "['x'].decay_mem.constraint"}
    assert structure.keys() - found.keys() == moved
    new = {"['x'].integration", "['x'].integration.decay_mem", "['x'].integration.decay_mem.constraint"}
    assert found.keys() - structure.keys() == new
    assert found["['x'].integration"] == "snnax.snn.Integration"


def test_a_part_that_is_there_twice_is_refused():
    structure = {"": "snnax.snn.LIF", ".decay_mem": "snnax.snn.Rate", ".integration.decay_mem": "snnax.snn.Factor"}
    with pytest.raises(ValueError, match="the same path"):
        from_version_1(structure, {})
    with pytest.raises(ValueError, match="the same path"):
        from_version_1({"": "snnax.snn.LIF"}, {".decay_mem.value": 1, ".integration.decay_mem.value": 2})
