"""The one exception of this package."""

import os


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read as asked: damaged, foreign, or of another structure.

    The message says which file, which leaf or static field (as `jax.tree_util.keystr`), what was found, what was
    expected, and what to do. `file` and `path` hold the first two; `path` is `""` where the whole file is concerned.

    >>> print(CheckpointError("found 1, expected 2; try 3", file="net.ckpt", path=".layers[0].weight"))
    net.ckpt: at .layers[0].weight: found 1, expected 2; try 3
    """

    def __init__(self, message: str, *, file: str | os.PathLike[str] = "", path: str = ""):
        self.file = os.fspath(file)
        self.path = path
        where = [self.file, f"at {path}" if path else ""]
        super().__init__(": ".join([*filter(None, where), message]))
