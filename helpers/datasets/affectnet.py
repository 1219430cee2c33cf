"""AffectNet and AffectNetFused: faces from the web, each with its annotations in small files.

An image ``images/17.jpg`` has ``annotations/17_exp.npy`` (expression), ``17_val.npy``, ``17_aro.npy`` and
``17_lnd.npy`` (68 landmarks); in AffectNetFused ``17_prob_rank.txt``, thirteen values in the order of
``emotions.FUSED13`` in one line, separated by commas.
"""

from __future__ import annotations

import functools
import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from helpers import emotions, images
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet
from helpers.datasets.reading import Refused

PARTS = {"train_set": "train", "val_set": "validation", "test_set": "test"}  # folders to splits
NO_EXPRESSION = {8: "none of the expressions", 9: "uncertain", 10: "no face"}  # codes that are no class
TOLERANCE = 1e-3  # how far from 1 a sum may be and still be taken for a rounded 1
EXPRESSION, RANKS = "exp.npy", "prob_rank.txt"  # what each of the two sets must have
_NAME = re.compile(r"(.+)_(exp\.npy|val\.npy|aro\.npy|lnd\.npy|prob_rank\.txt)")
ODD = "is no annotation (named <image>_exp.npy, _val, _aro, _lnd or _prob_rank.txt)"
_AGAIN = "get the annotation again"


def files(root: Path, needed: str = EXPRESSION, **_options: object) -> list[Path]:
    """Return what is read: every image and every annotation."""
    below = [folder / name for folder, _ in _folders(root, needed) for name in ("images", "annotations")]
    return [file for folder in below for file in reading.visible(folder)]


fused_files = functools.partial(files, needed=RANKS)


def _folders(root: Path, needed: str) -> list[tuple[Path, str]]:
    """Return each folder that holds ``images`` and ``annotations``, with its split."""

    def fits(place: Path) -> bool:
        return any(file.name.endswith(needed) for file in reading.visible(place))

    places = ("annotations", "train_set/annotations", "val_set/annotations")
    folder = reading.first(root, places, "affectnet" + "_fused" * (needed == RANKS), fits).parent
    there = {split: folder.parent / part for part, split in PARTS.items() if folder.name in PARTS}
    there = {split: each for split, each in there.items() if (each / "annotations").is_dir()}
    if len(there) < 2:
        return [(folder, "")]
    if "test" not in there:  # never published: all scores are on val_set, so nothing may be chosen by it
        there["test"] = there.pop("validation")
    return [(each, split) for split, each in there.items()]


def read(root: Path, pixels: reading.Pixels, num_classes: int = 8, color: bool = False) -> FaceSet:
    """Read the images whose expression is one of 8 classes, or of 7 to do without contempt.

    A value of -2 is unknown, NaN here. An image without a file that others have is rejected.
    """
    if num_classes not in (7, 8):
        raise ValueError(f"affectnet has num_classes=7 or num_classes=8, not {num_classes!r}")
    return _read("affectnet", root, pixels, EXPRESSION, emotions.AFFECTNET8[:num_classes], color)


def read_fused(root: Path, pixels: reading.Pixels, color: bool = False) -> FaceSet:
    """Read the images with their distributions; the label is the likeliest class, of tied ones the first.

    A row whose sum is 1 within a thousandth was rounded; it is divided by its sum, and ``notes`` says so.
    """
    return _read("affectnet_fused", root, pixels, RANKS, emotions.FUSED13, color)


def _read(
    name: str, root: Path, pixels: reading.Pixels, needed: str, classes: tuple[str, ...], color: bool
) -> FaceSet:
    """Read images with what their annotations say, and list what belongs to nothing or cannot be used."""
    found, rejected, rounded = [], [], 0
    kinds = {match[2] for file in files(root, needed) if (match := _NAME.fullmatch(file.name))}
    wanted = {RANKS} if needed == RANKS else kinds - {RANKS}
    for folder, split in _folders(root, needed):
        given: dict[str, dict[str, Path]] = defaultdict(dict)
        for file in reading.visible(folder / "annotations"):
            if match := _NAME.fullmatch(file.name):
                given[match[1]][match[2]] = file
            else:
                rejected.append(reading.rejection(file, root, ODD, "move it elsewhere"))
        on_disk = list(reading.visible(folder / "images"))
        for stem in sorted(given.keys() - {file.stem for file in on_disk}):
            why = "has no image in images/", "get the image, or remove its annotations"
            rejected.append(reading.rejection(min(given[stem].values()), root, *why))
        for file in on_disk:
            try:
                for kind in sorted(wanted - given[file.stem].keys()):
                    raise Refused(f"has no annotation *_{kind}", "get the file, or remove the image")
                label, values = _judged(given[file.stem], needed, kinds, classes)
                rounded += abs(values.pop("sum", 1) - 1) > 1e-9
                found.append(reading.Found(file, label, split, values=values))
            except Refused as error:
                rejected.append(reading.rejection(file, root, *error.args))
    num = f"{rounded} of {len(found)} rows"
    notes = (f"{num} sum to 1 only within {TOLERANCE:g}; each was divided by its sum",) * bool(rounded)
    return reading.face_set(name, root, found, rejected, classes, pixels, color, notes)


def _judged(
    given: dict[str, Path], needed: str, kinds: set[str], classes: tuple[str, ...]
) -> tuple[str, dict[str, np.ndarray]]:
    """Return the class of an image and its further columns; or refuse it."""
    file = given[needed]
    if needed == RANKS:
        shares = _numbers(file, len(classes))
        if not (shares >= 0).all():  # nor is NaN
            raise Refused(f"{file.name}: {shares[~(shares >= 0)][0]:g} is no probability", _AGAIN)
        if not abs(shares.sum() - 1) <= TOLERANCE:
            raise Refused(f"{file.name}: the values sum to {shares.sum():.6g}, not to 1", "correct the row")
        values = {"sum": shares.sum(), "distribution": np.float32(shares / shares.sum())}
        label = classes[int(shares.argmax())]
    else:
        values, [code] = {}, _numbers(file, 1)
        if code in NO_EXPRESSION:
            reason = f"annotated as {NO_EXPRESSION[code]} (expression {code:.0f})"
            raise Refused(reason, "nothing: it has no class")
        if code not in range(8):
            raise Refused(f"{file.name} holds {code:g}, no expression from 0 to 10", _AGAIN)
        if code >= len(classes):
            raise Refused("contempt is the eighth class", "load it with num_classes=8")
        label = classes[int(code)]
    if kinds & {"val.npy", "aro.npy"}:
        degrees = np.full(2, np.nan, np.float32)
        for i, kind in enumerate(("val.npy", "aro.npy")):
            value = _numbers(given[kind], 1)[0] if kind in given else -2
            if value != -2 and not -1 <= value <= 1:
                raise Refused(f"{given[kind].name} holds {value:g}, not a number from -1 to 1", _AGAIN)
            degrees[i] = np.nan if value == -2 else value
        values["valence_arousal"] = degrees
    if "lnd.npy" in kinds and needed == EXPRESSION:
        values["landmarks"] = _numbers(given["lnd.npy"], 136).reshape(68, 2)
        if not np.isfinite(values["landmarks"]).all():
            raise Refused(f"{given['lnd.npy'].name} holds points that are nowhere", _AGAIN)
    return label, values


def _numbers(file: Path, num: int) -> np.ndarray:
    """Return so many numbers from a row of text, or from an array (of text, in most copies of the set)."""
    data, values = file.read_bytes(), None
    if found := images.stand_in(data):
        raise Refused(f"{file.name} {found[0]}", found[1])
    try:  # whatever is damaged, NumPy can raise anything at all
        if file.suffix == ".txt":
            values = np.array([float(each) for each in data.decode("utf-8-sig").split(",")])
        else:
            values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return values.astype(np.float64).reshape(num)
    except Exception as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        holds = f"holds {np.size(values)} values of {getattr(values, 'dtype', '')} instead of {num} numbers"
        problem = f"cannot be read ({reason})" if values is None else holds
        raise Refused(f"{file.name} {problem}", _AGAIN) from error
