"""What the readers of all layouts share: where a set lies, small csv files, image files to a face set."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers import did_you_mean, emotions, images
from helpers.datasets.faceset import FaceSet, Rejection

# what desktops, network drives, archives and the cache leave beside the data; names with a dot in front, too
PACKAGING = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle", "cache"}
PACKAGING |= {"@recycle", "$recycle.bin", "lost+found", "system volume information"}
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation"}
SPLITS |= {"val": "validation", "dev": "validation", "test": "test", "testing": "test"}
SPLITS |= {"publictest": "public", "privatetest": "test"}  # the public one is test where it is alone
_KDEF = re.compile(r"[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)\.\w+", re.IGNORECASE)  # AF01ANS.JPG


class Refused(ValueError):
    """Raised while a row is read, with two words: why it cannot be used, and what the reader can do."""


def first(root: Path, places: tuple[str, ...], name: str, fits: Callable[[Path], bool] = Path.exists) -> Path:
    """Return the first place, below the data folder or a folder in it, that fits; or say what lies there."""
    for tops in (lambda: [root], lambda: folders(root, name)):
        for path in (top / place for top in tops() for place in places):
            if fits(path):
                return path
    there = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries(root)]
    packed = [entry for entry in there if entry.lower().endswith((".zip", "gz", ".tar", ".rar", ".7z"))]
    holds = f"it holds {', '.join(there[:8])}" + (f" and {len(there) - 8} more" if there[8:] else "")
    holds += f"; unpack {packed[0]} first if it is in there" if packed else ""
    holds = holds if there else "it is empty" if root.is_dir() else "that folder does not exist"
    raise FileNotFoundError(
        f"no {name} in {root.resolve()} (looked for {', '.join(places)}, there and in each folder there); "
        f"{holds}; see {name!r} in data/README.md for how to get it, or give root=... where it lies"
    )


def entries(folder: Path) -> list[os.DirEntry]:
    """Return what lies in a folder, sorted, without what systems and archives leave there; [] if none."""
    found = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
    return [each for each in found if not each.name.startswith(".") and each.name.lower() not in PACKAGING]


def folders(root: Path, name: str) -> list[Path]:
    """Return the folders in the data folder, those that are called like the set first."""
    found = [Path(entry) for entry in entries(root) if entry.is_dir()]
    return sorted(found, key=lambda path: not plain(path.name).startswith(plain(name)))


def plain(name: str) -> str:
    """Return a name in lower case without spaces, dots, dashes and underscores."""
    return re.sub(r"[\s._-]", "", name.lower())


def visible(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted; links are followed, but not in circles."""
    for entry in entries(folder):
        path = Path(entry)
        if entry.is_dir():
            around = [above.resolve() for above in path.parents] if entry.is_symlink() else []
            if not any(above.is_relative_to(path.resolve()) for above in around):
                yield from visible(path)
        elif entry.is_file() or entry.is_symlink():  # a link to nothing is a file that cannot be read
            yield path


def rejection(file: Path, root: Path, *why: str) -> Rejection:
    """Return that a whole file cannot be used: why, and what the reader can do."""
    return Rejection(relative(file, root), 0, *why)


def relative(file: Path, root: Path) -> str:
    """Return a file's path below the root, with forward slashes; bytes that are no UTF-8 are written out."""
    return os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def table(path: Path, columns: tuple[str, ...]) -> tuple[list[tuple[int, dict[str, str]]], list[Rejection]]:
    """Read a csv with a header, a row a line: number and fields of the good rows, and the others."""
    data = path.read_bytes()
    try:
        top, *lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        top, *lines = data.decode("cp1252", "replace").split("\n")  # what Excel writes
    names, separator = header(path, data, top, columns)
    good, rejected = [], []
    for row, line in enumerate(lines, start=2):
        try:  # line by line: a quote that is not closed spoils no other row
            fields = next(csv.reader([line.rstrip("\r")], delimiter=separator), [])
        except csv.Error:  # longer than any field should be
            fields = ["?"]
        if len(fields) == len(names):
            good.append((row, dict(zip(names, map(str.strip, fields), strict=True))))
        elif fields:
            reason = f"{len(fields)} fields instead of {len(names)}"
            rejected.append(Rejection(path.name, row, reason, "correct the row"))
    return good, rejected


def header(path: Path, head: bytes, top: str, columns: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the names in a first row, in lower case, and what separates them; or say what the file is."""
    separator = max(",;\t", key=top.count)
    names = [name.strip(' "\r\n').lower() for name in top.split(separator)]
    if missing := [column for column in columns if column not in names]:
        hint = did_you_mean(missing[0], names).replace("did you mean", "nearest is").rstrip("?")
        problem = f"first row has no column {missing[0]!r}{hint}", f"needs {', '.join(columns)}"
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            problem = "is in UTF-16", "save it in UTF-8"
        if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")):
            problem = "is an archive", "unpack it first"
        raise ValueError(f"{path}: {'; '.join(images.stand_in(head) or problem)}")
    return names, separator


# --- image files


class Pixels:
    """Where images go while a set is read, block by block: into an .npy file, or into memory."""

    def __init__(self, size: int, file: Path | None = None) -> None:
        self.size, self.file, self.num, self.shape = size, file, 0, (size, size)
        self.stream = open(file, "wb") if file else io.BytesIO()  # noqa: SIM115 (until close)
        self.stream.write(bytes(128))  # the header, which has the number of images, comes last

    def add(self, block: np.ndarray) -> None:
        """Append images, uint8 ``[n, ...]``; grey ones are resized."""
        block = images.resize(block, self.size) if block.shape[-1] != self.size else block
        self.num, self.shape = self.num + len(block), block.shape[1:]
        self.stream.write(np.ascontiguousarray(block))

    def close(self) -> np.ndarray:
        """Return all images, uint8 ``[N, H, W]`` or ``[N, 3, H, W]``, those in a file memory-mapped."""
        shape = (self.num, *self.shape)
        if not self.file:
            return np.ndarray(shape, np.uint8, self.stream.getbuffer(), offset=128)
        self.stream.seek(0)
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.stream, about)
        self.stream.close()
        return np.load(self.file, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Found:
    """One labelled image file; ``subject`` is who it is, ``values`` has its further columns of a face set."""

    file: Path
    label: str
    split: str = ""
    subject: str = ""
    values: dict[str, np.ndarray] = field(default_factory=dict)


def face_set(
    name: str, root: Path, found: list[Found], rejected: Iterable[Rejection], classes: tuple[str, ...],
    pixels: Pixels, color: bool = False, notes: tuple[str, ...] = (),
) -> FaceSet:  # fmt: skip
    """Decode image files on all cores, a block at a time; those that cannot be decoded join the rejected."""

    def decoded(part: list[Found]) -> list[np.ndarray | Rejection]:
        done = []
        for each in part:
            try:
                done.append(images.read(each.file, pixels.size, color))
                if "landmarks" in each.values:  # they are given in pixels of the file
                    points = images.on_square(each.values["landmarks"], each.file, pixels.size)
                    each.values["landmarks"] = points
            except images.PictureError as error:
                done.append(rejection(each.file, root, error.reason, error.remedy))
        return done

    kept, rejected, cores = [], list(rejected), os.cpu_count() or 1
    share = max(1, 2**24 // (pixels.size**2 * (3 if color else 1)) // cores)  # 16 MB at a time, in all
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, len(found), share * cores):
            # each core gets one part: handing out small images singly costs more than decoding them
            parts = [found[start + i * share :][:share] for i in range(cores)]
            done = [*zip(sum(parts, []), sum(pool.map(decoded, parts), []), strict=True)]
            rejected += [result for _, result in done if isinstance(result, Rejection)]
            good = [(each, result) for each, result in done if isinstance(result, np.ndarray)]
            kept += [each for each, _ in good]
            if good:
                pixels.add(np.stack([result for _, result in good]))
    columns = {key: np.stack([each.values[key] for each in kept]) for key in (kept[0].values if kept else ())}
    who, number = np.unique([each.subject for each in kept], return_inverse=True)
    if any(who):
        columns["subject"] = number - (who[0] == "")  # nobody knows who: -1
    columns["labels"] = np.array([classes.index(each.label) for each in kept], dtype=np.int64)
    columns["split"] = np.array([each.split for each in kept], dtype="U10")
    columns["source"] = np.array([relative(each.file, root) for each in kept], dtype=str)
    told = {"rejected": tuple(rejected), "notes": notes, "classes": classes}
    return FaceSet(name, images=pixels.close(), **columns, **told)


def tree(
    folder: Path, root: Path, files: list[Path], classes: tuple[str, ...] = ()
) -> tuple[list[Found], list[Rejection]]:
    """Label files below a folder by the folders they lie in, ``[<split>/]<class>/...``, or KDEF's names.

    ``classes`` are accepted as they stand; without them, every expression that the workbook knows.
    """
    parts = [file.relative_to(folder).parts for file in files]
    splits = [SPLITS.get(plain(above[0]), "") if above[1:] else "" for above in parts]
    public = "validation" if "test" in splits else "test"
    found, rejected = [], []
    for file, above, split in zip(files, parts, splits, strict=True):
        kdef = _KDEF.fullmatch(file.name)
        word = kdef[2] if kdef else "".join(above[bool(split) : -1][:1])
        try:
            if not word:
                raise ValueError("lies in no class folder")
            # 3_happy, or a word of the reader's own
            label = word if word in classes else emotions.canonical(re.sub(r"^\d+[\s._-]+", "", word))
            if classes and label not in classes:
                raise ValueError(f"{label!r} is not a class of this set ({', '.join(classes)})")
            found.append(Found(file, label, split.replace("public", public), kdef[1] if kdef else ""))
        except ValueError as error:
            remedy = "name the folder after the expression, in words"
            rejected.append(rejection(file, root, str(error), remedy))
    return found, rejected
