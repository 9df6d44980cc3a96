"""A folder of checkpoints, the newest of which are kept."""

import operator
import os
import re
from pathlib import Path
from typing import Any

from ._checkpoint import load, save
from ._error import CheckpointError
from ._temporary import remove_abandoned


NAME = re.compile(r"step_(\d+)\.ckpt")


class Checkpoints:
    """The checkpoints of one training run, one file per step in one folder.

    Nothing but the folder is remembered: another process with the same folder sees the same checkpoints. What a process
    that was killed while it saved left behind is removed by the next save; files of other names are ignored.

    >>> import tempfile, jax.numpy as jnp
    >>> folder = tempfile.TemporaryDirectory()
    >>> checkpoints = Checkpoints(folder.name, keep=2)
    >>> for step in range(5):
    ...     checkpoints.save(step, {"weight": jnp.full(2, step)})
    >>> checkpoints.steps(), checkpoints.latest(), len(checkpoints)
    ((3, 4), 4, 2)
    >>> checkpoints.restore({"weight": jnp.zeros(2, int)})
    (4, {'weight': Array([4, 4], dtype=int32)})
    >>> folder.cleanup()
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int | None = 3):
        """**Arguments:** `directory`: made where it does not exist. `keep`: how many of the newest are kept, at least
        one; None keeps all.

        **Raises:** `ValueError` for another `keep`.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, or None to keep all checkpoints, found {keep}")
        self.directory = Path(directory)
        self.keep = keep
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, step: int) -> Path:
        """The file of a step, whether it exists or not."""
        return self.directory / f"step_{step:08d}.ckpt"

    def steps(self) -> tuple[int, ...]:
        """The steps of which there is a checkpoint, in ascending order."""
        matches = [NAME.fullmatch(entry.name) for entry in self.directory.iterdir()]
        steps = {int(match[1]) for match in matches if match is not None}
        return tuple(sorted(step for step in steps if self.path(step).is_file()))

    def latest(self) -> int | None:
        """The newest step, or None where there is no checkpoint."""
        return max(self.steps(), default=None)

    def save(self, step: int, tree: Any, metadata: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, in place of an older one of the same step; then remove the oldest that are too many.

        **Raises:** `ValueError` for a negative step, and for one so old that it would be removed at once; whatever
        `snnax.serialisation.save` raises.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"a step must not be negative, found {step}")
        steps = sorted({*self.steps(), step})
        removed = [] if self.keep is None else steps[: -self.keep]
        if step in removed:
            kept = steps[-self.keep :] if self.keep is not None else steps
            raise ValueError(
                f"step {step} is older than the {self.keep} checkpoints that {self.directory} keeps, {kept}; remove "
                "those that were overtaken or use another folder"
            )
        save(self.path(step), tree, metadata=metadata)
        for old in removed:
            self.path(old).unlink(missing_ok=True)
        remove_abandoned(self.directory)

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any]:
        """Read a checkpoint, the newest where no step is given.

        **Arguments:** `like`: see `snnax.serialisation.load`.

        **Returns:** its step and the tree.

        **Raises:** `CheckpointError` where there is none, and where it cannot be loaded; the message names the other
        steps that there are. None of them is taken instead, but for a newest one that another process replaced by
        newer ones before it was opened.
        """
        steps = self.steps()
        chosen = self.latest() if step is None else step
        if chosen is None:
            raise CheckpointError("found no checkpoint, expected at least one; save one first", file=self.directory)
        if chosen not in steps:
            message = f"found no checkpoint of step {chosen}, expected one of the steps {list(steps)}"
            raise CheckpointError(message, file=self.directory)
        try:
            return chosen, load(self.path(chosen), like)
        except FileNotFoundError:
            # A writer keeps a few and removes the others: there are newer ones now.
            if step is None and self.steps() != steps:
                return self.restore(like)
            raise
        except CheckpointError as error:
            older = [other for other in steps if other < chosen]
            hint = f"restore(like, step={older[-1]}) takes an older one, of {older}" if older else "none is older"
            error.args = (f"{error}. This is the checkpoint of step {chosen}; {hint}",)
            raise

    def __len__(self) -> int:
        return len(self.steps())

    def __repr__(self) -> str:
        return f"Checkpoints({str(self.directory)!r}, keep={self.keep}, steps={list(self.steps())})"
