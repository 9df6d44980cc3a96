"""Whether the `snnax` that is found is the core of this bridge: another project of the package index has its name."""

import importlib
import importlib.util
import pathlib

from .errors import MissingDependencyError


_PUBLIC = {"engine", "snn", "surrogate"}


def check_core() -> None:
    """Import `snnax`.

    **Raises:** `MissingDependencyError` with the place and what to do when there is none, or one of another project.
    """
    cause = None
    try:
        found = vars(importlib.import_module("snnax"))
    except Exception as error:  # whatever an older project raises on a newer JAX
        cause, found = error, {}
    if found.keys() >= _PUBLIC:
        return
    spec = importlib.util.find_spec("snnax")
    folders = [pathlib.Path(each) for each in (spec and spec.submodule_search_locations) or ()]
    if cause is not None and any(_is_ours(each) for each in folders):
        raise cause  # ours, which lacks something that it needs
    place = "nowhere" if spec is None else f"in {folders[0] if folders else spec.origin}"
    raise MissingDependencyError(
        "the core of snnax_interop is the package snnax of the distribution snnax-bridge. Found snnax "
        f"{place}{'' if spec is None else ', which is not that one, or not all of it'}. The distribution called snnax "
        "(0.0.1) is another, older project; both write to one folder. Do: pip uninstall snnax snnax-bridge; then, in a "
        "checkout of snnax-bridge: pip install '.[interop]'",
        framework="snnax",
    ) from cause


def _is_ours(folder: pathlib.Path) -> bool:
    init = folder / "__init__.py"
    return init.exists() and "engine" in init.read_text()
