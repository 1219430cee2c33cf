"""Files that are whole or not there: atomic writing, digests, and what a killed process left behind."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = ".unfinished-"


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` when the block ends without an error.

    Whoever reads ``path`` sees the old content or the new one, never a part; after an error the old one
    stays.

    Args:
        path: the file to write; its folder is made where it is missing.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY + path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes private files; a shared course folder must stay readable
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def sweep(folder: str | Path) -> list[str]:
    """Remove the temporaries that a killed process left in a folder, and return their names.

    Args:
        folder: the folder; one that does not exist has nothing in it. Nobody else may be writing there.
    """
    left = sorted(Path(folder).glob(_TEMPORARY + "*"))
    for path in left:
        path.unlink(missing_ok=True)
    return [path.name for path in left]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: the file.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
