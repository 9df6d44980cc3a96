"""What files of older versions say, as files of today would say it.

Version 1: neurons held their decays, leak, order and scale themselves, which `snn.Integration` holds since version 2.
Version 2: an `snn.Rate` had no `constraint`, and `snn.Firing` no `nan_spikes`.
"""

import re
from collections.abc import Mapping
from typing import Any


# Static parts that a neuron of version 2 has and that its class fixed in version 1.
_NEURONS: dict[str, dict[str, str]] = {
    **{f"snnax.snn.{kind}": {} for kind in ("LIF", "LI", "CubaLI", "PLIF", "ALIF", "AdaptiveLIF", "LSNN")},
    **{f"snnax.snn.{kind}": {"input_scale": "'one_minus_decay'"} for kind in ("EIF", "AdEx")},
    "snnax.snn.QIF": {"input_scale": "'one_minus_decay'", "v_leak": "None"},
    "snnax.snn.IF": {"decay_mem": "snnax.snn.Lossless", "input_scale": "'unit'", "v_leak": "None"},
}
_MOVED = r"\.(decay_mem|decay_syn|v_leak|synapse_order|input_scale)($|\..*)"
# Always None and always the same order: they said nothing.
_DROPPED = {"snnax.snn.Lapicque": (".decay_syn", ".synapse_order")}


def from_version_1(structure: Mapping[str, str], records: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Structure and leaves by path, with the parts of neurons where they are today.

    **Raises:** `ValueError` where two parts would have one path: no file of version 1 has such.
    """
    dropped = {place + end for place, kind in structure.items() for end in _DROPPED.get(kind, ())}
    kept = {path: kind for path, kind in structure.items() if path not in dropped}
    parts = {_moved(path, structure): kind for path, kind in kept.items()}
    leaves = {_moved(path, structure): record for path, record in records.items()}
    added = {f"{place}.integration": "snnax.snn.Integration" for place, kind in kept.items() if kind in _NEURONS}
    for place, kind in kept.items():
        added |= {f"{place}.integration.{name}": text for name, text in _NEURONS.get(kind, {}).items()}
    if len({*parts, *leaves, *added}) != len(kept) + len(records) + len(added):
        raise ValueError("two parts of a neuron have the same path")
    return {**parts, **added}, leaves


def from_version_2(structure: Mapping[str, str], expected: Mapping[str, str]) -> dict[str, str]:
    """Structure with the options that came later as they are expected: they say nothing of what was saved."""
    added = {"snnax.snn.Rate": ".constraint", "snnax.snn.Firing": ".nan_spikes"}
    paths = [path + added[kind] for path, kind in structure.items() if kind in added]
    return {**structure, **{path: expected[path] for path in paths if path in expected}}


def _moved(path: str, structure: Mapping[str, str]) -> str:
    for found in re.finditer(r"(?=\.)", path):
        place = path[: found.start()]
        if structure.get(place) in _NEURONS and re.fullmatch(_MOVED, path[found.start() :]):
            return f"{place}.integration{path[found.start() :]}"
    return path
