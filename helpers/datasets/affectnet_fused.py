"""AffectNetFused: AffectNet's faces, each with a distribution over thirteen expressions in a small text file.

A picture ``images/17.jpg`` has ``annotations/17_prob_rank.txt``: thirteen values in one line, separated by
commas, in the order of ``emotions.FUSED13``. Where AffectNet's own ``17_val.npy`` and ``17_aro.npy`` lie
beside it, they are read too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers import emotions, images
from helpers.datasets import affectnet, find, pictures
from helpers.datasets.faceset import FaceSet, Refused, Rejection

ENDING = "_prob_rank.txt"
TOLERANCE = 1e-3
"""How far from 1 a sum may be and still be taken for a rounded 1."""
_TOPS = ("affectnet_fused/", "AffectNetFused/")
PLACES = tuple(f"{top}{part}annotations" for top in _TOPS for part in ("", "train_set/", "val_set/"))
PLACES += affectnet.PLACES
_BESIDE = tuple(f"_{kind}.npy" for kind in ("exp", "val", "aro", "lnd"))  # AffectNet's own
_ADVICE = "correct the row, or remove the picture"


def files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: every picture and every annotation."""
    below = [folder / name for folder, _ in _folders(root) for name in ("images", "annotations")]
    return [file for folder in below if folder.is_dir() for file in find.visible(folder)]


def read(root: Path, image_size: int, color: bool = False) -> FaceSet:
    """Read the pictures with their distributions; the label is the likeliest class, of tied ones the first.

    A row that is no distribution is rejected. One whose sum is 1 within a thousandth was rounded when it was
    written; it is divided by its sum, and ``notes`` says how many there were.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
        color: RGB instead of grey.
    """
    listed, rejected, given = [], [], {}
    for folder, split in _folders(root):
        for picture, annotation in _pairs(folder):
            try:
                values = _judge(picture, annotation)
            except Refused as error:
                rejected.append(_rejection(picture, annotation, root, error))
            else:
                given[pictures.relative(picture, root)] = values
                label = emotions.FUSED13[int(values[:13].argmax())]
                listed.append(pictures.Picture(picture, label, split))
    faces = pictures.face_set("affectnet_fused", root, listed, rejected, emotions.FUSED13, image_size, color)
    return _with_values(faces, np.array([given[source] for source in faces.source.tolist()]).reshape(-1, 15))


def _folders(root: Path) -> list[tuple[Path, str]]:
    return affectnet.folders(root, PLACES, "affectnet_fused")


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each picture with its annotation; either of the two may not exist."""
    there = list(find.visible(folder / "images")) if (folder / "images").is_dir() else []
    for picture in there:
        yield picture, folder / "annotations" / f"{picture.stem}{ENDING}"
    stems = {picture.stem for picture in there}
    for file in find.visible(folder / "annotations"):
        if not file.name.endswith((ENDING, *_BESIDE)):
            yield folder / "images" / "?", file
        elif file.name.endswith(ENDING) and file.name.removesuffix(ENDING) not in stems:
            yield folder / "images" / file.name.replace(ENDING, ".jpg"), file


def _rejection(picture: Path, annotation: Path, root: Path, error: Refused) -> Rejection:
    """Say which file is to blame: the annotation, in its first and only row, if it is there."""
    both = picture.exists() and annotation.exists()
    where = annotation if annotation.exists() else picture
    return Rejection(pictures.relative(where, root), int(both), error.reason, error.remedy)


def _judge(picture: Path, annotation: Path) -> np.ndarray:
    """Return the thirteen values as they stand, valence and arousal, float64 ``[15]``; or refuse the face."""
    if not annotation.exists():
        raise Refused(f"has no annotation {annotation.name}", "get the file, or remove the picture")
    if not annotation.name.endswith(ENDING):
        raise Refused(f"is no annotation (named <picture>{ENDING})", "move it elsewhere")
    if not picture.exists():
        raise Refused("has no picture in images/", "get the picture, or remove its annotation")
    degrees = [annotation.with_name(f"{picture.stem}_{kind}.npy") for kind in ("val", "aro")]
    known = [affectnet.degree(file) if file.exists() else math.nan for file in degrees]
    return np.array([*_distribution(annotation), *known])


def _distribution(file: Path) -> list[float]:
    data = file.read_bytes()
    if found := images.stand_in(data):
        raise Refused(found[0], found[1])
    lines = [line for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if len(lines) != 1:
        raise Refused(f"{len(lines)} rows instead of 1", _ADVICE)
    values = [_number(field.strip()) for field in lines[0].split(",")]
    if len(values) != len(emotions.FUSED13):
        raise Refused(f"{len(values)} values instead of {len(emotions.FUSED13)}", _ADVICE)
    if min(values) < 0:
        raise Refused(f"{min(values):g} is negative", _ADVICE)
    if not any(values):
        raise Refused("all values are 0", _ADVICE)
    if abs(math.fsum(values) - 1) > TOLERANCE:
        raise Refused(f"the values sum to {math.fsum(values):.6g}, not to 1", _ADVICE)
    return values


def _number(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        raise Refused(f"{field[:20]!r} is no number", _ADVICE) from None
    if not math.isfinite(value):
        raise Refused(f"{field[:20]!r} is no probability", _ADVICE)
    return value


def _with_values(faces: FaceSet, values: np.ndarray) -> FaceSet:
    """Return the faces with distributions that sum to 1, valence and arousal, row for row."""
    sums = values[:, :13].sum(axis=1, keepdims=True)
    rounded = int((abs(sums - 1) > 1e-9).sum())
    note = f"{rounded} of {len(faces)} rows sum to 1 only within {TOLERANCE:g}; each was divided by its sum"
    degrees = values[:, 13:].astype(np.float32)
    return replace(
        faces,
        distribution=(values[:, :13] / sums).astype(np.float32),
        valence_arousal=None if np.isnan(degrees).all() else degrees,
        notes=(note,) if rounded else (),
    )
