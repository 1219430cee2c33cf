"""From a list of picture files with their labels to a face set; what every layout of picture files shares."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import emotions, images
from helpers.datasets.faceset import FaceSet, Rejection

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
"""Folder names, in any casing, to splits."""


@dataclass(frozen=True)
class Picture:
    """One labelled picture file.

    Args:
        file: where it lies.
        label: its expression, one of the set's classes.
        split: "train", "validation", "test", or "" where the set has no official split.
        subject: who it is, "" where unknown.
    """

    file: Path
    label: str
    split: str = ""
    subject: str = ""


def face_set(
    name: str,
    root: Path,
    pictures: list[Picture],
    rejected: Iterable[Rejection],
    classes: tuple[str, ...],
    image_size: int,
    color: bool = False,
) -> FaceSet:
    """Decode pictures, on all cores; those that cannot be decoded join the rejected.

    Args:
        name: of the data set.
        root: sources are named relative to it.
        pictures: what to decode.
        rejected: what was refused before.
        classes: canonical names in label order.
        image_size: side in pixels.
        color: RGB instead of grey.
    """
    decoded = _decode_all(pictures, root, image_size, color)
    kept = [i for i, result in enumerate(decoded) if isinstance(result, np.ndarray)]
    shape = (len(kept), *((3,) if color else ()), image_size, image_size)
    chosen = [pictures[i] for i in kept]
    return FaceSet(
        name,
        images=np.array([decoded[i] for i in kept], dtype=np.uint8).reshape(shape),
        labels=np.array([classes.index(p.label) for p in chosen], dtype=np.int64),
        classes=classes,
        split=np.array([p.split for p in chosen], dtype="U10"),
        source=np.array([relative(p.file, root) for p in chosen], dtype=str),
        subject=_numbered([p.subject for p in chosen]),
        rejected=(*rejected, *(result for result in decoded if isinstance(result, Rejection))),
    )


def _decode_all(
    pictures: list[Picture], root: Path, image_size: int, color: bool
) -> list[np.ndarray | Rejection]:
    """Decode on all cores, 64 pictures a task: handing out small ones singly costs more than decoding."""
    blocks = [pictures[start : start + 64] for start in range(0, len(pictures), 64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda block: [_decode(p, root, image_size, color) for p in block], blocks)
        return [result for block in done for result in block]


def _decode(picture: Picture, root: Path, image_size: int, color: bool) -> np.ndarray | Rejection:
    try:
        return images.read(picture.file, image_size, color)
    except images.PictureError as error:
        return Rejection(relative(picture.file, root), 0, error.reason, error.remedy)


def _numbered(subjects: list[str]) -> np.ndarray | None:
    """Return a number for each name, -1 for "", None where no name is known."""
    number = {name: i for i, name in enumerate(sorted(set(subjects) - {""}))}
    return np.array([number.get(name, -1) for name in subjects], dtype=np.int64) if number else None


def relative(file: Path, root: Path) -> str:
    """Return a file's path below the root, with forward slashes.

    Args:
        file: the file.
        root: the folder it lies in.
    """
    return file.relative_to(root).as_posix()


def tree(
    folder: Path, root: Path, files: list[Path], classes: tuple[str, ...] | None = None
) -> tuple[list[Picture], list[Rejection]]:
    """Label every picture below ``<class>/`` or ``<split>/<class>/`` by the names of its folders.

    The order of the folders on disk says nothing about labels: a name in any casing or form ("Happy",
    "HAPPINESS") finds its class.

    Args:
        folder: where the tree starts.
        root: sources are named relative to it.
        files: what to label, all below the folder.
        classes: the names that are accepted as they stand; None accepts every expression the workbook knows.

    Returns:
        The pictures, and what lies in no class.
    """
    pictures, rejected = [], []
    for file in files:
        *above, _ = file.relative_to(folder).parts
        split = SPLITS.get(above[0].lower(), "") if above else ""
        below = above[1:] if split else above
        try:
            pictures.append(Picture(file, _label(below, classes), split))
        except ValueError as error:
            remedy = "name the folder after the expression, in words"
            rejected.append(Rejection(relative(file, root), 0, str(error), remedy))
    return pictures, rejected


def _label(folders: list[str], classes: tuple[str, ...] | None) -> str:
    if not folders:
        raise ValueError("lies in no class folder")
    if classes is not None and folders[0] in classes:
        return folders[0]
    name = emotions.canonical(folders[0])
    if classes is not None and name not in classes:
        raise ValueError(f"{name!r} is not a class of this set ({', '.join(classes)})")
    return name
