"""Another project's files in the folder of this package: the distribution `snnax` of the package index has its name."""

import pathlib
import warnings


# Of releases of the other project, in a place where this package has nothing.
_OTHERS = ("functional", "utils")


def warn_of_another_project(folder: pathlib.Path) -> None:
    """Warn where pip has installed the other project into `folder`, that of this package.

    Had it been installed last, its `__init__.py` would be run in the place of ours; `snnax_interop` finds that.
    """
    found = [name for name in _OTHERS if (folder / name / "__init__.py").exists()]
    if found:
        warnings.warn(
            f"{folder} holds files of two projects: snnax-bridge, and another, older one, whose distribution is called "
            f"snnax ({', '.join(f'snnax.{name}' for name in found)}). Uninstalling either breaks the other. "
            "Do: pip uninstall snnax snnax-bridge; then, in a checkout of snnax-bridge: pip install .",
            UserWarning,
            stacklevel=3,
        )
