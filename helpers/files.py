"""Files that are whole or not there: atomic writing, digests, left-overs; and arrays too large for memory."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_TEMPORARY = ".unfinished-"
_TRIES = 5


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` when the block ends without an error.

    Who reads ``path`` sees the old content or the new one, never a part; after an error the old one stays.
    """
    path, name = Path(path), ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY + path.name, dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut leaves the new name with no content
        with suppress(OSError):  # some network drives know no permissions
            os.chmod(name, 0o644)  # mkstemp makes private files; a shared course folder must stay readable
        for wait in range(1, _TRIES + 1):
            try:
                os.replace(name, path)
                break
            except PermissionError:  # on Windows a virus scanner or an open table refuses it for a moment
                if wait == _TRIES or path.is_dir():
                    raise
                time.sleep(0.05 * wait)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(name)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)  # NumPy gives no number
        text = f"{reason}: what was there before stays; make room or give another folder, and go on"
        raise OSError(error.errno or errno.EIO, text, str(path)) from error


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all, text as UTF-8."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sweep(folder: str | Path) -> None:
    """Remove the temporaries that a killed process left in a folder."""
    for path in Path(folder).glob(_TEMPORARY + "*"):
        path.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Rows:
    """Rows of an array in a file, read when they are asked for and not kept: for sets larger than memory.

    A memory map would do the same, but each page that was ever touched counts as the process's own. An index
    gives a new array; :meth:`select` gives fewer rows, still in the file.
    """

    def __init__(self, array: np.memmap) -> None:
        whole = array
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        self.path, self.offset = whole.filename, whole.offset + array.ctypes.data - whole.ctypes.data
        self.dtype, self.step, self.rows = array.dtype, array.strides[0], np.arange(len(array))
        self.shape, self.ndim, self.nbytes = array.shape, array.ndim, array.nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, which: Any) -> Rows:
        """Return some of the rows, unread: ``which`` are positions, a mask or a slice."""
        fewer = object.__new__(Rows)
        fewer.__dict__.update(self.__dict__, rows=self.rows[which])
        fewer.shape = (len(fewer.rows), *self.shape[1:])
        fewer.nbytes = int(np.prod(fewer.shape)) * self.dtype.itemsize
        return fewer

    def __getitem__(self, which: Any) -> np.ndarray:
        wanted = np.asarray(self.rows[which])
        out = np.empty((wanted.size, *self.shape[1:]), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            # in the order of the file: what lies together is read together, also from a disk that turns
            for place in np.argsort(wanted, axis=None):
                file.seek(self.offset + int(wanted.flat[place]) * self.step)
                if file.readinto(memoryview(out[place]).cast("B")) != out[place].nbytes:
                    raise OSError(f"{self.path} ends before row {wanted.flat[place]}; load the set again")
        return out.reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
