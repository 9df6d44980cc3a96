"""Weights that another release of snnTorch has written, told by the keys of their state_dicts.

- 0.8 kept the states of neurons as buffers, which were saved (snntorch issue #314).
- `graded_spikes_factor` is missing in what older releases wrote.
- The reset of `Leaky` became another one with 0.8 (#341, #364); `Synaptic` mixed up its states before 0.9.4 (#358,
  #363).
"""

import re
import warnings
from collections.abc import Mapping

import torch

from ..errors import WeightMappingError


_STATES = {"mem", "syn", "spk", "syn_exc", "syn_inh"}
_FACTOR = "graded_spikes_factor"
_CHANGED = {"Leaky", "RLeaky", "Synaptic", "RSynaptic"}
_SETTLED = (0, 9, 4)


def as_present(
    values: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    neurons: Mapping[str, str],
    version: str | None,
) -> dict[str, torch.Tensor]:
    """A state_dict as the present snnTorch would write it: without states, with a factor for graded spikes.

    **Arguments:**

    - `values`: the state_dict.
    - `own`: the state_dict of the network that it is for.
    - `neurons`: the class names of the snnTorch neurons of the network, by path.
    - `version`: the release that trained the weights, such as `"0.9.4"`; None where the caller does not say.

    **Raises:** `WeightMappingError` when the keys are those of an older release and `version` is None, or when that
    release computed a neuron of the network differently. `ValueError` for a `version` that is no number.
    """
    states = [key for key in values if key not in own and _is_state(key, neurons)]
    prefixes = [f"{path}." if path else "" for path in neurons]
    present = [prefix for prefix in prefixes if any(key.startswith(prefix) for key in values)]
    absent = [key for key in (f"{prefix}{_FACTOR}" for prefix in present) if key in own and key not in values]
    factors = [key for key in absent if bool((own[key] == 1).all())]
    _check(version, neurons, [*states, *(f"no {key}" for key in factors)])
    if states:
        warnings.warn(f"dropped the states that snnTorch 0.8 kept: {', '.join(states)}", UserWarning, stacklevel=3)
    if factors:
        warnings.warn(
            f"taken as 1, which snnTorch did when it had no such key: {', '.join(factors)}", UserWarning, stacklevel=3
        )
    kept = {key: value for key, value in values.items() if key not in states}
    return kept | {key: own[key] for key in factors}


def _is_state(key: str, neurons: Mapping[str, str]) -> bool:
    path, _, name = key.rpartition(".")
    return name in _STATES and path in neurons


def _check(version: str | None, neurons: Mapping[str, str], signs: list[str]) -> None:
    """Refuse weights that an older release has trained, or may have."""
    changed = sorted(_CHANGED.intersection(neurons.values()))
    if version is None:
        if signs:
            raise WeightMappingError(
                f"an older snnTorch has written these weights ({', '.join(signs[:10])}), and before 0.9.4 Leaky and "
                "Synaptic neurons computed something else. Which release trained them? Say so with version='0.9.4'",
                framework="snntorch",
            )
        return
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ValueError(f"version must be the number of a snnTorch release, such as '0.9.4'; found {version!r}")
    if tuple(map(int, version.split("."))) < _SETTLED and changed:
        raise WeightMappingError(
            f"snnTorch {version} trained these weights, and it computed {', '.join(changed)} differently from 1.0, to "
            "which the network was converted: the same weights give other spikes. Allowed: 0.9.4 and newer. Do the "
            "weights do their work in snnTorch 1.0? If so, say version='0.9.4'; else train on there first",
            framework="snntorch",
        )
