"""Where a data set lies, and what to say when it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ARCHIVES = {".zip", ".gz", ".tgz", ".tar", ".rar", ".7z"}
_PACKAGING = {"thumbs.db", "desktop.ini", "__macosx", "cache"}


def first(root: Path, places: tuple[str, ...], name: str) -> Path:
    """Return the first of the places that exists.

    Args:
        root: the data folder.
        places: paths relative to it, the likeliest first.
        name: the data set, for the message.

    Raises:
        FileNotFoundError: none exists; the message says where it looked and how to get the data.
    """
    for place in places:
        if (root / place).exists():
            return root / place
    raise FileNotFoundError(
        f"no {name} in {root.resolve()} (looked for {', '.join(places)}); {_packed(root)}"
        f"see {name!r} in data/README.md for how to get it, or give root=... where it lies"
    )


def _packed(root: Path) -> str:
    """Return a hint where the data may lie there still packed."""
    if not root.is_dir():
        return "that folder does not exist; "
    packed = sorted(file.name for file in root.iterdir() if file.suffix.lower() in _ARCHIVES)
    return f"unpack {', '.join(packed[:3])} first if it is in there; " if packed else ""


def visible(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted, without what systems and archives leave there.

    Links to folders are not followed; a folder named ``cache`` is passed over.

    Args:
        folder: where to look.
    """
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name.startswith(".") or entry.name.lower() in _PACKAGING:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from visible(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
