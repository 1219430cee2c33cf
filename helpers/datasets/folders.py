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


def muxspace_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the legend and every image."""
    legend = reading.first(root, ("data/legend.csv",), "muxspace")
    return [legend, *reading.visible(reading.first(legend.parents[1], ("images",), "muxspace"))]


def read_muxspace(root: Path, pixels: reading.Pixels, contempt: bool = False, color: bool = False) -> FaceSet:
    """Read the images of well-known people that have exactly one label in ``data/legend.csv``.

    The set has no official split. Who it is comes from the file name, so that a cut can keep people apart.
    ``contempt`` keeps the few faces of this eighth class; most of the images are grey, with ``color`` too.
    """
    legend, *on_disk = muxspace_files(root)
    classes = (*emotions.FER7, "contempt") if contempt else emotions.FER7
    rows, rejected = reading.table(legend, ("image", "emotion"))
    labels, found, known, listed = defaultdict(set), {}, [], set()
    # macOS takes letters and accents apart
    named = {unicodedata.normalize("NFC", file.name): file for file in on_disk}
    for row, fields in rows:
        image = unicodedata.normalize("NFC", fields["image"])
        listed.add(image)
        try:
            known.append((row, image, emotions.canonical(fields["emotion"])))
            labels[image].add(known[-1][2])
        except ValueError as error:
            rejected.append(Rejection(legend.name, row, str(error), "correct the row"))
    for row, image, label in known:
        both = " and ".join(sorted(labels[image]))
        if image not in named:
            why = f"no image {image!r} in images/", "get the file, or remove the row"
        elif both != label:
            why = f"{image!r} is labelled both {both}", "keep one of its rows"
        elif image in found:
            why = f"{image!r} repeats an earlier row", "nothing: the earlier one is kept"
        elif label not in classes:
            why = f"{label!r} has too few faces to learn from", f"load it with {label}=True"
        else:
            who = _PERSON.fullmatch(image)
            found[image] = reading.Found(named[image], label, subject=who[1] if who else "")
            continue
        rejected.append(Rejection(legend.name, row, *why))
    rejected += _without_row([named[name] for name in sorted(named.keys() - listed)], root, legend)
    return reading.face_set("muxspace", root, list(found.values()), rejected, classes, pixels, color)


def _without_row(files: list[Path], root: Path, listing: Path) -> list[Rejection]:
    why = f"has no row in {listing.name}", "add a row to use it"
    return [reading.rejection(file, root, *why) for file in files]


def rafdb_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the list and every aligned image."""
    places = tuple(f"{top}list_patition_label.txt" for top in ("EmoLabel/", "basic/EmoLabel/", ""))
    listing = reading.first(root, places, "rafdb")
    top = listing.parents[1] if listing.parent.name == "EmoLabel" else listing.parent
    return [listing, *reading.visible(reading.first(top, ("Image/aligned", "aligned"), "rafdb"))]


def read_rafdb(root: Path, pixels: reading.Pixels, color: bool = False) -> FaceSet:
    """Read ``Image/aligned/train_00001_aligned.jpg`` and so on, with the codes of ``EmoLabel/``."""
    listing, *on_disk = rafdb_files(root)
    named, found, rejected = {file.name: file for file in on_disk}, [], []
    for row, line in enumerate(listing.read_text("utf-8-sig", "replace").splitlines(), start=1):
        name, _, code = line.strip().rpartition(" ")
        if code in tuple("1234567") and (file := named.pop(name.replace(".", "_aligned."), None)):
            split = reading.SPLITS.get(name.split("_")[0], "")
            found.append(reading.Found(file, RAFDB7[int(code) - 1], split))
        elif line.strip():
            reason = f"{line.strip()[:40]!r} names no image of its own with a code from 1 to 7"
            rejected.append(Rejection(listing.name, row, reason, "get the file, or correct the row"))
    rejected += _without_row(list(named.values()), root, listing)
    return reading.face_set("rafdb", root, found, rejected, emotions.FER7, pixels, color)


def files(root: Path, path: str = "", **_options: object) -> list[Path]:
    """Return what is read: every file in the tree."""
    return list(reading.visible(_top(root, path)))


def _top(root: Path, path: str) -> Path:
    if not (root / path).is_dir():
        reading.first(root, (path or ".",), "folder", lambda _: False)  # it raises
    inside = reading.entries(root / path)  # a folder around everything, as code hosts pack it, is passed over
    packed = len(inside) == 1 and inside[0].name.endswith(("-master", "-main"))
    return Path(inside[0]) if packed else root / path


def read(
    root: Path, pixels: reading.Pixels, path: str = "", classes: tuple[str, ...] = (), color: bool = False
) -> FaceSet:
    """Read ``<class>/*`` or ``<split>/<class>/*`` below ``path``; its classes are those found.

    They are in the order of FER2013. ``classes`` are names in label order, for other words or another order.
    """
    found, rejected = reading.tree(_top(root, path), root, files(root, path), tuple(classes or ()))
    names = tuple(classes or (name for name in ORDER if name in {each.label for each in found}))
    return reading.face_set("folder", root, found, rejected, names, pixels, color)
