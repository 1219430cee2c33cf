"""Muxspace facial expressions: pictures of well-known people, labelled in ``data/legend.csv``."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from helpers import emotions
from helpers.datasets import find, pictures, tables
from helpers.datasets.faceset import FaceSet, Refused, Rejection

PLACES = tuple(f"{top}data/legend.csv" for top in ("muxspace/", "facial_expressions/", ""))
_PERSON = re.compile(r"(.+)_\d{4}\.\w+")  # George_W_Bush_0012.jpg


def files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the legend and every picture."""
    legend = find.first(root, PLACES, "muxspace")
    return [legend, *find.visible(find.first(legend.parents[1], ("images",), "muxspace"))]


def read(root: Path, image_size: int, contempt: bool = False, color: bool = False) -> FaceSet:
    """Read the pictures that have exactly one label.

    The set has no official split. Who it is comes from the file name, so that a cut can keep people apart.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
        contempt: keep the few faces of this eighth class instead of listing them in ``rejected``.
        color: RGB instead of grey; most of the pictures are grey.
    """
    legend, *on_disk = files(root)
    classes = (*emotions.FER7, "contempt") if contempt else emotions.FER7
    rows, torn = tables.read(legend, ("image", "emotion"))
    named, strange = tables.sort_out(legend, rows, _named)
    judge = _Judge({file.name: file for file in on_disk}, named, classes)
    found, refused = tables.sort_out(legend, named, judge)
    mentioned = {fields["image"] for _, fields in rows}
    spare = [_without_row(file, root) for file in on_disk if file.name not in mentioned]
    rejected = [*torn, *strange, *refused, *spare]
    return pictures.face_set(
        "muxspace", root, [picture for _, picture in found], rejected, classes, image_size, color
    )


def _named(fields: dict[str, str]) -> tuple[str, str]:
    try:
        return fields["image"], emotions.canonical(fields["emotion"])
    except ValueError as error:
        raise Refused(str(error), "correct the row") from None


class _Judge:
    """Turns (picture, expression) rows into pictures, each once; the rest is refused."""

    def __init__(self, files: dict[str, Path], rows: list, classes: tuple[str, ...]) -> None:
        self.files, self.classes, self.seen = files, classes, set()
        self.labels = defaultdict(set)
        for _, (image, label) in rows:
            self.labels[image].add(label)

    def __call__(self, row: tuple[str, str]) -> pictures.Picture:
        image, label = row
        if image not in self.files:
            raise Refused(f"no picture {image!r} in images/", "get the file, or remove the row")
        if len(self.labels[image]) > 1:
            both = " and ".join(sorted(self.labels[image]))
            raise Refused(f"{image!r} is labelled both {both}", "keep one of its rows")
        if image in self.seen:
            raise Refused(f"{image!r} repeats an earlier row", "nothing: the earlier one is kept")
        if label not in self.classes:
            raise Refused(f"{label!r} has too few faces to learn from", f"load it with {label}=True")
        self.seen.add(image)
        return pictures.Picture(self.files[image], label, subject=_person(image))


def _person(image: str) -> str:
    match = _PERSON.fullmatch(image)
    return match[1] if match else ""


def _without_row(file: Path, root: Path) -> Rejection:
    return Rejection(pictures.relative(file, root), 0, "has no row in legend.csv", "add a row to use it")
