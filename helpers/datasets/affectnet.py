"""AffectNet: faces from the web with an expression, valence, arousal and 68 landmarks, each in a small file.

A picture ``images/17.jpg`` has ``annotations/17_exp.npy``, ``17_val.npy``, ``17_aro.npy`` and ``17_lnd.npy``.
"""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers import emotions, images
from helpers.datasets import find, pictures
from helpers.datasets.faceset import FaceSet, Refused, Rejection

PARTS = {"train_set": "train", "val_set": "validation", "test_set": "test"}
"""Folders to splits."""
_TOPS = ("affectnet/", "AffectNet/", "Dataset/", "")
PLACES = tuple(f"{top}{part}annotations" for top in _TOPS for part in ("", "train_set/", "val_set/"))
NO_EXPRESSION = {8: "none of the expressions", 9: "uncertain", 10: "no face"}
"""Codes of ``exp`` that are no class."""
UNKNOWN = -2.0
"""Stands in ``val`` and ``aro`` where nobody gave a value."""
_NAME = re.compile(r"(.+)_(exp|val|aro|lnd)\.npy")
_AGAIN = "get the annotation again"


def files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: every picture and every annotation."""
    below = [folder / name for folder, _ in folders(root) for name in ("images", "annotations")]
    return [file for folder in below if folder.is_dir() for file in find.visible(folder)]


def read(root: Path, image_size: int, num_classes: int = 8, color: bool = False) -> FaceSet:
    """Read the pictures whose expression is one of the classes.

    Pictures and annotations lie in one pair of folders, or in one for each of ``train_set``, ``val_set`` and
    ``test_set``. Where there is no ``test_set``, which was never published, the faces of ``val_set`` are the
    test part: every published score is on them, so nothing may be chosen by them.

    A value of -2 is unknown, NaN here. Where the set holds no file of valence, arousal or landmarks at all,
    these are unknown for everybody; where others have the file, a picture without it is rejected.

    Args:
        root: the data folder.
        image_size: side of the images in pixels; landmarks are given on images of this size.
        num_classes: 8, or 7 to do without contempt.
        color: RGB instead of grey.

    Raises:
        ValueError: another number of classes.
    """
    if num_classes not in (7, 8):
        raise ValueError(f"affectnet has num_classes=7 or num_classes=8, not {num_classes!r}")
    classes = emotions.AFFECTNET8[:num_classes]
    parts = [_Part(folder, split) for folder, split in folders(root)]
    wanted = {"exp"}.union(*(named for part in parts for named in part.annotations.values()))
    found, rejected = [], []
    for part in parts:
        rejected += part.left_over(root)
        for file in part.pictures:
            try:
                found.append((file, part.split, _annotation(part.annotations[file.stem], wanted, classes)))
            except Refused as error:
                where = pictures.relative(file, root)
                rejected.append(Rejection(where, 0, error.reason, error.remedy))
    listed = [pictures.Picture(file, classes[given.expression], split) for file, split, given in found]
    faces = pictures.face_set("affectnet", root, listed, rejected, classes, image_size, color)
    given = {pictures.relative(file, root): annotation for file, _, annotation in found}
    return _with_values(faces, [given[source] for source in faces.source.tolist()], wanted, root, image_size)


def folders(root: Path, places: tuple[str, ...] = PLACES, name: str = "affectnet") -> list[tuple[Path, str]]:
    """Return each folder that holds ``images`` and ``annotations``, with its split.

    Args:
        root: the data folder.
        places: where the annotations may lie, below it.
        name: of the data set.

    Raises:
        FileNotFoundError: they lie in none of these places.
    """
    folder = find.first(root, places, name).parent
    if folder.name not in PARTS:
        return [(folder, "")]
    there = {split: folder.parent / name for name, split in PARTS.items()}
    there = {split: each for split, each in there.items() if (each / "annotations").is_dir()}
    if len(there) == 1:
        return [(folder, "")]
    if "test" not in there:
        there["test"] = there.pop("validation")
    return [(each, split) for split, each in there.items()]


class _Part:
    """The files of one pair of folders.

    Args:
        folder: holds ``images`` and ``annotations``.
        split: of its faces, "" where the set has no splits.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.split = split
        self.pictures = list(find.visible(folder / "images")) if (folder / "images").is_dir() else []
        self.annotations: dict[str, dict[str, Path]] = defaultdict(dict)
        self.strange = []
        for file in find.visible(folder / "annotations"):
            match = _NAME.fullmatch(file.name)
            if match:
                self.annotations[match[1]][match[2]] = file
            elif not file.name.endswith("_prob_rank.txt"):  # AffectNetFused, which lies in the same folders
                self.strange.append(file)

    def left_over(self, root: Path) -> list[Rejection]:
        """Return what belongs to no picture."""
        there = {file.stem for file in self.pictures}
        alone = [next(iter(named.values())) for key, named in self.annotations.items() if key not in there]
        why = "has no picture in images/", "get the picture, or remove its annotations"
        odd = "is no annotation (named <picture>_exp.npy, _val, _aro or _lnd)", "move it elsewhere"
        rows = [(file, why) for file in alone] + [(file, odd) for file in self.strange]
        return [Rejection(pictures.relative(file, root), 0, *reason) for file, reason in rows]


@dataclass(frozen=True)
class _Annotation:
    """What the files of one picture say; NaN is unknown."""

    expression: int
    valence: float
    arousal: float
    landmarks: np.ndarray


def _annotation(named: dict[str, Path], wanted: set[str], classes: tuple[str, ...]) -> _Annotation:
    for kind in ("exp", "val", "aro", "lnd"):
        if kind in wanted and kind not in named:
            raise Refused(f"has no annotation *_{kind}.npy", "get the file, or remove the picture")
    return _Annotation(
        _expression(named["exp"], classes),
        degree(named["val"]) if "val" in named else math.nan,
        degree(named["aro"]) if "aro" in named else math.nan,
        points(named["lnd"]) if "lnd" in named else np.full((68, 2), np.nan),
    )


def _expression(file: Path, classes: tuple[str, ...]) -> int:
    code = _number(file)
    if code in NO_EXPRESSION:
        reason = f"annotated as {NO_EXPRESSION[code]} (expression {code:.0f})"
        raise Refused(reason, "nothing: it has no class")
    if code == 7 and len(classes) == 7:
        raise Refused("contempt is the eighth class", "load it with num_classes=8")
    if code not in range(8):
        raise Refused(f"{file.name} holds {code:g}, no expression from 0 to 10", _AGAIN)
    return int(code)


def degree(file: Path) -> float:
    """Return a valence or arousal, NaN where unknown.

    Args:
        file: ``*_val.npy`` or ``*_aro.npy``.

    Raises:
        Refused: it holds something else.
    """
    value = _number(file)
    if value == UNKNOWN:
        return math.nan
    if not -1 <= value <= 1:
        raise Refused(f"{file.name} holds {value:g}, not a number from -1 to 1", _AGAIN)
    return value


def points(file: Path) -> np.ndarray:
    """Return 68 landmarks (x, y), float64 ``[68, 2]``, in pixels of the picture.

    Args:
        file: ``*_lnd.npy``.

    Raises:
        Refused: it holds something else.
    """
    values = _array(file)
    if values.size != 136 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        kind = f"{values.dtype} of shape {values.shape}"
        raise Refused(f"{file.name} holds {kind}, not 68 points (x, y)", _AGAIN)
    return values.reshape(68, 2).astype(np.float64)


def _number(file: Path) -> float:
    """Return the one number in a file, which most copies of the set hold as text."""
    values = _array(file)
    try:
        return float(values.item())
    except Exception:  # dates, records, characters beyond Unicode: NumPy raises anything at all here too
        content = f"{values.dtype} of shape {values.shape}"
        raise Refused(f"{file.name} holds {content}, not one number", _AGAIN) from None


def _array(file: Path) -> np.ndarray:
    data = file.read_bytes()
    if found := images.stand_in(data):
        raise Refused(f"{file.name} {found[0]}", found[1])
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header can make NumPy raise anything at all
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise Refused(f"{file.name} cannot be read ({reason})", _AGAIN) from error


def _with_values(
    faces: FaceSet, given: list[_Annotation], wanted: set[str], root: Path, image_size: int
) -> FaceSet:
    """Return the faces with valence, arousal and landmarks, row for row."""
    columns = {}
    if wanted & {"val", "aro"}:
        rows = [(annotation.valence, annotation.arousal) for annotation in given]
        columns["valence_arousal"] = np.array(rows, dtype=np.float32).reshape(-1, 2)
    if "lnd" in wanted:
        moved = [
            images.on_square(annotation.landmarks, *images.size(root / source), image_size)
            for annotation, source in zip(given, faces.source.tolist(), strict=True)
        ]
        columns["landmarks"] = np.array(moved, dtype=np.float32).reshape(-1, 68, 2)
    return replace(faces, **columns)
