"""Optional packages: imported in one place each, with the pip line that installs them in the error."""

import importlib
from types import ModuleType

from .errors import MissingDependencyError


def require(package: str, extra: str) -> ModuleType:
    """Import `package`, which `extra` of the distribution `snnax-bridge` installs.

    **Raises:** `MissingDependencyError` with the pip line when the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != package.split(".")[0]:
            raise  # the package is there; something that it needs is not
        raise MissingDependencyError(
            f"{package} is not installed; in a checkout of snnax-bridge, install it with: pip install '.[{extra}]'",
            framework=package,
        ) from error
