"""``load``: from a name to a face set, decoded once and memory-mapped from then on.

A set is kept in ``<root>/cache/<name>-<key>/``, its images as .npy, the other columns as .npz. The manifest
comes last; it says by size, dates and inode which files were read and which arrays were made of them, and by
a digest, which code did it. Where one of these differs the set is read again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers import did_you_mean
from helpers.datasets import affectnet, fer2013, folders, synthetic
from helpers.datasets.faceset import FaceSet, Rejection
from helpers.datasets.reading import Pixels


class Layout(NamedTuple):
    """``files(root, **options)`` lists what is read, ``read(root, pixels, **options)`` reads it."""

    files: Callable[..., list[Path]]
    read: Callable[..., FaceSet]


LAYOUTS = {
    "synthetic": Layout(synthetic.files, synthetic.read),
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
    if name not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise ValueError(f"unknown data set {name!r}{did_you_mean(name, LAYOUTS)}; known: {known}")
    layout, root, options = LAYOUTS[name], Path(root).expanduser(), _options(name, options)
    if type(image_size) is not int or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be a whole number of pixels from 8 to 1024, not {image_size!r}")
    files, folder = layout.files(root, **options), _cache_folder(root)
    request = [name, image_size, options, "" if folder.parent == root else str(root.resolve())]
    target = folder / f"{name}-{_digest(request)[:16]}"
    made_from = {"code": _code(name), "inputs": _look(files, root)}
    if (target / "manifest.json").exists():
        try:
            about = json.loads((target / "manifest.json").read_bytes())
            if all(about[key] == value for key, value in made_from.items()):
                return _opened(target, about)
            if about["inputs"] != made_from["inputs"]:
                warnings.warn(
                    f"the files of {name} in {root} have changed: they are read again", stacklevel=2
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"the cache {target} is damaged ({error}); it is built again", stacklevel=2)
    token = f"{time.time_ns():x}-{os.getpid():x}"
    arrays = [target / f"images-{token}.npy", target / f"labels-{token}.npz"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        faces = _some(layout.read(root, Pixels(image_size, arrays[0]), **options), root)
        if _look(files, root) != made_from["inputs"]:
            raise RuntimeError(f"files in {root} changed while {name} was being read; load it again")
        _store(faces, target, arrays, made_from)
    except OSError as error:
        warnings.warn(f"{target} could not be written ({error}); the faces stay in memory", stacklevel=2)
        faces = _some(layout.read(root, Pixels(image_size), **options), root)
    finally:
        _sweep(target, arrays)
    return faces


def _options(name: str, given: dict) -> dict:
    """Return all options of a set, those that were given in place of their defaults."""
    parameters = inspect.signature(LAYOUTS[name].read).parameters.values()
    known = {each.name: each.default for each in parameters if each.default is not each.empty}
    for option in given:
        if option not in known:
            hint, names = did_you_mean(option, known), ", ".join(known) or "none"
            raise ValueError(f"{name} has no option {option!r}{hint}; known: {names}")
    return {**known, **given}


def _some(faces: FaceSet, root: Path) -> FaceSet:
    """Return the faces, or raise where there is not a single one."""
    if not len(faces):
        why = f"; the first: {faces.rejected[0]}" if faces.rejected else ""
        found = f"none of {len(faces.rejected)} rows or images can be used{why}"
        raise ValueError(f"{faces.name} in {root.resolve()}: {found}")
    return faces


def _store(faces: FaceSet, target: Path, arrays: list[Path], made_from: dict) -> None:
    """Write all but the images, which are there already."""
    np.savez(arrays[1], **{name: values for name, values in faces.columns().items() if name != "images"})
    about = {"name": faces.name, "classes": faces.classes, "notes": faces.notes, **made_from}
    about["rejected"] = [[r.file, r.row, r.reason, r.remedy] for r in faces.rejected]
    about |= {"files": [file.name for file in arrays], "arrays": _look(arrays, target)}
    about["sha256"] = _digest(about)
    fresh = target / f".manifest{arrays[0].stem}"
    fresh.write_text(json.dumps(about, indent=1))
    os.replace(fresh, target / "manifest.json")


def _opened(target: Path, about: dict) -> FaceSet:
    """Return the faces in a cache; raise where they are not as they were written."""
    files = [target / file for file in about["files"]]
    if about.pop("sha256") != _digest(about) or _look(files, target) != about["arrays"]:
        raise ValueError("its files are not as they were written")
    with np.load(files[1], allow_pickle=False) as columns:
        arrays = {name: columns[name] for name in columns.files}
    arrays["images"] = np.load(files[0], mmap_mode="r", allow_pickle=False)
    rejected = tuple(Rejection(*fields) for fields in about["rejected"])
    arrays |= {"classes": tuple(about["classes"]), "notes": tuple(about["notes"])}
    return FaceSet(about["name"], rejected=rejected, **arrays)


def _look(files: list[Path], base: Path) -> str:
    """Return a fingerprint of what the file system says of the files."""
    total, cut = hashlib.sha256(), len(str(base)) + 1
    for file in sorted(files):
        try:
            s = os.stat(file)
        except FileNotFoundError:  # a link to nothing
            s = os.lstat(file)
        line = f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}\n"
        total.update(os.fsencode(str(file)[cut:]) + line.encode())
    return total.hexdigest()


@functools.cache
def _code(name: str) -> str:
    """Return the digest of the program that reads, or draws."""
    here, total = Path(__file__).parent, hashlib.sha256()
    for place in ("datasets/*.py", "images.py", "emotions.py", "faces/*.py")[
        : 4 if name == "synthetic" else 3
    ]:
        for file in sorted(here.parent.glob(place)):
            total.update(file.read_bytes())
    return total.hexdigest()


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
        manifest, named = target / "manifest.json", []
        if manifest.exists():
            named = json.loads(manifest.read_bytes())["files"]
        for file in target.glob("*-*"):
            if file.name not in named and (file in arrays or time.time() - file.stat().st_mtime > 60):
                file.unlink()
        if not named:
            target.rmdir()
