"""Files that are being written, and how to tell those of a living process from what a killed one left behind.

A writer holds a lock on its file, which the system lets go of when the process ends, however it does.
"""

import os
import re
import secrets
import time
from pathlib import Path
from typing import IO


try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


# Of this version, and `.NAME.ckpt.PID-TOKEN.tmp` of those before.
_NAME = re.compile(r"\.snnax-[0-9a-f]{16}\.tmp|\.step_\d+\.ckpt\.\d+-[0-9a-f]{8}\.tmp")
# Seconds after which a file without locks is taken for left behind.
_ABANDONED = 24 * 3600


def open_temporary(folder: Path) -> tuple[Path, IO[bytes]]:
    """A new file in `folder`, open for writing and locked until it is closed; its name is short, whatever the target's.

    **Raises:** `OSError` where it cannot be made.
    """
    while True:
        path = folder / f".snnax-{secrets.token_hex(8)}.tmp"
        stream = path.open("xb")
        locked = _lock(stream)
        # Before it was locked, another process may have taken it for left behind.
        if locked is None or (locked and _is_at(path, stream)):
            return path, stream
        stream.close()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in `folder` that nobody is writing any more."""
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            try:
                with path.open("r+b") as stream:
                    locked = _lock(stream)
                    if locked or (locked is None and time.time() - path.stat().st_mtime > _ABANDONED):
                        path.unlink()
            except OSError:
                # It has its name by now, another process removed it, or it is not ours to remove.
                continue


def _lock(stream: IO[bytes]) -> bool | None:
    """Whether this process holds the file alone now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, stream: IO[bytes]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return False
