"""Sets of image files: Muxspace with its legend, RAF-DB with its list, and any tree of class folders."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from helpers import emotions
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet, Rejection

ORDER = (*emotions.FER7, *emotions.FUSED13[7:])  # label order: FER2013's, then contempt and the rest
RAFDB7 = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # codes 1 to 7
_PERSON = re.compile(r"(.+)_\d{4}\.\w+")  # George_W_Bush_0012.jpg
_RAFDB = (
    "EmoLabel/list_patition_label.txt",
    "basic/EmoLabel/list_patition_label.txt",
    "list_patition_label.txt",
)


# --- Muxspace: images of well-known people, labelled in data/legend.csv


def muxspace_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the legend and every image."""
    legend = reading.first(root, ("data/legend.csv",), "muxspace")
    return [legend, *reading.visible(reading.first(legend.parents[1], ("images",), "muxspace"))]


def read_muxspace(root: Path, pixels: reading.Pixels, contempt: bool = False, color: bool = False) -> FaceSet:
    """Read the images that have exactly one label.

    The set has no official split. Who it is comes from the file name, so that a cut can keep people apart.

    Args:
        root: the data folder.
        pixels: where the images go.
        contempt: keep the few faces of this eighth class instead of listing them in ``rejected``.
        color: RGB instead of grey; most of the images are grey.
    """
    legend, *on_disk = muxspace_files(root)
    classes = (*emotions.FER7, "contempt") if contempt else emotions.FER7
    rows, rejected = reading.table(legend, ("image", "emotion"))
    labels, named, found = defaultdict(set), {_name(file.name): file for file in on_disk}, {}
    for row, fields in rows:
        try:
            labels[_name(fields["image"])].add(emotions.canonical(fields["emotion"]))
        except ValueError as error:
            rejected.append(Rejection(legend.name, row, str(error), "correct the row"))
            fields["emotion"] = ""
    for row, fields in rows:
        image = _name(fields["image"])
        problem = fields["emotion"] and _problem(image, sorted(labels[image]), named, found, classes)
        if problem:
            rejected.append(Rejection(legend.name, row, *problem))
        elif fields["emotion"]:
            who = _PERSON.fullmatch(image)
            found[image] = reading.Found(named[image], *labels[image], subject=who[1] if who else "")
    mentioned = {_name(fields["image"]) for _, fields in rows}
    spare = [reading.relative(file, root) for name, file in named.items() if name not in mentioned]
    rejected += [Rejection(file, 0, "has no row in legend.csv", "add a row to use it") for file in spare]
    return reading.face_set("muxspace", root, list(found.values()), rejected, classes, pixels, color)


def _name(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS takes letters and accents apart


def _problem(
    image: str, labels: list[str], named: dict[str, Path], found: dict, classes: tuple[str, ...]
) -> tuple[str, str] | None:
    """Return why a row of the legend cannot be used, and what to do."""
    if image not in named:
        return f"no image {image!r} in images/", "get the file, or remove the row"
    if len(labels) > 1:
        return f"{image!r} is labelled both {' and '.join(labels)}", "keep one of its rows"
    if image in found:
        return f"{image!r} repeats an earlier row", "nothing: the earlier one is kept"
    if labels[0] not in classes:
        return f"{labels[0]!r} has too few faces to learn from", f"load it with {labels[0]}=True"
    return None


# --- RAF-DB: Image/aligned/train_00001_aligned.jpg, labelled by code in EmoLabel/list_patition_label.txt


def rafdb_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the list and every aligned image."""
    listing = reading.first(root, _RAFDB, "rafdb")
    tops = (
        listing.parents[1] / "Image" / "aligned",
        listing.parents[1] / "aligned",
        listing.parent / "aligned",
    )
    there = [top for top in tops if top.is_dir()]
    return [
        listing,
        *reading.visible(there[0] if there else reading.first(root, ("Image/aligned",), "rafdb")),
    ]


def read_rafdb(root: Path, pixels: reading.Pixels, color: bool = False) -> FaceSet:
    """Read the aligned images of the basic set, with its official training and test part.

    Args:
        root: the data folder.
        pixels: where the images go.
        color: RGB instead of grey.
    """
    listing, *on_disk = rafdb_files(root)
    named, found, rejected = {file.name: file for file in on_disk}, [], []
    for row, line in enumerate(listing.read_text("utf-8-sig", "replace").splitlines(), start=1):
        name, _, code = line.strip().rpartition(" ")
        file = named.pop(name.replace(".", "_aligned."), None) if code in set("1234567") else None
        if file:
            split = reading.SPLITS.get(name.split("_")[0], "")
            found.append(reading.Found(file, RAFDB7[int(code) - 1], split))
        elif line.strip():
            reason = (
                f"{line.strip()[:40]!r} names no aligned image with a code from 1 to 7, or one named before"
            )
            rejected.append(Rejection(listing.name, row, reason, "get the file, or correct the row"))
    spare = [reading.relative(file, root) for file in named.values()]
    rejected += [Rejection(file, 0, f"has no row in {listing.name}", "add a row to use it") for file in spare]
    return reading.face_set("rafdb", root, found, rejected, emotions.FER7, pixels, color)


# --- any tree of images: <class>/* or <split>/<class>/*


def files(root: Path, path: str = "", **_options: object) -> list[Path]:
    """Return what is read: every file in the tree."""
    return list(reading.visible(_top(root, path)))


def _top(root: Path, path: str) -> Path:
    """Return where the tree starts: a folder around everything, as archives have it, is passed over."""
    top = root / path
    if not top.is_dir():
        reading.first(root, (path or ".",), "folder", lambda _: False)  # it raises
    while (
        len(inside := reading.entries(top)) == 1 and inside[0].is_dir() and inside[0].name.endswith("-master")
    ):
        top = inside[0]
    return top


def read(
    root: Path,
    pixels: reading.Pixels,
    path: str = "",
    classes: tuple[str, ...] | None = None,
    color: bool = False,
) -> FaceSet:
    """Read the tree; its classes are the expressions found, in the order of FER2013.

    Args:
        root: the data folder.
        pixels: where the images go.
        path: where in it the tree starts.
        classes: names in label order, for other words than the workbook's or for another order.
        color: RGB instead of grey.
    """
    found, rejected = reading.tree(_top(root, path), root, files(root, path), classes and tuple(classes))
    names = tuple(classes or (name for name in ORDER if name in {each.label for each in found}))
    return reading.face_set("folder", root, found, rejected, names, pixels, color)
