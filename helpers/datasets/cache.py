"""Decode once: a face set kept as memory-mapped arrays beside the data it came from.

A set lies in ``<root>/cache/<name>-<key>/`` as ``images.npy``, ``labels.npz`` and ``manifest.json`` with the
sha256 of both. The key is the sha256 of everything the faces depend on: the bytes and names of the source
files, the options, and the code that reads them. So another file, option or version of the reading code is
another folder, and an old one is never served for it.

Hashing 300 MB at each load would cost more than loading, so the digest of a group of files is remembered by
what the file system says of them, under git's rule: size, modification time, change time and inode of each
are as they were, and all were at least two seconds old when they were read. The arrays of the cache itself
are checked against the manifest in the same way; what does not agree is said and built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from helpers.datasets.faceset import FaceSet, Rejection
from helpers.files import replacing, sha256

FORMAT = 1  # of the arrays on disk; one more whenever FaceSet's columns change their meaning
_SETTLED = 2e9  # ns: the coarsest clock of a file system in use (FAT) ticks every two seconds
_REMEMBERED = 500  # digests kept in digests.json


def remember(
    name: str, root: Path, files: list[Path], code: list[Path], options: dict, build: Callable[[], FaceSet]
) -> FaceSet:
    """Return the face set from the cache, or build it and put it there.

    Args:
        name: the data set's name.
        root: the data folder; where it cannot be written, ``data/cache`` of the working folder is used.
        files: everything that is read.
        code: the program that reads it.
        options: everything else the result depends on, as JSON can hold it.
        build: reads the files.

    Raises:
        RuntimeError: a file changed while it was being read.
    """
    files, folder = sorted(files), _folder(root)
    look, digests = _look(files, root), Digests(folder)
    content = [_sha256(b"\0".join(file.read_bytes() for file in code)), digests.of(files, root, look)]
    key = _sha256(_json([FORMAT, name, options, content]))[:16]
    target = folder / f"{name}-{key}"
    if target.exists():
        try:
            return _read(target, digests)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"the cache {target} is damaged ({error}); it is built again", stacklevel=3)
    faces = build()
    if _look(files, root) != look:
        raise RuntimeError(f"files in {root} changed while {name} was being read; load it again")
    request = _json([name, options, str(root.resolve())]).decode()
    return _store(faces, target, request, digests)


class Digests:
    """The sha256 of groups of files, remembered while the file system says that they are unchanged.

    Args:
        folder: where ``digests.json`` lies.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "digests.json"
        try:
            self.known = dict(json.loads(self.file.read_bytes()))
        except (OSError, ValueError, TypeError):  # not there yet, or torn: what it held is computed again
            self.known = {}

    def of(self, files: list[Path], base: Path, look: tuple[str, int] | None = None) -> str:
        """Return one sha256 over the names and bytes of all files.

        Args:
            files: the group.
            base: names are taken relative to it.
            look: what the file system says of them, where that has just been asked.
        """
        now, look = time.time_ns(), look or _look(files, base)
        seen, newest = look
        if seen not in self.known:
            digest = _combined([(_name(file, base), sha256(file)) for file in files])
            if newest + _SETTLED > now or _look(files, base) != look:
                return digest
            self._keep(seen, digest)
        return self.known[seen]

    def _keep(self, look: str, digest: str) -> None:
        self.known[look] = digest
        recent = dict(list(self.known.items())[-_REMEMBERED:])
        try:
            with replacing(self.file) as stream:
                stream.write(json.dumps(recent).encode())
        except OSError:  # read-only or full: it is only a memory
            return


def _look(files: list[Path], base: Path) -> tuple[str, int]:
    """Return a fingerprint of what the file system says of the files, and their latest change in ns."""
    stats = [(_name(file, base), os.stat(file)) for file in files]
    lines = [f"{name}\0{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for name, s in stats]
    newest = max((max(s.st_mtime_ns, s.st_ctime_ns) for _, s in stats), default=0)
    return _sha256("\n".join([str(base.resolve()), *lines]).encode()), newest


def _combined(digests: list[tuple[str, str]]) -> str:
    return _sha256(_json(digests))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _name(file: Path, base: Path) -> str:
    below = str(file).removeprefix(f"{base}{os.sep}")  # pathlib would take ten times as long
    return file.name if os.path.isabs(below) else below.replace(os.sep, "/")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folder(root: Path) -> Path:
    for folder in (root / "cache", Path("data") / "cache"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
        except OSError:  # a read-only disk, as Kaggle mounts its data sets
            continue
    return Path(tempfile.gettempdir()) / "reading-faces-cache"


def _read(target: Path, digests: Digests) -> FaceSet:
    manifest = json.loads((target / "manifest.json").read_bytes())
    about = manifest["about"]
    if manifest["sha256"] != _about_digest(about):
        raise ValueError("manifest.json is not as it was written")
    if digests.of(_arrays(target), target) != _combined(sorted(about["files"].items())):
        raise ValueError("its arrays are not those of manifest.json")
    with np.load(target / "labels.npz", allow_pickle=False) as columns:
        arrays = {name: columns[name] for name in columns.files}
    pixels = np.load(target / "images.npy", mmap_mode="r", allow_pickle=False)
    rejected = tuple(Rejection(*fields) for fields in about["rejected"])
    classes, notes = tuple(about["classes"]), tuple(about.get("notes", ()))
    return FaceSet(about["name"], images=pixels, classes=classes, rejected=rejected, notes=notes, **arrays)


def _store(faces: FaceSet, target: Path, request: str, digests: Digests) -> FaceSet:
    _sweep(target.parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
        try:
            _fill(fresh, faces, request)
            os.chmod(fresh, 0o755)  # mkdtemp makes private folders; a shared course folder must stay readable
            _put(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _drop_superseded(target, request)
        return _read(target, digests)
    except OSError as error:
        warnings.warn(f"{target} could not be written ({error}); the faces stay in memory", stacklevel=4)
        return faces


def _fill(fresh: Path, faces: FaceSet, request: str) -> None:
    columns = {name: values for name, values in faces.columns().items() if name != "images"}
    with replacing(fresh / "images.npy") as stream:
        np.save(stream, np.ascontiguousarray(faces.images), allow_pickle=False)
    with replacing(fresh / "labels.npz") as stream:
        np.savez(stream, **columns)
    digests = {file.name: sha256(file) for file in _arrays(fresh)}
    about = {
        "name": faces.name,
        "request": request,
        "classes": list(faces.classes),
        "files": digests,
        "rejected": [[r.file, r.row, r.reason, r.remedy] for r in faces.rejected],
        "notes": list(faces.notes),
    }
    text = json.dumps({"about": about, "sha256": _about_digest(about)}, indent=1)
    with replacing(fresh / "manifest.json") as stream:
        stream.write(text.encode())


def _arrays(target: Path) -> list[Path]:
    return [target / "images.npy", target / "labels.npz"]


def _about_digest(about: dict) -> str:
    return _sha256(_json(about))


def _put(fresh: Path, target: Path) -> None:
    """Move the finished folder to its place; a damaged one there, or a twin built meanwhile, gives way."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
        os.replace(target, old / "old")
        shutil.rmtree(old, ignore_errors=True)
    os.replace(fresh, target)


def _sweep(folder: Path) -> None:
    """Remove what a build that was killed left behind; younger than an hour, it may still be running."""
    for left in folder.glob("building-*"):
        with suppress(OSError):  # another process may be sweeping too
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left)


def _drop_superseded(target: Path, request: str) -> None:
    """Remove what the same request gave for older files or older code."""
    for other in target.parent.glob(f"{target.name.rpartition('-')[0]}-*"):
        try:
            about = json.loads((other / "manifest.json").read_bytes())["about"]
            if other != target and about["request"] == request:
                shutil.rmtree(other, ignore_errors=True)
        except (OSError, ValueError, KeyError, TypeError):  # not one of ours, or being built
            continue
