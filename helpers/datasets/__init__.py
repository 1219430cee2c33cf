"""Data sets: ``datasets.load(name)`` gives a :class:`FaceSet`, decoded once and memory-mapped from then on.

What was read is kept in ``<root>/cache/<name>-<key>/``. The manifest comes last; it says by size, dates and
inode which files were read and which arrays were made of them, and by a digest, which code did it. Where one
of these differs the set is read again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers import one_of
from helpers.datasets import affectnet, fer2013, folders, layouts
from helpers.datasets.audit import Audit, audit, leaked, left_out
from helpers.datasets.faceset import FaceSet, Rejection
from helpers.datasets.reading import Pixels


class Layout(NamedTuple):
    """``files(root, **options)`` lists what is read, ``read(root, pixels, **options)`` reads it."""

    files: Callable[..., list[Path]]
    read: Callable[..., FaceSet]


LAYOUTS = {
    "synthetic": Layout(lambda root, **_: [], layouts.draw),
    "fer2013": Layout(fer2013.files, fer2013.read),
    "ferplus": Layout(fer2013.ferplus_files, fer2013.read_ferplus),
    "muxspace": Layout(folders.muxspace_files, folders.read_muxspace),
    "affectnet": Layout(affectnet.files, affectnet.read),
    "affectnet_fused": Layout(affectnet.fused_files, affectnet.read_fused),
    "rafdb": Layout(folders.rafdb_files, folders.read_rafdb),
    "folder": Layout(folders.files, folders.read),
}
"""Name to layout; a set of your own is two more functions and one more line here."""


def load(
    name: str = "synthetic", root: str | Path = "data", image_size: int = 48, **options: object
) -> FaceSet:
    """Return a data set, decoded once and memory-mapped from then on.

    Args:
        name: one of ``datasets.LAYOUTS``.
        root: the data folder; ``cache/`` is made in it.
        image_size: side of the images in pixels.
        options: of the data set (``help(datasets.LAYOUTS["ferplus"].read)`` explains them).

    Raises:
        ValueError: no set or option is called that, or an option's value makes no sense.
        FileNotFoundError: the data is not there; the message says where it looked and what lies there.
        RuntimeError: a file changed while it was being read.
    """
    layout = LAYOUTS.get(name) or LAYOUTS[one_of("data set", name, LAYOUTS)]
    root, parameters = Path(root).expanduser(), inspect.signature(layout.read).parameters.values()
    known = {each.name: each.default for each in parameters if each.default is not each.empty}
    for option in options:
        one_of(f"option of {name}", option, known)
    if type(image_size) is not int or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be a whole number of pixels from 8 to 1024, not {image_size!r}")
    options = {**known, **options}
    inputs, folder = layout.files(root, **options), _cache_folder(root)
    request = [name, image_size, options, "" if folder.parent == root else str(root.resolve())]
    target = folder / f"{name}-{_digest(request)[:16]}"
    made_from = {"code": _code(), "inputs": _look(inputs, root)}
    try:
        if (target / "manifest.json").exists() and (faces := _opened(target, made_from, f"{name} in {root}")):
            return faces
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the cache {target} is damaged ({error}); it is built again", stacklevel=2)
    token = f"{time.time_ns():x}-{os.getpid():x}-{threading.get_ident():x}"
    arrays = [target / f"images-{token}.npy", target / f"labels-{token}.npz"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        faces = _read(layout, root, Pixels(image_size, arrays[0]), options)
        if _look(inputs, root) != made_from["inputs"]:
            raise RuntimeError(f"files in {root} changed while {name} was being read; load it again")
        _store(faces, target, arrays, made_from)
    except OSError as error:
        warnings.warn(f"{target} could not be written ({error}); the faces stay in memory", stacklevel=2)
        faces = _read(layout, root, Pixels(image_size), options)
    finally:
        _sweep(target, arrays)
    return faces


def _read(layout: Layout, root: Path, pixels: Pixels, options: dict[str, object]) -> FaceSet:
    faces = layout.read(root, pixels, **options)
    if not len(faces):
        why = f"; the first: {faces.rejected[0]}" if faces.rejected else ""
        found = f"none of {len(faces.rejected)} rows or images can be used{why}"
        raise ValueError(f"{faces.name} in {root.resolve()}: {found}")
    return faces


def _store(faces: FaceSet, target: Path, arrays: list[Path], made_from: dict) -> None:
    """Write all but the images, which are there already."""
    np.savez(arrays[1], **{name: values for name, values in faces.columns().items() if name != "images"})
    about = {"name": faces.name, "classes": faces.classes, "notes": faces.notes, **made_from}
    about["rejected"] = [list(vars(each).values()) for each in faces.rejected]
    about |= {"files": [file.name for file in arrays], "arrays": _look(arrays, target)}
    fresh = target / f".manifest{arrays[0].stem}"
    fresh.write_text(json.dumps(about | {"sha256": _digest(about)}, indent=1))
    os.replace(fresh, target / "manifest.json")


def _opened(target: Path, made_from: dict, what: str) -> FaceSet | None:
    """Return the faces in a cache, None where they are of other files or code; raise where it is damaged."""
    about = json.loads((target / "manifest.json").read_bytes())
    if about["inputs"] != made_from["inputs"]:
        warnings.warn(f"the files of {what} have changed: they are read again", stacklevel=3)
    if any(about[key] != value for key, value in made_from.items()):
        return None
    arrays = [target / file for file in about["files"]]
    if about.pop("sha256") != _digest(about) or _look(arrays, target) != about["arrays"]:
        raise ValueError("its files are not as they were written")
    images = np.load(arrays[0], mmap_mode="r", allow_pickle=False)
    columns = dict(np.load(arrays[1], allow_pickle=False))
    told = {"rejected": tuple(Rejection(*each) for each in about["rejected"]), "notes": tuple(about["notes"])}
    return FaceSet(about["name"], images=images, classes=tuple(about["classes"]), **columns, **told)


def _look(paths: list[Path], base: Path) -> str:
    """Return a fingerprint of what the file system says of the files."""
    total, cut = hashlib.sha256(), len(str(base)) + 1
    for file in sorted(paths):
        s = os.stat(file, follow_symlinks=os.path.exists(file))  # a link to nothing
        total.update(os.fsencode(str(file)[cut:]))
        total.update(f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}\n".encode())
    return total.hexdigest()


@functools.cache
def _code() -> str:
    """Return the digest of the program that reads, and draws."""
    here = Path(__file__).parents[1]
    rooms = [*here.glob("datasets/*.py"), *here.glob("faces/*.py"), here / "images.py", here / "emotions.py"]
    return _digest([file.read_text("utf-8") for file in sorted(rooms)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _cache_folder(root: Path) -> Path:
    for folder in (root / "cache", Path("data") / "cache"):
        with suppress(OSError):  # a read-only disk, as Kaggle mounts its data sets
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return Path(tempfile.gettempdir()) / "reading-faces-cache"


def _sweep(target: Path, arrays: list[Path]) -> None:
    """Remove arrays that the manifest does not name; a strange one that is younger is being written."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        manifest = target / "manifest.json"
        named = json.loads(manifest.read_bytes())["files"] if manifest.exists() else []
        for file in target.glob("*-*.np[yz]"):
            if file.name not in named and (file in arrays or time.time() - file.stat().st_mtime > 60):
                file.unlink()
        if not named:
            target.rmdir()
