"""The file: a zip of uncompressed .npy members and one JSON member.

numpy can open it (`numpy.load(file)["0"]`). Reading is stricter than numpy: the header of a member must be, byte for
byte, the one that is written here for the shape and dtype that the caller expects, so that nothing in the file decides
how much is allocated, and nothing in it is evaluated. Every member carries a CRC-32.
"""

import contextlib
import json
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._error import CheckpointError
from ._temporary import open_temporary


HEADER = "checkpoint.json"
# What zipfile and json raise for damaged and hostile files.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, KeyError, IndexError, EOFError, OverflowError,
    NotImplementedError, RuntimeError, OSError,
)  # fmt: skip
_ALIGNMENT, _CHUNK = 64, 1 << 20
ADVICE = "the file is damaged; use another copy or an older checkpoint"


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The start of a .npy file, format 1.0: padded so that the data begin at a multiple of 64 bytes."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    padding = -(10 + len(text) + 1) % 64
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + padding + 1) + f"{text}{' ' * padding}\n".encode()


def write_archive(file: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `header` and the members, then put the file in its place at once.

    Until then the bytes are in a temporary file beside it, which an exception removes. A link stays a link, and a file
    that is replaced keeps its mode.
    """
    target = Path(os.path.realpath(file))
    temporary, stream = open_temporary(target.parent)
    try:
        with stream:
            with contextlib.suppress(OSError):
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                # `ZipInfo` without a date: the same tree gives the same bytes.
                archive.writestr(zipfile.ZipInfo(HEADER), json.dumps(header, indent=1))
                for member, array in arrays.items():
                    with archive.open(zipfile.ZipInfo(member), "w", force_zip64=True) as out:
                        out.write(npy_header(array.shape, array.dtype))
                        out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            stream.flush()
            os.fsync(stream.fileno())
            if os.name != "posix":
                stream.close()
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the operating system lets one open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArchiveReader:
    """A checkpoint file that is open for reading; a context manager."""

    def __init__(self, file: str | os.PathLike[str]):
        """**Raises:** `CheckpointError` for what is no undamaged zip file with the expected kind of members."""
        self.file = file
        # Opened here, so that a missing file and missing rights are reported as what they are.
        self._stream = Path(file).open("rb")  # noqa: SIM115
        try:
            self._size = os.fstat(self._stream.fileno()).st_size
            self._archive = self._open()
            self._members = self._list()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> "ArchiveReader":
        return self

    def __exit__(self, *_: Any) -> None:
        self._archive.close()
        self._stream.close()

    def _open(self):
        start = self._stream.read(2)
        self._stream.seek(0)
        try:
            return zipfile.ZipFile(self._stream)
        except DAMAGE as error:
            raise CheckpointError(f"{_foreign(self._size, start)} ({error})", file=self.file) from error

    def _list(self):
        members = {}
        for info in self._archive.infolist():
            if info.filename in members:
                raise CheckpointError(f"found the member {info.filename!r} twice; {ADVICE}", file=self.file)
            members[info.filename] = info
        if HEADER not in members:
            raise CheckpointError(
                f"found a zip file without the member {HEADER!r}, expected one that snnax.serialisation.save wrote",
                file=self.file,
            )
        return members

    def read_json(self) -> Any:
        """The content of the JSON member. **Raises:** `CheckpointError` where that is damaged."""
        try:
            return json.loads(self._read(HEADER))
        except (*DAMAGE, RecursionError) as error:
            message = f"cannot read the member {HEADER!r} ({type(error).__name__}: {error}); {ADVICE}"
            raise CheckpointError(message, file=self.file) from error

    def check_members(self, expected: set[str]) -> None:
        """**Raises:** `CheckpointError` where the file holds other members."""
        found = set(self._members) - {HEADER}
        if unknown := sorted(found - expected):
            raise CheckpointError(f"found members that no leaf owns: {unknown[:5]}; {ADVICE}", file=self.file)

    def read_array(self, member: str, shape: tuple[int, ...], dtype: np.dtype, path: str) -> np.ndarray:
        """A member as an array of the expected `shape` and `dtype`, in memory of its own that JAX may take over.

        **Raises:** `CheckpointError` naming the leaf at `path` where the member is damaged or something else.
        """
        header, size = npy_header(shape, dtype), math.prod(shape) * dtype.itemsize
        try:
            info = self._checked(member)
            with self._archive.open(info) as stream:
                start, rest = stream.read(len(header)), info.file_size - len(header)
                if start == header and rest == size:
                    return _filled(stream, size).view(dtype).reshape(shape)
        except DAMAGE as error:
            message = f"cannot read its member {member!r} ({type(error).__name__}: {error}); {ADVICE}"
            raise CheckpointError(message, file=self.file, path=path) from error
        if start != header:
            message = f"found a member {member!r} that begins with {start!r}, expected {header!r}"
        else:
            message = f"found {rest} bytes in its member {member!r}, expected {size}"
        raise CheckpointError(f"{message}; {ADVICE}", file=self.file, path=path)

    def _read(self, member):
        return self._archive.read(self._checked(member))

    def _checked(self, member):
        info = self._members[member]
        if info.compress_type != zipfile.ZIP_STORED or not info.file_size == info.compress_size <= self._size:
            raise zipfile.BadZipFile(f"{info.compress_size} bytes are said to hold {info.file_size}")
        return info


def _filled(stream, size):
    """The next `size` bytes, which end the member: its checksum is compared with the last of them.

    Aligned as JAX wants memory that it takes over.
    """
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    data = room[start : start + size]
    view, position = data.data, 0
    while count := stream.readinto(view[position : position + _CHUNK]):
        position += count
    if position != size or stream.read(1):
        raise EOFError(f"{position} bytes of {size}")
    return data


def _foreign(size, start):
    """What a file is that is no zip file."""
    if size == 0:
        return "found an empty file; use another copy or an older checkpoint"
    if start == b"PK":
        return "found a zip file that is truncated or damaged; use another copy or an older checkpoint"
    if start[:1] == b"\x80":
        return (
            "found a pickle file, which is never loaded as it can run any code; save it again with snnax.serialisation"
        )
    return "found no zip file, expected one that snnax.serialisation.save wrote"
